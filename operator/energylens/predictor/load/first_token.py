"""Percentiles of the time from a request's arrival to its first token, over all requests and by class.

The distribution is a mixture over the step in which a request arrives, over the step that is already composed, and over
whether a long prompt arrives beside it; within each case the time is log-normal.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from energylens.predictor.load.loop import RARE, OpenLoop, solve, stable_chunks
from energylens.predictor.load.occupancy import WEIGHTS
from energylens.predictor.load.queueing import PlaceWait
from energylens.predictor.load.step_law import Arriving, Met, StepLaw, StepTerms, normal_share
from energylens.predictor.load.step_work import Group
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

SELDOM = 1e-3
"""Probability of a backlog of prompts below which percentiles ignore it."""


class FirstTokens:
    """Quantiles of the TTFT at the engine by level, arrays of shape (n,)."""

    def __init__(
        self,
        loop: OpenLoop,
        terms: StepTerms,
        law: StepLaw,
        arriving: Arriving,
        wait: PlaceWait,
        levels: Sequence[float],
    ) -> None:
        """Store the description of n replicas.

        Args:
            loop: The n replicas.
            terms: Terms of steps at each number of running sequences, shape (k, n).
            law: Law of those steps.
            arriving: Prompts that arrive at the replicas.
            wait: Wait for a place in the batch.
            levels: Levels of the quantiles, between 0 and 1.
        """
        self._levels = levels
        self._shares = [prompts.share for prompts in loop.prompts]
        self._parts = [_first_token(loop, terms, law, arriving, wait, each, max(levels)) for each in loop.prompts]

    def of_all(self) -> dict[float, FloatArray]:
        """Return the quantiles over all requests."""

        def below(seconds: FloatArray) -> FloatArray:
            parts = zip(self._shares, self._parts, strict=True)
            return np.asarray(sum(share * part.below(seconds) for share, part in parts))

        shortest, longest = [part.shortest for part in self._parts], [part.longest for part in self._parts]
        return solve(below, np.minimum.reduce(shortest), np.maximum.reduce(longest), self._levels)

    def of_classes(self) -> list[dict[float, FloatArray]]:
        """Return the quantiles of each class."""
        return [solve(part.below, part.shortest, part.longest, self._levels) for part in self._parts]


@dataclass(frozen=True)
class _FirstToken:
    """The time to first token of one class of requests."""

    below: Callable[[FloatArray], FloatArray]
    """Distribution function, from seconds of shape (n,) to probabilities of shape (n,)."""
    shortest: FloatArray
    longest: FloatArray
    """Time that hardly any request exceeds, shape (n,), s."""


@dataclass(frozen=True)
class _Company:
    """Prompts of one kind that arrived in the same step as a request; seconds."""

    share: FloatArray
    """Share of the time in which requests of this kind arrive."""
    mean: FloatArray
    """Mean time from the arrival until those prompts are computed."""
    variance: FloatArray


def _first_token(
    loop: OpenLoop,
    terms: StepTerms,
    law: StepLaw,
    arriving: Arriving,
    wait: PlaceWait,
    prompts: Group,
    highest: float,
) -> _FirstToken:
    """Return the law of the TTFT of requests with given prompts, valid up to the level ``highest``."""
    room, start = terms.room, terms.decode + terms.once
    # A prompt that exceeds the room takes several steps, which also decode.
    mine = terms.prompt * prompts.length
    length = np.sqrt(max(np.log1p(prompts.variance), 1e-9))
    above = np.log(np.maximum(mine, 1e-12)) - length**2 / 2.0 - np.log(room)
    cut = normal_share(above / length)
    left = np.maximum(mine * normal_share((above + length**2) / length) - room * cut, 0.0)
    pace = start / room
    own = mine + left * pace + 0.5 * start * cut
    own_variance = mine * mine * prompts.variance * (1.0 + pace * cut) ** 2
    # Prompts for which earlier steps had no room.
    full = np.clip(stable_chunks(loop), 0.0, 0.98)
    behind = law.backlog * (1.0 + pace) / (1.0 - full)
    queued = np.clip(law.mixed * (1.0 - law.ends) * (start + room) / law.mean, 1e-6, 0.999)
    late = behind / queued
    queued = np.where((behind > 1e-9) & (queued > SELDOM), queued, 0.0)
    some_behind = bool(queued.any())
    laws = []
    for beside in _company(loop, terms, law, arriving):
        mean, variance = beside.mean + own, beside.variance + own_variance
        laws.append((beside.share, *_log_normal(mean, variance), *_log_normal(mean + late, variance + late**2)))
    last = (start + mine).max(axis=0)
    probability = np.where(wait.probability > RARE, wait.probability, 0.0)
    waits = bool(probability.any())

    def below(seconds: FloatArray) -> FloatArray:
        over = seconds - start
        log_over, found = np.log(np.maximum(over, 1e-12)), np.zeros_like(seconds)
        for weight, log, spread, late_log, late_spread in laws:
            share = normal_share((log_over - log) / spread)
            if some_behind:
                share = share + queued * (normal_share((log_over - late_log) / late_spread) - share)
            found = found + (WEIGHTS[:, None] * weight * np.where(over > 0.0, share, 0.0)).sum(axis=0)
        if waits:
            placed = np.where(seconds > last, 1.0 - wait.survival(seconds - last), 0.0)
            found = found + probability * (placed - found)
        return np.asarray(found)

    reach = np.maximum.reduce([log + 3.3 * spread for _, log, spread, _, _ in laws])
    late_reach = np.maximum.reduce([log + 3.3 * spread for _, _, _, log, spread in laws])
    reach = np.maximum(reach, np.where(queued > 0.0, late_reach, -np.inf))
    rare = 0.2 * (1.0 - highest)
    # A tail may become flatter, never than its last slope.
    flattest = wait.slope * np.minimum(wait.steepest, 1.0) * wait.pace
    longest = np.log(np.maximum(probability / rare, 1.0)) / flattest
    return _FirstToken(below, start.min(axis=0), np.maximum((start + np.exp(reach)).max(axis=0), last + longest))


def _company(loop: OpenLoop, terms: StepTerms, law: StepLaw, arriving: Arriving) -> list[_Company]:
    """Return the time that a request waits until its own prompt is computed, by the step in which it arrives."""
    p, room, more = terms.prompt, terms.room, arriving.clump - 1.0
    found = []
    for met, ahead in product(law.met, _ahead(loop, law)):
        uneven = np.maximum(met.square - met.mean**2, 0.0)
        # The rest of the step during which a request arrives (weighted by length), and the steps that are already
        # composed.
        rest = loop.busy * (met.mean / 2.0 + loop.steps_ahead * ahead.step)
        rest_square = met.square / 3.0 + loop.steps_ahead * (met.mean * ahead.step + ahead.step_square)
        rest_variance = np.maximum(loop.busy * rest_square - rest**2, 0.0)
        for likely, long, groups in _others(loop, arriving, met):
            share = sum(group.share for group in groups)
            each = sum(group.share * group.length for group in groups) / share
            square = sum(group.share * group.length**2 * (1.0 + group.variance) for group in groups) / share
            v = square / each**2 - 1.0
            q, rate = p * each, arriving.rate * share
            # Other prompts that arrived in the same step, up to the room of one step.
            beside = rate * met.mean * loop.busy
            others = np.minimum(q * beside + long * p, room) + q * more
            variance = q * q * (beside * (arriving.clump + v) + rate**2 * uneven * loop.busy)
            variance = variance + q * q * (more * (1.0 + v) + arriving.clump * more)
            variance = variance + loop.busy * rate * q * uneven
            found.append(_Company(met.share * ahead.frequency * likely, rest + others, rest_variance + variance))
    return found


def _ahead(loop: OpenLoop, law: StepLaw) -> tuple[Met, ...]:
    """Return the kinds of steps composed before a request joins: with or without prompts of the longest kind."""
    if len(law.met) == 1 or loop.steps_ahead == 0.0:
        return (replace(law.met[0], frequency=np.ones_like(law.mean), step=law.mean, step_square=law.square),)
    long = law.met[0]
    rest = np.maximum(1.0 - long.frequency, 1e-9)
    step = np.maximum((law.mean - long.frequency * long.step) / rest, 0.0)
    square = np.maximum((law.square - long.frequency * long.step_square) / rest, step**2)
    return (long, replace(long, frequency=rest, step=step, step_square=square))


def _others(
    loop: OpenLoop, arriving: Arriving, met: Met
) -> list[tuple[FloatArray, FloatArray | float, tuple[Group, ...]]]:
    """Return for long prompts in the same step: their probability, their length in mean prompts, and the rest."""
    groups = arriving.groups
    one = np.ones_like(met.mean)
    if len(groups) == 1:
        return [(one, 0.0, (Group(1.0, 1.0, loop.prompt_variance),))]
    beside = np.maximum(arriving.rate * groups[0].share * met.mean * loop.busy, 1e-12)
    none = np.exp(-beside)
    return [(none, 0.0, groups[1:]), (1.0 - none, groups[0].length * beside / (1.0 - none), groups[1:])]


def _log_normal(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the logarithm of a log-normal variable."""
    square = np.log1p(np.maximum(variance, 0.0) / np.maximum(mean, 1e-12) ** 2) + 1e-9
    return np.log(np.maximum(mean, 1e-12)) - square / 2.0, np.sqrt(square)
