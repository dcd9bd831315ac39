"""Replicas under an arrival rate, and quantiles from distribution functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from energylens.predictor.load.arrivals import thinned_variation
from energylens.predictor.load.occupancy import Overlap
from energylens.predictor.load.steady import clumped
from energylens.predictor.load.step_law import StepTerms
from energylens.predictor.load.step_work import Group
from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass

COARSE = 6
"""Points at which a distribution function is evaluated before its quantiles are searched between two of them."""
ROUNDS = 6
EDGE = 0.1
"""Margin of an interval: a search does not go nearer to its ends."""
BURST_MEMORY = 2.5
"""Rate at which bursty arrivals clump with growing arrivals per step, fitted to simulated gamma arrivals."""
FARTHEST = 1e-6
"""Least distance of a share from 0 and 1 whose odds are distinguished."""
RARE = 1e-4
"""Probability of a wait for a place below which percentiles ignore it."""
SMALLEST_ROOM = 16.0
"""Least prompt tokens for which a step has room."""


@dataclass(frozen=True)
class OpenLoop:
    """Replicas under arrivals; arrays of shape (n,), seconds, after the learned factors."""

    rate: FloatArray
    """Arrival rate of the replica, requests per second."""
    running: FloatArray
    """Mean running sequences of the replica."""
    busy: FloatArray
    """Share of time in which any sequence runs in a lane."""
    places: FloatArray
    """Places in the batch of the replica."""
    most: FloatArray
    """Requests per second that the replica serves with all places taken, if requests start one by one."""
    lanes: FloatArray
    """Lanes of a replica that step independently: ranks that do not synchronise steps."""
    lockstep: FloatArray
    """Ranks that step together."""
    schedulers: FloatArray
    """Data-parallel ranks, each with its own queue and places."""
    terms: StepTerms
    """Mean time of a step at ``running``."""
    decode_slope: FloatArray
    """Seconds by which one more running sequence lengthens a step that only decodes."""
    mean_slope: FloatArray
    """Seconds by which one more running sequence lengthens a step with the prompts that arrive meanwhile."""
    prompt_variance: float
    """Variance of a prompt's length over the square of the mean."""
    arrival_variation: FloatArray
    output_variation: float
    together: Overlap
    """How long requests that start together run together."""
    output_steps: float
    shape_covariance: float
    """Covariance of the lengths of prompts and outputs over the product of their means."""
    step_tokens: FloatArray
    """Most tokens that a step of a rank computes."""
    prompt_tokens: float
    """Mean computed tokens of a prompt."""
    steps_ahead: float
    prompts: tuple[Group, ...]
    """Prompts of each class of requests."""

    def take(self, index: IntArray) -> OpenLoop:
        """Return the replicas of an index array of shape (m,)."""
        columns = {
            name: value[index] for name, value in vars(self).items() if isinstance(value, np.ndarray) and value.ndim
        }
        terms = StepTerms(*(np.broadcast_to(term, self.rate.shape)[index] for term in vars(self.terms).values()))
        return OpenLoop(**{**vars(self), **columns, "terms": terms})

    @property
    def lane_rate(self) -> FloatArray:
        """Requests per second that join the steps of one lane."""
        return self.rate / self.lanes


def room_of(step_tokens: FloatArray, running: FloatArray, ranks: FloatArray, prompt_tokens: float) -> FloatArray:
    """Return the prompts of mean length for which a step has room beside the decoding sequences.

    Args:
        step_tokens: Most tokens in a step of a rank, shape (n,).
        running: Sequences that decode in the step, on all ranks that step together.
        ranks: Number of ranks that step together.
        prompt_tokens: Mean computed tokens of a prompt.
    """
    return np.asarray(np.maximum(step_tokens * ranks - running, SMALLEST_ROOM) / prompt_tokens)


def clump_of(arrival_variation: FloatArray | float, lanes: FloatArray, arrivals: FloatArray) -> FloatArray:
    """Return variance / mean of the arrivals in a step: the longer the step, the more of a burst falls into it.

    Args:
        arrival_variation: Squared coefficient of variation of the replica's arrivals, a number or of shape (n,).
        lanes: Lanes of a replica, shape (n,).
        arrivals: Mean arrivals in a step of a lane, shape (n,).
    """
    variation = thinned_variation(arrival_variation, lanes)
    return np.asarray(1.0 + (variation - 1.0) * -np.expm1(-BURST_MEMORY * np.sqrt(arrivals)))


def seconds_apart(loop: OpenLoop, sequences: FloatArray) -> FloatArray:
    """Return the seconds by which a mean step is longer if requests start one by one, shape (n,).

    ``running`` counts requests that start together, as in benchmarks whose requests follow one another; see
    :func:`longer_apart`.

    Args:
        loop: The replicas.
        sequences: Running sequences of each replica, shape (n,).
    """
    starts = sequences / loop.lanes / loop.output_steps
    return longer_apart(loop.terms.once, starts, loop.arrival_variation, loop.lanes, loop.lockstep)


def longer_apart(
    once: FloatArray, starts: FloatArray, arrival_variation: FloatArray | float, lanes: FloatArray, lockstep: FloatArray
) -> FloatArray:
    """Return the seconds by which a mean step is longer if requests start one by one instead of together, shape (n,).

    Requests that arrive at random start in more steps than those of a benchmark that follow one another. Each such
    step takes ``once`` longer. Ranks that step together are not counted in clusters to begin with.

    Args:
        once: Seconds of a step with prompts that do not grow with them, shape (n,).
        starts: Mean requests that start in a step of a lane, shape (n,).
        arrival_variation: Squared coefficient of variation of the replica's arrivals, a number or of shape (n,).
        lanes: Lanes of a replica, shape (n,).
        lockstep: Ranks that step together, shape (n,).
    """
    more = clump_of(arrival_variation, lanes, starts) - 1.0
    # No request arrives in a step: a negative binomial number of them, in bursts fewer steps with more requests each.
    alone = np.where(np.abs(more) > 1e-9, np.log1p(more) / np.where(np.abs(more) > 1e-9, more, 1.0), 1.0)
    apart = np.exp(-starts / clumped(starts)) - np.exp(-starts * alone)
    return np.where(lockstep > 1.0, 0.0, once * apart)


def lasting_variation(
    arrival_variation: FloatArray | float, output_variation: float, output_steps: float
) -> FloatArray | float:
    """Return the squared coefficient of variation of the starts while all places are taken and requests wait.

    A request then starts where another ends, whenever it arrived. Requests of one length that started in one step end
    in one step, and so hand a burst on. Requests of different lengths end in different steps: two normal lengths are
    equal with a probability in inverse proportion to their deviation, and Poisson starts remain.

    Args:
        arrival_variation: Squared coefficient of variation of the times between arrivals, a number or of shape (n,).
        output_variation: Squared coefficient of variation of the output lengths.
        output_steps: Mean decode steps of a request.
    """
    together = 1.0 / math.sqrt(1.0 + 4.0 * math.pi * output_variation * output_steps**2)
    return 1.0 + (arrival_variation - 1.0) * together


def stable_chunks(loop: OpenLoop) -> FloatArray:
    """Return the share of a step's room for prompts that arrivals need when steps are full, shape (n,).

    From 1 on the queue of prompts grows without bound, however many places there are.
    """
    terms = loop.terms
    return np.asarray(loop.lane_rate * terms.prompt * (terms.decode + terms.once + terms.room) / terms.room)


def solve(
    below: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, levels: Sequence[float]
) -> dict[float, FloatArray]:
    """Return the points at which a distribution function reaches given levels, by search in the logarithm.

    The logarithm of the odds of a share is nearly a straight line where the share itself bends.

    Args:
        below: Function from seconds of shape (n,) to probabilities of shape (n,).
        low: Lower bound, s, shape (n,).
        high: Upper bound that is hardly ever exceeded, s, shape (n,).
        levels: Levels between 0 and 1.
    """
    first, last = np.log(low), np.log(high)
    columns = np.arange(low.size)
    places = first + (last - first) * np.linspace(0.0, 1.0, COARSE + 2)[:, None]
    shares = np.stack([np.zeros_like(low), *(below(np.exp(place)) for place in places[1:-1]), np.ones_like(low)])
    found, odds = {}, _log_odds(shares)
    for level in levels:
        goal = float(_log_odds(np.array(level)))
        upper = np.clip((shares < level).sum(axis=0), 1, COARSE + 1)
        a, b = places[upper - 1, columns], places[upper, columns]
        at_a, at_b = odds[upper - 1, columns] - goal, odds[upper, columns] - goal
        for _ in range(ROUNDS):
            # The value at an end that is kept twice is halved (the Illinois variant of regula falsi).
            middle = a - at_a * (b - a) / np.maximum(at_b - at_a, 1e-12)
            middle = np.clip(middle, a + EDGE * (b - a), b - EDGE * (b - a))
            at = _log_odds(below(np.exp(middle))) - goal
            lower = at < 0.0
            at_a, at_b = np.where(lower, at, at_a / 2.0), np.where(lower, at_b / 2.0, at)
            a, b = np.where(lower, middle, a), np.where(lower, b, middle)
        found[level] = np.asarray(np.exp(np.clip(a - at_a * (b - a) / np.maximum(at_b - at_a, 1e-12), a, b)))
    # Where a distribution jumps, each search ends somewhere on the jump.
    for level, higher in pairwise(sorted(levels)):
        found[higher] = np.maximum(found[higher], found[level])
    return found


def _log_odds(shares: FloatArray) -> FloatArray:
    """Return the logarithms of the odds of shares, same shape."""
    inner = np.minimum(np.maximum(shares, FARTHEST), 1.0 - FARTHEST)
    return np.asarray(np.log(inner / (1.0 - inner)))
