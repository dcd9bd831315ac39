"""Latencies at an operating point, under an arrival rate or a fixed number of requests in flight."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from energylens.predictor.load.chunks import RARE, Chunks
from energylens.predictor.load.decoding import Decoding
from energylens.predictor.load.loop import OpenLoop, room_of, stable_chunks
from energylens.predictor.load.occupancy import overlap
from energylens.predictor.load.open_loop import Latencies, latencies
from energylens.predictor.load.operating_point import OperatingPoint, prompts_together
from energylens.predictor.load.queueing import closed_loop_wait, mixed_wait_tail, wait_tail
from energylens.predictor.load.step_law import StepTerms
from energylens.predictor.load.step_work import Group
from energylens.predictor.model.parameters import kv_cache_bytes
from energylens.predictor.requests import over_requests, prompt_variation, shape_covariance, variation_of
from energylens.predictor.types import FloatArray, Workload
from energylens.records import dataclass

FIRST_TOKEN_SECONDS = 0.008
"""Time outside of the engine's steps between a request's first byte and its answer's first byte: HTTP, tokenization,
inter-process communication. Measured with one request at a time on one H200 host with vLLM 0.26: 7 to 11 ms over four
models of 14 to 30 billion parameters."""
LEVELS = (0.5, 0.95, 0.99)
STEP_LEVELS = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class ServedPace:
    """Throughput of replicas after the learned correction; arrays of shape (n,)."""

    step_factor: FloatArray
    """Factor on every step of the mixture."""
    step: FloatArray
    """Mean step, seconds."""
    tpot_ms: FloatArray
    """Median time per output token."""
    tokens_per_second: FloatArray
    """Output tokens per second of the replica."""


@dataclass(frozen=True)
class Schedule:
    """How an engine composes its steps."""

    steps_ahead: float
    """Steps that are composed before the step that a request joins."""
    step_tokens: FloatArray
    """Most tokens in a step of a rank, shape (n,)."""
    default_tokens: FloatArray
    """The same if no argument says otherwise."""


def arrival_latencies(
    point: OperatingPoint, served: ServedPace, schedule: Schedule, *, by_class: bool = False
) -> Latencies:
    """Return quantiles in seconds under an arrival rate: TTFT at a client, steps, and how requests decode.

    TTFT is infinite if the load cannot be sustained. With ``by_class``, the result also has the TTFT of each class.
    """
    loop = open_loop(point, served, schedule)
    stable = point.sustainable & (stable_chunks(loop) < 1.0)
    some = np.flatnonzero(stable)
    found = latencies(loop.take(some), STEP_LEVELS, LEVELS, by_class=by_class)
    more = FIRST_TOKEN_SECONDS + (_transfer_seconds(point) if point.scenario.role == "decode" else 0.0)
    # Beyond capacity the queue grows without bound, and steps are those of a full replica.
    first, *classes = (
        {level: np.full(stable.shape, np.inf) for level in LEVELS} for _ in range(1 + len(found.class_ttft))
    )
    steps = {level: seconds * served.step_factor for level, seconds in saturated_steps(point).items()}
    for level in LEVELS:
        first[level][some] = found.ttft[level] + more
        for each, quantiles in zip(classes, found.class_ttft, strict=True):
            each[level][some] = quantiles[level] + more
    for level in STEP_LEVELS:
        steps[level][some] = found.step[level]
    rest = saturated_decoding(point)
    for name, values in vars(found.decoding).items():
        getattr(rest, name)[some] = values
    return Latencies(first, steps, rest, tuple(classes))


def saturated_decoding(point: OperatingPoint) -> Decoding:
    """Return how requests decode if a fixed number is in flight: they differ by the prompts that start beside them."""
    running = point.running_while_busy / point.scenario.lanes
    spread = point.pace.mixture.tpot_spread(running, point.scenario.workload.averaged_steps)
    return Decoding(np.ones_like(spread), spread, np.full_like(spread, np.inf))


def saturated_steps(point: OperatingPoint) -> dict[float, FloatArray]:
    """Return quantiles in seconds of the steps of a full replica by level, shape (n,) each, from physics alone.

    Steps have room for all prompts.
    """
    mixture = point.pace.mixture
    median = mixture.quantile(0.5)
    steps = {level: mixture.tail(level, median) for level in STEP_LEVELS if level > 0.5}
    steps[0.5] = median if point.median_step is None else point.median_step
    return steps


def steps_in_flight(point: OperatingPoint, schedule: Schedule) -> dict[float, FloatArray]:
    """Return quantiles in seconds of steps by level, shape (n,) each, with a fixed number of requests in flight.

    No step has more prompt tokens than the engine's limit. The median of the default was fitted to runs, so that other
    limits only change it by a factor.
    """
    steps = saturated_steps(point)
    own, default = (_chunks(point, tokens) for tokens in (schedule.step_tokens, schedule.default_tokens))
    limited, changed = own.longer > RARE, schedule.step_tokens != schedule.default_tokens
    if limited.any():
        for level in STEP_LEVELS[1:]:
            steps[level] = np.where(limited, own.quantile(level), steps[level])
    if changed.any():
        steps[0.5] = np.where(changed, steps[0.5] * own.quantile(0.5) / default.quantile(0.5), steps[0.5])
    for level in STEP_LEVELS[1:]:
        steps[level] = np.maximum(steps[level], steps[0.5])
    return steps


def _chunks(point: OperatingPoint, step_tokens: FloatArray) -> Chunks:
    scenario = point.scenario
    running, ranks = point.running_while_busy / scenario.lanes, scenario.lockstep_ranks
    room = room_of(step_tokens, running, ranks, scenario.workload.computed_prompt)
    return Chunks(point.pace.mixture, room / point.starts_together, point.starts_together)


def open_loop(point: OperatingPoint, served: ServedPace, schedule: Schedule) -> OpenLoop:
    """Return the replicas of an operating point as requests under an arrival rate find them."""
    scenario, workload, mixture = point.scenario, point.scenario.workload, point.pace.mixture
    layouts, factor = scenario.layouts, served.step_factor
    running, together = point.running_while_busy, point.starts_together
    lockstep = scenario.lockstep_ranks
    # A step of a pipeline is a round of all its micro-batches.
    lanes = scenario.lanes
    base = mixture.with_starts(np.zeros_like(running))
    prompt = (mixture.with_starts(1.0 / together) - base) * factor
    room = prompt * room_of(schedule.step_tokens, running / lanes, lockstep, workload.computed_prompt)
    terms = StepTerms(mixture.decode * factor, (base - mixture.decode) * factor, prompt, np.maximum(room, 1e-9))
    assert point.most is not None
    decode_slope, mean_slope = _slopes(point, terms, served, arriving=point.rate / lanes)
    spread = np.asarray(mixture.prompt_spread, dtype=np.float64)
    within = float(np.expm1(np.max(spread) ** 2))
    return OpenLoop(
        rate=point.rate,
        running=point.running,
        busy=point.busy,
        places=np.maximum(point.places, 1.0),
        most=point.most,
        lanes=lanes,
        lockstep=lockstep,
        schedulers=layouts.data_parallel.astype(np.float64),
        terms=terms,
        decode_slope=decode_slope,
        mean_slope=mean_slope,
        prompt_variance=prompt_variation(workload.parts, within),
        arrival_variation=np.broadcast_to(np.asarray(workload.arrival_variation, dtype=np.float64), running.shape),
        output_variation=workload.output_variation,
        together=overlap(tuple(workload.parts)),
        output_steps=workload.decode_steps,
        shape_covariance=shape_covariance(workload.parts),
        step_tokens=schedule.step_tokens,
        prompt_tokens=workload.computed_prompt,
        steps_ahead=schedule.steps_ahead,
        prompts=_prompts(workload, within),
    )


def _prompts(workload: Workload, within: float) -> tuple[Group, ...]:
    """Return the prompts of each class; ``within`` is the variation for classes that state none."""
    parts, mean = workload.parts, over_requests(workload.parts, "computed_prompt")
    return tuple(Group(part.share, part.computed_prompt / mean, variation_of(part, within)) for part in parts)


def _slopes(
    point: OperatingPoint, terms: StepTerms, served: ServedPace, arriving: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the seconds by which one more running sequence lengthens a decode step and the mean step, shape (n,)."""
    beside = point.beside
    assert beside is not None
    more = beside.running - point.running_while_busy
    base = beside.mixture.with_starts(np.zeros_like(more))
    together = prompts_together(point.scenario, beside.mixture, beside.running)
    prompt = (beside.mixture.with_starts(1.0 / together) - base) * served.step_factor
    decode, once = beside.mixture.decode * served.step_factor, (base - beside.mixture.decode) * served.step_factor

    def mean(decode: FloatArray, once: FloatArray, prompt: FloatArray) -> FloatArray:
        halted = np.maximum(1.0 - arriving * prompt, 0.02)
        mixed = -np.expm1(-arriving * decode / halted)
        mixed = -np.expm1(-arriving * (decode + once * mixed) / halted)
        return np.asarray((decode + once * mixed) / halted)

    slope = (mean(decode, once, prompt) - mean(terms.decode, terms.once, terms.prompt)) / more
    return (decode - terms.decode) / more, slope


def ttft_in_flight_ms(point: OperatingPoint, served: ServedPace, schedule: Schedule) -> Mapping[float, FloatArray]:
    """Return quantiles of the TTFT in ms by level, if each request follows the end of another.

    Args:
        point: The operating point of the replicas.
        served: Throughput of the replicas at that point.
        schedule: How the engine composes its steps.
    """
    # A decode replica receives the prompt's KV cache over a link.
    transfer = _transfer_seconds(point) if point.scenario.role == "decode" else np.zeros_like(served.step)
    more = transfer + _further_steps(point, served, schedule)
    return {level: 1e3 * seconds for level, seconds in _closed_loop(point, served, schedule.steps_ahead, more).items()}


def _further_steps(point: OperatingPoint, served: ServedPace, schedule: Schedule) -> FloatArray:
    """Return by how many seconds a prompt takes longer than in steps of the default length, shape (n,)."""
    if point.scenario.role == "decode" or not (schedule.step_tokens != schedule.default_tokens).any():
        return np.zeros_like(served.step)
    own, default = (_chunks(point, tokens).of_prompt for tokens in (schedule.step_tokens, schedule.default_tokens))
    return np.asarray((own - default) * (point.pace.mixture.decode + point.pace.mixture.once) * served.step_factor)


def _closed_loop(
    point: OperatingPoint, served: ServedPace, steps_ahead: float, more: FloatArray
) -> dict[float, FloatArray]:
    """Return quantiles in seconds with a fixed number of requests in flight, each following the end of another.

    A prompt waits for the other requests' prompts and, with fewer places than requests, first for a place (Little's
    law). ``more`` are seconds, shape (n,), that the first token takes beyond these.
    """
    in_flight = point.running_while_busy / point.scenario.layouts.data_parallel
    base = _unqueued(point, served, steps_ahead, more, met=np.clip(in_flight - 1.0, 0.0, 1.0))
    one_more = _prefill(point, served, 2.0) - _prefill(point, served, 1.0)
    output = point.scenario.workload.output_tokens
    decoding = 1e-3 * served.tpot_ms * (output - 1.0)
    behind_others = closed_loop_wait(in_flight, one_more, decoding)
    most = (in_flight - 1.0) * one_more
    prompts_busy = most / (decoding + base + behind_others)
    assert point.waiting is not None
    for_a_place = point.waiting * output / served.tokens_per_second
    before = base + for_a_place
    classes = point.scenario.workload.classes
    if not classes:
        return {level: before + wait_tail(level, behind_others, prompts_busy, most) for level in LEVELS}
    own = _prefill(point, served, 1.0) - _prefill(point, served, 0.0)
    mean = over_requests(classes, "computed_prompt")
    shifts = [(part.share, before + own * (part.computed_prompt / mean - 1.0)) for part in classes]
    return {level: mixed_wait_tail(level, shifts, behind_others, prompts_busy, most) for level in LEVELS}


def _unqueued(
    point: OperatingPoint, served: ServedPace, steps_ahead: float, more: FloatArray, met: FloatArray
) -> FloatArray:
    """Return seconds to the first token without waiting for a place or for other prompts.

    Args:
        point: The operating point of the replicas.
        served: Throughput of the replicas at that point.
        steps_ahead: Steps that are already scheduled, for which a request that arrives while others run also waits.
        more: Seconds for the transfer of the prompt's KV cache over a link and for further steps, shape (n,).
        met: Probability that a request arrives while others run; it then waits for the rest of their step.
    """
    rest = met * served.step * (0.5 + steps_ahead)
    return np.asarray(FIRST_TOKEN_SECONDS + _prefill(point, served, 1.0) + rest + more)


def _prefill(point: OperatingPoint, served: ServedPace, prompts: float) -> FloatArray:
    """Return seconds of a step that computes a number of prompts of mean length."""
    return np.asarray(point.pace.mixture.with_starts(prompts / point.starts_together) * served.step_factor)


def _transfer_seconds(point: OperatingPoint) -> float:
    """Return seconds to move a prompt's KV cache from a prefill replica: PCIe speed, the slowest common link."""
    scenario = point.scenario
    return kv_cache_bytes(scenario.model, scenario.workload.input_tokens) / scenario.gpu.pcie_bandwidth
