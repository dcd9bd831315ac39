"""The stationary law of an engine's steps while a given number of sequences runs.

A step takes in what arrived during the one before: a long step collects more prompts, which makes the next one long,
too. Prompts of a step come out of that number, Poisson or in clumps, and of log-normal lengths. A step has room for so
many prompt tokens; the rest is computed in the steps that follow. First and second moments are exact without the limit;
with a limit the work of a step is a full chunk or what is left of one.

Times of a step are affine in its prompts: ``decode``, + ``once`` where it has any, + ``prompt`` per prompt of mean
length.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.predictor.types import FloatArray

ROUNDS = 5
"""Of the fixed point between how many steps have prompts and how long steps are."""
MOST_PREFILL = 0.98
"""Share of the time that prompts take at most: beyond it no replica is stable."""


@dataclass(frozen=True)
class Arriving:
    """Prompts that arrive at the steps of a replica; arrays that broadcast to one shape."""

    rate: FloatArray
    """Per second."""
    variance: FloatArray
    """Of a prompt's length, over the square of the mean length."""
    clump: FloatArray
    """Variance of the number that arrives during a step over its mean: 1 for Poisson arrivals."""


@dataclass(frozen=True)
class StepTerms:
    """Seconds of a step by what it computes; arrays that broadcast to one shape."""

    decode: FloatArray
    once: FloatArray
    """Where it computes any prompt."""
    prompt: FloatArray
    """For each prompt of mean length."""
    room: FloatArray
    """Seconds of prompts that one step has room for, positive."""


@dataclass(frozen=True)
class StepLaw:
    """The law of steps; arrays of one shape, seconds."""

    mean: FloatArray
    square: FloatArray
    """Mean of the square."""
    cube: FloatArray
    mixed: FloatArray
    """Share of steps that compute prompts."""
    ends: FloatArray
    """Share of those that are not filled with prompts."""
    work_log: FloatArray
    """Mean of the logarithm of the seconds of prompts that arrive in one step, where any do: taken as log-normal."""
    work_spread: FloatArray
    """Standard deviation of that logarithm."""
    longer: FloatArray
    """Probability that those prompts need more than one step."""
    backlog: FloatArray
    """Mean seconds of prompts that stay beyond a step, over all time, as long as the backlog is short."""


def step_law(arriving: Arriving, terms: StepTerms) -> StepLaw:
    """Return the law of the steps that arrivals lead to."""
    d, b, p, room = terms.decode, terms.once, terms.prompt, terms.room
    rate, v, clump = arriving.rate, arriving.variance, arriving.clump
    share = np.minimum(rate * p, MOST_PREFILL)
    group = (clump + 1.0) / 2.0
    longest = d + b + room
    log_room = np.log(room)
    mean = d / (1.0 - share)
    mixed = arrives = -np.expm1(-rate * mean / group)
    square = 1.2 * mean**2
    for _ in range(ROUNDS):
        mean = np.minimum((d + b * mixed) / (1.0 - share), longest)
        # What arrives in one step, where anything does: a clumped number of log-normal lengths.
        work = share * mean / np.maximum(arrives, 1e-12)
        work_square = p * p * (rate * (clump + v) * mean + rate**2 * square) / np.maximum(arrives, 1e-12)
        spread_square = np.log1p(np.maximum(work_square / np.maximum(work, 1e-30) ** 2 - 1.0, 1e-6))
        spread = np.sqrt(spread_square)
        log = np.log(np.maximum(work, 1e-30)) - spread_square / 2.0
        longer = normal_share((log - log_room) / spread)
        # A cluster takes whole steps; the last one, half full on average, is shared with the next cluster if one waits.
        beyond = work * normal_share((log + spread_square - log_room) / spread)
        last = np.maximum(1.0 - longer / 2.0 + (beyond - work) / room, 0.0)
        mixed = np.minimum(arrives * (work / room + last) / (1.0 + arrives * last * longer), 1.0)
        ends = np.minimum(arrives * (1.0 - mixed * longer) / np.maximum(mixed, 1e-12), 1.0)
        done = np.minimum(share * mean / np.maximum(mixed, 1e-12), room)
        within = work_square * normal_share((log_room - log - 2.0 * spread_square) / spread)
        done_square = (1.0 - ends) * room**2 + ends * (within + longer * room**2 / 3.0)
        first = b * mixed + mixed * done
        second = mixed * (b * b + 2.0 * b * done + done_square)
        square = d * d + 2.0 * d * first + second
        shape = np.maximum(done**2 / np.maximum(done_square - done**2, 1e-30), 1e-6)
        waits = np.exp(-rate * d / group)
        arrives = 1.0 - waits * (
            1.0 - mixed + mixed * np.exp(-rate * b / group) * (1.0 + rate * done / group / shape) ** -shape
        )
    within = work**3 * np.exp(3.0 * spread_square) * normal_share((log_room - log - 3.0 * spread_square) / spread)
    done_cube = (1.0 - ends) * room**3 + ends * (within + longer * room**3 / 4.0)
    cube = d**3 + 3.0 * d * d * first + 3.0 * d * second
    cube = cube + mixed * (b**3 + 3.0 * b * b * done + 3.0 * b * done_square + done_cube)
    far = work_square * normal_share((log + 2.0 * spread_square - log_room) / spread) - room * beyond
    backlog = arrives / mean * longest * np.maximum(far, 0.0) / (2.0 * room)
    return StepLaw(mean, square, cube, mixed, ends, log, spread, longer, backlog)


def normal_share(x: FloatArray) -> FloatArray:
    """Return the standard normal distribution function within 1.4e-4, shape of ``x``.

    By E. Page's logistic approximation (Applied Statistics 26, 1977), a tenth of the time of an error function.
    """
    return np.asarray(1.0 / (1.0 + np.exp(np.clip(-x * (1.5976 + 0.07056 * x * x), -300.0, 300.0))))
