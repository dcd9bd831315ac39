"""Waiting for other prompts, against a simulated queue."""

from __future__ import annotations

import heapq

import numpy as np
import pytest

from energylens.predictor.load.queueing import closed_loop_wait, wait_tail


def simulated_wait(requests: int, prefill: float, decoding: float, prompts: int = 4000) -> float:
    """Return the mean wait of one server of constant service with a fixed number of requests, each after the last."""
    random = np.random.default_rng(7)
    arrivals = [float(random.exponential(decoding)) for _ in range(requests)]
    heapq.heapify(arrivals)
    free, waited = 0.0, 0.0
    for _ in range(prompts):
        arrived = heapq.heappop(arrivals)
        start = max(arrived, free)
        waited += start - arrived
        free = start + prefill
        heapq.heappush(arrivals, free + float(random.exponential(decoding)))
    return waited / prompts


@pytest.mark.parametrize(("requests", "prefill", "decoding"), [(4, 0.5, 10.0), (16, 0.1, 4.0), (64, 0.1, 4.0)])
def test_the_wait_in_a_closed_loop_is_that_of_a_simulated_queue(requests: int, prefill: float, decoding: float) -> None:
    found = closed_loop_wait(np.array([float(requests)]), np.array([prefill]), np.array([decoding]))[0]
    assert found == pytest.approx(simulated_wait(requests, prefill, decoding), rel=0.2, abs=0.003)


def test_a_request_alone_waits_for_nobody_and_more_requests_wait_longer() -> None:
    many = np.array([1.0, 2.0, 8.0, 64.0, 4096.0])
    waits = closed_loop_wait(many, np.full(5, 0.2), np.full(5, 3.0))
    assert waits[0] == pytest.approx(0.0, abs=1e-12)
    assert (np.diff(waits) > 0).all()
    assert (waits <= (many - 1.0) * 0.2).all()


def test_quantiles_of_a_wait_rise_and_stay_below_the_longest() -> None:
    mean, busy, most = np.array([0.1, 0.1]), np.array([0.4, 0.9]), np.array([0.3, 9.0])
    median, tail = (wait_tail(q, mean, busy, most) for q in (0.5, 0.99))
    assert (median >= mean).all()
    assert tail[0] == most[0]
    assert median[1] < tail[1] < most[1]
