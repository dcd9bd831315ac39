"""Deciding: from observations to the desired children, status, conditions and events of each object. Pure."""
