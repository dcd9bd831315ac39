"""A batch job: how long its requests take on each candidate, and the energy from the start of the pods to the deadline.

All requests are there from the beginning, so that every replica has as many running as it has room for, until fewer
are left than that. Requests are dealt evenly to the replicas.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.api.llmdeployment import Scaling
from energylens.planner.search.starts import Start, start_of
from energylens.predictor.load.mixture import normal_quantiles
from energylens.predictor.types import FloatArray, GpuSpec, IntArray


@dataclass(frozen=True)
class Job:
    """What has to be done, beside the requests, which are the load."""

    seconds: float
    """From the creation of the pods to the last answer, at most."""
    idles: bool
    """The pods stay until the deadline."""
    start_seconds: int | None = None
    """Measured; None: estimated."""

    def start_of(self, gpu: GpuSpec, weight_bytes: float) -> Start:
        """Return time and energy of a start with one GPU: all GPUs of a replica start at once."""
        return start_of(1, gpu, weight_bytes, Scaling(start_seconds=self.start_seconds))


@dataclass(frozen=True)
class JobFigures:
    """A job on n candidates, arrays of shape (n,)."""

    serving_seconds: FloatArray
    """From the first request to the last answer."""
    utilization: FloatArray
    """Of the time that the deadline leaves after the start; infinite where it leaves none."""
    completion_seconds: FloatArray
    """From the creation of the pods to the last answer."""
    serving_joules: FloatArray
    """All GPUs together, as all joules here."""
    other_joules: FloatArray
    """Of the start, and of idling until the deadline."""


def serving_seconds(
    requests: FloatArray, running: FloatArray, answer_seconds: FloatArray, output_variation: float
) -> FloatArray:
    """Return how long one replica takes for its requests, shape (n,).

    Requests that start together end together where their outputs are of one length, so that they are served in rounds
    as long as one answer; the last one takes as long as any other, however few requests are in it. With outputs of many
    lengths the rounds blur, and the last one lasts until the longest answer is there.

    Args:
        requests: Of one replica, shape (n,), 1 or more.
        running: As many as run at once, shape (n,).
        answer_seconds: From the start of a request to its last token while so many run, shape (n,).
        output_variation: Squared coefficient of variation of the output lengths, taken as log-normal.
    """
    spread = np.log1p(output_variation)
    last = np.maximum(np.minimum(requests, running), 1.0)
    # The median of the longest of so many.
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
    """Return a job on n candidates.

    Args:
        job: What has to be done.
        gpu: The product.
        gpus: Over all replicas, shape (n,).
        weight_bytes: Of all weights of a replica.
        seconds: Of the requests, shape (n,).
        power_watts: Of all GPUs while the requests are served, shape (n,).
        idle_watts: Of all GPUs with no request, shape (n,).
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
