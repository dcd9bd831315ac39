"""Percentiles of TTFT and ITL of replicas under an arrival rate.

The distribution is a mixture over the slowly changing number of running sequences (:mod:`occupancy`), each with its own
law of steps (:mod:`step_law`). A request waits for a place in the batch (:mod:`queueing`), for the rest of the step
during which it arrives, and for steps that are already composed; its prompt then shares steps with other prompts. The
inter-token latency is the step, which every running sequence experiences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from energylens.predictor.load.arrivals import thinned_variation
from energylens.predictor.load.decoding import Decoding, Life, decoding
from energylens.predictor.load.first_token import FirstTokens
from energylens.predictor.load.loop import RARE, OpenLoop, clump_of, room_of, seconds_apart, solve
from energylens.predictor.load.occupancy import MOST_GROWTH, MOST_HALTED, WEIGHTS, Occupancy, clusters, occupancy
from energylens.predictor.load.queueing import PlaceWait, place_wait, queue_variation
from energylens.predictor.load.step_law import Arriving, StepLaw, StepTerms, normal_share, step_law
from energylens.predictor.load.step_work import grouped, third_moment
from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Latencies:
    """Quantiles in seconds by level, arrays of shape (n,)."""

    ttft: Mapping[float, FloatArray]
    """TTFT from arrival at the scheduler to the first token; infinite nowhere."""
    step: Mapping[float, FloatArray]
    """Step as a running sequence experiences it."""
    decoding: Decoding
    class_ttft: tuple[Mapping[float, FloatArray], ...] = ()
    """TTFT of each class of requests, if requested."""


def latencies(
    loop: OpenLoop, levels: Sequence[float], first_token_levels: Sequence[float], *, by_class: bool = False
) -> Latencies:
    """Return quantiles of steps and of TTFT, each at its own levels; with ``by_class``, also the TTFT of each class."""
    each = (loop.terms.decode + loop.terms.once) / np.maximum(1.0 - loop.lane_rate * loop.terms.prompt, 0.02)
    clump = clump_of(loop.arrival_variation, loop.lanes, loop.lane_rate * each)
    # Lanes vary independently.
    spread = _spread(loop, loop.lanes)
    groups = grouped(loop.prompts)
    here = step_law(Arriving(loop.lane_rate, np.asarray(loop.prompt_variance), clump, groups), loop.terms)
    wait = _wait(loop, here, _spread(loop, loop.schedulers))
    waits = wait.probability > RARE
    unlike, same = _alike(loop, waits)
    few = loop.take(unlike)
    lane = Occupancy(spread.mean[unlike], spread.variance[unlike], spread.third[unlike])
    in_lane = lane.states(few.places / few.lanes)
    states = in_lane * few.lanes
    terms = _terms_at(few, states)
    # What clumps within steps is over before the sequences tell of it.
    slow = thinned_variation(few.arrival_variation, few.lanes) - clump[unlike] + 1.0
    rate = few.lane_rate * lane.arrivals_at(in_lane, slow)
    arriving = Arriving(rate, np.asarray(few.prompt_variance), clump[unlike], groups)
    law = step_law(arriving, terms)
    step = _step_quantiles(few, states, terms, law, levels)
    first = FirstTokens(few, terms, law, arriving, wait.take(unlike), first_token_levels)
    apart = first.of_classes() if by_class else []
    ttft, step, *classes = (
        {level: values[same] for level, values in quantiles.items()} for quantiles in (first.of_all(), step, *apart)
    )
    return Latencies(ttft, step, decoding(_life(loop, here, spread)), tuple(classes))


def _life(loop: OpenLoop, law: StepLaw, around: Occupancy) -> Life:
    """Return the conditions of a request in one lane.

    ``law`` describes steps at the mean number of running sequences, ``around`` the running sequences of a lane.
    """
    terms, seconds = loop.terms, loop.output_steps * law.mean
    # The time with all places taken; no step is longer than one filled with prompts.
    full = loop.places / np.maximum(loop.most * seconds, 1e-12)
    longest = terms.decode + loop.decode_slope * np.maximum(loop.places - loop.running, 0.0) + terms.once + terms.room
    return Life(
        running=np.maximum(loop.running / loop.lanes, 1e-3),
        around=around,
        growth=loop.rate * loop.output_steps * loop.mean_slope,
        rate=loop.lane_rate,
        prompt=terms.prompt,
        prompt_variance=loop.prompt_variance,
        arrival_variation=thinned_variation(loop.arrival_variation, loop.lanes),
        seconds=seconds,
        fullest=np.maximum(np.minimum(full, longest / law.mean), 1.0),
    )


def _spread(loop: OpenLoop, parts: FloatArray) -> Occupancy:
    """Return the distribution of the running sequences on one of ``parts`` lanes or ranks, with places for all."""
    terms = loop.terms
    arriving = loop.running / loop.output_steps / loop.lanes
    halted = loop.lane_rate * (terms.prompt + terms.once * np.exp(-np.minimum(arriving, 50.0)))
    growth = loop.rate * loop.output_steps * loop.mean_slope
    # Little's law with steps in which requests start one by one, and with the growth of steps that follows.
    halted = np.minimum(halted, MOST_HALTED)
    longer = seconds_apart(loop, loop.running) / (1.0 - halted)
    running = loop.running + loop.rate * loop.output_steps * longer / (1.0 - np.clip(growth, 0.0, MOST_GROWTH))
    mean = np.maximum(running / parts, 1e-3)
    variation = thinned_variation(loop.arrival_variation, parts)
    starts = clusters(halted, loop.prompt_variance, third_moment(loop.prompts), variation)
    return occupancy(mean, growth, starts, loop.together)


def _wait(loop: OpenLoop, law: StepLaw, spread: Occupancy) -> PlaceWait:
    """Return the wait for a place; requests before their first token also occupy places."""
    terms = loop.terms
    first = law.square / law.mean * (0.5 + loop.lane_rate * terms.prompt) + loop.steps_ahead * law.mean
    first = first + terms.decode + terms.once + terms.prompt
    each, arrivals = 1.0 / loop.schedulers, thinned_variation(loop.arrival_variation, loop.schedulers)
    mean = spread.mean + loop.rate * first * each + (arrivals - 1.0) / 2.0
    load = np.minimum(loop.rate / np.maximum(loop.most, 1e-12), 1.0)
    offered = Occupancy(np.maximum(mean, 1e-3), spread.variance, spread.third)
    places = np.maximum(loop.places * each, 1.0)
    pace = np.maximum(loop.most * each, 1e-12)
    share = np.minimum(loop.lane_rate * terms.prompt, 1.0)
    varied = queue_variation(arrivals, share, loop.prompt_variance, loop.output_variation, loop.shape_covariance)
    return place_wait(offered, places, load, pace, varied)


def _alike(loop: OpenLoop, waits: BoolArray) -> tuple[IntArray, IntArray]:
    """Return the first of each kind of replicas, and the index of each replica's kind.

    Args:
        loop: The replicas.
        waits: Whether requests wait for a place, shape (n,); only then do places and their throughput matter.
    """
    fields = vars(loop) | {"places": np.where(waits, loop.places, -1.0), "most": np.where(waits, loop.most, -1.0)}
    rows = [*fields.values(), *vars(loop.terms).values()]
    columns = np.stack([row for row in rows if isinstance(row, np.ndarray) and row.shape == loop.rate.shape], axis=1)
    bits = columns.astype(np.float64).view(np.uint64)
    # A number for each row takes a tenth of the time of looking up or sorting rows; rows are compared below.
    numbers = (bits * _odd_numbers(bits.shape[1])).sum(axis=1, dtype=np.uint64)
    _, first, same = np.unique(numbers, return_index=True, return_inverse=True)
    same = same.reshape(-1)
    if not (bits == bits[first[same]]).all():
        _, first, same = np.unique(bits, axis=0, return_index=True, return_inverse=True)
    return np.asarray(first), np.asarray(same).reshape(-1)


@lru_cache(maxsize=16)
def _odd_numbers(count: int) -> npt.NDArray[np.uint64]:
    """Return ``count`` fixed odd numbers of 64 well-mixed bits, which tell sums of other numbers apart.

    They are the first of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Importing ``numpy.random`` takes longer than
    a prediction.
    """
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((mixed ^ (mixed >> np.uint64(31))) | np.uint64(1))


def _terms_at(loop: OpenLoop, states: FloatArray) -> StepTerms:
    """Return the times of steps at other numbers of running sequences, shape of ``states``."""
    terms = loop.terms
    decode = terms.decode + loop.decode_slope * (np.maximum(states, 1.0) - np.maximum(loop.running, 1.0))
    room = room_of(loop.step_tokens, states / loop.lanes, loop.lockstep, loop.prompt_tokens) * terms.prompt
    return StepTerms(np.maximum(decode, 0.5 * terms.decode), terms.once, terms.prompt, np.maximum(room, 1e-9))


def _step_quantiles(
    loop: OpenLoop, states: FloatArray, terms: StepTerms, law: StepLaw, levels: Sequence[float]
) -> dict[float, FloatArray]:
    """Return quantiles of the step over running sequences; each state counts by its tokens per second."""
    tokens = WEIGHTS[:, None] * np.maximum(states, 1e-3) / law.mean
    weights = tokens / tokens.sum(axis=0)
    # Within one state, steps vary by as much as the states between two points.
    width = np.maximum(np.abs(loop.decode_slope) * 0.35 * np.sqrt(np.var(states, axis=0)), 1e-3 * terms.decode)
    start = terms.decode + terms.once

    def below(seconds: FloatArray) -> FloatArray:
        work = seconds - start
        part = law.ends * np.where(work < terms.room, law.arrived_below(work, terms.room), 1.0)
        part = part + (1.0 - law.ends) * normal_share((work - terms.room) / width)
        share = (1.0 - law.mixed) * normal_share((seconds - terms.decode) / width) + law.mixed * part
        return np.asarray((weights * share).sum(axis=0))

    high = (start + np.minimum(law.reach, terms.room) + 4.0 * width).max(axis=0)
    return solve(below, (0.5 * terms.decode).min(axis=0), high, levels)
