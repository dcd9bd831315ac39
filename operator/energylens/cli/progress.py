"""Progress of long work on stderr: a bar on a terminal, a plain line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

_Item = TypeVar("_Item")
WORTH_SHOWING = 4
"""Fewest items that show a bar; fewer are done before anybody could read it."""


@contextmanager
def progress(
    items: Iterable[_Item], label: str, count: int, worth_showing: int = WORTH_SHOWING
) -> Iterator[Iterable[_Item]]:
    """Yield the items and show how many of ``count`` are done, unless they are fewer than ``worth_showing``."""
    if count < worth_showing:
        yield items
        return
    with click.progressbar(items, count, label=f"{label} ({count})", file=sys.stderr, show_eta=False) as bar:
        yield bar
