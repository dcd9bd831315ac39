"""The stationary law of an engine's steps for a given number of running sequences.

A step takes in the prompts that arrived during the previous one: a long step collects more prompts, which makes the
next step long as well. The number of prompts is Poisson distributed or clumped, and their lengths are log-normal. A
step has room for a limited number of prompt tokens; the rest is computed in the following steps. First and second
moments are exact without the limit. With a limit, the work of a step is a full chunk or the remainder.

The time of a step is affine in its prompts: ``decode``, plus ``once`` if it has any, plus ``prompt`` per prompt of mean
length.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from energylens.predictor.load.step_work import Group, StepKind, kinds_of_work, log_normal
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

ROUNDS = 5
"""Iterations of the fixed point between the share of steps with prompts and the length of steps."""
MOST_PREFILL = 0.98
"""Largest share of the time that prompts may take; beyond it no replica is stable."""


@dataclass(frozen=True)
class Arriving:
    """Prompts that arrive at the steps of a replica; arrays that broadcast to one shape."""

    rate: FloatArray
    """Prompts per second."""
    variance: FloatArray
    """Variance of a prompt's length over the square of the mean length."""
    clump: FloatArray
    """Variance / mean of the number that arrives during a step: 1 for Poisson arrivals."""
    groups: tuple[Group, ...] = ()
    """Prompts by length, the longest first; empty or a single entry if all have one shape."""


@dataclass(frozen=True)
class StepTerms:
    """Seconds of a step by what it computes; arrays that broadcast to one shape."""

    decode: FloatArray
    once: FloatArray
    """Additional time of a step that computes any prompt."""
    prompt: FloatArray
    """Additional time for each prompt of mean length."""
    room: FloatArray
    """Seconds of prompts for which one step has room, positive."""


@dataclass(frozen=True)
class StepLaw:
    """The law of steps; arrays of one shape, seconds."""

    mean: FloatArray
    square: FloatArray
    """Mean of the squared step."""
    cube: FloatArray
    mixed: FloatArray
    """Share of steps that compute prompts."""
    ends: FloatArray
    """Share of those steps that are not filled with prompts."""
    kinds: tuple[StepKind, ...]
    """Seconds of prompts that arrive in a step with arrivals."""
    longer: FloatArray
    """Probability that those prompts need more than one step."""
    backlog: FloatArray
    """Mean seconds of prompts that remain beyond a step, averaged over time, as long as the backlog is short."""

    @property
    def reach(self) -> FloatArray:
        """Seconds of prompts that hardly any step exceeds."""
        return np.asarray(np.maximum.reduce([np.exp(kind.log + 3.5 * kind.spread) for kind in self.kinds]))

    def arrived_below(self, work: FloatArray, room: FloatArray) -> FloatArray:
        """Return, among steps in which prompts end, the share with less than the given seconds of prompts."""
        log = np.log(np.maximum(work, 1e-12))
        part = sum(kind.weight * normal_share((log - kind.log) / kind.spread) for kind in self.kinds)
        return np.where(work > 0.0, part + self.longer * work / room, 0.0)


@dataclass(frozen=True)
class _Chunks:
    """Seconds of prompts in the steps that compute the arrivals of one step, summed over all kinds."""

    longer: FloatArray
    """Probability that the arrivals take more than one step."""
    beyond: FloatArray
    """Mean of the arrivals that take more than one step."""
    within: FloatArray
    """Mean of the square of arrivals that fit into one step."""

    @classmethod
    def of(cls, kinds: Sequence[StepKind], room: FloatArray) -> _Chunks:
        log_room = np.log(room)
        longer, beyond, within = (np.zeros_like(log_room + kinds[0].log) for _ in range(3))
        for kind in kinds:
            edge, spread = (log_room - kind.log) / kind.spread, kind.spread
            longer = longer + kind.weight * normal_share(-edge)
            beyond = beyond + kind.weight * np.exp(kind.log + spread**2 / 2.0) * normal_share(spread - edge)
            square = np.exp(2.0 * (kind.log + spread**2))
            within = within + kind.weight * square * normal_share(edge - 2.0 * spread)
        return cls(longer, beyond, within)


def _cube_within(kinds: Sequence[StepKind], room: FloatArray) -> FloatArray:
    """Return the mean of the cube of arrivals that fit into one step."""
    cubes = (
        kind.weight
        * np.exp(3.0 * kind.log + 4.5 * kind.spread**2)
        * normal_share((np.log(room) - kind.log) / kind.spread - 3.0 * kind.spread)
        for kind in kinds
    )
    return np.asarray(sum(cubes))


def step_law(arriving: Arriving, terms: StepTerms) -> StepLaw:
    """Return the law of the steps under given arrivals."""
    d, b, p, room = terms.decode, terms.once, terms.prompt, terms.room
    rate, clump = arriving.rate, arriving.clump
    share = np.minimum(rate * p, MOST_PREFILL)
    group = (clump + 1.0) / 2.0
    longest = d + b + room
    mean = d / (1.0 - share)
    mixed = arrives = -np.expm1(-rate * mean / group)
    square = 1.2 * mean**2
    done, shape = share * mean / np.maximum(mixed, 1e-12), np.ones_like(mean)
    for _ in range(ROUNDS):
        mean = np.minimum((d + b * mixed) / (1.0 - share), longest)
        kinds = _kinds(arriving, terms, mean, square, arrives, _Quiet(terms, group, mixed, done, shape))
        # Arrivals in a step with any: a clumped number of prompts.
        work = share * mean / np.maximum(arrives, 1e-12)
        chunks = _Chunks.of(kinds, room)
        longer, beyond, within = chunks.longer, chunks.beyond, chunks.within
        # A cluster takes whole steps; its last step, half full on average, is shared with the next cluster if one
        # waits.
        last = np.maximum(1.0 - longer / 2.0 + (beyond - work) / room, 0.0)
        mixed = np.minimum(arrives * (work / room + last) / (1.0 + arrives * last * longer), 1.0)
        ends = np.minimum(arrives * (1.0 - mixed * longer) / np.maximum(mixed, 1e-12), 1.0)
        done = np.minimum(share * mean / np.maximum(mixed, 1e-12), room)
        done_square = (1.0 - ends) * room**2 + ends * (within + longer * room**2 / 3.0)
        first = b * mixed + mixed * done
        second = mixed * (b * b + 2.0 * b * done + done_square)
        square = d * d + 2.0 * d * first + second
        shape = np.maximum(done**2 / np.maximum(done_square - done**2, 1e-30), 1e-6)
        arrives = 1.0 - _Quiet(terms, group, mixed, done, shape)(rate)
    done_cube = (1.0 - ends) * room**3 + ends * (_cube_within(kinds, room) + longer * room**3 / 4.0)
    cube = d**3 + 3.0 * d * d * first + 3.0 * d * second
    cube = cube + mixed * (b**3 + 3.0 * b * b * done + 3.0 * b * done_square + done_cube)
    far = sum(
        kind.weight
        * np.exp(2.0 * (kind.log + kind.spread**2))
        * normal_share((kind.log + 2.0 * kind.spread**2 - np.log(room)) / kind.spread)
        for kind in kinds
    )
    backlog = arrives / mean * longest * np.maximum(far - room * beyond, 0.0) / (2.0 * room)
    return StepLaw(mean, square, cube, mixed, ends, tuple(kinds), longer, backlog)


@dataclass(frozen=True)
class _Quiet:
    """The probability that nothing arrives during a step, as a function of the arrival rate."""

    terms: StepTerms
    group: FloatArray
    """Arrivals that come at once."""
    mixed: FloatArray
    done: FloatArray
    """Mean seconds of prompts in a step that has any, gamma distributed."""
    shape: FloatArray

    def __call__(self, rate: FloatArray) -> FloatArray:
        prompts = (1.0 + rate * self.done / self.group / self.shape) ** -self.shape
        any_prompt = self.mixed * np.exp(-rate * self.terms.once / self.group) * prompts
        return np.asarray(np.exp(-rate * self.terms.decode / self.group) * (1.0 - self.mixed + any_prompt))


def _kinds(
    arriving: Arriving,
    terms: StepTerms,
    mean: FloatArray,
    square: FloatArray,
    arrives: FloatArray,
    none: Callable[[FloatArray], FloatArray],
) -> list[StepKind]:
    rate, p, clump = arriving.rate, terms.prompt, arriving.clump
    if len(arriving.groups) > 1:
        varies = square / mean**2 - 1.0 + (clump - 1.0) / np.maximum(rate * mean, 1e-12)
        return kinds_of_work(arriving.groups, rate, p, mean, varies, none)
    work = np.minimum(rate * p, MOST_PREFILL) * mean / np.maximum(arrives, 1e-12)
    work_square = p * p * (rate * (clump + arriving.variance) * mean + rate**2 * square) / np.maximum(arrives, 1e-12)
    return [StepKind(np.ones_like(work), *log_normal(work, work_square))]


def normal_share(x: FloatArray) -> FloatArray:
    """Return the standard normal distribution function within 1.4e-4, shape of ``x``.

    Uses E. Page's logistic approximation (Applied Statistics 26, 1977), which takes a tenth of the time of an error
    function.
    """
    # In place: arrays of all states are so large that the kernel provides each temporary one page by page, which takes
    # two thirds of the time. minimum and maximum take half of the time of clip on short arrays.
    share = np.asarray(0.07056 * x)
    share *= x
    share += 1.5976
    share *= -x
    np.maximum(share, -300.0, out=share)
    np.minimum(share, 300.0, out=share)
    np.exp(share, out=share)
    share += 1.0
    return np.asarray(np.divide(1.0, share, out=share))
