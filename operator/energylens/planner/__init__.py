"""Spec and cluster snapshot in, plan and its reasons out. Pure."""
