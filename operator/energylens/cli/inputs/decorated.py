"""Several options added to a command at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    """Return a command with options, in the order in which --help shows them."""
    for option in reversed(options):
        command = option(command)
    return command
