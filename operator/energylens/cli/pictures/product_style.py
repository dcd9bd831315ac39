"""One colour and one marker per GPU product, the same in every picture."""

from __future__ import annotations

from functools import cache
from zlib import crc32

from energylens.data import load_gpus
from energylens.records import dataclass

MARKERS = ("o", "s", "^", "D", "v", "P")
COLOURS = 6
"""Series colours of a chart."""
_FIRST = ("H100", "H200", "B200", "A100", "L40S", "B300")
"""The products that most often appear in one picture; each has its own colour."""


@dataclass(frozen=True)
class ProductStyle:
    """How the points of a product are drawn."""

    colour: int
    """Number of a series colour."""
    marker: str


def product_style(product: str) -> ProductStyle:
    """Return the style of a product label; a product without figures gets one by its name."""
    known = _known()
    number = known.index(product) if product in known else crc32(product.encode())
    return ProductStyle(number % COLOURS, MARKERS[(number + number // COLOURS) % len(MARKERS)])


@cache
def _known() -> tuple[str, ...]:
    gpus = load_gpus()
    first = [label for name in _FIRST for label, gpu in gpus.items() if gpu.name == name]
    return (*first, *sorted(set(gpus) - set(first)))
