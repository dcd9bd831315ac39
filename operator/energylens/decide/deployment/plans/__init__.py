"""The plan to follow: planned again, kept, by the clock, for the replicas of an autoscaler, or verified first."""
