"""What a measurement changes in the candidates of each role."""

from __future__ import annotations

import math

import numpy as np

from energylens.api.llmdeployment import Overrides, PowerCap
from energylens.data import find_gpu, load_model, load_predictor
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.evaluate import Question, evaluate
from energylens.planner.search.load import Load
from energylens.planner.search.space import enumerate_space
from energylens.predictor.fitted.recalibration import Learned, Lesson
from energylens.predictor.load.scenario import Role
from energylens.predictor.types import Workload


def candidates(role: Role, itl: float) -> Candidates:
    """Return candidates of one H100 whose steps were measured to take ``itl`` times as long as predicted."""
    model, gpu = load_model("Qwen/Qwen3-8B"), find_gpu("H100")
    space = enumerate_space(model, gpu, [1], Overrides(max_batch_size=64), PowerCap())
    taught = Lesson("TP1", "", 8.0, Learned({"itl": math.log(itl)}, {"itl": 1e9}))
    corrections = Corrections({gpu.product: (taught,)})
    load = Load(Workload(300, 200), 2.0)
    return evaluate([space], Question(model, load_predictor(), load, "P95", corrections=corrections, role=role))


def test_slower_steps_take_capacity_from_replicas_that_decode() -> None:
    for role in ("aggregated", "decode"):
        plain, slower = candidates(role, 1.0), candidates(role, 1.3)
        assert (slower.utilization > 1.1 * plain.utilization).all()


def test_slower_steps_say_nothing_about_the_capacity_of_replicas_that_prefill() -> None:
    plain, slower = candidates("prefill", 1.0), candidates("prefill", 1.3)
    assert np.isfinite(plain.utilization).all()
    np.testing.assert_array_equal(slower.utilization, plain.utilization)
