"""Answers as text, tables and plain objects."""
