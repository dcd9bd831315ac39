"""Decisions about EnergyBudgets and ClusterEnergyBudgets, and the power that they leave to their members."""
