"""Percentiles where requests arrive at a rate: ranks, bursts, and replicas that are evaluated together."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor.load.loop import OpenLoop, lasting_variation, seconds_apart, solve
from energylens.predictor.load.occupancy import Overlap
from energylens.predictor.load.open_loop import latencies
from energylens.predictor.load.step_law import StepTerms
from energylens.predictor.load.step_work import Group
from energylens.predictor.types import FloatArray, Layouts, Workload

LEVELS = (0.5, 0.95, 0.99)


def loop(ranks: float, together: float = 1.0, bursts: float = 4.0, rate: float = 18.0) -> OpenLoop:
    """Return a replica of alike ranks, each of which serves ``rate`` requests per second with 40 places."""

    def one(value: float) -> FloatArray:
        return np.array([value])

    return OpenLoop(
        rate=one(rate * ranks),
        running=one(30.0 * ranks),
        busy=one(1.0),
        places=one(40.0 * ranks),
        most=one(22.0 * ranks),
        lanes=one(ranks / together),
        lockstep=one(together),
        schedulers=one(ranks),
        terms=StepTerms(one(0.010), one(0.002), one(0.012), one(0.2)),
        decode_slope=one(1e-5 / ranks),
        mean_slope=one(3e-5 / ranks),
        prompt_variance=0.5,
        # Of all requests, such that each rank sees bursts of the same size.
        arrival_variation=one(1.0 + (bursts - 1.0) * ranks),
        output_variation=0.3,
        together=Overlap(),
        output_steps=100.0,
        shape_covariance=0.0,
        step_tokens=one(8192.0),
        prompt_tokens=300.0,
        steps_ahead=1.0,
        prompts=(Group(1.0, 1.0, 0.5),),
    )


@pytest.mark.parametrize("bursts", [1.0, 4.0])
def test_ranks_that_step_apart_are_as_fast_as_one_with_its_share_of_the_requests(bursts: float) -> None:
    one, four = (latencies(loop(ranks, bursts=bursts), LEVELS, LEVELS) for ranks in (1.0, 4.0))
    for level in LEVELS:
        np.testing.assert_allclose(four.ttft[level], one.ttft[level], rtol=1e-9)
        np.testing.assert_allclose(four.step[level], one.step[level], rtol=1e-9)
        np.testing.assert_allclose(four.decoding.quantile(level), one.decoding.quantile(level), rtol=1e-9)


def test_tokens_of_ranks_that_step_apart_take_the_time_of_their_steps() -> None:
    predictor, model, rates = load_predictor("vllm"), load_model("meta-llama/Llama-3.1-8B-Instruct"), [1e-4, 0.01, 1.0]
    ones = np.ones(3, dtype=np.int64)
    for ranks in (1, 2, 8):
        where = Layouts(ones, ones, ones, ones * ranks, ones * 64, np.full(3, np.nan))
        load = np.array(rates) * ranks
        found = predictor.at_rate(model, find_gpu("H100"), where, Workload(1000.0, 100.0), load)
        # No median step computes a prompt, and few steps do.
        assert (found.tpot_ms > 0.98 * found.itl_p50_ms).all(), ranks
        assert (found.tpot_ms < 1.1 * found.itl_p50_ms).all(), ranks


@pytest.mark.parametrize("rate", [0.01, 0.3, 3.0])
def test_ranks_that_step_apart_idle_as_much_as_one_with_its_share_of_the_requests(rate: float) -> None:
    predictor, model, workload = (
        load_predictor("vllm"),
        load_model("meta-llama/Llama-3.1-8B-Instruct"),
        Workload(1e3, 100.0),
    )
    one, ranks = np.ones(2, dtype=np.int64), np.array([1, 8])
    where = Layouts(one, one, one, ranks, one * 64, np.full(2, np.nan))
    found = predictor.at_rate(model, find_gpu("H100"), where, workload, rate * ranks)
    for quantity in (found.joules_per_output_token, found.ttft_p50_ms, found.ttft_p95_ms):
        assert quantity[1] == pytest.approx(quantity[0], rel=0.03)


def test_a_replica_is_no_other_for_one_beside_it_that_differs_in_one_figure() -> None:
    plain = loop(1.0, rate=0.0)
    for name in ("once", "prompt", "room"):
        columns = {key: np.repeat(value, 2) for key, value in vars(plain.terms).items()}
        columns[name][0] *= 3.0
        beside = {key: np.repeat(value, 2) for key, value in vars(plain).items() if isinstance(value, np.ndarray)}
        both = OpenLoop(**{**vars(plain), **beside, "terms": StepTerms(**columns)})
        alone, found = latencies(plain, LEVELS, LEVELS), latencies(both, LEVELS, LEVELS)
        assert found.ttft[0.99][1] == pytest.approx(alone.ttft[0.99][0], rel=1e-12), name


def test_replicas_without_requests_are_those_that_they_are_alone() -> None:
    predictor, model = load_predictor("vllm", "0.11.1"), load_model("Qwen/Qwen3-30B-A3B")
    one = np.ones(4, dtype=np.int64)
    ranks = np.array([1, 2, 1, 2])
    where = Layouts(np.array([1, 1, 2, 2]), one, ranks, ranks, one * 64, np.full(4, np.nan))
    both = predictor.at_rate(model, find_gpu("H100"), where, Workload(300.0, 400.0), np.zeros(4))
    assert both.supported.sum() > 1
    for i in np.flatnonzero(both.supported).tolist():
        alone = predictor.at_rate(
            model, find_gpu("H100"), where.take(np.array([i])), Workload(300.0, 400.0), np.zeros(1)
        )
        for name in ("ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms"):
            assert np.isfinite(getattr(both, name)[i])
            assert getattr(both, name)[i] == pytest.approx(getattr(alone, name)[0], rel=1e-12), (i, name)


def test_requests_that_start_one_by_one_take_more_steps_with_a_prompt_than_those_that_start_together() -> None:
    alone = loop(1.0, bursts=1.0)
    # 40 places and 100 steps: 0.4 starts per step, in clusters of 1.6.
    apart = np.exp(-0.4 / 1.6) - np.exp(-0.4)
    np.testing.assert_allclose(seconds_apart(alone, alone.places), 0.002 * apart)
    # In bursts fewer steps have any start: none with the probability of a negative binomial number.
    bursts = loop(1.0)
    clump = 1.0 + 3.0 * (1.0 - np.exp(-2.5 * np.sqrt(0.4)))
    none = clump ** (-0.4 / (clump - 1.0))
    np.testing.assert_allclose(seconds_apart(bursts, bursts.places), 0.002 * (np.exp(-0.4 / 1.6) - none))
    # Ranks that step together are counted one by one already.
    together = loop(4.0, together=4.0)
    assert not seconds_apart(together, together.places).any()


def test_bursts_of_arrivals_last_where_outputs_are_equal() -> None:
    assert lasting_variation(4.0, 0.0, 100.0) == 4.0
    assert lasting_variation(1.0, 0.5, 100.0) == 1.0
    # Outputs of 100 steps, give or take 70: two of them end together once in 250 cases.
    assert lasting_variation(4.0, 0.5, 100.0) == pytest.approx(1.0 + 3.0 / 250.7, rel=1e-4)
    assert lasting_variation(0.25, 0.5, 100.0) == pytest.approx(1.0 - 0.75 / 250.7, rel=1e-4)


@pytest.mark.parametrize(
    ("model", "gpu", "batch", "workload", "carried"),
    [
        # Every second step starts a request, which costs a mixture of experts more than the decoding of 32 sequences.
        ("Qwen/Qwen3-30B-A3B", "H100", 32, Workload(100.0, 50.0), (0.80, 0.88)),
        ("Qwen/Qwen3-30B-A3B", "H100", 256, Workload(300.0, 400.0), (0.90, 0.94)),
        ("Qwen/Qwen3-8B", "H200", 256, Workload(300.0, 400.0), (0.99, 1.0)),
        ("Qwen/Qwen3-30B-A3B", "H100", 32, Workload(100.0, 50.0, arrival_variation=4.0), (0.99, 1.02)),
        (
            "Qwen/Qwen3-30B-A3B",
            "H100",
            32,
            Workload(100.0, 50.0, arrival_variation=4.0, output_variation=0.5),
            (0.80, 0.88),
        ),
    ],
)
def test_utilization_is_that_of_the_load_that_single_starts_sustain(
    model: str, gpu: str, batch: int, workload: Workload, carried: tuple[float, float]
) -> None:
    predictor, spec, product = load_predictor("vllm", "0.33.0"), load_model(model), find_gpu(gpu)
    one = np.ones(60, dtype=np.int64)
    where = Layouts(one, one, one, one, one * batch, np.full(60, np.nan))
    together = predictor.at_concurrency(spec, product, where.take(np.array([0])), workload, np.array([float(batch)]))
    closed = together.output_tokens_per_second[0] / workload.output_tokens
    rates = closed * np.linspace(0.5, 1.2, 60)
    found = predictor.at_rate(spec, product, where, workload, rates)
    served = found.output_tokens_per_second / workload.output_tokens
    most = served[-1]
    assert carried[0] * closed < most < carried[1] * closed
    np.testing.assert_allclose(served, np.minimum(rates, most))
    np.testing.assert_allclose(found.utilization, np.minimum(rates / most, 1.0))
    # A queue grows without bound only where the replica is fully utilized.
    np.testing.assert_array_equal(np.isfinite(found.ttft_p99_ms), found.utilization < 1.0)
    np.testing.assert_array_equal(found.sustainable, found.utilization < 1.0)


def test_quantiles_of_a_distribution_that_jumps_are_in_order() -> None:
    jumps = np.geomspace(0.02, 30.0, 60)

    def below(seconds: FloatArray) -> FloatArray:
        # Nearly a jump: all levels lie within a thousandth of it.
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip((np.log(seconds / jumps)) * 1e4, -50.0, 50.0))))

    found = solve(below, np.full(60, 0.01), np.full(60, 40.0), LEVELS)
    assert (found[0.5] <= found[0.95]).all()
    assert (found[0.95] <= found[0.99]).all()


def test_a_wait_that_varied_outputs_prolong_is_not_cut_off() -> None:
    plain = loop(1.0, bursts=1.0, rate=21.0)
    far = OpenLoop(**{**vars(plain), "output_variation": 30.0})
    once, more = latencies(plain, LEVELS, LEVELS), latencies(far, LEVELS, LEVELS)
    # The tail ends with a slope of 1 / (1 + 30) of that of the arrivals alone.
    assert more.ttft[0.99][0] > 5.0 * once.ttft[0.99][0]
    assert more.ttft[0.99][0] > 1.2 * more.ttft[0.95][0]
