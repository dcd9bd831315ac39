"""The figures of the same candidates under every rate of a week."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np

from energylens.api.llmdeployment import Objective
from energylens.api.quantity import parse_quantity
from energylens.planner.search.problem import Solution
from energylens.planner.search.space import ProductSpace
from energylens.planner.week.choice import RateFigures
from energylens.predictor.types import BoolArray, IntArray

Evaluate = Callable[[str, Sequence[ProductSpace]], Solution]
"""From a rate and spaces, one for each product, to the candidates of the spaces under the rate."""


def figures_by_rate(
    rates: Sequence[str], spaces: Sequence[ProductSpace], at_peak: Solution, evaluate: Evaluate, objective: Objective
) -> Generator[None, None, dict[str, RateFigures]]:
    """Return the figures of n candidates under each rate; yield before each evaluation, which takes long.

    Rates are evaluated in ascending order. A number of replicas that does not sustain a rate sustains no higher rate;
    it is not evaluated again, and its cost is infinite.

    Args:
        rates: Distinct rates, requests per second.
        spaces: The candidates, one space for each product, n in all, with 1 or more replicas of each layout.
        at_peak: All candidates under the highest rate, where the result begins.
        evaluate: Evaluates candidates under a rate.
        objective: What to minimise.
    """
    highest = max(rates, key=parse_quantity)
    found = {highest: RateFigures.of(at_peak, objective)}
    sustained = [np.ones(len(space), dtype=bool) for space in spaces]
    for rate in sorted((rate for rate in rates if rate != highest), key=parse_quantity):
        yield
        left = [_with_enough(space, enough) for space, enough in zip(spaces, sustained, strict=True)]
        index = np.flatnonzero(np.concatenate([mine for _, mine in left]))
        solution = evaluate(rate, [space for space, _ in left])
        found[rate] = RateFigures.of(solution, objective).placed(index, len(at_peak.rows))
        able = np.zeros(len(at_peak.rows), dtype=bool)
        able[index] = solution.rows.sustainable
        sustained = np.split(able, np.cumsum([len(space) for space in spaces])[:-1])
    return found


def _with_enough(space: ProductSpace, sustained: BoolArray) -> tuple[ProductSpace, BoolArray]:
    """Return the layouts with at least the fewest replicas that sustain a rate, and which candidates these are.

    Args:
        space: Layouts and replicas, m candidates.
        sustained: Which candidates sustain the rate, shape (m,).
    """
    layout, replicas = space.expand()
    least: IntArray = space.last + 1
    np.minimum.at(least, layout[sustained], replicas[sustained])
    fewer = replace(space, first=least)
    return fewer.take(np.flatnonzero(least <= space.last)), np.asarray(replicas >= least[layout])
