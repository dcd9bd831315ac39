"""Percentiles of TTFT rise with the load, its bursts and its prompts, without jumps that a queue does not have."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor.requests import RequestClass
from energylens.predictor.types import FloatArray, Workload

PREDICTOR = load_predictor("vllm")
CASES = (
    ("Qwen/Qwen3-8B", "H100", 1),
    ("meta-llama/Llama-3.1-70B-Instruct", "H100", 4),
    ("microsoft/phi-4", "H20", 1),
)
LOADS = np.arange(0.02, 0.981, 0.01)
FALLS = 0.005
"""Error of a search for a quantile."""
NAMES = ("ttft_p50_ms", "ttft_p95_ms", "ttft_p99_ms")


def along(case: tuple[str, str, int], places: int, load: Workload, shares: FloatArray = LOADS) -> FloatArray:
    """Return P50, P95 and P99 of TTFT at shares of the capacity, shape (3, m), without those that are infinite."""
    name, product, degree = case
    model, gpu = load_model(name), find_gpu(product)
    one = layouts((degree, 1, 1, 1), batch=places)
    low = PREDICTOR.at_rate(model, gpu, one, load, np.array([1e-3]))
    rates = 1e-3 / float(low.utilization[0]) * shares
    many = one.take(np.zeros(shares.size, dtype=np.int64))
    found = PREDICTOR.at_rate(model, gpu, many, load, rates)
    rows = np.stack([getattr(found, each) for each in NAMES])
    return rows[:, np.isfinite(rows).all(axis=0)]


def drawn(seed: int) -> tuple[tuple[str, str, int], int, Workload]:
    rng = random.Random(seed)
    prompt, output = rng.choice((100, 300, 1000, 4000)), rng.choice((50, 200, 600, 1500))
    bursts, varied = rng.choice((1.0, 2.0, 4.0, 9.0)), rng.choice((0.0, 0.5, 1.5))
    if seed % 3 == 0:
        parts = (RequestClass(0.8, prompt, output), RequestClass(0.2, 8 * prompt, output, output_variation=varied))
        load = Workload.of_classes(parts, arrival_variation=bursts)
    else:
        load = Workload(prompt, output, arrival_variation=bursts, output_variation=varied)
    return rng.choice(CASES), rng.choice((8, 32, 64, 256)), load


@pytest.mark.parametrize("seed", range(18))
def test_percentiles_rise_with_the_rate_and_from_one_to_the_next(seed: int) -> None:
    found = along(*drawn(seed))
    assert found.shape[1] > 20
    assert (np.diff(found, axis=1) > -FALLS * found[:, :-1]).all()
    assert (np.diff(found, axis=0) >= 0.0).all()


def test_tails_of_bursts_rise_from_rate_to_rate() -> None:
    # P99 was 2.5, 27.7, 3.0 and 6.4 s at 60, 65, 70 and 75 % of the capacity.
    for places in (32, 128):
        load = Workload(1000, 500, arrival_variation=4.0)
        tail = along(CASES[2], places, load, np.array([0.6, 0.65, 0.7, 0.75]))[2]
        assert (np.diff(tail) > 0.0).all()
        assert (tail[1:] < 1.6 * tail[:-1]).all()


@pytest.mark.parametrize("seed", range(1, 9))
def test_percentiles_rise_with_bursts_and_prompts(seed: int) -> None:
    case, places, load = drawn(3 * seed + 1)
    model, gpu, one = load_model(case[0]), find_gpu(case[1]), layouts((case[2], 1, 1, 1), batch=places)
    rate = 0.3e-3 / float(PREDICTOR.at_rate(model, gpu, one, load, np.array([1e-3])).utilization[0])

    def at(changed: Workload) -> FloatArray:
        found = PREDICTOR.at_rate(model, gpu, one, changed, np.array([rate]))
        return np.array([float(getattr(found, each)[0]) for each in NAMES])

    calm = [at(replace(load, arrival_variation=bursts)) for bursts in (1.0, 2.0, 4.0, 8.0)]
    assert all((more > (1.0 - FALLS) * less)[1:].all() for less, more in pairwise(calm))
    longer = [at(replace(load, input_tokens=load.input_tokens * factor)) for factor in (1.0, 1.2, 1.5, 2.0)]
    assert all((more > (1.0 - FALLS) * less).all() for less, more in pairwise(longer))


def test_a_class_without_requests_leaves_the_rest() -> None:
    case, rest = CASES[0], Workload(300, 300)
    loads = np.array([0.3, 0.6, 0.8])
    expected = along(case, 256, rest, loads)
    for share, within in ((1e-3, 0.06), (1e-6, 0.05)):
        parts = (RequestClass(1.0 - share, 300, 300), RequestClass(share, 4000, 300))
        assert along(case, 256, Workload.of_classes(parts), loads)[:2] == pytest.approx(expected[:2], rel=within)
