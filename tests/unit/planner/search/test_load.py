"""The load of a deployment: scaled, in flight, as a job, and the capacity that is kept free beside it."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import NormalDist
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import Scaling
from energylens.data import find_gpu
from energylens.planner.search.job import Job, job_figures, serving_seconds
from energylens.planner.search.load import BURST_ODDS, Load, Reserve, burst, of_job, thinned
from energylens.planner.search.starts import start_of
from energylens.predictor.types import Workload

WORKLOAD = Workload(300, 400)


def test_a_load_is_scaled_in_its_own_unit() -> None:
    rate, level = Load(WORKLOAD, requests_per_second=3.0), Load(WORKLOAD, concurrency=7)
    assert rate.scaled(0.5).requests_per_second == 1.5
    assert rate.scaled(0.5).concurrency is None
    assert [level.scaled(factor).concurrency for factor in (0.01, 0.5, 1.0, 2.0)] == [1, 3, 7, 14]
    assert level.scaled(0.5).requests_per_second is None


def test_only_a_rate_has_no_requests_in_flight() -> None:
    assert Load(WORKLOAD, concurrency=7).in_flight == 7
    with pytest.raises(ValueError, match="an arrival rate has no number of requests in flight"):
        _ = Load(WORKLOAD, requests_per_second=3.0).in_flight


def prediction(tokens: list[float], lowest: list[float]) -> Any:
    low = SimpleNamespace(low=np.array(lowest))
    return SimpleNamespace(supported=np.ones(len(tokens)), output_tokens_per_second=np.array(tokens), throughput=low)


def test_the_load_may_use_what_headroom_leaves_otherwise_what_is_surely_there() -> None:
    found = prediction([100.0, 0.5, 0.0], [80.0, 0.45, 0.0])
    assert Reserve(headroom=0.25).allowed(found).tolist() == [0.75, 0.75, 0.75]
    assert Reserve().allowed(found).tolist() == [0.8, 0.9, 1.0]


def test_the_share_of_the_replicas_that_do_not_fail() -> None:
    replicas = np.array([1, 2, 3, 5])
    assert Reserve(spare=2).left(replicas).tolist() == [0.0, 0.0, pytest.approx(1 / 3), 0.6]
    assert Reserve().left(replicas).tolist() == [1.0, 1.0, 1.0, 1.0]


def test_a_burst_is_bernsteins_bound_and_grows_with_the_variation() -> None:
    odds = -math.log(BURST_ODDS)
    for mean, variation in ((0.0, 1.0), (9.0, 1.0), (9.0, 4.0)):
        expected = mean + math.sqrt(2 * odds * variation * mean) + odds * variation / 3
        assert float(burst(np.array([mean]), variation)[0]) == pytest.approx(expected)
    assert burst(np.array([9.0])) == burst(np.array([9.0]), 1.0)


def test_requests_that_go_to_a_random_replica_arrive_more_evenly() -> None:
    bursty = replace(WORKLOAD, arrival_variation=5.0)
    assert np.allclose(thinned(bursty, np.array([1, 2, 4])).arrival_variation, [5.0, 3.0, 2.0])
    mixed = replace(WORKLOAD, arrival_variation=np.array([1.0, 5.0]))
    assert np.allclose(thinned(mixed, np.array([2, 2])).arrival_variation, [1.0, 3.0])
    assert thinned(WORKLOAD, np.array([1, 2])) is WORKLOAD


def test_equal_answers_are_served_in_whole_rounds() -> None:
    requests, running = np.array([1.0, 4.0, 5.0, 8.0, 0.5]), np.array([4.0, 4.0, 4.0, 4.0, 4.0])
    assert serving_seconds(requests, running, np.full(5, 10.0), 0.0).tolist() == [10.0, 10.0, 20.0, 20.0, 10.0]
    # Rounding noise makes no further round.
    assert serving_seconds(np.array([3.0]), np.array([1.0 - 1e-10]), np.array([10.0]), 0.0).tolist() == [30.0]


@pytest.mark.parametrize(
    ("requests", "running", "rounds", "last", "variation"),
    [(100.0, 100.0, 1, 100, 1.0), (5.0, 100.0, 1, 5, 1.0), (250.0, 100.0, 3, 100, 1.0), (100.0, 100.0, 1, 100, 0.25)],
)
def test_the_last_round_lasts_until_its_longest_answer_is_there(
    requests: float, running: float, rounds: int, last: int, variation: float
) -> None:
    spread = math.log(1.0 + variation)
    longest = math.exp(NormalDist().inv_cdf(0.5 ** (1 / last)) * math.sqrt(spread) - spread / 2)
    found = serving_seconds(np.array([requests]), np.array([running]), np.array([10.0]), variation)
    assert float(found[0]) == pytest.approx(10.0 * (rounds - 1 + longest), rel=1e-6)
    assert longest > 1.5


@pytest.mark.parametrize(("requests", "running"), [(1.0, 8.0), (1.0, 0.25)])
def test_a_single_answer_takes_its_mean_time(requests: float, running: float) -> None:
    rounds = math.ceil(requests / running)
    found = serving_seconds(np.array([requests]), np.array([running]), np.array([10.0]), 0.115)
    assert found.tolist() == [10.0 * rounds]


GPU = find_gpu("H200")


@pytest.mark.parametrize(("idles", "after"), [(True, 600.0), (False, 0.0)])
def test_a_job_draws_power_before_while_and_after_it_is_served(idles: bool, after: float) -> None:
    job = Job(1000.0, idles, start_seconds=100)
    start = job.start_of(GPU, 1e9)
    assert start == start_of(1, GPU, 1e9, Scaling(start_seconds=100))
    found = job_figures(job, GPU, np.array([8]), 1e9, np.array([300.0]), np.array([5000.0]), np.array([700.0]))
    assert found.serving_seconds.tolist() == [300.0]
    assert found.utilization.tolist() == [pytest.approx(300.0 / 900.0)]
    assert found.completion_seconds.tolist() == [400.0]
    assert found.serving_joules.tolist() == [1.5e6]
    assert found.other_joules.tolist() == [pytest.approx(8 * start.joules + after * 700.0)]


def test_a_job_that_ends_late_or_has_no_time_left_idles_for_none() -> None:
    seconds, power = np.array([950.0]), np.array([5000.0])
    late = job_figures(Job(1000.0, True, 100), GPU, np.array([1]), 1e9, seconds, power, np.array([700.0]))
    assert late.other_joules.tolist() == [pytest.approx(Job(1000.0, True, 100).start_of(GPU, 1e9).joules)]
    for deadline in (100.0, 60.0):
        none = job_figures(Job(deadline, False, 100), GPU, np.array([1]), 1e9, seconds, power, np.array([700.0]))
        assert none.utilization.tolist() == [math.inf]
    short = job_figures(Job(100.5, False, 100), GPU, np.array([1]), 1e9, seconds, power, np.array([700.0]))
    assert short.utilization.tolist() == [1900.0]


def test_the_figures_of_a_job_are_over_all_of_its_time() -> None:
    load, job = Load(WORKLOAD, concurrency=900, job=Job(4000.0, True, 200)), Job(4000.0, True, 200)
    figures = {
        "concurrency": np.array([64.0]), "output_tokens_per_second": np.array([3200.0]),
        "power_watts": np.array([2000.0]), "idle_power_watts": np.array([300.0]),
        "joules_per_output_token": np.array([0.6]), "joules_low": np.array([0.5]), "joules_high": np.array([0.8]),
        "joules_upper": np.array([0.7]), "unshared_deviation": np.array([0.1]), "layout_deviation": np.array([0.2]),
    }  # fmt: skip
    found = of_job(load, job, GPU, np.array([4]), 1e9, np.array([2]), figures)
    # 450 requests for each of two replicas, 32 at once, each answer 400 * 32 / 1600 s.
    serving = 15 * 8.0
    own, start = 2000.0 * serving, job.start_of(GPU, 1e9)
    other = 4 * start.joules + (4000.0 - 200.0 - serving) * 300.0
    expected = {
        "utilization": serving / 3800.0, "completion_seconds": 200.0 + serving, "job_start_seconds": 200.0,
        "job_joules": own + other, "idle_job_share": other / (own + other),
        "joules_per_output_token": (own + other) / 3.6e5, "joules_low": (own * 0.5 / 0.6 + other) / 3.6e5,
        "joules_high": (own * 0.8 / 0.6 + other) / 3.6e5, "joules_upper": (own * 0.7 / 0.6 + other) / 3.6e5,
        "unshared_deviation": 0.1 * own / (own + other), "layout_deviation": 0.2 * own / (own + other),
    }  # fmt: skip
    assert {name: float(values[0]) for name, values in found.items()} == pytest.approx(expected)
