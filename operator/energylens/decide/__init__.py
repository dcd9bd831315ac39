"""Deciding, pure: from what was observed, what children, status, conditions and events of each object should be."""
