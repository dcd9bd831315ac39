from __future__ import annotations

from typing import Any

import pytest
from tests.unit.api.objects import DEPLOYMENT, changed

from energylens.api.base import camel
from energylens.api.llmdeployment import PlanStatus, describe_layout
from energylens.api.parse import parse_llmdeployment


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("max_gpus_per_replica", "maxGPUsPerReplica"),
        ("gpu_products", "gpuProducts"),
        ("power_cap_watts_per_gpu", "powerCapWattsPerGPU"),
        ("itl_milliseconds", "itlMilliseconds"),
        ("slo", "slo"),
    ],
)
def test_names_on_the_wire(name: str, wire: str) -> None:
    assert camel(name) == wire


@pytest.mark.parametrize(
    ("degrees", "text"),
    [((1, 1, 1, 1), "TP1"), ((8, 2, 1, 1), "TP8-PP2"), ((1, 1, 8, 8), "TP1-EP8-DP8"), ((8, 1, 8, 1), "TP8-EP8")],
)
def test_a_layout_in_short(degrees: tuple[int, int, int, int], text: str) -> None:
    tensor, pipeline, expert, data = degrees
    assert describe_layout(tensor=tensor, pipeline=pipeline, expert=expert, data=data) == text


def plan(**degrees: Any) -> dict[str, Any]:
    predicted = {
        "joulesPerOutputToken": "412m", "joulesPerOutputTokenLow": "380m", "joulesPerOutputTokenHigh": "450m",
        "powerWatts": 2000, "idlePowerWatts": 500, "outputTokensPerSecond": 3000, "concurrency": 64,
        "ttftMilliseconds": 300, "itlMilliseconds": 20,
    }  # fmt: skip
    return {
        "hash": "a1", "predictorVersion": "1", "confidence": "Interpolated", "bindingConstraint": "ITL",
        "gpuProduct": "NVIDIA-H200", "gpus": 8, "replicas": 2, "tensorParallel": 4, "pipelineParallel": 1,
        "expertParallel": 1, "dataParallel": 1, "maxBatchSize": 64, "predicted": predicted, **degrees,
    }  # fmt: skip


def test_a_plan_says_its_layout_for_the_column() -> None:
    assert PlanStatus.model_validate(plan()).layout == "TP4"
    assert PlanStatus.model_validate(plan(pipelineParallel=2)).model_dump(by_alias=True)["layout"] == "TP4-PP2"


def test_a_plan_is_read_back_from_status_as_it_was() -> None:
    first = PlanStatus.model_validate(plan())
    written = first.model_dump(by_alias=True, exclude_none=True)
    read = parse_llmdeployment(changed(DEPLOYMENT, {"status.plan": written}), strict=False).status.plan
    assert read == first
