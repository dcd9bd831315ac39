"""The frontier, and why each candidate on it was not chosen."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.planner.search.large import asked
from tests.unit.planner.search.test_objective import Row, candidates

from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import build_constraints
from energylens.planner.search.frontier import (
    alternatives,
    frontier_rows,
    latencies,
    pareto,
    planned_job,
    table,
    why_not,
)

POINTS = st.lists(st.tuples(*[st.integers(1, 6).map(float)] * 3), min_size=1, max_size=40)


@given(POINTS)
def test_the_frontier_is_what_nothing_dominates(points: list[tuple[float, float, float]]) -> None:
    costs = np.array(points)
    kept = pareto(costs, resolution=0.0)
    frontier = {tuple(costs[i]) for i in kept}
    expected = {p for p in points if not any(q != p and all(a <= b for a, b in zip(q, p, strict=True)) for q in points)}
    assert frontier == expected
    assert len(kept) == len(frontier)


@given(POINTS)
def test_every_point_is_dominated_within_the_resolution(points: list[tuple[float, float, float]]) -> None:
    costs = np.array(points)
    kept = costs[pareto(costs, resolution=0.3)]
    for point in costs:
        near = (kept[:, 0] <= point[0]) & (kept[:, 1:] <= point[1:] * 1.3).all(axis=1)
        assert near.any()


def test_points_that_agree_within_the_resolution_count_once() -> None:
    costs = np.array([[1.0, 10.0, 5.0], [1.1, 9.95, 5.0], [1.2, 8.0, 5.0]])
    assert pareto(costs).tolist() == [0, 2]


def test_of_points_with_one_first_cost_the_others_decide() -> None:
    assert pareto(np.array([[1.0, 5.0, 5.0], [1.0, 4.0, 5.0]])).tolist() == [1]
    assert pareto(np.array([[1.0, 5.0, 5.0], [1.0, 5.0, 4.0]])).tolist() == [1]


@pytest.mark.parametrize(
    ("objective", "other", "reason"),
    [
        ("MinimizeEnergy", {"joules": 0.44}, "uses 10 % more energy"),
        ("MinimizeEnergy", {"replicas": 4}, "uses the same energy with 8 GPUs instead of 4"),
        ("MinimizeEnergy", {"replicas": 4, "tensor": 1}, "uses the same energy with 4 replicas instead of 2"),
        ("MinimizeEnergy", {"ttft": 506}, "uses the same energy with a longer TTFT of 506 ms"),
        ("MinimizeEnergy", {"ttft": 504}, "uses the same energy with a larger batch or more stages"),
        ("MinimizeEnergy", {"joules": 0.4 * (1 + 5e-7)}, "uses the same energy with a larger batch or more stages"),
        ("MinimizeEnergy", {"joules": 0.4 * (1 + 5e-6)}, "uses as much energy"),
        ("MinimizePower", {"watts": 1000}, "draws 25 % more power"),
        ("MinimizeGPUs", {"tensor": 4, "joules": 0.3}, "uses 8 GPUs instead of 4"),
        ("MinimizeGPUs", {"tensor": 4, "joules": 0.39, "unshared": 0.3}, "uses 8 GPUs instead of 4"),
        (
            "MinimizeEnergy",
            {"tensor": 4, "joules": 0.39, "unshared": 0.3},
            "is predicted to use 3 % less energy, but 32 % more energy including its risk",
        ),
        ("MinimizeGPUs", {"joules": 0.5}, "uses 25 % more energy"),
    ],
)
def test_the_reason_is_what_decided(objective: str, other: Row, reason: str) -> None:
    rows = candidates({}, other)
    rows = replace(rows, ttft_ms=rows.ttft_upper_ms)
    spec = asked(slo={}, energy={"objective": objective}).spec
    assert why_not(rows, (), 1, 0, spec).partition(":")[0] == reason


def test_broken_objectives_and_budgets_come_before_every_cost() -> None:
    rows = replace(candidates({}, {"joules": 0.3}), itl_ms=np.array([10.0, 60.0]), itl_upper_ms=np.array([10.0, 60.0]))
    rows = replace(rows, ttft_ms=np.array([10.0, 90.0]), ttft_upper_ms=np.array([10.0, 90.0]))
    spec = asked(slo={"itlMilliseconds": 50, "ttftMilliseconds": 80}).spec
    soft = [c for c in build_constraints(rows, spec, (), ((8,),), None) if c.kind == "SLO"]
    assert why_not(rows, soft, 1, 0, spec) == "TTFT P95 90 ms > 80 ms; ITL P95 60 ms > 50 ms"


@pytest.mark.parametrize(
    ("slo", "shown"),
    [
        ({}, ["itl_upper_ms", "ttft_upper_ms"]),
        ({"tpotMilliseconds": 5}, ["itl_upper_ms", "tpot_upper_ms", "ttft_upper_ms"]),
        ({"endToEndMilliseconds": 5}, ["itl_upper_ms", "end_to_end_upper_ms", "ttft_upper_ms"]),
    ],
)
def test_latencies_that_the_spec_bounds_are_worth_showing(slo: dict[str, Any], shown: list[str]) -> None:
    rows = candidates({})
    found = latencies(rows, asked(slo=slo).spec)
    assert [id(column) for column in found] == [id(getattr(rows, name)) for name in shown]


def figures(*rows: tuple[float, float, float]) -> Candidates:
    """Return candidates with an energy, an ITL and a TTFT each."""
    found = candidates(*({"joules": joules, "ttft": ttft} for joules, _, ttft in rows))
    return replace(found, itl_upper_ms=np.array([itl for _, itl, _ in rows]))


def test_what_breaks_an_objective_is_shown_and_what_cannot_run_is_not() -> None:
    rows = replace(figures((0.4, 40.0, 500.0), (0.3, 60.0, 500.0), (0.2, 20.0, 100.0), (0.5, 50.0, 600.0)))
    rows = replace(rows, sustainable=np.array([True, True, False, True]))
    spec = asked(slo={"itlMilliseconds": 50}).spec
    order, reasons = frontier_rows(rows, build_constraints(rows, spec, (), ((8,),), None), 0, spec)
    assert order.tolist() == [1, 0]
    assert reasons == {0: "", 1: "ITL P95 0 ms, with the safety margin 60 ms > 50 ms"}


def test_dominated_candidates_are_shown_for_what_they_are() -> None:
    spec = asked(slo={}).spec
    # The chosen one, the best of each product, and the lowest mean.
    rows = candidates(
        {"joules": 0.5}, {"joules": 0.4}, {"joules": 0.45}, {"joules": 0.39, "unshared": 0.3, "ttft": 900}
    )
    rows = replace(rows, products=("NVIDIA-H200", "NVIDIA-L40S"), product=np.array([0, 0, 1, 0]))
    rules = build_constraints(rows, spec, (), ((8,), (8,)), None)
    order, reasons = frontier_rows(rows, rules, 0, spec)
    assert order.tolist() == [1, 2, 0, 3]
    assert set(reasons) == {0, 1, 2, 3}
    order, _ = frontier_rows(rows, rules, 1, spec)
    assert order.tolist() == [1, 2, 3]


def test_the_best_of_a_third_product_is_shown() -> None:
    spec = asked(slo={}).spec
    rows = candidates({"joules": 0.4}, {"joules": 0.5}, {"joules": 0.6}, {"joules": 0.7})
    rows = replace(rows, products=("a", "b", "c"), product=np.array([0, 1, 2, 2]))
    order, _ = frontier_rows(rows, build_constraints(rows, spec, (), ((8,),) * 3, None), 0, spec)
    assert order.tolist() == [0, 1, 2]


def shown(rows: Candidates, chosen: int, **spec: Any) -> list[int]:
    """Return the energies, mJ, of the alternatives, given all candidates as the frontier."""
    asked_for = asked(**spec).spec
    rules = build_constraints(rows, asked_for, (), [(64,)] * len(rows.products), None)
    order = np.argsort(rows.joules_per_output_token)
    found = alternatives(rows, rules, order, {int(i): "" for i in order}, chosen, asked_for)
    return [int(one.joules_per_output_token.removesuffix("m")) for one in found]


def test_alternatives_are_the_best_by_each_interest() -> None:
    energies = [{"joules": joules / 1000} for joules in (300, 310, 400, 410, 420, 430, 440, 450, 460)]
    rows = replace(
        candidates(*energies),
        # 300 and 310 break the ITL; of those that break nothing, 420 has the lowest ITL and 430 the lowest TTFT.
        itl_upper_ms=np.array([60.0, 61.0, 40.0, 40.0, 20.0, 40.0, 40.0, 40.0, 40.0]),
        ttft_upper_ms=np.array([500.0, 500.0, 500.0, 500.0, 500.0, 100.0, 500.0, 500.0, 500.0]),
        replicas=np.array([2, 2, 2, 2, 2, 2, 1, 2, 2]),
        products=("NVIDIA-H200", "NVIDIA-L40S"),
        product=np.array([0, 0, 0, 0, 0, 0, 0, 1, 1]),
    )
    assert shown(rows, 2) == [300, 420, 430, 440, 450]
    assert shown(rows, 2, slo={}) == [420, 430, 440, 450]
    # Without a valid candidate of a product, its best one is shown.
    broken = replace(rows, itl_upper_ms=np.array([60.0, 61.0, 40.0, 40.0, 20.0, 40.0, 40.0, 70.0, 70.0]))
    assert shown(broken, 2) == [300, 420, 430, 440, 450]
    late = replace(broken, itl_upper_ms=np.array([60.0, 61.0, 40.0, 40.0, 20.0, 40.0, 40.0, 70.0, 30.0]))
    assert shown(late, 2) == [300, 420, 430, 440, 460]


def test_a_better_plan_is_of_interest_if_it_breaks_one_objective() -> None:
    rows = candidates(*({"joules": joules / 1000} for joules in (300, 310, 320, 400)))
    rows = replace(
        rows,
        itl_upper_ms=np.array([60.0, 60.0, 40.0, 40.0]),
        ttft_upper_ms=np.array([900.0, 500.0, 900.0, 500.0]),
    )
    assert shown(rows, 3, slo={"itlMilliseconds": 50, "ttftMilliseconds": 600}) == [310, 320]


def test_at_most_five_alternatives_are_shown() -> None:
    rows = replace(
        candidates(*({"joules": joules / 1000} for joules in range(400, 480, 10))),
        products=tuple(f"p{i}" for i in range(8)),
        product=np.arange(8),
    )
    assert shown(rows, 0) == [410, 420, 430, 440, 450]


def test_rows_of_the_table_name_prefill_replicas_and_the_chosen_one() -> None:
    rows = replace(candidates({}, {}), ttft_ms=np.array([100.2, 7.0]), end_to_end_ms=np.array([900.2, np.inf]))
    first, second = table(rows, np.array([0, 1]), {0: "", 1: "why"})
    assert (first["chosen"], first["reason"], first["ttftMilliseconds"], first["prefill"]) == (True, "", 101, None)
    assert (first["endToEndMilliseconds"], second["endToEndMilliseconds"]) == (901, None)
    assert (second["chosen"], second["reason"], second["ttftMilliseconds"]) == (False, "why", 7)


def test_only_a_job_has_an_end() -> None:
    rows = candidates({}, {})
    rows = replace(
        rows, completion_seconds=np.array([np.nan, 900.4]), job_start_seconds=np.array([0.0, 100.2]),
        utilization_limit=np.array([1.0, 0.8]), job_joules=np.array([0.0, 7201.0]),
    )  # fmt: skip
    assert planned_job(rows, 0) is None
    found = planned_job(rows, 1)
    assert found is not None
    assert (found.completion_seconds, found.start_seconds, found.energy_watt_hours) == (901, 101, 3)
    # The time after the start grows by the reserve: 100.2 + 800.2 / 0.8.
    assert found.longest_seconds == 1101


def test_the_table_has_as_many_rows_as_a_config_map_holds() -> None:
    rows = candidates(*({} for _ in range(501)))
    assert len(table(rows, np.arange(501), dict.fromkeys(range(501), "dearer"))) == 500
