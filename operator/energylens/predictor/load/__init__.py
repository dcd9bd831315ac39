"""An engine under load: arrivals, queueing, mixture of steps, steady state."""
