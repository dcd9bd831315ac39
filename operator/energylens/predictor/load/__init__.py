"""An engine under load: arrivals, queueing, step mixture, steady state."""
