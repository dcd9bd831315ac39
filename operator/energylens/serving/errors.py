"""Errors that make it impossible to serve a plan as the spec asks."""

from __future__ import annotations


class ServingError(ValueError):
    """A field of the spec contradicts the plan. The message names the field, its value and what to do instead."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(f"{field}: {message}")
