"""Limits of a search and of its plan: bounds of large clusters, watts for idle GPUs, and the check at the end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.decide.observations import plan
from tests.unit.planner.search.large import MODELS, asked, cluster, problem
from tests.unit.planner.search.test_objective import candidates

from energylens.api.llmdeployment import PlanStatus, PrefillReplicas
from energylens.data import load_gpus
from energylens.planner.search.constraints import build_constraints
from energylens.planner.search.plan_status import PlanCheckError, check_plan
from energylens.planner.search.problem import Solution, binding_constraint, most_powered, most_replicas, reserve_of
from energylens.planner.search.ranking import OUT_OF_REACH
from energylens.planner.search.reach import bounds, is_tried, places_within, reach_of
from energylens.planner.types import PowerAllowance

LEVEL = {"inputTokens": 512, "outputTokens": 256, "concurrency": 8}


@pytest.mark.parametrize(
    ("nodes", "parts", "corrected", "expected"),
    [
        (8, {}, False, [None]),
        (9, {}, False, [16, 64, None]),
        (32, {}, False, [16, 64, None]),
        (33, {}, False, [16, 64, 256, None]),
        (129, {}, False, [16, 64, 256, 1024, None]),
        (9, {}, True, [None]),
        (9, {"planning": {"overrides": {"replicas": 2}}}, False, [None]),
        (9, {"planning": {"disaggregation": "Compare"}}, False, [None]),
        (9, {"workload": LEVEL}, False, [None]),
        (9, {"workload": LEVEL, "energy": {"objective": "MinimizeGPUs"}}, False, [16, 64, None]),
    ],
)
def test_bounds_are_tried_where_they_can_be_proved(
    nodes: int, parts: dict[str, Any], corrected: bool, expected: list[int | None]
) -> None:
    snapshot = cluster(nodes)
    assert list(bounds(asked(**parts).spec, snapshot.nodes, corrected=corrected)) == expected
    # A cluster is as large as the product with most GPUs, 8 of H100 on each node.
    assert [most for most in (16, 64, 256, 1024) if is_tried(most, snapshot.nodes)] == [
        most for most in (16, 64, 256, 1024) if nodes > 8 and most < 8 * nodes
    ]
    assert not is_tried(None, snapshot.nodes)


def of_power(watts: int, gpus: int = 1) -> PlanStatus:
    found = plan(gpus=gpus)
    return found.model_copy(update={"predicted": found.predicted.model_copy(update={"power_watts": watts})})


def test_a_bound_is_proved_by_the_power_of_idle_gpus() -> None:
    gpus, nodes, spec = load_gpus(), cluster(40).nodes, asked().spec
    floor = min(gpus[node.product].idle_watts for node in nodes)
    for most, wider in ((16, 64), (64, 256), (256, None)):
        least = int((most + 1) * floor / OUT_OF_REACH) - 1
        assert reach_of(of_power(least - 1), spec, nodes, gpus, corrected=False) == most
        assert reach_of(of_power(least + 1), spec, nodes, gpus, corrected=False) == wider
    assert reach_of(of_power(1), spec, nodes, gpus, corrected=True) is None
    assert reach_of(of_power(1), spec, (), gpus, corrected=False) is None
    fewest = asked(energy={"objective": "MinimizeGPUs"}).spec
    assert reach_of(of_power(10**6, gpus=16), fewest, nodes, gpus, corrected=False) == 16
    assert reach_of(of_power(1, gpus=17), fewest, nodes, gpus, corrected=False) == 64


def test_no_more_places_count_than_a_candidate_within_the_bound_needs() -> None:
    assert places_within([8] * 10, 16) == {1: 16, 2: 8, 3: 5, 4: 4, 5: 3, 6: 2, 7: 2, 8: 2}


def test_watts_bound_the_gpus_that_can_idle() -> None:
    limited = problem(MODELS[0], 1)
    assert most_powered(limited, 50.0) is None
    limited = replace(limited, allowance=PowerAllowance(999.6, "EnergyBudget a/b"))
    assert [most_powered(limited, watts) for watts in (50.0, 100.0, 1001.0)] == [20, 10, 0]
    assert most_powered(limited, 0.0) is None


def test_requests_in_flight_and_spare_replicas_bound_the_replicas() -> None:
    planning = asked(planning={"spareReplicas": 2, "headroomPercent": 25}).spec.planning
    assert (most_replicas(8, planning), most_replicas(None, planning)) == (10, None)
    assert (reserve_of(planning).headroom, reserve_of(planning).spare) == (0.25, 2)
    assert reserve_of(asked().spec.planning).headroom is None


def test_the_constraint_that_costs_most_binds() -> None:
    rows = replace(
        candidates({}, {"joules": 0.3, "tensor": 4}, {"joules": 0.2}, {"joules": 0.25, "watts": 2000}, {"joules": 0.1}),
        itl_upper_ms=np.array([10.0, 10.0, 60.0, 10.0, 60.0]),
        fits=np.array([True, True, True, True, False]),
    )
    spec = asked(hardware={"maxGPUs": 4}).spec
    rules = build_constraints(rows, spec, (), ((8, 8),), PowerAllowance(900.0, "EnergyBudget a/b"))
    solution = Solution(rows, rules, 0)
    assert binding_constraint(solution, spec) == "spec.slo.itlMilliseconds"
    assert binding_constraint(solution, spec, beyond=0.19) == "None"
    loose = asked(slo={}, hardware={"maxGPUs": 4}).spec
    rules = build_constraints(rows.take(np.array([0, 1])), loose, (), ((8, 8),), None)
    assert binding_constraint(Solution(rows.take(np.array([0, 1])), rules, 0), loose) == "spec.hardware.maxGPUs"
    near = rows.take(np.array([0, 0]))
    near = replace(near, joules_per_output_token=np.array([0.4, 0.39965]), itl_upper_ms=np.array([10.0, 60.0]))
    rules = build_constraints(near, spec, (), ((8, 8),), None)
    assert binding_constraint(Solution(near, rules, 0), spec) == "None"


LAYOUT: dict[str, Any] = {
    "tensor_parallel": 2, "pipeline_parallel": 1, "data_parallel": 1, "expert_parallel": 1, "replicas": 3, "gpus": 6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "parts", "message"),
    [
        ({"gpus": 5}, {}, "the plan counts 5 GPUs, but its replicas need 6"),
        ({"pipeline_parallel": 2}, {}, "the plan counts 6 GPUs, but its replicas need 12"),
        ({"data_parallel": 2}, {}, "the plan counts 6 GPUs, but its replicas need 12"),
        ({}, {"hardware": {"maxGPUs": 5}}, "the plan uses 6 GPUs, more than spec.hardware.maxGPUs=5"),
        (
            {}, {"hardware": {"maxGPUsPerReplica": 1}},
            "the plan uses 2 GPUs, more than spec.hardware.maxGPUsPerReplica=1",
        ),
        (
            {}, {"planning": {"overrides": {"replicas": 2}}},
            "the plan has replicas 3 instead of the override 2",
        ),
        (
            {}, {"planning": {"overrides": {"maxBatchedTokens": 2048}}},
            "the plan has max_batched_tokens 8192 instead of the override 2048",
        ),
        (
            {"max_batched_tokens": 2048}, {"planning": {"overrides": {"maxBatchedTokens": 0}}},
            "the plan has max_batched_tokens 2048 instead of the override 0",
        ),
    ],
)  # fmt: skip
def test_a_plan_beyond_its_limits_is_never_used(changes: dict[str, Any], parts: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanCheckError, match=message):
        check_plan(plan(**LAYOUT | changes), asked(**parts).spec, step_tokens=8192)


def test_prefill_replicas_count_with_the_others() -> None:
    prefill = PrefillReplicas(
        replicas=2, tensor_parallel=4, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=8
    )
    both = plan(**LAYOUT | {"gpus": 14, "prefill": prefill})
    check_plan(both, asked(hardware={"maxGPUs": 14, "maxGPUsPerReplica": 4}).spec, step_tokens=8192)
    with pytest.raises(PlanCheckError, match="the plan uses 4 GPUs, more than"):
        check_plan(both, asked(hardware={"maxGPUsPerReplica": 3}).spec, step_tokens=8192)
    with pytest.raises(PlanCheckError, match="the plan counts 6 GPUs, but its replicas need 14"):
        check_plan(plan(**LAYOUT | {"prefill": prefill}), asked().spec, step_tokens=8192)


def test_a_plan_within_its_limits_passes() -> None:
    exact = {"maxGPUs": 6, "maxGPUsPerReplica": 2}
    for tokens in (0, 8192):
        overrides = {"replicas": 3, "tensorParallel": 2, "maxBatchedTokens": tokens}
        spec = asked(hardware=exact, planning={"overrides": overrides}).spec
        check_plan(plan(**LAYOUT), spec, step_tokens=8192)
