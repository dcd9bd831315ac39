"""How the errors of candidates lie apart: less near measured runs, more for splits that nobody measured."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_predictor
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import Layouts, Workload


def predicted(model: str, *splits: tuple[int, int, int], product: str = "H100", version: str = "0.11.1") -> Prediction:
    """Return predictions of (tensor parallel, stages, ranks) at 16 sequences each."""
    tensor, stages, ranks = (np.array(column, dtype=np.int64) for column in zip(*splits, strict=True))
    one = np.ones(len(splits), dtype=np.int64)
    layouts = Layouts(tensor, stages, one, ranks, 64 * one, np.full(len(splits), np.nan))
    return load_predictor("vllm", version).at_concurrency(
        load_model(model), find_gpu(product), layouts, Workload(300.0, 400.0), np.full(len(splits), 16.0)
    )


def test_a_measured_layout_is_the_most_certain_and_a_pipeline_the_least() -> None:
    found = predicted("Qwen/Qwen3-32B", (1, 1, 1), (8, 1, 1), (1, 2, 1), product="B200")
    assert found.unshared_deviation[0] < found.unshared_deviation[1] < found.unshared_deviation[2]


@pytest.mark.parametrize("version", ["0.11.1", "0.33.0"])
def test_pipelines_differ_in_risk_under_every_engine(version: str) -> None:
    found = predicted("Qwen/Qwen3-32B", (4, 1, 1), (2, 2, 1), (1, 4, 1), version=version)
    assert found.unshared_deviation[0] < 0.7 * found.unshared_deviation[1]
    assert found.unshared_deviation[1] == pytest.approx(found.unshared_deviation[2], rel=0.2)


def test_what_layouts_share_is_left_out() -> None:
    found = predicted("mistralai/Mistral-7B-Instruct-v0.3", (1, 1, 1), (2, 1, 1))
    interval = np.log(found.energy.high / found.joules_per_output_token) / 1.2816
    assert (found.unshared_deviation < 0.9 * interval).all()
    assert found.unshared_deviation == pytest.approx(found.layout_deviation)


def test_a_product_that_was_never_measured_is_a_risk_beside_one_that_was() -> None:
    known, unknown = (predicted("Qwen/Qwen3-32B", (4, 1, 1), product=p) for p in ("H100", "A100"))
    assert unknown.unshared_deviation[0] > 1.3 * known.unshared_deviation[0]


def test_what_cannot_run_has_no_risk() -> None:
    assert np.isnan(predicted("Qwen/Qwen3-32B", (3, 1, 1)).unshared_deviation).all()
