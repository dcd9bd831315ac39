"""The P95 of the lengths that a workload states."""

from __future__ import annotations

import math
from typing import Any

import pytest

from energylens.api.llmdeployment import WorkloadSpec
from energylens.cli.text.lengths import planned_p95


def workload(**fields: Any) -> WorkloadSpec:
    return WorkloadSpec.model_validate({"requestsPerSecond": 1, **fields})


def test_equal_outputs_have_one_length_and_prompts_without_a_spread_have_none() -> None:
    found = workload(inputTokens=300, outputTokens=400)
    assert planned_p95(found, prompts=False) == 400
    assert planned_p95(found, prompts=True) is None


def test_a_stated_spread_is_log_normal() -> None:
    found = workload(inputTokens=300, inputTokensSCV="1", outputTokens=400, outputTokensSCV="0.5")
    sigma = math.sqrt(math.log(2.0))
    assert planned_p95(found, prompts=True) == round(300 * math.exp(1.6449 * sigma - sigma**2 / 2))
    sigma = math.sqrt(math.log(1.5))
    assert planned_p95(found, prompts=False) == round(400 * math.exp(1.6449 * sigma - sigma**2 / 2))


@pytest.mark.parametrize(("share", "p95"), [(15, 6000), (6, 6000), (4, 400)])
def test_the_long_class_is_the_p95_if_more_than_a_twentieth_belongs_to_it(share: int, p95: int) -> None:
    classes = [
        {"sharePercent": 100 - share, "inputTokens": 400, "outputTokens": 300},
        {"sharePercent": share, "inputTokens": 6000, "outputTokens": 200},
    ]
    found = workload(classes=classes)
    assert planned_p95(found, prompts=True) == p95
    assert planned_p95(found, prompts=False) == 300
