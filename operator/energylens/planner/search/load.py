"""The load of a deployment, and the capacity that a plan keeps free beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from energylens.planner.search.job import Job, job_figures, serving_seconds
from energylens.predictor.load.arrivals import thinned_variation
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Workload
from energylens.records import dataclass


@dataclass(frozen=True)
class Load:
    """Load of the whole deployment: an arrival rate, a number of requests in flight, or a job."""

    workload: Workload
    requests_per_second: float | None = None
    concurrency: int | None = None
    """Requests in flight; for a job, all of its requests."""
    job: Job | None = None

    @property
    def in_flight(self) -> int:
        """Requests in flight; for a job, all of its requests.

        Raises:
            ValueError: The load is an arrival rate.
        """
        if self.concurrency is None:
            raise ValueError("an arrival rate has no number of requests in flight")
        return self.concurrency

    def scaled(self, factor: float) -> Load:
        """Return the load times a factor; a concurrency stays a whole number of at least 1."""
        if self.concurrency is not None:
            return replace(self, concurrency=max(1, math.floor(self.concurrency * factor)))
        return replace(self, requests_per_second=(self.requests_per_second or 0.0) * factor)


@dataclass(frozen=True)
class Reserve:
    """Capacity that a plan keeps free."""

    headroom: float | None = None
    """Free share of the highest rate, 0 to below 1. None: the amount by which each candidate's throughput may be
    overestimated, down to the lower end of its 80 % interval."""
    spare: int = 0
    """Number of replicas that may fail while the others still sustain the load."""

    def allowed(self, prediction: Prediction) -> FloatArray:
        """Return the share of the capacity that the load may use, shape (n,)."""
        if self.headroom is not None:
            return np.full(len(prediction.supported), 1.0 - self.headroom)
        with np.errstate(divide="ignore", invalid="ignore"):
            surely = prediction.throughput.low / prediction.output_tokens_per_second
        return np.where(prediction.output_tokens_per_second > 0, surely, 1.0)

    def left(self, replicas: IntArray) -> FloatArray:
        """Return the share of the replicas that remains when the spare ones fail, shape (n,): 0 if none remains."""
        return np.maximum(replicas - self.spare, 0) / replicas


NO_RESERVE = Reserve(headroom=0.0)
BURST_ODDS = 1e-4
"""Probability that more requests run at once than :func:`burst` returns."""


def burst(running: FloatArray, variation: float | FloatArray = 1.0) -> FloatArray:
    """Return how many sequences run at once in a burst, given their mean ``running``; same shape.

    The result bounds the Poisson distribution: more sequences run with probability `BURST_ODDS` at most (Bernstein's
    inequality; Boucheron, Lugosi and Massart, Concentration Inequalities, 2013, section 2.4). Arrivals with a larger
    squared coefficient of variation, ``variation``, are treated as Poisson arrivals of batches of that size.
    """
    odds = -math.log(BURST_ODDS)
    return np.asarray(running + np.sqrt(2.0 * odds * variation * running) + odds * variation / 3.0)


def of_job(
    load: Load,
    job: Job,
    gpu: GpuSpec,
    gpus: IntArray,
    weights: float,
    replicas: IntArray,
    figures: Mapping[str, FloatArray],
) -> dict[str, FloatArray]:
    """Return the figures of candidates that differ for a job, by name, shape (n,) each.

    Args:
        load: The requests of the job.
        job: Deadline and start.
        gpu: The GPU product.
        gpus: GPUs of all replicas, shape (n,).
        weights: Bytes of all weights of a replica.
        replicas: Replicas, shape (n,).
        figures: Figures while all batches are full, shape (n,) each.
    """
    requests, output = load.in_flight, load.workload.output_tokens
    each, pace = figures["concurrency"] / replicas, figures["output_tokens_per_second"] / replicas
    seconds = serving_seconds(np.ceil(requests / replicas), each, output * each / pace, load.workload.output_variation)
    found = job_figures(job, gpu, gpus, weights, seconds, figures["power_watts"], figures["idle_power_watts"])
    whole = found.serving_joules + found.other_joules
    changed = {
        "utilization": found.utilization,
        "completion_seconds": found.completion_seconds,
        "job_start_seconds": found.completion_seconds - found.serving_seconds,
        "job_joules": whole,
        "idle_job_share": found.other_joules / whole,
    }
    for name in ("joules_per_output_token", "joules_low", "joules_high", "joules_upper"):
        # Only the energy of serving has an interval; start and idling have none.
        ratio = figures[name] / figures["joules_per_output_token"]
        changed[name] = (found.serving_joules * ratio + found.other_joules) / (requests * output)
    for name in ("unshared_deviation", "layout_deviation"):
        changed[name] = figures[name] * found.serving_joules / whole
    return changed


def thinned(workload: Workload, replicas: IntArray) -> Workload:
    """Return the load of one of ``replicas`` replicas, shape (m,), if each request goes to a random replica."""
    if np.all(workload.arrival_variation == 1.0):
        return workload
    return replace(workload, arrival_variation=thinned_variation(workload.arrival_variation, replicas))
