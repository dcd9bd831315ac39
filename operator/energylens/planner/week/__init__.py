"""One layout and the replicas of every hour of a week, for loads that follow the clock."""
