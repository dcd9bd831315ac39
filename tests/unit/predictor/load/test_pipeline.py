"""Pipelines: empty stages at few requests, rounds as slow as their slowest micro-batch, and what waiting draws."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_predictor
from energylens.predictor.load.pipeline import Pipeline, pipeline_of
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import FloatArray, Layouts, Workload


def layouts(*splits: tuple[int, int]) -> Layouts:
    """Return (tensor parallel, stages) splits."""
    tensor, stages = (np.array(column, dtype=np.int64) for column in zip(*splits, strict=True))
    one = np.ones(len(splits), dtype=np.int64)
    return Layouts(tensor, stages, one, one, 256 * one, np.full(len(splits), np.nan))


def predicted(sequences: float, *splits: tuple[int, int]) -> Prediction:
    return load_predictor("vllm", "0.11.1").at_concurrency(
        load_model("Qwen/Qwen3-32B"),
        find_gpu("H100"),
        layouts(*splits),
        Workload(1000.0, 400.0),
        np.full(len(splits), sequences),
    )


def mean_round(slow: float, stages: int, micro: int, fast: float, long: float, passes: int = 40_000) -> float:
    """Return the mean time between two starts of a micro-batch, passed by passed, stage by stage.

    A pass takes ``fast`` or, with probability ``slow``, ``long`` on every stage; micro-batches keep their order.
    """
    rng = np.random.default_rng(7)
    times = np.where(rng.random(passes) < slow, long, fast)
    free = [0.0] * stages
    ended = [0.0] * micro
    for number, time in enumerate(times.tolist()):
        at = ended[number % micro]
        for stage in range(stages):
            at = max(at, free[stage]) + time
            free[stage] = at
        ended[number % micro] = at
    return ended[-1] / passes * micro


@pytest.mark.parametrize(("slow", "stages", "micro"), [(0.01, 2, 2), (0.01, 4, 4), (0.002, 8, 8), (0.02, 4, 1)])
def test_a_round_takes_as_long_as_its_slowest_micro_batch(slow: float, stages: int, micro: int) -> None:
    share = 1.0 - (1.0 - slow) ** micro
    expected = stages * ((1.0 - share) * 1.0 + share * 10.0)
    assert mean_round(slow, stages, micro, 1.0, 10.0) == pytest.approx(expected, rel=0.1)


def test_there_are_as_many_micro_batches_as_sequences_at_first() -> None:
    found = pipeline_of(layouts((1, 4), (1, 4), (1, 4), (2, 1)), np.array([0.5, 2.0, 100.0, 100.0]))
    assert found.in_flight.tolist() == [1.0, 2.0, 4.0, 1.0]
    assert found.filled.tolist() == [0.25, 0.5, 1.0, 1.0]


def test_prompts_spread_over_micro_batches() -> None:
    found = Pipeline(np.array([1.0, 4.0, 4.0, 4.0]), np.array([4.0, 4.0, 4.0, 4.0]))
    holding: FloatArray = found.holding(np.array([8.0, 1.0, 4.0, 100.0]))
    assert holding[0] == 1.0
    assert holding[1] == 1.0
    assert 2.0 < holding[2] < 3.0
    assert holding[3] == pytest.approx(4.0, rel=1e-6)


def test_with_one_request_three_of_four_stages_wait_and_draw_little() -> None:
    one, four = (predicted(sequences, (1, 1), (1, 4)) for sequences in (1.0, 4.0))
    # A stage at work draws what a single GPU does; the others more than idle ones and much less than that.
    assert one.power_watts[1] < 2.2 * one.power_watts[0]
    assert one.power_watts[1] > one.power_watts[0] + 3.0 * find_gpu("H100").idle_watts
    assert four.power_watts[1] > 3.5 * four.power_watts[0]
    assert one.output_tokens_per_second[1] <= one.output_tokens_per_second[0]


def test_a_pipeline_never_outruns_as_many_gpus_in_step() -> None:
    for sequences in (4.0, 16.0, 64.0):
        found = predicted(sequences, (1, 1), (1, 2), (1, 4))
        single = found.output_tokens_per_second[0]
        assert found.output_tokens_per_second[1] < 2.0 * single
        assert found.output_tokens_per_second[2] < 4.0 * single


def test_replicas_without_stages_are_untouched() -> None:
    pure = Pipeline(np.array([1.0]), np.array([1.0]))
    assert pure.filled.tolist() == [1.0]
    assert not pure.staged.any()
    assert pure.holding(np.array([3.0])).tolist() == [1.0]
