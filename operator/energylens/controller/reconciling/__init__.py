"""One reconcile of an LLMDeployment (gather, plan, decide, write, report), and the workers that run reconciles."""
