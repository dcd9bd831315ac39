"""The rules of a plan on candidates with known figures: what holds, what is needed, and in which words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.search.large import asked
from tests.unit.planner.search.test_objective import candidates

from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import Constraint, build_constraints, count_rejections, feasible
from energylens.planner.types import BudgetLimit, PowerAllowance

H200 = "NVIDIA-H200"
GIVEN_FIELDS = {"TTFT": "ttft", "ITL": "itl", "TPOT": "tpot", "E2E": "end_to_end"}


def rules(
    rows: Candidates,
    allowance: PowerAllowance | None = None,
    free: Sequence[Sequence[int]] = ((8, 8),),
    products: Sequence[str] = (H200,),
    **spec: Any,
) -> dict[str, Constraint]:
    """Return the constraints of a spec by rule."""
    found = build_constraints(rows, asked(**{"slo": {}, **spec}).spec, products, free, allowance)
    return {constraint.rule: constraint for constraint in found}


def with_figures(rows: Candidates, **columns: Sequence[float]) -> Candidates:
    changed: dict[str, Any] = {name: np.array(values, dtype=np.float64) for name, values in columns.items()}
    return replace(rows, **changed)


@pytest.mark.parametrize(
    ("name", "field"),
    [("TTFT", "ttftMilliseconds"), ("ITL", "itlMilliseconds"), ("TPOT", "tpotMilliseconds"),
     ("E2E", "endToEndMilliseconds")],
)  # fmt: skip
def test_latencies_are_compared_in_whole_milliseconds_with_the_margin(name: str, field: str) -> None:
    column = GIVEN_FIELDS[name]
    shown, upper = f"{column}_ms", f"{column}_upper_ms"
    values = [29.2, 30.0000001, 30.1, 60.0, math.nan]
    rows = with_figures(candidates(*[{}] * 5), **{shown: [20.0] * 5, upper: values})
    found = rules(rows, slo={field: 30, "percentile": "P99"})[f"{name}TooHigh"]
    assert found.holds.tolist() == [True, True, False, False, False]
    assert found.needed is not None
    assert found.needed[:4].tolist() == [30.0, 30.0, 31.0, 60.0]
    assert [found.needed_text(i) for i in range(5)] == ["30", "30", "31", "60", None]
    assert found.distance.tolist() == [0.0, 0.0, pytest.approx(1 / 30), 1.0, math.inf]
    assert found.exceeded(2) == f"{name} P99 20 ms, with the safety margin 31 ms > 30 ms"
    assert (found.kind, found.field, found.value) == ("SLO", f"spec.slo.{field}", "30")
    assert (found.message, found.resolution) == (f"{name} P99 above 30 ms", 1.0)


def test_a_latency_of_exactly_the_objective_meets_it() -> None:
    for limit in (30, 31, 32):
        rows = with_figures(candidates({}, {}), itl_upper_ms=[limit, limit + 0.01])
        assert rules(rows, slo={"itlMilliseconds": limit})["ITLTooHigh"].holds.tolist() == [True, False]


def test_energy_is_compared_with_the_margin_and_needed_to_the_microjoule() -> None:
    joules = [0.4, 0.4000001, 0.4123451, 0.8]
    rows = with_figures(candidates(*[{}] * 4), joules_upper=joules)
    found = rules(rows, slo={"joulesPerOutputToken": "0.4"})["EnergyTooHigh"]
    assert found.holds.tolist() == [True, False, False, False]
    assert [found.needed_text(i) for i in range(4)] == ["400m", "400.001m", "412.346m", "800m"]
    assert found.distance.tolist() == pytest.approx([0.0, 2.5e-7, 0.03086275, 1.0])
    assert found.exceeded(3) == "0.400 J, with the safety margin 0.800 J > 0.400 J per output token"
    assert found.resolution == 1e-6


def test_power_is_compared_in_whole_watts() -> None:
    rows = candidates({"watts": 799.4}, {"watts": 800.4}, {"watts": 800.6}, {"watts": 1200})
    found = rules(rows, PowerAllowance(800.0, "EnergyBudget a/b"))["PowerBudgetExceeded"]
    assert found.holds.tolist() == [True, True, False, False]
    assert [found.needed_text(i) for i in range(4)] == ["799", "800", "801", "1200"]
    assert found.distance.tolist() == pytest.approx([0.0, 0.0, 1 / 800, 0.5])
    assert (found.kind, found.value) == ("Power", "800")
    limit = BudgetLimit("spec.powerWatts", 1000, others_watts=200.0)
    shared = rules(rows, PowerAllowance(800.0, "EnergyBudget a/b", limit=limit))["PowerBudgetExceeded"]
    assert [shared.needed_text(i) for i in range(4)] == ["999", "1000", "1001", "1400"]
    assert shared.value == "1000"


def test_numbers_of_gpus_are_bounded_per_replica_and_in_all() -> None:
    rows = candidates({"tensor": 2, "replicas": 2}, {"tensor": 4, "replicas": 1}, {"tensor": 4, "replicas": 2})
    found = rules(rows, hardware={"maxGPUs": 4, "maxGPUsPerReplica": 2})
    assert found["TooManyGPUs"].holds.tolist() == [True, True, False]
    assert found["TooManyGPUsPerReplica"].holds.tolist() == [True, False, False]
    assert found["TooManyGPUs"].distance.tolist() == [0.0, 0.0, 1.0]
    assert found["TooManyGPUs"].exceeded(2) == "8 GPUs > 4 (spec.hardware.maxGPUs)"
    assert found["TooManyGPUs"].needed_text(2) == "8"


def test_free_gpus_are_those_of_whole_pods_on_nodes() -> None:
    rows = candidates({"tensor": 4, "replicas": 2}, {"tensor": 4, "replicas": 3}, {"tensor": 2, "replicas": 4})
    found = rules(rows, free=((7, 5),))["NotEnoughFreeGPUs"]
    assert found.holds.tolist() == [True, False, True]
    assert found.distance.tolist() == [0.0, pytest.approx(4 / 12), 0.0]
    assert found.value == f"12 of {H200}"
    none = rules(rows, free=((),))["NotEnoughFreeGPUs"]
    assert none.distance.tolist() == [8.0, 12.0, 8.0]


def test_products_are_those_that_the_spec_allows() -> None:
    rows = candidates({}, {})
    found = rules(rows, products=(), hardware={"gpuProducts": ["H100"]})["GPUProductNotAllowed"]
    assert found.holds.tolist() == [False, False]
    assert found.distance.tolist() == [1.0, 1.0]
    assert found.exceeded(0) == f"{H200} is not in spec.hardware.gpuProducts"
    assert found.needed_text(0) is None
    assert rules(rows, hardware={"gpuProducts": ["H200"]})["GPUProductNotAllowed"].holds.all()


def test_the_reason_of_most_layouts_stands_for_all_that_cannot_run() -> None:
    rows = replace(
        candidates({}, {}, {}, {}),
        supported=np.array([False, False, False, True]),
        fits=np.array([False, True, True, False]),
        reason=np.array(["few", "many", "many", ""], dtype=object),
    )
    found = rules(rows)
    assert found["UnsupportedLayout"].message == "the engine cannot run the layout: many"
    assert found["UnsupportedLayout"].exceeded(0) == "few"
    assert found["MemoryTooSmall"].holds.tolist() == [True, True, True, False]
    assert rules(candidates({}))["UnsupportedLayout"].message == "the engine cannot run the layout"


JOB = {"inputTokens": 300, "outputTokens": 400, "job": {"requests": 900, "completeWithinSeconds": 3600}}
LEVEL = {"inputTokens": 300, "outputTokens": 400, "concurrency": 64}


@pytest.mark.parametrize(
    ("spec", "busy", "limit", "expected"),
    [
        ({}, 0.853, 0.8, "86 % utilized, but headroom and spare replicas allow 80 %"),
        ({}, 0.5, 0.8, "the replicas cannot keep up with 2 requests per second"),
        ({}, 0.8, 0.8, "the replicas cannot keep up with 2 requests per second"),
        ({}, 1.0, 0.8, "the replicas cannot keep up with 2 requests per second"),
        ({"workload": LEVEL}, 1.0, 1.0, "the replicas cannot keep 64 requests running at once"),
        (
            {"workload": JOB}, 1.3, 1.0,
            "130 % of the time after the start is needed: the replicas cannot complete 900 requests within 3600 s of "
            "the pods' start",
        ),
        (
            {"workload": JOB}, 0.9, 0.755,
            "90 % of the time after the start is needed, 75 % of it with headroom and spare replicas: the replicas "
            "cannot complete 900 requests within 3600 s of the pods' start",
        ),
        ({"workload": JOB}, 0.7, 0.7, "the replicas cannot complete 900 requests within 3600 s of the pods' start"),
    ],
)  # fmt: skip
def test_a_load_that_is_too_high_names_the_capacity(
    spec: dict[str, Any], busy: float, limit: float, expected: str
) -> None:
    rows = with_figures(candidates({}), utilization=[busy], utilization_limit=[limit])
    assert rules(rows, **spec)["LoadTooHigh"].exceeded(0) == expected


@pytest.mark.parametrize(
    ("planning", "workload", "kept"),
    [
        ({}, None, ""),
        ({"headroomPercent": 20}, None, " with spec.planning.headroomPercent=20"),
        ({"spareReplicas": 1}, None, " with spec.planning.spareReplicas=1"),
        (
            {"headroomPercent": 0, "spareReplicas": 2}, None,
            " with spec.planning.headroomPercent=0 and spec.planning.spareReplicas=2",
        ),
        ({"headroomPercent": 20, "spareReplicas": 1}, LEVEL, " with spec.planning.spareReplicas=1"),
    ],
)  # fmt: skip
def test_the_message_names_the_reserve_that_the_load_leaves(
    planning: dict[str, Any], workload: dict[str, Any] | None, kept: str
) -> None:
    parts: dict[str, Any] = {"planning": planning} | ({} if workload is None else {"workload": workload})
    load = "keep up with 2 requests per second" if workload is None else "keep 64 requests running at once"
    assert rules(candidates({}), **parts)["LoadTooHigh"].message == f"cannot {load}{kept}"


def test_each_rule_counts_what_the_rules_before_it_have_left() -> None:
    rows = candidates({"tensor": 8}, {"tensor": 8, "watts": 900}, {"watts": 900}, {})
    found = rules(rows, PowerAllowance(800.0, "EnergyBudget a/b"), hardware={"maxGPUs": 8})
    both = [found["TooManyGPUs"], found["PowerBudgetExceeded"], found["LoadTooHigh"]]
    assert [(r.rule, r.candidates) for r in count_rejections(both, 4)] == [
        ("TooManyGPUs", 2),
        ("PowerBudgetExceeded", 1),
    ]
    assert feasible(both, 4).tolist() == [False, False, False, True]
    assert feasible(both, 4, without=both[:1]).tolist() == [True, False, False, True]
    assert feasible([], 2).tolist() == [True, True]
