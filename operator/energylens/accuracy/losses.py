"""Why picks take more energy than the best choice that meets a bound, and what wider or narrower intervals would do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from energylens.accuracy.decisions import ITL_BOUNDS_MS, ChoiceSet, Decisions, best, decide, pick
from energylens.planner.search.ranking import LARGEST_BREACH, breach_chance
from energylens.records import dataclass

WIDTHS = (0.6, 0.8, 1.2, 1.4)
"""Factors on the half-width of latency intervals, in their logarithm."""


@dataclass(frozen=True)
class Losses:
    """Energy of picks above the best choice by cause, in percent of the best choice; the causes add up to the mean.

    The mean is that of `Decisions.energy_above_best`: over picks that meet the bound, of all sets and bounds.
    """

    cases: int
    """Picks that meet the bound."""
    ranking: float
    """The chance of breaking the bound allows the best choice, and another was picked."""
    width: float
    """The predicted latency of the best choice meets the bound, but its chance of breaking the bound is too high."""
    latency: float
    """The predicted latency of the best choice is above the bound."""


@dataclass(frozen=True)
class AtWidth:
    """Outcomes over all bounds if latency intervals were wider or narrower."""

    factor: float
    """Factor on the half-width, in the logarithm."""
    broken_percent: float
    """Share of picks that break the bound."""
    without_pick_percent: float
    """Share of feasible choice sets without a pick."""
    energy_above_best: float
    """As `Decisions.energy_above_best`."""


def losses(sets: Sequence[ChoiceSet], bounds_ms: Sequence[float] = ITL_BOUNDS_MS) -> Losses:
    """Return the energy above the best choice by cause; NaN without a pick that meets its bound."""
    found: dict[str, list[float]] = {"ranking": [], "width": [], "latency": []}
    for choices in sets:
        for bound in bounds_ms:
            chosen, optimum = pick(choices, bound), best(choices, bound)
            if chosen is None or optimum is None or choices.measured_itl[chosen] > bound:
                continue
            more = float(choices.measured_energy[chosen] / choices.measured_energy[optimum] - 1.0)
            found[_cause(choices, optimum, bound)].append(more)
    cases = sum(map(len, found.values()))
    share = {cause: 100.0 * sum(values) / cases if cases else float("nan") for cause, values in found.items()}
    return Losses(cases, **share)


def at_widths(sets: Sequence[ChoiceSet], factors: Sequence[float] = WIDTHS) -> tuple[AtWidth, ...]:
    """Return the outcomes for each factor on the half-widths of latency intervals, and for 1, in ascending order."""
    return tuple(_at_width(factor, decide(_scaled(sets, factor))[-1]) for factor in sorted({1.0, *factors}))


def _cause(choices: ChoiceSet, optimum: int, bound: float) -> str:
    if breach_chance(bound, choices.predicted_itl, choices.predicted_itl_high)[optimum] <= LARGEST_BREACH:
        return "ranking"
    return "width" if choices.predicted_itl[optimum] <= bound else "latency"


def _scaled(sets: Sequence[ChoiceSet], factor: float) -> list[ChoiceSet]:
    with np.errstate(invalid="ignore"):
        return [
            replace(
                each, predicted_itl_high=each.predicted_itl * (each.predicted_itl_high / each.predicted_itl) ** factor
            )
            for each in sets
        ]


def _at_width(factor: float, found: Decisions) -> AtWidth:
    return AtWidth(factor, found.broken_percent, found.without_pick_percent, found.energy_above_best)
