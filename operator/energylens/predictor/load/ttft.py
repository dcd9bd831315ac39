"""Time to first token at an operating point: of arrivals at a rate, and where each request follows another's end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from energylens.predictor.load.first_token import first_token_quantile
from energylens.predictor.load.operating_point import OperatingPoint
from energylens.predictor.load.queueing import closed_loop_wait, wait_quantile, wait_tail
from energylens.predictor.model.parameters import kv_cache_bytes
from energylens.predictor.types import FloatArray

FIRST_TOKEN_SECONDS = 0.008
"""From a request's first byte to its answer's, beside the engine's steps: HTTP, tokenizing, hops between processes.
Measured at one request at a time on one H200 host with vLLM 0.26: 7 to 11 ms over four models of 14 to 30 thousand
million parameters."""
LEVELS = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class ServedPace:
    """How fast replicas serve after the residual; arrays of shape (n,)."""

    step_factor: FloatArray
    """What every step of the mixture is multiplied by."""
    step: FloatArray
    """Mean step, seconds."""
    tpot_ms: FloatArray
    """Median time per output token."""
    tokens_per_second: FloatArray
    """Output tokens of the replica."""


def ttft_ms(point: OperatingPoint, served: ServedPace, steps_ahead: float) -> Mapping[float, FloatArray]:
    """Return quantiles of the time to first token in milliseconds by level, shape (n,) each; infinite for overload.

    Args:
        point: Where the replicas run.
        served: How fast they serve there.
        steps_ahead: Steps that the engine composes before the one that a request joins.
    """
    # A replica that only decodes gets the prompt's cache over a link.
    transfer = _transfer_seconds(point) if point.scenario.role == "decode" else 0.0
    quantiles = _open_loop if point.waiting is None else _closed_loop
    return {level: 1e3 * seconds for level, seconds in quantiles(point, served, steps_ahead, transfer).items()}


def _open_loop(
    point: OperatingPoint, served: ServedPace, steps_ahead: float, transfer: float
) -> dict[float, FloatArray]:
    """Return quantiles in seconds under Poisson arrivals."""
    base = _unqueued(point, served, steps_ahead, transfer, met=point.busy)
    prefill = _prefill(point, served, 1.0)
    service = served.step * point.scenario.workload.decode_steps + prefill
    queued = point.sustainable & (point.utilization < 1.0)
    load = np.where(queued, point.running / np.maximum(point.places, 1e-9), 0.0)
    found = {}
    for level in LEVELS:
        joined = first_token_quantile(level, point.pace.mixture, point.busy, steps_ahead, point.starts_together)
        waited = joined * served.step_factor + transfer + FIRST_TOKEN_SECONDS
        waited = waited + wait_quantile(level, load, point.places, service)
        # Beyond capacity the queue grows for ever.
        found[level] = np.where(queued, waited, np.where(point.sustainable, base, np.inf))
    return found


def _closed_loop(
    point: OperatingPoint, served: ServedPace, steps_ahead: float, transfer: float
) -> dict[float, FloatArray]:
    """Return quantiles in seconds with a fixed number of requests in flight, each of which follows another.

    A prompt waits for the prompts of those, and before that for a place where there are fewer places than requests
    (Little's law).
    """
    in_flight = point.running_while_busy / point.scenario.layouts.data_parallel
    base = _unqueued(point, served, steps_ahead, transfer, met=np.minimum(in_flight - 1.0, 1.0))
    one_more = _prefill(point, served, 2.0) - _prefill(point, served, 1.0)
    output = point.scenario.workload.output_tokens
    decoding = 1e-3 * served.tpot_ms * (output - 1.0)
    behind_others = closed_loop_wait(in_flight, one_more, decoding)
    most = (in_flight - 1.0) * one_more
    prompts_busy = most / (decoding + base + behind_others)
    assert point.waiting is not None
    for_a_place = point.waiting * output / served.tokens_per_second
    return {level: base + wait_tail(level, behind_others, prompts_busy, most) + for_a_place for level in LEVELS}


def _unqueued(
    point: OperatingPoint, served: ServedPace, steps_ahead: float, transfer: float, met: FloatArray
) -> FloatArray:
    """Return seconds to the first token without waiting for a place or for other prompts.

    Args:
        point: Where the replicas run.
        served: How fast they serve there.
        steps_ahead: Steps already scheduled, which a request that comes while others run waits for, too.
        transfer: Seconds that the prompt's cache takes over a link.
        met: Probability that a request comes while others run; it waits for the rest of their step.
    """
    rest = met * served.step * (0.5 + steps_ahead)
    return np.asarray(FIRST_TOKEN_SECONDS + _prefill(point, served, 1.0) + rest + transfer)


def _prefill(point: OperatingPoint, served: ServedPace, prompts: float) -> FloatArray:
    """Return seconds of a step that computes a number of prompts of mean length."""
    return np.asarray(point.pace.mixture.with_starts(prompts / point.starts_together) * served.step_factor)


def _transfer_seconds(point: OperatingPoint) -> float:
    """Return seconds to move a prompt's KV cache from a prefill replica: PCIe speed, the slowest common link."""
    scenario = point.scenario
    return kv_cache_bytes(scenario.model, scenario.workload.input_tokens) / scenario.gpu.pcie_bandwidth
