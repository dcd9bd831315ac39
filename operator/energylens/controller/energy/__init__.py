"""Measured energy: windows of deployments, accounts, budgets, and the power that budgets leave."""
