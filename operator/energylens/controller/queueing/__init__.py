"""Which deployment is reconciled next: queues, pacing, turns of the planner, searches, and deployments at rest."""
