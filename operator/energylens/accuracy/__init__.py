"""Errors of predictions against measured runs, and the cost of these errors in chosen plans."""
