"""Both kinds of steps in one call against one call for each."""

from __future__ import annotations

import numpy as np
import pytest
from tests.unit.predictor import models
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_predictor
from energylens.predictor.load.scenario import Scenario
from energylens.predictor.load.steady import Physics, phase_mixture, phase_work, step_mixture
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.requests import RequestClass
from energylens.predictor.step.rates import data_sheet, kernel_rates
from energylens.predictor.types import Workload

H100, PREDICTOR = find_gpu("H100"), load_predictor("vllm")
CONSTANTS = PREDICTOR.constants(H100)[0]
MIX = Workload.of_classes([RequestClass(0.8, 300, 300), RequestClass(0.2, 4000, 150)])


@pytest.mark.parametrize("model", [models.dense(), models.mixture(), models.latent(), models.hybrid()])
@pytest.mark.parametrize("load", [Workload(900, 300), Workload(900, 300, prefix_hit_fraction=0.5), MIX])
def test_both_kinds_of_steps_are_those_of_separate_calls(model: ModelSpec, load: Workload) -> None:
    where = layouts((1, 1, 1, 1), (2, 1, 1, 1), (2, 2, 1, 1), (1, 1, 4, 4) if model.is_moe else (1, 1, 1, 4))
    running = np.array([1.0, 30.0, 7.0, 64.0])
    rates, lockstep = kernel_rates(CONSTANTS, data_sheet(H100)), PREDICTOR.profile.lockstep_of(H100, where, model)
    tables = PREDICTOR.coefficients
    physics = Physics(CONSTANTS, tables, rates, lockstep=lockstep)
    together = phase_mixture(Scenario(model, H100, where, load, "aggregated"), running, physics)
    work = phase_work(model, H100, where, load, running, tables, "aggregated", lockstep)
    apart, _, _ = step_mixture(work, rates, CONSTANTS, data_sheet(H100))
    for name in ("starts", "decode", "mixed", "base"):
        np.testing.assert_allclose(getattr(together, name), getattr(apart, name), rtol=1e-12, atol=1e-15)
    assert (together.mixed > together.decode).all()
