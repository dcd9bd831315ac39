"""Watches: kopf's handlers, credentials and rights, the kinds that are served, and what watches missed."""
