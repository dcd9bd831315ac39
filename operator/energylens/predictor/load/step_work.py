"""The prompts of one step: how many seconds of them arrive in the step before.

Where prompts are of one shape, their seconds are taken as log-normal. Where short and long prompts mix, no smooth law
is near: a step has a long prompt or it has none. Then the law is a sum over kinds of steps: one, two or more prompts of
the longest group and whatever shorter ones came along; none of the longest but of the next; and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from energylens.predictor.types import FloatArray

ALIKE = 1.3
"""Classes whose prompts differ by less than this factor are one group."""
MOST_GROUPS = 4
"""Groups beyond are taken together, the nearest first."""
_COUNTS = 3
"""Numbers of prompts of a group that are told apart: 1, 2, and more."""


@dataclass(frozen=True)
class Group:
    """Prompts of about one length."""

    share: float
    """Of all prompts."""
    length: float
    """Mean over that of all prompts."""
    variance: float
    """Of the length over the square of the group's mean."""


@dataclass(frozen=True)
class Kind:
    """Steps in which prompts of one kind arrive; arrays of one shape, seconds of prompts."""

    weight: FloatArray
    """Of all steps in which anything arrives."""
    log: FloatArray
    """Mean of the logarithm: taken as log-normal."""
    spread: FloatArray
    group: int
    """The longest group that has a prompt in it, the longest of all first."""


def grouped(prompts: Sequence[Group]) -> tuple[Group, ...]:
    """Return prompts by about one length, the longest first."""
    groups = sorted(prompts, key=lambda one: -one.length)
    while len(groups) > 1:
        ratios = [a.length / b.length for a, b in pairwise(groups)]
        near = int(np.argmin(ratios))
        if ratios[near] >= ALIKE and len(groups) <= MOST_GROUPS:
            break
        groups[near : near + 2] = [_together(*groups[near : near + 2])]
    return tuple(groups)


def _together(a: Group, b: Group) -> Group:
    share = a.share + b.share
    mean = (a.share * a.length + b.share * b.length) / share
    square = sum(one.share * one.length**2 * (1.0 + one.variance) for one in (a, b)) / share
    return Group(share, mean, square / mean**2 - 1.0)


def log_normal(mean: FloatArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and deviation of the logarithm of a log-normal variable by its mean and the mean of its square."""
    spread = np.log1p(np.maximum(square / np.maximum(mean, 1e-30) ** 2 - 1.0, 1e-6))
    return np.log(np.maximum(mean, 1e-30)) - spread / 2.0, np.sqrt(spread)


def kinds_of_work(
    groups: Sequence[Group],
    rate: FloatArray,
    prompt: FloatArray,
    mean: FloatArray,
    variation: FloatArray,
    none: Callable[[FloatArray], FloatArray],
) -> list[Kind]:
    """Return the kinds of steps that prompts of several groups lead to.

    The time in which prompts arrive is taken as gamma distributed, so that it is known how it is distributed given the
    prompts that did arrive: in a step with a long prompt more short ones arrive, too.

    Args:
        groups: Two or more, the longest first.
        rate: Prompts per second.
        prompt: Seconds of one of mean length.
        mean: Of the time in which prompts arrive.
        variation: Of that time: its squared coefficient of variation, with what makes arrivals clump.
        none: The probability that nothing arrives at some prompts per second.
    """
    shape = 1.0 / np.maximum(variation, 1e-6)
    pace = shape / mean
    any_arrives = np.maximum(1.0 - none(rate), 1e-12)
    kinds: list[Kind] = []
    longer, free = np.zeros_like(rate), np.ones_like(mean)
    for index, group in enumerate(groups[:-1]):
        own = rate * group.share
        still = none(longer + own)
        weight = np.maximum(free - still, 1e-15)
        # Geometric beyond the first, of the mean that the time left has.
        many = np.maximum(own * free * shape / (pace + longer) / weight, 1.0 + 1e-9)
        again = 1.0 - 1.0 / many
        for count in range(1, _COUNTS + 1):
            last = count == _COUNTS
            number = count + again / (1.0 - again) if last else np.full_like(many, float(count))
            varies = again / (1.0 - again) ** 2 if last else np.zeros_like(many)
            share = again ** (count - 1) * (1.0 if last else (1.0 - again))
            time = (shape + number) / (pace + longer + own)
            first = number * group.length * prompt
            variance = (number * group.variance + varies) * (group.length * prompt) ** 2
            for other in groups[index + 1 :]:
                arriving, each = rate * other.share * time, other.length * prompt
                first = first + arriving * each
                variance = variance + each**2 * (arriving * (1.0 + other.variance))
            beside = first - number * group.length * prompt
            variance = variance + beside**2 / (shape + number)
            kinds.append(Kind(weight * share / any_arrives, *log_normal(first, first**2 + variance), index))
        longer, free = longer + own, still
    group, own = groups[-1], rate * groups[-1].share
    weight = np.maximum(free - none(longer + own), 1e-15)
    time = shape / (pace + longer)
    each = group.length * prompt
    first = np.maximum(own * time * free / weight, 1.0) * each
    square = each**2 * (own * time * (1.0 + group.variance) + own**2 * time**2 * (1.0 + 1.0 / shape)) * free / weight
    kinds.append(Kind(weight / any_arrives, *log_normal(first, np.maximum(square, first**2)), len(groups) - 1))
    return kinds
