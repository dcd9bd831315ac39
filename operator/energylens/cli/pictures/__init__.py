"""Answers as charts and HTML pages."""
