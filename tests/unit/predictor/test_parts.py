"""The pieces that the predictor is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.predictor.load.mixture import StepMixture, normal_quantile, normal_quantiles
from energylens.predictor.model.architecture import MoeFfn
from energylens.predictor.step.latency import reduce_floor, soft_maximum
from energylens.predictor.step.moe import expert_load, experts_hit, most_loaded
from energylens.predictor.step.power import capped, frequency_fraction


def test_experts_hit_follows_the_formula_and_never_exceeds_all() -> None:
    tokens = np.array([1.0, 8.0, 64.0, 1e6])
    found = experts_hit(128, 8, tokens)
    assert found[0] == pytest.approx(8)
    assert found[1] == pytest.approx(128 * (1 - (1 - 8 / 128) ** 8))
    assert found[3] == pytest.approx(128)
    assert experts_hit(8, 8, tokens).tolist() == [8.0] * 4


@given(st.floats(1, 5000), st.floats(0.1, 2.0))
def test_uneven_routing_hits_fewer_experts(tokens: float, skew: float) -> None:
    even = experts_hit(128, 8, np.array([tokens]))
    assert experts_hit(128, 8, np.array([tokens]), skew)[0] <= even[0] * (1 + 1e-6)


def test_the_most_loaded_rank_is_the_mean_on_one_gpu_and_in_the_limit() -> None:
    assert most_loaded(np.array([10.0]), np.array([1.0]))[0] == 1.0
    assert most_loaded(np.array([1e9]), np.array([8.0]))[0] == pytest.approx(1.0, abs=1e-4)
    assert most_loaded(np.array([1.0]), np.array([2.0]))[0] <= 2.0


def test_popular_experts_keep_one_rank_busier_however_many_tokens_there_are() -> None:
    pairs, ranks = np.array([1e9]), np.array([8.0])
    even, uneven = most_loaded(pairs, ranks, 128, 0.0)[0], most_loaded(pairs, ranks, 128, 1.2)[0]
    assert even == pytest.approx(1.0, abs=1e-4)
    assert 1.3 < uneven < 8.0
    # More experts on a rank even out.
    assert most_loaded(pairs, ranks, 512, 1.2)[0] < uneven
    assert most_loaded(pairs, np.array([1.0]), 128, 1.2)[0] == 1.0


def test_the_gpu_with_the_most_pairs_reads_more_weights_until_all_its_experts_are_hit() -> None:
    mixture = MoeFfn(experts=128, top_k=8, intermediate=768)
    tokens, eight = np.array([4.0, 16.0, 4096.0]), np.full(3, 8.0)
    found = expert_load(mixture, 2048, 2.0, tokens, eight, np.ones(3))
    assert (found.hit_max_over_mean[:2] > 1.05).all()
    assert (found.hit_max_over_mean <= found.max_over_mean).all()
    assert found.hit_max_over_mean[2] == pytest.approx(1.0, abs=1e-6)
    assert found.max_over_mean[2] > 1.01


@given(st.floats(0, 1e3), st.floats(0, 1e3))
def test_a_soft_maximum_lies_between_the_larger_and_the_sum(a: float, b: float) -> None:
    found = soft_maximum(np.array([a]), np.array([b]))[0]
    assert max(a, b) * (1 - 1e-12) <= found <= (a + b) * (1 + 1e-12)


def test_the_floor_of_a_collective_is_measured_at_2_4_and_8() -> None:
    floors = {"reduce_floor_2_us": 6.0, "reduce_floor_4_us": 8.0, "reduce_floor_8_us": 11.0}
    found = reduce_floor(floors, np.array([2.0, 4.0, 8.0, 16.0])) * 1e6
    assert found.tolist() == pytest.approx([6.0, 8.0, 11.0, 14.0])


@given(st.floats(1, 3000), st.floats(100, 1000))
def test_capped_power_stays_below_the_limit_and_the_demand(power: float, limit: float) -> None:
    found = capped(np.array([power]), np.array([limit]))[0]
    assert found <= min(power, limit) * (1 + 1e-12)
    assert found == pytest.approx(power, rel=1e-3) or power > 0.5 * limit


def test_the_clock_falls_with_the_square_root_of_dynamic_power() -> None:
    found = frequency_fraction(np.array([500.0, 500.0]), np.array([100.0, 100.0]), np.array([600.0, 200.0]))
    assert found.tolist() == pytest.approx([1.0, 0.5])


def mixture(starts: float, decode: float = 0.010, mixed: float = 0.040) -> StepMixture:
    one = np.array([1.0])
    return StepMixture(starts * one, decode * one, mixed * one, 0.0 * one)


def test_a_rare_prefill_leaves_the_median_at_the_decode_step_and_moves_the_mean() -> None:
    rare = mixture(0.05)
    assert rare.quantile(0.5)[0] == pytest.approx(0.010, rel=1e-3)
    assert rare.quantile(0.99)[0] > 0.035
    assert rare.mean[0] == pytest.approx(0.010 + 0.030 * -np.expm1(-0.05))


@given(st.floats(0.0, 50.0))
def test_quantiles_are_ordered_and_bounded_below_by_the_decode_step(starts: float) -> None:
    steps = mixture(starts)
    values = [steps.quantile(level)[0] for level in (0.5, 0.9, 0.95, 0.99)]
    assert values == sorted(values)
    assert values[0] >= 0.010 * (1 - 1e-9)


@pytest.mark.parametrize(("starts", "base", "spread"), [(0.05, 0.0, 0.0), (0.4, 0.01, 0.8), (3.0, 0.004, 0.5)])
def test_the_tpot_of_requests_spreads_as_means_of_drawn_steps_do(starts: float, base: float, spread: float) -> None:
    one, tokens, running = np.array([1.0]), 50, 1e9
    steps = StepMixture(starts * one, 0.010 * one, 0.060 * one, base * one, spread)
    draw = np.random.default_rng(3)
    counts = draw.poisson(starts, size=(4000, tokens - 1))
    slope = (0.060 - 0.010 - base) / steps.starts_when_mixed[0]
    lengths = np.zeros(counts.shape)
    for count in range(1, int(counts.max()) + 1):
        lengths += (counts >= count) * draw.lognormal(-(spread**2) / 2, spread, counts.shape)
    drawn = (0.010 + np.where(counts > 0, base, 0.0) + slope * lengths).mean(axis=1)
    assert steps.tpot(running * one)[0] == pytest.approx(drawn.mean(), rel=0.01)
    found = steps.tpot_spread(running * one, tokens)[0]
    assert found == pytest.approx(np.log(drawn).std(), rel=0.08)
    # Four times the steps halve it, and a request that runs alone meets no prompt of another.
    assert steps.tpot_spread(running * one, 197)[0] == pytest.approx(found / 2, rel=0.02)
    assert steps.tpot_spread(one, tokens)[0] == 0.0


def test_normal_quantiles() -> None:
    assert normal_quantile(0.975) == pytest.approx(1.959964, abs=1e-5)
    with pytest.raises(ValueError, match="between 0 and 1"):
        normal_quantile(1.0)
    levels = np.array([1e-5, 0.02, 0.3, 0.5, 0.77, 0.99, 0.9999])
    assert normal_quantiles(levels) == pytest.approx([normal_quantile(float(level)) for level in levels], abs=1e-7)
