"""The load of a deployment, and the capacity that a plan keeps free beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from energylens.predictor.load.arrivals import thinned_variation
from energylens.predictor.types import FloatArray, IntArray, Prediction, Workload


@dataclass(frozen=True)
class Load:
    """Load of the whole deployment: an arrival rate, or a number of requests in flight."""

    workload: Workload
    requests_per_second: float | None = None
    concurrency: int | None = None

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


def thinned(workload: Workload, replicas: IntArray) -> Workload:
    """Return the load of one of several replicas, ``replicas`` of shape (m,), to which requests go at random."""
    if np.all(workload.arrival_variation == 1.0):
        return workload
    return replace(workload, arrival_variation=thinned_variation(workload.arrival_variation, replicas))
