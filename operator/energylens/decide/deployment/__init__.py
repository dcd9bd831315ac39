"""Decisions about one LLMDeployment."""
