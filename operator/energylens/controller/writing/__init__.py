"""Writes to the API server: children, statuses, events, corrections and deletions."""
