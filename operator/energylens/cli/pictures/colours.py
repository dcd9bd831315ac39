"""Colours of charts: fixed ones for files, and stand-ins for those of a page, so that it can be light or dark."""

from __future__ import annotations

from energylens.records import dataclass


@dataclass(frozen=True)
class Colours:
    """Colours of a chart."""

    ink: str
    muted: str
    grid: str
    surface: str
    bad: str
    series: tuple[str, ...]
    """Okabe and Ito (2008): distinguishable with any colour vision."""


FILE = Colours(
    ink="#1b1f24",
    muted="#6b7280",
    grid="#e5e7eb",
    surface="#ffffff",
    bad="#c2410c",
    series=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#a67c00", "#56b4e9"),
)
NAMES = ("ink", "muted", "grid", "surface", "bad", *(f"series-{i}" for i in range(6)))
MARKS = [f"#f{i:02x}0d{i:x}" for i in range(len(NAMES))]
PAGE = Colours(MARKS[0], MARKS[1], MARKS[2], MARKS[3], MARKS[4], tuple(MARKS[5:]))
"""Stand-ins that :func:`energylens.cli.pictures.charts.svg` turns into the page's CSS variables ``--ink``, ``--muted``,
``--series-0`` and so on."""
