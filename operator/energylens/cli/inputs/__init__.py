"""Inputs of commands: files, a described or live cluster, and the options that name them."""
