"""Little's law over whole spaces: every candidate by itself, whatever stands beside it in the call."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model, load_predictor
from energylens.predictor.load.arrivals import Step, StepTimes, running_sequences
from energylens.predictor.types import FloatArray, IntArray, Layouts, Workload

CHAT = Workload(300, 400)
SPLITS = {
    "meta-llama/Llama-3.1-8B-Instruct": [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1)],
    "Qwen/Qwen3-30B-A3B": [(1, 1, 1, 1), (2, 1, 2, 1), (1, 1, 4, 4)],
}


def space(name: str, caps: tuple[float, ...] = (np.nan,)) -> tuple[Layouts, FloatArray]:
    """Return layouts with every batch and cap, and arrival rates from idle to overload; arrays of shape (n,)."""
    rows = [
        (*split, 2**power, cap, rate)
        for split in SPLITS[name]
        for power in range(11)
        for cap in caps
        for rate in (0.01, 0.5, 3.0, 12.0, 40.0)
    ]
    tp, pp, ep, dp, batch, cap, rate = (np.asarray(column) for column in zip(*rows, strict=True))
    return Layouts(tp, pp, ep, dp, batch, cap.astype(np.float64)), rate.astype(np.float64)


@pytest.mark.parametrize("caps", [(np.nan,), (300.0, np.nan)])
@pytest.mark.parametrize("name", SPLITS)
def test_a_candidate_has_the_same_figures_alone_as_among_others(name: str, caps: tuple[float, ...]) -> None:
    layouts, rate = space(name, caps)
    model, gpu, predictor = load_model(name), find_gpu("B200"), load_predictor("vllm")
    together = predictor.at_rate(model, gpu, layouts, CHAT, rate)
    for i in range(0, len(layouts), 17):
        one = np.asarray([i])
        alone = predictor.at_rate(model, gpu, layouts.take(one), CHAT, rate[one])
        for figure in ("concurrency", "joules_per_output_token", "itl_p95_ms", "ttft_p99_ms"):
            whole, single = getattr(together, figure)[i], getattr(alone, figure)[0]
            assert single == pytest.approx(whole, rel=1e-4, nan_ok=True), (i, figure)


def stepped(layouts: Layouts) -> Step:
    """A step with a jump, as where CUDA graphs end, and a slope of its own for each layout; seconds."""

    def step(index: IntArray, running: FloatArray) -> FloatArray:
        jump = 1.0 / (1.0 + (40.0 / running) ** 32)
        return np.asarray((0.01 + 0.002 * layouts.tensor_parallel[index]) * (1.0 + running / 60.0 + 0.3 * jump))

    return step


def replicas(rate: FloatArray, full: float, once: float = 0.0) -> tuple[FloatArray, FloatArray, Layouts]:
    """Return what runs on each of three layouts at each of k rates, the most served, shape (3 k,), and the layouts."""
    one = np.ones(3 * rate.size, dtype=np.int64)
    layouts = Layouts(np.repeat([1, 2, 4], rate.size), one, one, one, 256 * one, np.full(one.size, np.nan))
    places = np.full(one.size, full)

    def times(where: Layouts) -> StepTimes:
        step = stepped(where)
        return StepTimes(step, lambda index, running: (step(index, running), np.full(running.size, once)))

    found = running_sequences(layouts, np.tile(rate, 3), places, places, times, 300.0, 100.0, lambda once: once / 4.0)
    return *found, layouts


def test_roots_beside_a_jump_are_found() -> None:
    rate = np.geomspace(1e-6, 60.0, 200)
    mean, most, layouts = replicas(rate, 256.0)
    carried = np.tile(rate, 3) < 0.99 * most
    while_busy = np.maximum(mean / -np.expm1(-np.maximum(mean, 1e-12)), 1.0)
    held = np.tile(rate, 3) * 100.0 * stepped(layouts)(np.arange(mean.size), while_busy)
    assert 500 < carried.sum() < 600
    np.testing.assert_allclose(mean[carried], held[carried], rtol=1e-4)
    assert (mean[np.tile(rate, 3) > most] == 256.0).all()


def test_the_most_counts_the_seconds_of_single_starts() -> None:
    _, together, layouts = replicas(np.ones(1), 8.0)
    _, alone, _ = replicas(np.ones(1), 8.0, once=0.04)
    step = stepped(layouts)(np.arange(3), np.full(3, 8.0))
    np.testing.assert_allclose(together, 8.0 / (step * 100.0))
    np.testing.assert_allclose(alone, 8.0 / ((step + 0.01) * 100.0))


def test_no_arrivals_run_nothing() -> None:
    mean, most, _ = replicas(np.zeros(2), 8.0)
    assert mean.tolist() == [0.0] * 6
    assert (most > 0).all()
