"""Percentiles of TTFT and ITL of replicas at which requests arrive at a rate.

A mixture over how many sequences run, which changes slowly (:mod:`occupancy`), of the law of steps meanwhile
(:mod:`step_law`). A request waits for a place in the batch (:mod:`queueing`), for what is left of the step that it
falls into and for steps that are composed already; its prompt then shares steps with those that arrived beside it. The
inter-token latency is the step, of which every running sequence sees one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from energylens.predictor.load.occupancy import WEIGHTS, Occupancy, occupancy
from energylens.predictor.load.queueing import PlaceWait, place_wait
from energylens.predictor.load.step_law import Arriving, StepLaw, StepTerms, normal_share, step_law
from energylens.predictor.types import FloatArray, IntArray

COARSE = 6
"""Places at which a distribution function is known before its quantiles are searched between two of them."""
ROUNDS = 4
EDGE = 0.1
"""Of an interval, nearer to whose ends a search does not go."""
RARE = 1e-4
"""Probability of a wait for a place below which no percentile shows it."""
SELDOM = 1e-3
"""Probability of a backlog of prompts below which no percentile shows it."""
SMALLEST_ROOM = 16.0
"""Prompt tokens that a step has room for at least."""
BURST_MEMORY = 2.5
"""How fast the clumps of bursty arrivals fill with the arrivals per step; set on simulated gamma arrivals."""


@dataclass(frozen=True)
class OpenLoop:
    """Replicas under arrivals; arrays of shape (n,), seconds, after whatever was learned from runs."""

    rate: FloatArray
    """Requests per second of the replica."""
    running: FloatArray
    """Mean running sequences of the replica."""
    busy: FloatArray
    """Share of time in which any runs."""
    places: FloatArray
    """Of the replica."""
    most: FloatArray
    """Requests per second that the replica serves with all places taken."""
    lanes: FloatArray
    """Steps that run side by side on a replica: ranks that do not step together."""
    lockstep: FloatArray
    """Ranks that step together."""
    schedulers: FloatArray
    """Data-parallel ranks, each with a queue and places of its own."""
    terms: StepTerms
    """Of a step at ``running``."""
    decode_slope: FloatArray
    """Seconds that one more running sequence adds to a step that only decodes."""
    mean_slope: FloatArray
    """Seconds that it adds to a step with the prompts that arrive meanwhile."""
    prompt_variance: float
    """Of a prompt's length over the square of the mean."""
    arrival_variation: FloatArray
    output_variation: float
    output_steps: float
    step_tokens: float
    """Tokens that a step of a rank computes at most."""
    prompt_tokens: float
    """Mean computed tokens of a prompt."""
    steps_ahead: float

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


@dataclass(frozen=True)
class Latencies:
    """Quantiles in seconds by level, arrays of shape (n,)."""

    ttft: Mapping[float, FloatArray]
    """From arrival at the scheduler to the first token, infinite nowhere."""
    step: Mapping[float, FloatArray]
    """Of the step that a running sequence sees."""


def room_of(step_tokens: float, running: FloatArray, ranks: FloatArray, prompt_tokens: float) -> FloatArray:
    """Return the prompts of mean length that a step has room for beside the sequences that decode.

    Args:
        step_tokens: Of a rank, at most.
        running: Sequences that decode in the step, on all ranks that step together.
        ranks: That step together.
        prompt_tokens: Mean computed tokens of a prompt.
    """
    return np.asarray(np.maximum(step_tokens * ranks - running, SMALLEST_ROOM) / prompt_tokens)


def latencies(loop: OpenLoop, levels: Sequence[float], first_token_levels: Sequence[float]) -> Latencies:
    """Return quantiles of steps and of TTFT, at levels of their own."""
    clump = _clump(loop)
    spread = _spread(loop)
    here = step_law(Arriving(loop.lane_rate, np.asarray(loop.prompt_variance), clump), loop.terms)
    wait = _wait(loop, here, spread)
    waits = wait.probability > RARE
    unlike, same = _alike(loop, np.where(waits, loop.places, -1.0))
    few = loop.take(unlike)
    running = Occupancy(spread.mean[unlike], spread.variance[unlike])
    states = running.states(few.places)
    terms = _terms_at(few, states)
    rate = few.lane_rate * running.arrivals_at(states, few.arrival_variation)
    arriving = Arriving(rate, np.asarray(few.prompt_variance), clump[unlike])
    law = step_law(arriving, terms)
    step = _step_quantiles(few, states, terms, law, levels)
    ttft = _ttft_quantiles(few, terms, law, arriving, wait.take(unlike), first_token_levels)
    return Latencies(
        {level: values[same] for level, values in ttft.items()},
        {level: values[same] for level, values in step.items()},
    )


def stable_chunks(loop: OpenLoop) -> FloatArray:
    """Return the share of a step's room for prompts that arrivals take when steps are full, shape (n,).

    From 1 on the queue of prompts grows without bound, however many places there are.
    """
    terms = loop.terms
    return np.asarray(loop.lane_rate * terms.prompt * (terms.decode + terms.once + terms.room) / terms.room)


def _clump(loop: OpenLoop) -> FloatArray:
    """Return the variance of the arrivals in a step over their mean: the longer the step, the more of a burst."""
    within = (
        loop.lane_rate
        * (loop.terms.decode + loop.terms.once)
        / np.maximum(1.0 - loop.lane_rate * loop.terms.prompt, 0.02)
    )
    return np.asarray(1.0 + (loop.arrival_variation - 1.0) * -np.expm1(-BURST_MEMORY * np.sqrt(within)))


def _spread(loop: OpenLoop) -> Occupancy:
    """Return the distribution of running sequences with places for all."""
    terms = loop.terms
    arriving = loop.running / loop.output_steps / loop.lanes
    halted = loop.lane_rate * (terms.prompt + terms.once * np.exp(-np.minimum(arriving, 50.0)))
    growth = loop.rate * loop.output_steps * loop.mean_slope
    variance = np.asarray(loop.prompt_variance)
    mean = np.maximum(loop.running, 1e-3)
    return occupancy(mean, growth, halted, variance, loop.arrival_variation, loop.output_variation)


def _wait(loop: OpenLoop, law: StepLaw, spread: Occupancy) -> PlaceWait:
    """Return the wait for a place: who is on the way to the first token counts as well as who runs."""
    terms = loop.terms
    first = law.square / law.mean * (0.5 + loop.lane_rate * terms.prompt) + loop.steps_ahead * law.mean
    first = first + terms.decode + terms.once + terms.prompt
    each = 1.0 / loop.schedulers
    mean = (spread.mean + loop.rate * first) * each + (loop.arrival_variation - 1.0) / 2.0
    load = np.minimum(loop.rate / np.maximum(loop.most, 1e-12), 1.0)
    offered = Occupancy(np.maximum(mean, 1e-3), spread.variance * each)
    places = np.maximum(loop.places * each, 1.0)
    pace = np.maximum(loop.most * each, 1e-12)
    return place_wait(offered, places, load, pace, loop.arrival_variation, loop.output_variation)


def _alike(loop: OpenLoop, places: FloatArray) -> tuple[IntArray, IntArray]:
    """Return the first of each kind of replicas, and which kind each is; places count where requests wait for one."""
    columns = np.stack([loop.rate, loop.running, places, loop.terms.decode, loop.mean_slope])
    columns = np.concatenate([columns, [loop.lanes, loop.arrival_variation]])
    _, first, inverse = np.unique(columns, axis=1, return_index=True, return_inverse=True)
    return np.asarray(first), np.asarray(inverse).reshape(-1)


def _terms_at(loop: OpenLoop, states: FloatArray) -> StepTerms:
    """Return the times of steps at other numbers of running sequences, shape of ``states``."""
    terms = loop.terms
    decode = terms.decode + loop.decode_slope * (np.maximum(states, 1.0) - np.maximum(loop.running, 1.0))
    room = room_of(loop.step_tokens, states / loop.lanes, loop.lockstep, loop.prompt_tokens) * terms.prompt
    return StepTerms(np.maximum(decode, 0.5 * terms.decode), terms.once, terms.prompt, np.maximum(room, 1e-9))


def _step_quantiles(
    loop: OpenLoop, states: FloatArray, terms: StepTerms, law: StepLaw, levels: Sequence[float]
) -> dict[float, FloatArray]:
    """Return quantiles of the step over running sequences: a state counts by its tokens per second."""
    tokens = WEIGHTS[:, None] * np.maximum(states, 1e-3) / law.mean
    weights = tokens / tokens.sum(axis=0)
    # Steps of one state differ by the states between two of the points.
    width = np.maximum(np.abs(loop.decode_slope) * 0.35 * np.sqrt(np.var(states, axis=0)), 1e-3 * terms.decode)
    start = terms.decode + terms.once

    def below(seconds: FloatArray) -> FloatArray:
        work = seconds - start
        log = np.log(np.maximum(work, 1e-12))
        part = normal_share((log - law.work_log) / law.work_spread)
        part = np.where(work < terms.room, part + law.longer * work / terms.room, 1.0)
        part = law.ends * np.where(work > 0.0, part, 0.0)
        part = part + (1.0 - law.ends) * normal_share((work - terms.room) / width)
        share = (1.0 - law.mixed) * normal_share((seconds - terms.decode) / width) + law.mixed * part
        return np.asarray((weights * share).sum(axis=0))

    reach = np.exp(law.work_log + 3.5 * law.work_spread)
    high = (start + np.minimum(reach, terms.room) + 4.0 * width).max(axis=0)
    return _solve(below, (0.5 * terms.decode).min(axis=0), high, levels)


def _ttft_quantiles(
    loop: OpenLoop,
    terms: StepTerms,
    law: StepLaw,
    arriving: Arriving,
    wait: PlaceWait,
    levels: Sequence[float],
) -> dict[float, FloatArray]:
    """Return quantiles of the time from a request's arrival to its first token."""
    p, room, start, v = terms.prompt, terms.room, terms.decode + terms.once, loop.prompt_variance
    met, met_square = law.square / law.mean, law.cube / law.mean
    uneven = np.maximum(met_square - met**2, 0.0)
    # What is left of the step that an arrival falls into, by its length (inspection paradox), and steps composed.
    rest = loop.busy * (met / 2.0 + loop.steps_ahead * law.mean)
    rest_square = met_square / 3.0 + loop.steps_ahead * (met * law.mean + law.square)
    rest_variance = np.maximum(loop.busy * rest_square - rest**2, 0.0)
    # Others that arrived in the same step, as far as the room of one reaches.
    more = arriving.clump - 1.0
    beside = arriving.rate * met * loop.busy
    others = np.minimum(p * beside, room) + p * more
    others_variance = p * p * (beside * (arriving.clump + v) + arriving.rate**2 * uneven * loop.busy)
    others_variance = others_variance + p * p * (more * (1.0 + v) + arriving.clump * more)
    # A prompt longer than the room takes more steps, which decode beside it.
    length = np.sqrt(max(np.log1p(v), 1e-9))
    above = np.log(np.maximum(p, 1e-12)) - length**2 / 2.0 - np.log(room)
    cut = normal_share(above / length)
    left = np.maximum(p * normal_share((above + length**2) / length) - room * cut, 0.0)
    pace = start / room
    own = p + left * pace + 0.5 * start * cut
    own_variance = p * p * v * (1.0 + pace * cut) ** 2
    mean = rest + others + own
    variance = rest_variance + others_variance + own_variance + loop.busy * arriving.rate * p * uneven
    log, spread = _log_normal(mean, variance)
    # Prompts that earlier steps had no room for.
    full = np.clip(stable_chunks(loop), 0.0, 0.98)
    behind = law.backlog * (1.0 + pace) / (1.0 - full)
    queued = np.clip(law.mixed * (1.0 - law.ends) * (start + room) / law.mean, 1e-6, 0.999)
    late = behind / queued
    queued = np.where((behind > 1e-9) & (queued > SELDOM), queued, 0.0)
    late_log, late_spread = _log_normal(mean + late, variance + late**2)
    some_behind = bool(queued.any())
    last = (start + p).max(axis=0)
    probability = np.where(wait.probability > RARE, wait.probability, 0.0)
    waits = bool(probability.any())

    def below(seconds: FloatArray) -> FloatArray:
        over = seconds - start
        log_over = np.log(np.maximum(over, 1e-12))
        share = normal_share((log_over - log) / spread)
        if some_behind:
            share = share + queued * (normal_share((log_over - late_log) / late_spread) - share)
        found = (WEIGHTS[:, None] * np.where(over > 0.0, share, 0.0)).sum(axis=0)
        if waits:
            placed = np.where(seconds > last, 1.0 - wait.survival(seconds - last), 0.0)
            found = found + probability * (placed - found)
        return np.asarray(found)

    reach = np.maximum(log + 3.3 * spread, np.where(queued > 0.0, late_log + 3.3 * late_spread, -np.inf))
    rare = 0.2 * (1.0 - max(levels))
    longest = np.log(np.maximum(probability / rare, 1.0)) / (wait.slope * wait.pace)
    high = np.maximum((start + np.exp(reach)).max(axis=0), last + longest)
    return _solve(below, start.min(axis=0), high, levels)


def _log_normal(mean: FloatArray, variance: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return mean and standard deviation of the logarithm of a log-normal variable."""
    square = np.log1p(np.maximum(variance, 0.0) / np.maximum(mean, 1e-12) ** 2) + 1e-9
    return np.log(np.maximum(mean, 1e-12)) - square / 2.0, np.sqrt(square)


def _solve(
    below: Callable[[FloatArray], FloatArray], low: FloatArray, high: FloatArray, levels: Sequence[float]
) -> dict[float, FloatArray]:
    """Return where a distribution function reaches levels, in the logarithm.

    Args:
        below: Seconds of shape (n,) to probabilities of shape (n,).
        low: Seconds that nothing is below, shape (n,).
        high: Seconds that hardly anything is above, shape (n,).
        levels: Between 0 and 1.
    """
    first, last = np.log(low), np.log(high)
    columns = np.arange(low.size)
    places = first + (last - first) * np.linspace(0.0, 1.0, COARSE + 2)[:, None]
    shares = np.stack([np.zeros_like(low), *(below(np.exp(place)) for place in places[1:-1]), np.ones_like(low)])
    found = {}
    for level in levels:
        upper = np.clip((shares < level).sum(axis=0), 1, COARSE + 1)
        a, b = places[upper - 1, columns], places[upper, columns]
        at_a, at_b = shares[upper - 1, columns] - level, shares[upper, columns] - level
        for _ in range(ROUNDS):
            # The end that stays twice counts half (the Illinois variant of regula falsi).
            middle = a - at_a * (b - a) / np.maximum(at_b - at_a, 1e-12)
            middle = np.clip(middle, a + EDGE * (b - a), b - EDGE * (b - a))
            at = below(np.exp(middle)) - level
            lower = at < 0.0
            at_a, at_b = np.where(lower, at, at_a / 2.0), np.where(lower, at_b / 2.0, at)
            a, b = np.where(lower, middle, a), np.where(lower, b, middle)
        found[level] = np.asarray(np.exp(np.clip(a - at_a * (b - a) / np.maximum(at_b - at_a, 1e-12), a, b)))
    return found
