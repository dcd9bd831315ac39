"""Numbers and layouts in words, as status, conditions and the command line show them."""

from __future__ import annotations

import math

from energylens.api.llmdeployment import PrefillReplicas, describe_layout
from energylens.planner.evaluate import Candidates


def candidate(rows: Candidates, i: int) -> str:
    """Return a candidate in short: ``2 x NVIDIA-H200 TP4, max batch 64`` is two replicas of four GPUs each."""
    layouts = rows.layouts
    layout = describe_layout(
        tensor=int(layouts.tensor_parallel[i]),
        pipeline=int(layouts.pipeline_parallel[i]),
        expert=int(layouts.expert_parallel[i]),
        data=int(layouts.data_parallel[i]),
    )
    text = f"{int(rows.replicas[i])} x {rows.products[int(rows.product[i])]} {layout}"
    text += f", max batch {int(layouts.max_batch_size[i])}"
    cap = float(layouts.power_cap_watts[i])
    return text if math.isnan(cap) else f"{text}, {cap:.0f} W per GPU"


def prefill(replicas: PrefillReplicas) -> str:
    """Return the replicas that process prompts in short: ``2 x TP1, max batch 4``."""
    layout = describe_layout(
        tensor=replicas.tensor_parallel,
        pipeline=replicas.pipeline_parallel,
        expert=replicas.expert_parallel,
        data=replicas.data_parallel,
    )
    text = f"{replicas.replicas} x {layout}, max batch {replicas.max_batch_size}"
    cap = replicas.power_cap_watts_per_gpu
    return text if cap is None else f"{text}, {cap} W per GPU"


def up(value: float) -> int:
    """Return the value rounded up to a whole number, forgiving the noise of the last digits."""
    return math.ceil(round(value, 6))


def above(name: str, predicted_ms: float, upper_ms: float, limit_ms: int) -> str:
    """Return why a latency breaks its objective, with the prediction and the bound that objectives are checked with.

    ``ITL P95 29 ms, with the safety margin 43 ms > 30 ms``; without a margin ``ITL P95 43 ms > 30 ms``.
    """
    shown, bound = up(predicted_ms), up(upper_ms)
    margin = "" if shown == bound else f", with the safety margin {bound} ms"
    return f"{name} {shown} ms{margin} > {limit_ms} ms"


def above_joules(predicted: float, upper: float, ceiling: float) -> str:
    """Return why the energy per output token breaks its objective, in joules, as :func:`above` does for a latency."""
    shown, bound = joules(predicted), joules(upper)
    margin = "" if shown == bound else f", with the safety margin {bound}"
    return f"{shown}{margin} > {joules(ceiling)} per output token"


def joules(value: float) -> str:
    """Return joules with three significant digits: ``0.412 J``."""
    return f"{value:#.3g} J".replace(". ", " ")


def gigabytes(value: float) -> str:
    """Return bytes as decimal gigabytes, as model and GPU sizes are given."""
    return f"{value / 1e9:.0f} GB" if value >= 10e9 else f"{value / 1e9:.1f} GB"


def compared(new: float, old: float, what: str) -> str:
    """Return how much more or less ``new`` is than ``old``: ``12 % more energy``, ``3.1 times the energy``."""
    if new > 2 * old:
        return f"{new / old:.1f} times the {what}"
    change = 100.0 * (new / old - 1.0)
    direction = "more" if change >= 0 else "less"
    if abs(change) < 0.1:
        return f"less than 0.1 % {direction} {what}"
    size = f"{abs(change):.0f}" if abs(change) >= 1 else f"{abs(change):.1g}"
    return f"{size} % {direction} {what}"


def floor_quantity(value: float) -> str:
    """Return a rate rounded down to three significant digits as a Kubernetes quantity: ``12.3``, ``450m``."""
    if value <= 0:
        return "0"
    digits = 2 - math.floor(math.log10(value))
    floored = math.floor(value * 10**digits + 1e-9) / 10**digits
    return f"{floored:g}" if floored >= 1 else f"{floored * 1000:.3g}m"


def ceil_quantity(value: float) -> str:
    """Return a rate rounded up to three significant digits as a Kubernetes quantity."""
    digits = 2 - math.floor(math.log10(value))
    ceiled = math.ceil(value * 10**digits - 1e-9) / 10**digits
    return f"{ceiled:g}" if ceiled >= 1 else f"{ceiled * 1000:.3g}m"


def watt_hours(joules: float) -> str:
    """Return an energy in watt hours with three significant digits at most: ``57 Wh``."""
    return f"{joules / 3600:.3g} Wh"
