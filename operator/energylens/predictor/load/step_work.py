"""The prompts of one step: how many seconds of prompts arrive during the previous step.

If prompts have one shape, their seconds are log-normal. If short and long prompts mix, no smooth law fits, because a
step either has a long prompt or has none. The law is then a sum over kinds of steps: with one, two or more prompts of
the longest group and any shorter ones; with none of the longest but some of the next group; and so on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from energylens.predictor.types import FloatArray
from energylens.records import dataclass

ALIKE = 1.3
"""Classes whose prompts differ by less than this factor are one group."""
MOST_GROUPS = 4
"""Most groups; further ones are merged, the nearest first."""
_COUNTS = 3
"""Numbers of prompts of a group that are distinguished: 1, 2, and more."""


@dataclass(frozen=True)
class Group:
    """Prompts of about the same length."""

    share: float
    """Share of all prompts."""
    length: float
    """Ratio of the group's mean length to the mean of all prompts."""
    variance: float
    """Variance of the length over the square of the group's mean."""


@dataclass(frozen=True)
class StepKind:
    """Steps in which prompts of one kind arrive; arrays of one shape, seconds of prompts."""

    weight: FloatArray
    """Share of all steps with arrivals."""
    log: FloatArray
    """Mean of the logarithm; the seconds are log-normal."""
    spread: FloatArray


def grouped(prompts: Sequence[Group]) -> tuple[Group, ...]:
    """Return prompts grouped by similar length, the longest first."""
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


def third_moment(prompts: Sequence[Group]) -> float:
    """Return the third central moment of the length of all prompts over the cube of their mean.

    Lengths are log-normal within each group.
    """
    mean = sum(one.share * one.length for one in prompts)
    square = sum(one.share * one.length**2 * (1.0 + one.variance) for one in prompts) / mean**2
    cube = sum(one.share * one.length**3 * (1.0 + one.variance) ** 3 for one in prompts) / mean**3
    return cube - 3.0 * square + 2.0


def log_normal(mean: FloatArray, square: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and deviation of the logarithm of a log-normal variable, from its mean and mean square."""
    spread = np.log1p(np.maximum(square / np.maximum(mean, 1e-30) ** 2 - 1.0, 1e-6))
    return np.log(np.maximum(mean, 1e-30)) - spread / 2.0, np.sqrt(spread)


def kinds_of_work(
    groups: Sequence[Group],
    rate: FloatArray,
    prompt: FloatArray,
    mean: FloatArray,
    variation: FloatArray,
    none: Callable[[FloatArray], FloatArray],
) -> list[StepKind]:
    """Return the kinds of steps that arise from prompts of several groups.

    The time in which prompts arrive is gamma distributed, which gives its distribution conditional on the prompts that
    arrived: a step with a long prompt also receives more short ones.

    Args:
        groups: Two or more groups, the longest first.
        rate: Prompts per second.
        prompt: Seconds of a prompt of mean length.
        mean: Mean time in which prompts arrive.
        variation: Squared coefficient of variation of that time, including clumping of arrivals.
        none: Function for the probability that nothing arrives at a given rate.
    """
    shape = 1.0 / np.maximum(variation, 1e-6)
    pace = shape / mean
    any_arrives = np.maximum(1.0 - none(rate), 1e-12)
    kinds: list[StepKind] = []
    longer, free = np.zeros_like(rate), np.ones_like(mean)
    for index, group in enumerate(groups[:-1]):
        own = rate * group.share
        still = none(longer + own)
        weight = np.maximum(free - still, 1e-15)
        # The number beyond the first is geometric, with the mean of the remaining time.
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
            kinds.append(StepKind(weight * share / any_arrives, *log_normal(first, first**2 + variance)))
        longer, free = longer + own, still
    group, own = groups[-1], rate * groups[-1].share
    weight = np.maximum(free - none(longer + own), 1e-15)
    time = shape / (pace + longer)
    each = group.length * prompt
    first = np.maximum(own * time * free / weight, 1.0) * each
    square = each**2 * (own * time * (1.0 + group.variance) + own**2 * time**2 * (1.0 + 1.0 / shape)) * free / weight
    kinds.append(StepKind(weight / any_arrives, *log_normal(first, np.maximum(square, first**2))))
    return kinds
