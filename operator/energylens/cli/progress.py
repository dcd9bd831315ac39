"""How far long work is, on stderr: a bar on a terminal, one plain line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import click

_Item = TypeVar("_Item")
WORTH_SHOWING = 4
"""Fewer items are done before anybody reads a bar."""


@contextmanager
def progress(
    items: Iterable[_Item], label: str, count: int, worth_showing: int = WORTH_SHOWING
) -> Iterator[Iterable[_Item]]:
    """Give the items again, showing how many of ``count`` are done, unless they are fewer than ``worth_showing``."""
    if count < worth_showing:
        yield items
        return
    with click.progressbar(items, count, label=f"{label} ({count})", file=sys.stderr, show_eta=False) as bar:
        yield bar
