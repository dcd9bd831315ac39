"""Decisions about EnergyBudgets and ClusterEnergyBudgets, and what they leave to their members."""
