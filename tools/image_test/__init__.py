"""Builds the operator's image without a daemon, and runs it against the development control plane."""
