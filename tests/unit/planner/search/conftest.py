"""Problems of one deployment on a few nodes, with the predictor of plain arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
from tests.unit.planner.conftest import H100, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.planning import problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.problem import Problem
from energylens.planner.types import ClusterSnapshot, GpuNode, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

Ask = Callable[..., Problem]


@pytest.fixture(scope="session")
def ask(
    make_deployment: Callable[..., LLMDeployment],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> Ask:
    def build(
        model: str = "70b",
        nodes: tuple[GpuNode, ...] = (GpuNode("a", H100, 4), GpuNode("b", H100, 4)),
        allowance: PowerAllowance | None = None,
        corrections: Corrections | None = None,
        **parts: Any,
    ) -> Problem:
        deployment = make_deployment(**parts)
        return problem_for(deployment, models[model], ClusterSnapshot(nodes), gpus, predictor, allowance, corrections)

    return build
