"""Where the energy goes: the parts add up, and each follows what it should follow."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from tests.unit.predictor import models
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_predictor
from energylens.predictor.breakdown import EnergyParts, energy_parts
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Prediction
from energylens.predictor.types import Layouts, Workload

H100 = find_gpu("H100")
CHAT = Workload(300.0, 400.0)
ALL = [models.dense(), models.mixture(), models.sliding(), models.latent(), models.hybrid()]
PREDICTOR = load_predictor("vllm", "0.11.1")
DENSE = load_model("meta-llama/Llama-3.1-8B-Instruct")


def parts(model: ModelSpec, where: Layouts, rate: float, workload: Workload = CHAT) -> tuple[EnergyParts, Prediction]:
    found = PREDICTOR.at_rate(model, H100, where, workload, np.full(len(where), rate))
    return energy_parts(PREDICTOR, model, H100, where, workload, found, saturated=False), found


@pytest.mark.parametrize("model", ALL, ids=lambda m: m.family)
@pytest.mark.parametrize("rate", [0.01, 1.0, 1e5])
def test_the_parts_add_up_to_the_prediction_and_none_is_negative(model: ModelSpec, rate: float) -> None:
    found, prediction = parts(model, layouts((1, 1, 1, 1), (2, 1, 1, 1), (4, 1, 1, 1)), rate)
    np.testing.assert_allclose(found.total, prediction.joules_per_output_token)
    assert all((getattr(found, f.name) >= 0).all() for f in fields(found))


def test_a_power_cap_keeps_the_sum() -> None:
    where = layouts((1, 1, 1, 1), batch=512, cap=300)
    prediction = PREDICTOR.at_concurrency(DENSE, H100, where, CHAT, np.array([400.0]))
    found = energy_parts(PREDICTOR, DENSE, H100, where, CHAT, prediction, saturated=True)
    np.testing.assert_allclose(found.total, prediction.joules_per_output_token)
    assert found.idle[0] == 0


def test_idle_rules_at_a_low_rate_and_vanishes_at_a_high_one() -> None:
    low, _ = parts(DENSE, layouts((1, 1, 1, 1), batch=256), 1e-4)
    high, _ = parts(DENSE, layouts((1, 1, 1, 1), batch=256), 5.0)
    assert low.idle[0] > 0.99 * low.total[0]
    assert high.idle[0] < 0.01 * high.total[0]


def test_weights_are_shared_by_the_batch_and_the_cache_grows_with_the_context() -> None:
    where = layouts((1, 1, 1, 1), batch=512)
    few, _ = parts(DENSE, where, 0.5)
    many, _ = parts(DENSE, where, 5.0)
    assert many.weights[0] < 0.5 * few.weights[0]
    long, _ = parts(DENSE, where, 0.5, Workload(3000.0, 400.0))
    assert long.cache[0] > 3 * few.cache[0]


def test_links_cost_nothing_on_one_gpu_and_something_on_several() -> None:
    found, _ = parts(DENSE, layouts((1, 1, 1, 1), (4, 1, 1, 1)), 2.0)
    assert found.links[0] == 0
    assert found.links[1] > 0


def test_what_is_not_supported_has_no_parts() -> None:
    found, _ = parts(DENSE, layouts((3, 1, 1, 1)), 1.0)
    assert np.isnan(found.total).all()
