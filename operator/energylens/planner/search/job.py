"""A batch job: how long its requests take on each candidate, and the energy from the start of the pods to the deadline.

All requests are present from the beginning. Every replica therefore runs as many sequences as its batch holds, until
fewer requests remain. Requests are distributed evenly over the replicas.
"""

from __future__ import annotations

import numpy as np

from energylens.api.llmdeployment import Scaling
from energylens.planner.search.starts import Start, start_of
from energylens.predictor.load.mixture import normal_quantiles
from energylens.predictor.types import FloatArray, GpuSpec, IntArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Job:
    """Deadline and start of a job; its requests are the load."""

    seconds: float
    """Longest time from the creation of the pods to the last answer, s."""
    idles: bool
    """Whether the pods stay until the deadline."""
    start_seconds: int | None = None
    """Measured time of a start, s; None: the time is estimated."""

    def start_of(self, gpu: GpuSpec, weight_bytes: float) -> Start:
        """Return time and energy of a start with one GPU: all GPUs of a replica start at once."""
        return start_of(1, gpu, weight_bytes, Scaling(start_seconds=self.start_seconds))


@dataclass(frozen=True)
class JobFigures:
    """Time and energy of a job on n candidates, arrays of shape (n,)."""

    serving_seconds: FloatArray
    """Time from the first request to the last answer, s."""
    utilization: FloatArray
    """Serving time as a share of the time between start and deadline; infinite if the start takes longer."""
    completion_seconds: FloatArray
    """Time from the creation of the pods to the last answer, s."""
    serving_joules: FloatArray
    """Energy of all GPUs while the requests are served, J."""
    other_joules: FloatArray
    """Energy of all GPUs during the start, and while they idle until the deadline, J."""


def serving_seconds(
    requests: FloatArray, running: FloatArray, answer_seconds: FloatArray, output_variation: float
) -> FloatArray:
    """Return the time in which one replica serves its requests, s, shape (n,).

    If all outputs have one length, requests that start together end together. They are served in rounds, each as long
    as one answer; the last round takes as long as the others, however few requests it has. If output lengths vary,
    rounds overlap, and the last one lasts until the longest answer is complete.

    Args:
        requests: Requests of one replica, shape (n,), at least 1.
        running: Requests that run at once, shape (n,).
        answer_seconds: Time from the start of a request to its last token at that concurrency, shape (n,).
        output_variation: Squared coefficient of variation of the output lengths, assumed to be log-normal.
    """
    spread = np.log1p(output_variation)
    last = np.maximum(np.minimum(requests, running), 1.0)
    # The median of the longest of the last round's outputs.
    longest = np.exp(normal_quantiles(0.5 ** (1.0 / last)) * np.sqrt(spread) - spread / 2.0)
    rounds = np.maximum(np.ceil(np.round(requests / running, 9)), 1.0)
    return np.asarray(answer_seconds * (rounds - 1.0 + np.maximum(longest, 1.0)))


def job_figures(
    job: Job,
    gpu: GpuSpec,
    gpus: IntArray,
    weight_bytes: float,
    seconds: FloatArray,
    power_watts: FloatArray,
    idle_watts: FloatArray,
) -> JobFigures:
    """Return time and energy of a job on n candidates.

    Args:
        job: Deadline and start.
        gpu: The GPU product.
        gpus: GPUs of all replicas, shape (n,).
        weight_bytes: Bytes of all weights of a replica.
        seconds: Time from the first request to the last answer, shape (n,).
        power_watts: Power of all GPUs while the requests are served, shape (n,).
        idle_watts: Power of all GPUs without a request, shape (n,).
    """
    start = job.start_of(gpu, weight_bytes)
    left = job.seconds - start.seconds
    after = np.maximum(left - seconds, 0.0) if job.idles else np.zeros_like(seconds)
    return JobFigures(
        serving_seconds=seconds,
        utilization=seconds / left if left > 0 else np.full_like(seconds, np.inf),
        completion_seconds=start.seconds + seconds,
        serving_joules=power_watts * seconds,
        other_joules=gpus * start.joules + after * idle_watts,
    )
