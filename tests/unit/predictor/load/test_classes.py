"""A mix of request shapes as one load: its means, its room in memory, and that a mix of one is that one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.predictor.models import layouts, sliding

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor.load.queueing import mixed_wait_tail, wait_tail
from energylens.predictor.load.steady import phase_work
from energylens.predictor.load.step_work import Group, grouped
from energylens.predictor.prediction import Prediction
from energylens.predictor.requests import RequestClass
from energylens.predictor.types import Workload

H100, PREDICTOR, DENSE = find_gpu("H100"), load_predictor("vllm"), load_model("meta-llama/Llama-3.1-8B-Instruct")
ONE = layouts((1, 1, 1, 1))
SHORT, LONG = RequestClass(0.8, 300, 300), RequestClass(0.2, 4000, 100)
MIX = Workload.of_classes((SHORT, LONG))
FIGURES = (
    "joules_per_output_token", "power_watts", "tpot_p95_ms", "itl_p50_ms", "itl_p99_ms", "ttft_p50_ms", "ttft_p95_ms",
    "concurrency",
)  # fmt: skip


def under(workload: Workload, rate: float = 4.0) -> Prediction:
    return PREDICTOR.at_rate(DENSE, H100, ONE, workload, np.array([rate]))


def in_flight(workload: Workload, requests: float = 32.0) -> Prediction:
    return PREDICTOR.at_concurrency(DENSE, H100, ONE, workload, np.array([requests]))


def test_a_mix_of_one_shape_is_that_shape() -> None:
    plain, one = Workload(300, 300), Workload.of_classes((replace(SHORT, share=1.0),))
    for name in FIGURES:
        assert getattr(under(plain), name) == getattr(under(one), name), name


def test_two_classes_of_the_same_shape_are_one_of_it() -> None:
    halves = Workload.of_classes((replace(SHORT, share=0.5), replace(SHORT, share=0.5)))
    for ask in (under, in_flight):
        plain, split = ask(Workload(300, 300)), ask(halves)
        for name in FIGURES:
            assert getattr(split, name) == pytest.approx(getattr(plain, name), rel=1e-6), (ask.__name__, name)


def test_the_means_are_over_requests_and_those_of_running_sequences_by_their_output() -> None:
    assert MIX.input_tokens == pytest.approx(0.8 * 300 + 0.2 * 4000)
    assert MIX.output_tokens == pytest.approx(0.8 * 300 + 0.2 * 100)
    # 240 of 260 tokens are of the short class, which has 300 + 150 in the cache; the long one has 4,000 + 50.
    held = PREDICTOR.memory(DENSE, H100, ONE, MIX)
    alone = PREDICTOR.memory(DENSE, H100, ONE, Workload(300, 300)).max_concurrency[0] * 450.0
    assert held.max_concurrency[0] == pytest.approx(alone / (240 / 260 * 450 + 20 / 260 * 4050), rel=1e-6)


def test_the_longest_class_must_fit_and_not_only_the_mean() -> None:
    rare = Workload.of_classes((RequestClass(0.99, 100, 100), RequestClass(0.01, 900_000, 100)))
    assert not PREDICTOR.memory(DENSE, H100, ONE, rare).fits[0]
    assert PREDICTOR.memory(DENSE, H100, ONE, Workload(rare.input_tokens, rare.output_tokens)).fits[0]


def test_a_window_cuts_the_long_contexts_and_not_the_mean() -> None:
    # Contexts of 32 and 3,200 through a window of 64: 48 on average where classes count alike.
    mix = Workload.of_classes((RequestClass(0.5, 31, 2), RequestClass(0.5, 3199, 2)))
    decode = phase_work(sliding(), H100, ONE, mix, np.array([8.0]), PREDICTOR.coefficients)[0]
    mean = Workload(48 - 1, 2), Workload(1616 - 1, 2)
    local, whole = (phase_work(sliding(), H100, ONE, w, np.array([8.0]), PREDICTOR.coefficients)[0] for w in mean)
    read = [work.cache_bytes.max(axis=1) for work in (decode, local, whole)]
    rows = [i for i in range(len(read[0])) if read[0][i] > 0]
    windowed = [i for i in rows if read[0][i] == pytest.approx(read[1][i])]
    unbound = [i for i in rows if read[0][i] == pytest.approx(read[2][i])]
    assert windowed
    assert unbound
    assert sorted(windowed + unbound) == rows


def test_each_class_shares_a_prefix_of_its_own() -> None:
    cached = Workload.of_classes((replace(SHORT, prefix_hit_fraction=0.5), replace(LONG, prefix_hit_fraction=0.9)))
    assert cached.shared_prefix == pytest.approx(0.8 * 150 + 0.2 * 3600)
    assert cached.computed_prompt == pytest.approx(0.8 * 150 + 0.2 * 400)
    assert under(cached).joules_per_output_token[0] < under(MIX).joules_per_output_token[0]


def test_the_long_class_waits_longer_and_all_requests_lie_between() -> None:
    short, long = PREDICTOR.class_ttft_ms(DENSE, H100, ONE, MIX, np.array([4.0]))
    found = under(MIX)
    for level, both in ((0.5, found.ttft_p50_ms), (0.95, found.ttft_p95_ms), (0.99, found.ttft_p99_ms)):
        assert short[level][0] < both[0] < long[level][0]
    # One request in five is long: above the 80th percentile of all are hardly any others.
    assert found.ttft_p95_ms[0] > long[0.5][0]


def test_in_flight_the_long_prompts_are_the_tail() -> None:
    found, plain = in_flight(MIX), in_flight(Workload(MIX.input_tokens, MIX.output_tokens))
    assert found.ttft_p50_ms[0] < plain.ttft_p50_ms[0]
    assert found.ttft_p95_ms[0] > plain.ttft_p95_ms[0]


def test_a_wait_behind_one_class_is_the_wait_of_one_class() -> None:
    mean, busy, most, begins = np.array([0.2]), np.array([0.6]), np.array([5.0]), np.array([1.0])
    for level in (0.5, 0.95, 0.99):
        whole = mixed_wait_tail(level, [(0.3, begins), (0.7, begins)], mean, busy, most)
        assert whole == pytest.approx(begins + wait_tail(level, mean, busy, most), rel=1e-6)


def test_outputs_vary_within_classes_and_between_them() -> None:
    two = Workload.of_classes((RequestClass(0.5, 10, 100), RequestClass(0.5, 10, 300)))
    assert two.output_variation == pytest.approx(0.25)
    assert two.age_share * two.output_tokens == pytest.approx((100**2 + 300**2) / 2 / 200 / 2)
    varied = Workload.of_classes((RequestClass(1.0, 10, 100, output_variation=0.5),))
    assert varied.output_variation == pytest.approx(0.5)
    # Who runs is likelier to be one of the long: more of the cache is in use.
    room = [PREDICTOR.memory(DENSE, H100, ONE, w).max_concurrency[0] for w in (varied, Workload(10, 100))]
    assert room[0] == pytest.approx(room[1] * 60.0 / 85.0)


def test_prompts_of_about_one_length_are_one_group() -> None:
    found = grouped([Group(0.5, 1.0, 0.3), Group(0.2, 1.1, 0.3), Group(0.3, 0.2, 0.3)])
    assert [round(group.share, 3) for group in found] == [0.7, 0.3]
    many = grouped([Group(0.1, 2.0**i, 0.1) for i in range(10)])
    assert len(many) == 4
    assert sum(group.share for group in many) == pytest.approx(1.0)
    assert sum(group.share * group.length for group in many) == pytest.approx(0.1 * (2.0**10 - 1))


def test_shares_that_do_not_add_up_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shares of 0\.5 in all"):
        under(replace(MIX, classes=(replace(SHORT, share=0.3), LONG)))
