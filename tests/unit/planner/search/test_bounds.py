"""Bounds of a search in a large cluster, with the predictor of plain arithmetic."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, L40S
from tests.unit.planner.search.conftest import Ask

from energylens.planner.search.plan_status import plan_status
from energylens.planner.search.problem import Problem, solve
from energylens.planner.search.ranking import OUT_OF_REACH, breach_factor
from energylens.planner.search.reach import (
    STEPS,
    bounds,
    inventory_within,
    is_tried,
    places_within,
    power_restricts,
    reach_of,
    seen_within,
    solve_within,
)
from energylens.planner.types import GpuNode, PowerAllowance

BUDGET = "EnergyBudget a/b"


def nodes(h100: int = 20, l40s: int = 0, size: int = 8) -> tuple[GpuNode, ...]:
    return tuple(
        GpuNode(f"{product}-{number}", product, size)
        for product, count in ((H100, h100), (L40S, l40s))
        for number in range(count)
    )


def rate(value: str) -> dict[str, Any]:
    return {"workload": {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": value}}


CASES: list[dict[str, Any]] = [
    rate("2"),
    rate("60"),
    rate("300"),
    rate("60") | {"energy": {"objective": "MinimizePower"}},
    rate("60") | {"energy": {"objective": "MinimizeGPUs"}},
    rate("60") | {"slo": {"itlMilliseconds": 8, "percentile": "P50"}},
    rate("60") | {"slo": {"itlMilliseconds": 9}},
    {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": 40}},
    {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": 40}, "energy": {"objective": "MinimizeGPUs"}},
    rate("2") | {"planning": {"overrides": {"replicas": 3}}},
]


@pytest.mark.parametrize("parts", CASES)
@pytest.mark.parametrize("counts", [(20, 0), (9, 30)])
def test_the_plan_within_a_bound_is_that_of_the_whole_cluster(
    parts: dict[str, Any], counts: tuple[int, int], ask: Ask
) -> None:
    problem = ask("8b", nodes=nodes(*counts), **parts)
    (few, most), every = solve_within(problem), solve(problem)
    assert (few.chosen is None) == (every.chosen is None)
    if every.chosen is None or few.chosen is None:
        return
    shown = [
        (rows.products[rows.product[i]], *(column[i] for column in (rows.replicas, rows.power_watts, rows.itl_ms)))
        for rows, i in ((few.rows, few.chosen), (every.rows, every.chosen))
    ]
    assert shown[0] == shown[1]
    plan = plan_status(problem, few, few.chosen)
    assert reach_of(plan, problem.spec, problem.nodes, problem.gpus, corrected=False) == most
    if most is not None:
        assert int(few.rows.gpus.max()) <= most
        assert proves(problem, most, plan.gpus, plan.predicted.power_watts, plan.predicted.breach_percent or 0)
    is_bounded = "overrides" not in str(parts) and ("concurrency" not in str(parts) or "GPUs" in str(parts))
    largest = 8 * max(counts)
    for step in [step for step in STEPS if step < largest and (most is None or step < most)]:
        within = solve(problem, step)
        if within.chosen is None or not is_bounded:
            continue
        lower = plan_status(problem, within, within.chosen)
        watts, breach = lower.predicted.power_watts, lower.predicted.breach_percent or 0
        assert not proves(problem, step, lower.gpus, watts, breach), step


def proves(problem: Problem, most: int, gpus: int, watts: int, breach: int) -> bool:
    """Return whether every candidate of more GPUs than a bound loses against a plan: its idle GPUs draw too much."""
    if problem.spec.energy.objective == "MinimizeGPUs":
        return gpus <= most
    floor = min(problem.gpus[product].idle_watts for product in problem.products)
    return (most + 1) * floor > OUT_OF_REACH * float(breach_factor(breach / 100)) * (watts + 1)


@pytest.mark.parametrize("objective", ["MinimizeEnergy", "MinimizeGPUs"])
@pytest.mark.parametrize("breach", [None, 10])
def test_a_bound_holds_up_to_the_power_that_proves_it(objective: str, breach: int | None, ask: Ask) -> None:
    """A GPU draws 72 W when idle, and a plan within 16 GPUs is compared with one of 17."""
    problem = ask("8b", nodes=nodes(), energy={"objective": objective}, **rate("2"))
    solution = solve(problem, 16)
    assert solution.chosen is not None
    plan = plan_status(problem, solution, solution.chosen)
    highest = int(17 * 72.0 / (OUT_OF_REACH * float(breach_factor((breach or 0) / 100))) - 1)

    def bound(watts: int, gpus: int = 1) -> int | None:
        figures = plan.predicted.model_copy(update={"power_watts": watts, "breach_percent": breach})
        edited = plan.model_copy(update={"predicted": figures, "gpus": gpus})
        return reach_of(edited, problem.spec, problem.nodes, problem.gpus, corrected=False)

    if objective == "MinimizeGPUs":
        assert [bound(9000, gpus) for gpus in (16, 17, 64, 65)] == [16, 64, 64, None]
        return
    assert (bound(highest), bound(highest + 1)) == (16, 64)
    assert bound(10**6) is None


def test_without_nodes_there_is_no_bound(ask: Ask) -> None:
    problem = ask("8b", nodes=nodes(), **rate("2"))
    solution = solve(problem, 16)
    assert solution.chosen is not None
    plan = plan_status(problem, solution, solution.chosen)
    assert reach_of(plan, problem.spec, (), problem.gpus, corrected=False) is None
    assert reach_of(plan, problem.spec, problem.nodes, problem.gpus, corrected=True) is None


@pytest.mark.parametrize(
    ("counts", "steps"),
    [
        ((8, 8), ()),
        ((9, 0), (16, 64)),
        ((0, 9), (16, 64)),
        ((32, 1), (16, 64)),
        ((33, 1), (16, 64, 256)),
        ((128, 0), (16, 64, 256)),
        ((129, 0), (16, 64, 256, 1024)),
        ((0, 0), ()),
    ],
)
def test_bounds_are_those_below_the_gpus_of_the_largest_product(
    counts: tuple[int, int], steps: tuple[int, ...], ask: Ask
) -> None:
    spec, these = ask("8b").spec, nodes(*counts)
    assert list(bounds(spec, these, corrected=False)) == [*steps, None]
    assert list(bounds(spec, these, corrected=True)) == [None]
    assert [most for most in (*STEPS, None) if is_tried(most, these)] == list(steps)


@pytest.mark.parametrize(
    ("parts", "bounded"),
    [
        ({}, True),
        ({"planning": {"overrides": {"replicas": 1}}}, False),
        ({"planning": {"overrides": {"tensorParallel": 1}}}, True),
        ({"planning": {"disaggregation": "Compare"}}, False),
        ({"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": 3}}, False),
        (CASES[8], True),
    ],
)
def test_more_gpus_may_cost_less_under_some_specs(parts: dict[str, Any], bounded: bool, ask: Ask) -> None:
    assert len(list(bounds(ask("8b", **parts).spec, nodes(), corrected=False))) == (3 if bounded else 1)


@pytest.mark.parametrize("watts", [100.0, 300.0, 500.0, 5000.0])
@pytest.mark.parametrize("parts", [CASES[0], CASES[2], CASES[7], CASES[9], rate("1500")])
def test_too_little_power_is_found_within_a_bound_that_has_what_a_message_names(
    parts: dict[str, Any], watts: float, ask: Ask
) -> None:
    problem = ask("8b", nodes=nodes(), allowance=PowerAllowance(watts, BUDGET), **parts)
    (few, most), every = solve_within(problem), solve(problem)
    assert (few.chosen is None) == (every.chosen is None)
    if every.chosen is not None:
        assert power_restricts(few, problem.spec) == power_restricts(every, problem.spec)
        return
    # Every candidate that the power leaves, and the one of least power, lie within the bound, and within no lower one.
    least = {step: least_power(problem, step) for step in (16, 64)}
    proved = [step for step, power in least.items() if watts + 0.5 < 72.0 * (step + 1) and power < 72.0 * (step + 1)]
    assert most == (proved[0] if proved else None)
    assert proved or parts["workload"]["requestsPerSecond"] in ("300", "1500")
    if most is not None:
        assert least[most] == least_power(problem, 160)


def least_power(problem: Problem, most: int) -> float:
    """Return the least power of candidates within a bound that meet every rule but the power, W; infinite if none."""
    found = solve(problem, most)
    mask = np.logical_and.reduce([c.holds for c in found.constraints if c.kind != "Power"])
    return float(np.min(found.rows.power_watts[mask], initial=np.inf))


@pytest.mark.parametrize("slo", [{}, {"itlMilliseconds": 7, "percentile": "P50"}])
def test_power_restricts_where_another_plan_would_be_chosen(slo: dict[str, Any], ask: Ask) -> None:
    free = ask("8b", nodes=nodes(2), slo=slo, **CASES[7])
    whole = solve(free)
    assert whole.chosen is not None
    watts = float(whole.rows.power_watts[whole.chosen])
    assert not power_restricts(whole, free.spec)
    for allowed, restricts in ((watts + 1, False), (watts - 1, True)):
        problem = replace(free, allowance=PowerAllowance(allowed, BUDGET))
        assert power_restricts(solve(problem), problem.spec) is restricts


def test_the_inventory_names_sizes_until_a_product_has_more_gpus_than_the_bound(ask: Ask) -> None:
    problem = ask("8b")
    spec, model, gpus = problem.spec, problem.model, problem.gpus
    mixed = (*nodes(2), *nodes(1, 1, 4), GpuNode("none", H100, 0), GpuNode("one", L40S, 1))
    whole = [[H100, 4, 1], [H100, 8, 2], [L40S, 1, 1], [L40S, 4, 1]]
    assert inventory_within(spec, model, mixed, gpus, None) == whole
    assert inventory_within(spec, model, mixed, gpus, 20) == whole
    some = inventory_within(spec, model, mixed, gpus, 19)
    assert [entry[:2] for entry in some] == [[H100, 19], [L40S, 1], [L40S, 4]]
    assert inventory_within(spec, model, nodes(20), gpus, 19) == inventory_within(spec, model, nodes(21), gpus, 19)
    assert inventory_within(spec, model, nodes(2), {}, 4) == [[H100, 8, 2]]
    digests = {
        str(inventory_within(ask("8b", **parts).spec, model, mixed, gpus, most))
        for parts, most in (
            ({}, 19),
            ({}, 12),
            ({"planning": {"overrides": {"replicas": 2}}}, 19),
            ({"planning": {"overrides": {"maxBatchSize": 8}}}, 19),
            ({"energy": {"powerCap": {"mode": "Fixed", "wattsPerGPU": 300}}}, 19),
            (CASES[7] | {"workload": {"inputTokens": 300, "outputTokens": 400, "concurrency": 3}}, 19),
        )
    }
    assert len(digests) == 6
    assert len({str(inventory_within(spec, each, mixed, gpus, 19)) for each in (model, ask("moe").model)}) == 2


def test_nodes_are_seen_up_to_the_number_that_a_plan_can_use() -> None:
    few, more = nodes(17), nodes(18)
    assert seen_within(few, 16) == seen_within(more, 16)
    assert seen_within(few, None) != seen_within(more, None)
    assert seen_within(few, 17) != seen_within(nodes(16), 17)
    assert seen_within(nodes(8), 4) != seen_within(nodes(9), 4), "the steps differ"
    seen = dict(seen_within(more, 16)[1])  # type: ignore[call-overload]
    assert list(seen.values()) == [16]


def test_a_cluster_of_up_to_64_gpus_of_each_product_is_small(ask: Ask) -> None:
    spec = ask("8b").spec
    assert list(bounds(spec, (*nodes(8), GpuNode("more", L40S, 64)), corrected=False)) == [None]
    assert list(bounds(spec, (*nodes(8), GpuNode("more", H100, 1)), corrected=False)) == [16, 64, None]


def test_places_are_counted_for_every_size_of_pods() -> None:
    assert places_within([], 16) == places_within([0], None) == {}
    free = [8, 5, 0, 3, 3]
    for most in (None, 4, 7, 100):
        expected = Counter({size: sum(gpus // size for gpus in free) for size in range(1, 9)})
        found = places_within(free, most)
        assert found == {size: count if most is None else min(count, most // size) for size, count in expected.items()}
