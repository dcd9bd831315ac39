"""The law of steps, and of running sequences, against steps that are drawn one after the other."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.predictor.load.occupancy import WEIGHTS, Occupancy, Overlap, clusters, occupancy
from energylens.predictor.load.queueing import in_order, place_wait, queue_variation
from energylens.predictor.load.step_law import Arriving, StepLaw, StepTerms, normal_share, step_law

DECODE, ONCE, PROMPT = 0.010, 0.004, 0.020
VARIANCE = 0.28
"""Of a prompt's length over the square of the mean: log-normal with a deviation of 0.497."""


def drawn(rate: float, room: float, steps: int = 120_000) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return steps, each of which computes what arrived during the one before, as far as it has room."""
    rng = np.random.default_rng(5)
    deviation = np.sqrt(np.log1p(VARIANCE))
    seconds, backlog = np.empty(steps), 0.0
    last = DECODE
    for i in range(steps):
        arrived = rng.poisson(rate * last)
        if arrived:
            backlog += PROMPT * float(np.exp(rng.normal(-(deviation**2) / 2, deviation, arrived)).sum())
        done = min(backlog, room)
        backlog -= done
        last = DECODE + (ONCE + done if done > 0 else 0.0)
        seconds[i] = last
    return seconds


def law(rate: float, room: float = 10.0) -> StepLaw:
    one = np.ones(1)
    return step_law(
        Arriving(rate * one, VARIANCE * one, one), StepTerms(DECODE * one, ONCE * one, PROMPT * one, room * one)
    )


@pytest.mark.parametrize("rate", [1.0, 10.0, 30.0])
def test_moments_are_those_of_steps_that_take_in_what_arrived_during_the_last(rate: float) -> None:
    sample, found = drawn(rate, 10.0), law(rate)
    assert found.mean[0] == pytest.approx(sample.mean(), rel=0.01)
    assert found.square[0] == pytest.approx((sample**2).mean(), rel=0.05)
    assert found.cube[0] == pytest.approx((sample**3).mean(), rel=0.10)
    assert found.mixed[0] == pytest.approx((sample > DECODE).mean(), rel=0.05)
    assert found.backlog[0] < 1e-6


@pytest.mark.parametrize(("rate", "room"), [(5.0, 0.010), (15.0, 0.020), (25.0, 0.040)])
def test_a_step_with_little_room_is_full_more_often_and_never_longer(rate: float, room: float) -> None:
    sample, found = drawn(rate, room), law(rate, room)
    assert found.mean[0] == pytest.approx(sample.mean(), rel=0.05)
    assert found.mixed[0] == pytest.approx((sample > DECODE).mean(), rel=0.10)
    full = (sample > DECODE + ONCE + room - 1e-12).mean()
    assert found.mixed[0] * (1.0 - found.ends[0]) == pytest.approx(full, rel=0.3)
    assert found.backlog[0] > 0.0


def test_the_logistic_approximation_of_the_normal_share_keeps_its_error() -> None:
    at = np.array([-3.0, -1.0, 0.0, 0.5, 2.0])
    assert normal_share(at) == pytest.approx([0.00135, 0.15866, 0.5, 0.69146, 0.97725], abs=1.5e-4)


def test_without_prompts_the_number_that_runs_is_that_of_processor_sharing() -> None:
    # Mean step d0 + d1 n: a negative binomial, whose variance is the mean / (1 - rate x output x d1).
    mean, growth = np.array([40.0]), np.array([0.5])
    poisson = occupancy(mean, growth, clusters(np.zeros(1), 0.0, 0.0, np.ones(1)), Overlap())
    # Over time, not over steps: those with many sequences are longer.
    successes, more = 41.0, 0.5
    assert poisson.mean[0] == pytest.approx(successes * more / (1.0 - more))
    assert poisson.variance[0] == pytest.approx(successes * more / (1.0 - more) ** 2)
    assert poisson.third[0] == pytest.approx(successes * more * (1.0 + more) / (1.0 - more) ** 3)
    bursty = occupancy(mean, growth, clusters(np.zeros(1), 0.0, 0.0, np.full(1, 4.0)), Overlap())
    assert bursty.variance[0] == pytest.approx(320.0 * (1.0 + 0.5 * 320.0 / 40.0**2))


def test_requests_that_start_while_prompts_halt_decoding_are_the_progeny_of_others() -> None:
    halted, variance = 0.4, 0.8
    rng = np.random.default_rng(4)
    spread = np.log1p(variance)
    progeny, living = np.ones(60_000), np.ones(60_000)
    while living.any():
        # The prompts of a generation take the time in which the next one arrives.
        time = np.zeros(living.size)
        for born in range(1, int(living.max()) + 1):
            time += (living >= born) * np.exp(rng.normal(-spread / 2.0, np.sqrt(spread), living.size))
        living = rng.poisson(halted * time).astype(np.float64)
        progeny += living
    third = (1.0 + variance) ** 3 - 3.0 * (1.0 + variance) + 2.0
    found = clusters(np.array([halted]), variance, third, np.ones(1))
    # The number of clusters is Poisson distributed.
    assert found.second[0] == pytest.approx((progeny**2).mean() / progeny.mean(), rel=0.05)
    assert found.third[0] == pytest.approx((progeny**3).mean() / progeny.mean(), rel=0.2)


def test_states_have_the_mean_and_the_variance_that_they_stand_for() -> None:
    states = Occupancy(np.array([60.0]), np.array([200.0]), np.zeros(1)).states(np.array([1e9]))[:, 0]
    mean = float(WEIGHTS @ states)
    assert mean == pytest.approx(60.0, rel=0.01)
    assert float(WEIGHTS @ (states - mean) ** 2) == pytest.approx(200.0, rel=0.05)
    few = Occupancy(np.array([60.0]), np.array([200.0]), np.zeros(1)).states(np.array([64.0]))
    assert few.max() == 64.0


@pytest.mark.parametrize("variance", [200.0, 3600.0, 20_000.0])
def test_states_keep_their_mean_however_bursty(variance: float) -> None:
    states = Occupancy(np.array([60.0]), np.array([variance]), np.zeros(1)).states(np.array([1e9]))
    assert float(WEIGHTS @ states[:, 0]) == pytest.approx(60.0)


def test_more_requests_arrive_while_many_run() -> None:
    running = Occupancy(np.array([60.0]), np.array([300.0]), np.zeros(1))
    states = running.states(np.array([1e9]))
    assert running.arrivals_at(states, np.ones(1)) == pytest.approx(1.0)
    at = running.arrivals_at(states, np.full(1, 4.0))[:, 0]
    assert (np.diff(at) > 0.0).all()
    # Five more running than the mean are seen with 1.5 x 5 / 300 more arrivals; the mean rate stays.
    assert running.arrivals_at(np.array([[65.0]]), np.full(1, 4.0))[0, 0] == pytest.approx(1.025)
    assert float(WEIGHTS @ at) == pytest.approx(1.0)
    assert running.arrivals_at(np.array([[0.0]]), np.full(1, 40.0))[0, 0] > 0.0


def waited(load: float, places: int, deterministic: bool) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return waits in a queue of so many servers with a mean service of one second."""
    rng = np.random.default_rng(6)
    n, now = 120_000, 0.0
    gaps = rng.exponential(1.0 / (load * places), n)
    service = np.ones(n) if deterministic else rng.exponential(1.0, n)
    free = np.zeros(places)
    waits = np.empty(n)
    for i in range(n):
        now += gaps[i]
        server = int(free.argmin())
        waits[i] = max(0.0, free[server] - now)
        free[server] = max(now, free[server]) + service[i]
    return waits[n // 4 :]


@pytest.mark.parametrize("deterministic", [True, False], ids=["outputs of one length", "exponential outputs"])
@pytest.mark.parametrize("load", [0.8, 0.9])
def test_the_wait_for_a_place_is_that_of_a_simulated_queue(load: float, deterministic: bool) -> None:
    places = 16
    sample = waited(load, places, deterministic)
    poisson = np.array([load * places])
    offered = Occupancy(poisson, poisson, poisson)
    variation = 0.0 if deterministic else 1.0
    varied = queue_variation(np.ones(1), np.zeros(1), 0.0, variation, 0.0)
    wait = place_wait(offered, np.array([16.0]), np.array([load]), np.array([16.0]), varied)
    assert wait.probability[0] == pytest.approx((sample > 1e-9).mean(), rel=0.25)
    for level in (0.95, 0.99):
        at = np.quantile(sample, level)
        assert np.log(wait.probability * wait.survival(np.array([at])))[0] == pytest.approx(
            np.log(1.0 - level), rel=0.2
        ), level


def test_a_wait_becomes_rare_far_from_the_places_and_sure_at_capacity() -> None:
    poisson = np.array([10.0, 100.0])
    offered = Occupancy(poisson, poisson, poisson)
    varied = queue_variation(np.ones(2), np.zeros(2), 0.0, 0.0, 0.0)
    wait = place_wait(offered, np.array([100.0, 100.0]), np.array([0.1, 1.0]), np.array([50.0, 50.0]), varied)
    assert wait.probability[0] < 1e-12
    assert wait.probability[1] > 0.9


def test_equal_requests_wait_less_often_than_requests_that_end_at_random() -> None:
    # 1 - the probability that the maximum of a Gaussian random walk is 0, over the formula of Halfin and Whitt.
    np.testing.assert_allclose(in_order(np.array([1e-6, 0.5, 1.0])), [1.0, 0.933, 0.893], atol=1e-3)
    far = in_order(np.array([2.0, 30.0]))
    assert far[0] == far[1]


@pytest.mark.parametrize(
    ("prompts", "outputs", "covariance", "early", "late"),
    [
        # Equal requests: what starts in a cluster ends in one, and over many lives only arrivals vary.
        (0.0, 0.0, 0.0, 2.0, 1.0),
        # Exponential outputs, as in M/M/c.
        (0.0, 1.0, 0.0, 2.0, 2.0),
        # Prompts take half of the time: a quarter of the variance of outputs counts, and of prompts as much.
        (0.5, 1.0, 0.0, 1.25 + 0.25, 1.25 + 0.25),
        # Long prompts with short outputs are work that varies less.
        (0.5, 1.0, -0.5, 1.25 + 0.25, 1.25 + 0.25 - 0.25),
    ],
)
def test_the_queue_varies_with_arrivals_and_with_the_work_of_requests(
    prompts: float, outputs: float, covariance: float, early: float, late: float
) -> None:
    found = queue_variation(np.ones(1), np.array([prompts]), 1.0, outputs, covariance)
    assert found.early[0] == pytest.approx(early)
    assert found.late[0] == pytest.approx(late)


def test_a_tail_whose_late_variation_is_larger_becomes_flatter() -> None:
    offered = Occupancy(np.array([90.0]), np.array([90.0]), np.array([90.0]))
    varied = queue_variation(np.ones(1), np.zeros(1), 0.0, 3.0, 0.0)
    wait = place_wait(offered, np.array([100.0]), np.array([0.9]), np.array([50.0]), varied)
    log = np.log(wait.survival(np.arange(0.0, 40.0, 2.0)[:, None]))[:, 0]
    slopes = np.diff(log)
    assert (np.diff(slopes) > -1e-12).all()
    assert slopes[0] < slopes[-1] == pytest.approx(-2.0 * 0.1 / 4.0 * 50.0 * 2.0)


def test_no_wait_is_more_than_certain_where_outputs_vary_more_than_arrivals() -> None:
    varied = queue_variation(np.array([1.0]), np.array([0.1]), 0.5, 10.0, 0.0)
    offered = Occupancy(np.array([3.1]), np.array([2.9]), np.array([2.9]))
    wait = place_wait(offered, np.array([5.17]), np.array([0.999]), np.array([1.0]), varied)
    assert 0.9 < wait.probability[0] <= 1.0
