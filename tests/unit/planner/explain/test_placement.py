"""Nodes that a spec keeps out: each change that is named is made, and must be the nearest and cost what was said."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.planner import plan
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, Infeasible, PlanningResult, Taint
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"
Attempt = Callable[..., PlanningResult]
TEAM, SPOT, SOON = Taint("team", "search"), Taint("spot", "", "NoExecute"), Taint("soon", "", "PreferNoSchedule")


@pytest.fixture(scope="module")
def attempt(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_deployment: Callable[..., LLMDeployment],
) -> Attempt:
    def build(nodes: list[GpuNode], **parts: Any) -> PlanningResult:
        named = tuple(replace(node, name=f"n{i}") for i, node in enumerate(nodes))
        return plan(make_deployment(**parts), models["70b"], ClusterSnapshot(named), gpus, predictor)

    return build


def node(product: str, gpus: int, *taints: Taint, **labels: str) -> GpuNode:
    return GpuNode("", product, gpus, labels=labels, taints=taints)


def changes(result: PlanningResult) -> dict[str, tuple[str, str, float]]:
    assert isinstance(result, Infeasible), result
    return {r.field: (r.value, r.allowed, r.joules_per_output_token) for r in result.relaxations}


def energy(result: PlanningResult) -> float:
    assert isinstance(result, Feasible), result
    return float(parse_quantity(result.plan.predicted.joules_per_output_token))


def test_a_taint_is_named_and_tolerating_it_is_enough(attempt: Attempt) -> None:
    nodes = [node(L40S, 1), node(H100, 4, TEAM, SOON), node(H200, 8, TEAM, SPOT)]
    value, allowed, joules = changes(attempt(nodes))["spec.hardware.tolerations"]
    # One taint is nearer than two, although the plan with two would take less energy.
    assert (value, allowed) == ("[]", "[team=search:NoSchedule]")
    tolerations = [{"key": "team", "value": "search", "effect": "NoSchedule"}]
    assert energy(attempt(nodes, hardware={"tolerations": tolerations})) == pytest.approx(joules, rel=1e-3)


def test_a_node_selector_is_named_and_leaving_it_out_is_enough(attempt: Attempt) -> None:
    nodes = [node(L40S, 1, pool="a"), node(H100, 4, pool="b")]
    value, allowed, joules = changes(attempt(nodes, hardware={"nodeSelector": {"pool": "a"}}))[
        "spec.hardware.nodeSelector"
    ]
    assert (value, allowed) == ("{pool=a}", "{}")
    assert energy(attempt(nodes)) == pytest.approx(joules, rel=1e-3)


def test_products_that_no_node_has_are_named(attempt: Attempt) -> None:
    nodes = [node(H100, 4), node(H200, 4)]
    result = attempt(nodes, hardware={"gpuProducts": ["A100"]})
    value, allowed, joules = changes(result)["spec.hardware.gpuProducts"]
    assert (value, allowed) == ("[A100]", f"[{H200}]")
    assert isinstance(result, Infeasible)
    assert f"would work: spec.hardware.gpuProducts=[{H200}] (at " in result.message
    assert energy(attempt(nodes)) == pytest.approx(joules, rel=1e-3)


def test_products_that_nodes_have_are_a_rule_over_candidates(attempt: Attempt) -> None:
    """Its change is named once."""
    result = attempt([node(L40S, 1), node(H100, 4)], hardware={"gpuProducts": ["L40S"]})
    assert isinstance(result, Infeasible)
    assert [r.change.allowed for r in result.relaxations if r.field == "spec.hardware.gpuProducts"] == [f"[{H100}]"]


def test_a_taint_that_is_tolerated_already_is_named_once(attempt: Attempt) -> None:
    spot = {"key": "spot", "operator": "Exists", "effect": "NoExecute"}
    nodes = [node(L40S, 1), node(H100, 4, SPOT, TEAM)]
    value, allowed, _ = changes(attempt(nodes, hardware={"tolerations": [spot]}))["spec.hardware.tolerations"]
    assert (value, allowed) == ("[spot:NoExecute]", "[spot:NoExecute, team=search:NoSchedule]")


def test_what_would_not_be_enough_is_not_named(attempt: Attempt) -> None:
    both = [node(L40S, 1), node(H100, 4, TEAM, pool="b")]
    assert "spec.hardware.tolerations" not in changes(attempt(both, hardware={"nodeSelector": {"pool": "a"}}))
    small = [node(L40S, 1), node(L40S, 1, TEAM)]
    assert "spec.hardware.tolerations" not in changes(attempt(small, hardware={"maxGPUs": 1}))


def test_nodes_that_take_no_pods_are_counted(attempt: Attempt) -> None:
    result = attempt([replace(node(H100, 4), schedulable=False), replace(node(H100, 4), schedulable=False)])
    assert isinstance(result, Infeasible)
    assert result.reason == "InsufficientGPUs"
    assert result.message.endswith(
        "free on its nodes now: 0, 0 (2 of these nodes are cordoned, not ready or being removed)"
    )
