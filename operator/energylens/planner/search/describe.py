"""Numbers and layouts in words, as status, conditions and the command line show them."""

from __future__ import annotations

import math
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from energylens.api.llmdeployment import describe_replicas
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.placement import layout_at

_SMALLEST = Decimal("1e-9")
_UNITS = (("", Decimal(1)), ("m", Decimal("1e-3")), ("u", Decimal("1e-6")), ("n", _SMALLEST))
_PLAIN = Decimal("1e15")
"""From this value on, numbers are written with an exponent."""


def candidate(rows: Candidates, i: int) -> str:
    """Return a candidate in short: ``2 x NVIDIA-H200 TP4, max batch 64`` is two replicas of four GPUs each."""
    return describe_replicas(layout_at(rows, i), rows.products[int(rows.product[i])])


def up(value: float) -> int:
    """Return a finite value rounded up to a whole number, ignoring rounding noise in the last digits."""
    return math.ceil(round(value, 6))


def percent(share: float) -> int:
    """Return a share as a whole percentage, rounded down, ignoring rounding noise in the last digits."""
    return math.floor(round(100.0 * share, 6))


def percent_up(share: float) -> int:
    """Return a share as a whole percentage, rounded up."""
    return up(100.0 * share)


def two_percents(share: float, other: float) -> tuple[str, str]:
    """Return two shares as percentages, rounded up, with as many digits as show their difference, at most three."""
    for digits in range(4):
        first, second = (up(100.0 * each * 10**digits) / 10**digits for each in (share, other))
        if first != second:
            break
    return f"{first:.{digits}f}", f"{second:.{digits}f}"


def above(name: str, predicted_ms: float, upper_ms: float, limit_ms: int) -> str:
    """Return why a latency breaks its objective, with the prediction and the bound with the safety margin.

    ``ITL P95 29 ms, with the safety margin 43 ms > 30 ms``; without a margin ``ITL P95 43 ms > 30 ms``.
    """
    shown, bound = milliseconds(predicted_ms), milliseconds(upper_ms)
    margin = "" if shown == bound else f", with the safety margin {bound}"
    return f"{name} {shown}{margin} > {limit_ms} ms"


def above_joules(predicted: float, upper: float, ceiling: float) -> str:
    """Return why the energy per output token breaks its objective, in joules, in the form of :func:`above`."""
    shown, bound = joules(predicted), joules(upper)
    margin = "" if shown == bound else f", with the safety margin {bound}"
    return f"{shown}{margin} > {joules(ceiling)} per output token"


def milliseconds(value: float) -> str:
    """Return a latency in whole milliseconds, such as ``38 ms``; ``unbounded`` if the queue grows without bound."""
    return f"{up(value)} ms" if math.isfinite(value) else "unbounded"


def joules(value: float) -> str:
    """Return joules with three significant digits, such as ``0.412 J``."""
    return f"{value:#.3g} J".replace(". ", " ")


def gigabytes(value: float) -> str:
    """Return bytes as decimal gigabytes, as model and GPU sizes are stated."""
    return f"{value / 1e9:.0f} GB" if value >= 10e9 else f"{value / 1e9:.1f} GB"


def compared(new: float, old: float, what: str) -> str:
    """Return how ``new`` compares with ``old``: ``12 % more energy``, ``3.1 times the energy``.

    A difference below 0.1 % is ``as much energy (0.04 % more)``.
    """
    if new > 2 * old:
        return f"{new / old:.1f} times the {what}"
    change = 100.0 * (new / old - 1.0)
    direction = "more" if change >= 0 else "less"
    if abs(change) < 0.1:
        exact = f" ({abs(change):.1g} % {direction})" if abs(change) >= 0.005 else ""
        return f"as much {what}{exact}"
    size = f"{abs(change):.0f}" if abs(change) >= 1 else f"{abs(change):.1g}"
    return f"{size} % {direction} {what}"


def floor_quantity(value: float) -> str:
    """Return a rate rounded down to three significant digits as a Kubernetes quantity: ``12.3``, ``450m``."""
    return _rounded_quantity(value, ROUND_FLOOR)


def ceil_quantity(value: float) -> str:
    """Return a rate rounded up to three significant digits as a Kubernetes quantity."""
    return _rounded_quantity(value, ROUND_CEILING)


def _rounded_quantity(value: float, rounding: str) -> str:
    if value <= 0:
        return "0"
    exact = Decimal(value)
    # Rounding noise must not change a digit: 0.3 is slightly less in binary.
    exact = round(exact, 9 - exact.adjusted())
    step = max(Decimal(1).scaleb(exact.adjusted() - 2), _SMALLEST)
    # Kubernetes has no quantity between 0 and 1n.
    rounded = max((exact / step).to_integral_value(rounding) * step, _SMALLEST)
    suffix, unit = next((suffix, unit) for suffix, unit in _UNITS if rounded >= unit)
    shown = (rounded / unit).normalize()
    return f"{shown:f}{suffix}" if shown < _PLAIN else f"{shown:e}"


def watt_hours(joules: float) -> str:
    """Return an energy in watt-hours with at most three significant digits, such as ``57 Wh``."""
    return f"{joules / 3600:.3g} Wh"


def kilowatt_hours(joules: float) -> str:
    """Return an energy in kilowatt hours with four significant digits at most: ``153.2 kWh``."""
    return f"{joules / 3.6e6:.4g} kWh"
