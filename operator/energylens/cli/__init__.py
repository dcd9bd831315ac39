"""The energylens command line, also the kubectl plugin."""

from energylens.cli.main import main

__all__ = ["main"]
