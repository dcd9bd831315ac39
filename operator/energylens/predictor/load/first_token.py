"""Percentiles of the time from a request's arrival to its first token, over all requests and by class.

At each number of running sequences the time is log-normal if all prompts are alike, and that of a chain of steps
(:mod:`prompt_chain`) if short and long prompts mix.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from energylens.predictor.load.loop import RARE, OpenLoop, solve, stable_chunks
from energylens.predictor.load.mixture import normal_quantiles
from energylens.predictor.load.occupancy import WEIGHTS
from energylens.predictor.load.prompt_chain import LEVELS, LONGEST_STEP, Loads, first_token_table
from energylens.predictor.load.queueing import PlaceWait
from energylens.predictor.load.step_law import Arriving, StepLaw, StepTerms, normal_share
from energylens.predictor.load.step_work import Group
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

ALWAYS_BUSY = 0.9999
"""Share of time in which a replica runs anything, above which percentiles ignore the rest."""
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
        if len(arriving.groups) > 1:
            placed = _among_unlike(loop, terms, arriving)
        else:
            placed = [_among_alike(loop, terms, law, arriving, each) for each in loop.prompts]
        self._parts = [
            _after_a_wait(part, (terms.decode + terms.once + terms.prompt * each.length).max(axis=0), wait, max(levels))
            for part, each in zip(placed, loop.prompts, strict=True)
        ]

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
    """Distribution function, from seconds of shape (n,) to probabilities of shape (n,), or of shape (k, n) at each
    number of running sequences."""
    shortest: FloatArray
    longest: FloatArray
    """Time that hardly any request exceeds, shape (n,), s."""


def _after_a_wait(placed: _FirstToken, last: FloatArray, wait: PlaceWait, highest: float) -> _FirstToken:
    """Return the law of the TTFT over all numbers of running sequences, valid up to the level ``highest``.

    Args:
        placed: The law at each of these numbers if there is no wait for a place.
        last: Time from the end of such a wait to the first token, s, shape (n,).
        wait: The wait for a place.
        highest: Highest level that is asked for.
    """
    probability = np.where(wait.probability > RARE, wait.probability, 0.0)
    waits = bool(probability.any())

    def below(seconds: FloatArray) -> FloatArray:
        found = (WEIGHTS[:, None] * placed.below(seconds)).sum(axis=0)
        if waits:
            after = np.where(seconds > last, 1.0 - wait.survival(seconds - last), 0.0)
            found = found + probability * (after - found)
        return np.asarray(found)

    rare = 0.2 * (1.0 - highest)
    # A tail may become flatter, never than its last slope.
    flattest = wait.slope * np.minimum(wait.steepest, 1.0) * wait.pace
    longest = np.log(np.maximum(probability / rare, 1.0)) / flattest
    return _FirstToken(below, placed.shortest, np.maximum(placed.longest, last + longest))


def _own_prompt(terms: StepTerms, prompts: Group) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of the time that a prompt takes alone, without the time of its first decode step.

    A prompt that exceeds the room takes several steps, which also decode.
    """
    room, start = terms.room, terms.decode + terms.once
    mine = terms.prompt * prompts.length
    length = np.sqrt(max(np.log1p(prompts.variance), 1e-9))
    above = np.log(np.maximum(mine, 1e-12)) - length**2 / 2.0 - np.log(room)
    cut = normal_share(above / length)
    left = np.maximum(mine * normal_share((above + length**2) / length) - room * cut, 0.0)
    pace = start / room
    return mine + left * pace + 0.5 * start * cut, mine * mine * prompts.variance * (1.0 + pace * cut) ** 2


def _among_alike(loop: OpenLoop, terms: StepTerms, law: StepLaw, arriving: Arriving, prompts: Group) -> _FirstToken:
    """Return the TTFT at each number of running sequences, without a wait for a place, if all prompts are alike."""
    room, start = terms.room, terms.decode + terms.once
    own, own_variance = _own_prompt(terms, prompts)
    # Prompts for which earlier steps had no room.
    full = np.clip(stable_chunks(loop), 0.0, 0.98)
    behind = law.backlog * (1.0 + start / room) / (1.0 - full)
    queued = np.clip(law.mixed * (1.0 - law.ends) * (start + room) / law.mean, 1e-6, 0.999)
    late = behind / queued
    queued = np.where((behind > 1e-9) & (queued > SELDOM), queued, 0.0)
    some_behind = bool(queued.any())
    beside, beside_variance = _company(loop, terms, law, arriving)
    mean, variance = beside + own, beside_variance + own_variance
    log, spread = _log_normal(mean, variance)
    late_log, late_spread = _log_normal(mean + late, variance + late**2)
    alone, alone_spread = _alone(terms, arriving, loop.prompt_variance, own, own_variance)
    idling = np.flatnonzero(loop.busy < ALWAYS_BUSY)
    busy, alone, alone_spread = loop.busy[idling], alone[:, idling], alone_spread[:, idling]

    def below(seconds: FloatArray) -> FloatArray:
        over = seconds - start
        log_over = np.log(np.maximum(over, 1e-12))
        share = normal_share((log_over - log) / spread)
        if some_behind:
            share = share + queued * (normal_share((log_over - late_log) / late_spread) - share)
        if idling.size:
            idle = normal_share((log_over[:, idling] - alone) / alone_spread)
            share[:, idling] = idle + busy * (share[:, idling] - idle)
        return np.where(over > 0.0, share, 0.0)

    reach = np.maximum(log + 3.3 * spread, np.where(queued > 0.0, late_log + 3.3 * late_spread, -np.inf))
    return _FirstToken(below, start.min(axis=0), np.asarray((start + np.exp(reach)).max(axis=0)))


def _among_unlike(loop: OpenLoop, terms: StepTerms, arriving: Arriving) -> list[_FirstToken]:
    """Return the TTFT of each class at each number of running sequences, without a wait, if prompts differ."""
    table = first_token_table(arriving.groups, loop.prompts, loop.steps_ahead > 0.0)
    # Where steps take far longer than prompts, prompts may seem longer than they are.
    unit = np.maximum(terms.prompt, terms.decode / LONGEST_STEP)
    described = (arriving.rate * unit, terms.decode / unit, terms.room / unit, arriving.clump)
    states = np.broadcast_shapes(*(np.shape(each) for each in described))
    logs = table.log_quantiles(Loads(*(np.broadcast_to(each, states) for each in described))) + np.log(unit)
    # Rising, even where the grid of the chain does not tell two quantiles apart.
    logs = logs + 1e-6 * np.arange(len(LEVELS))[:, None, None]
    pairs = zip(loop.prompts, logs, strict=True)
    return [_in_chain(loop, terms, arriving, each, quantiles) for each, quantiles in pairs]


def _in_chain(loop: OpenLoop, terms: StepTerms, arriving: Arriving, prompts: Group, logs: FloatArray) -> _FirstToken:
    """Return the TTFT of a class from logarithms of its quantiles while the replica is busy, shape (levels, k, n)."""
    start, once, deviations = terms.decode + terms.once, terms.once, normal_quantiles(LEVELS)
    widths = np.diff(logs, axis=0)
    slopes = np.diff(deviations)[:, None, None] / widths
    own, own_variance = _own_prompt(terms, prompts)
    alone, alone_spread = _alone(terms, arriving, loop.prompt_variance, own, own_variance)

    def below(seconds: FloatArray) -> FloatArray:
        log = np.log(np.maximum(seconds - once, 1e-12))
        deviation = deviations[0] + (log - logs[0]) * slopes[0]
        for quantile, slope, before in zip(logs[1:-1], slopes[1:], slopes[:-1], strict=True):
            deviation = deviation + np.maximum(log - quantile, 0.0) * (slope - before)
        # At a replica that idles, a request is alone.
        idle = normal_share((np.log(np.maximum(seconds - start, 1e-12)) - alone) / alone_spread)
        return np.asarray(idle + loop.busy * (normal_share(deviation) - idle))

    most = once + np.exp(logs[-1] + 0.5 * widths[-1])
    return _FirstToken(below, start.min(axis=0), np.asarray(most.max(axis=0)))


def _alone(
    terms: StepTerms, arriving: Arriving, prompt_variance: float, own: FloatArray, own_variance: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the law of the prompts in the step of a request that arrives while the replica idles, with its clump."""
    more = arriving.clump - 1.0
    beside = terms.prompt**2 * (more * (1.0 + prompt_variance) + arriving.clump * more)
    return _log_normal(own + terms.prompt * more, own_variance + beside)


def _company(loop: OpenLoop, terms: StepTerms, law: StepLaw, arriving: Arriving) -> tuple[FloatArray, FloatArray]:
    """Return mean and variance of the time that a request waits for prompts that arrived in its step, while busy."""
    p, room, more = terms.prompt, terms.room, arriving.clump - 1.0
    met, met_square = law.square / law.mean, law.cube / law.mean
    # The rest of the step during which a request arrives (weighted by length: the inspection paradox), and the steps
    # that are already composed.
    rest = met / 2.0 + loop.steps_ahead * law.mean
    rest_square = met_square / 3.0 + loop.steps_ahead * (met * law.mean + law.square)
    rest_variance = np.maximum(rest_square - rest**2, 0.0)
    uneven, v = np.maximum(met_square - met**2, 0.0), loop.prompt_variance
    # Other prompts that arrived in the same step, up to the room of one step.
    rate = arriving.rate
    beside = rate * met
    others = np.minimum(p * beside, room) + p * more
    variance = p * p * (beside * (arriving.clump + v) + rate**2 * uneven)
    variance = variance + p * p * (more * (1.0 + v) + arriving.clump * more)
    variance = variance + rate * p * uneven
    return rest + others, rest_variance + variance


def _log_normal(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the logarithm of a log-normal variable."""
    square = np.log1p(np.maximum(variance, 0.0) / np.maximum(mean, 1e-12) ** 2) + 1e-9
    return np.log(np.maximum(mean, 1e-12)) - square / 2.0, np.sqrt(square)
