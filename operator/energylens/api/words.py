"""Counts in messages."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return a number of things: ``1 GPU``, ``8 GPUs``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
