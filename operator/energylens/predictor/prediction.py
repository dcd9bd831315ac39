"""Results of predictions: memory, latencies, power and energy of n candidates, each with its interval.

Power, throughput and energy are those of one engine replica, all of its GPUs together.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Interval:
    """An 80 % prediction interval, arrays of shape (n,)."""

    low: FloatArray
    high: FloatArray


@dataclass(frozen=True)
class Memory:
    """Memory of the most loaded GPU of a replica, arrays of shape (n,)."""

    weight_bytes: FloatArray
    reserved_bytes: FloatArray
    """Activations, graphs, communication buffers and the engine's own reserve."""
    kv_bytes_per_token: FloatArray
    state_bytes_per_sequence: FloatArray
    """Recurrent state, independent of the length."""
    kv_capacity_tokens: FloatArray
    """Tokens that the KV cache of one data-parallel rank holds; 0 if the weights do not fit."""
    max_concurrency: FloatArray
    """Mid-life sequences of the workload's mean length that one replica can keep running, before max_batch_size."""
    fits: BoolArray
    """Whether the weights and at least one sequence of full length fit."""

    def take(self, index: npt.NDArray[np.int64]) -> Self:
        """Return the candidates that an index array of shape (m,) selects."""
        return type(self)(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


FARTHEST = 3
"""Value of `Prediction.nearest` if nothing near was measured."""


@dataclass(frozen=True)
class Prediction:
    """Steady-state behaviour of one replica, arrays of shape (n,).

    If ``supported`` is False, the other numbers are NaN and ``reason`` says why.
    """

    supported: BoolArray
    reason: npt.NDArray[np.str_]
    """Empty if supported; otherwise a sentence that names the rule, such as heads that are not divisible."""
    sustainable: BoolArray
    """Whether the offered load is below capacity (always True for a given concurrency that fits)."""
    concurrency: FloatArray
    """Mean running sequences of the replica; with more requests than it has room for, up to a tenth above
    ``max_concurrency``, because the estimate of the room is conservative."""
    max_concurrency: FloatArray
    """min(max_batch_size x data_parallel, KV capacity)."""
    utilization: FloatArray
    """Ratio of the offered output tokens per second to the capacity; 1 if saturated."""
    mean_step_ms: FloatArray
    tpot_ms: FloatArray
    """Time per output token of a request after its first token, the median over requests, including the prefill of
    others."""
    tpot_p95_ms: FloatArray
    tpot_p99_ms: FloatArray
    decoding_p50_ms: FloatArray
    """Time from a request's first token to its last, quantiles over requests."""
    decoding_p95_ms: FloatArray
    decoding_p99_ms: FloatArray
    itl_decode_ms: FloatArray
    """ITL of a step that computes no prompt: steps of any size leave no high percentile below."""
    itl_p50_ms: FloatArray
    itl_p90_ms: FloatArray
    itl_p95_ms: FloatArray
    itl_p99_ms: FloatArray
    ttft_p50_ms: FloatArray
    ttft_p95_ms: FloatArray
    ttft_p99_ms: FloatArray
    output_tokens_per_second: FloatArray
    power_watts: FloatArray
    """Mean over time, including idle gaps."""
    idle_power_watts: FloatArray
    """Power of the same replica without requests."""
    joules_per_output_token: FloatArray
    """power_watts / output_tokens_per_second, including prefill and idle time."""
    itl: Interval
    """Interval of the median ITL, ms."""
    tpot: Interval
    ttft: Interval
    """Interval of the median TTFT, ms."""
    throughput: Interval
    power: Interval
    energy: Interval
    """Interval of ``joules_per_output_token``, J."""
    unshared_deviation: FloatArray
    """Standard deviation of the error of log(joules_per_output_token) without the part that all candidates of one model
    and engine share, and without measurement noise."""
    layout_deviation: FloatArray
    """Part of that deviation that separates two layouts of one product with equally near measurements."""
    nearest: IntArray
    """The nearest measurement, as indices into `energylens.predictor.fitted.features.NEAREST`."""
    memory: Memory


def spread(found: Prediction, index: npt.NDArray[np.int64], reason: npt.NDArray[np.str_], held: Memory) -> Prediction:
    """Return the prediction of n candidates from that of the m which can run.

    Args:
        found: Prediction of the candidates that can run, shape (m,).
        index: Indices of these candidates, shape (m,).
        reason: Why each candidate cannot run, shape (n,); empty if it can.
        held: Memory of all candidates, shape (n,).
    """
    n = len(reason)

    def column(values: Any) -> Any:
        if isinstance(values, Interval):
            return Interval(column(values.low), column(values.high))
        if values.dtype == np.int64:
            out = np.full(n, FARTHEST)
        else:
            out = np.zeros(n, dtype=np.bool_) if values.dtype == np.bool_ else np.full(n, np.nan)
        out[index] = values
        return out

    columns = {f.name: column(getattr(found, f.name)) for f in fields(Prediction) if f.name not in ("reason", "memory")}
    return Prediction(**columns, reason=reason, memory=held)
