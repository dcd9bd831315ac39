"""The parts of a planning problem: load, available GPUs, limits that leave candidates out, and what binds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, H200, L40S
from tests.unit.planner.search.conftest import Ask
from tests.unit.planner.search.large import asked
from tests.unit.planner.search.test_objective import candidates

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.inventory.capacity import replicas_that_fit
from energylens.planner.search import problem as module
from energylens.planner.search.breach import with_breach, with_limit
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import build_constraints, feasible
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.job import Job
from energylens.planner.search.load import Reserve
from energylens.planner.search.objective import best, objective_values
from energylens.planner.search.problem import (
    Problem,
    Solution,
    binding_constraint,
    clipped,
    kept_candidates,
    most_powered,
    most_replicas,
    reserve_of,
    solve,
    solve_again,
    spaces_of,
)
from energylens.planner.types import GpuAllocation, GpuNode, PowerAllowance
from energylens.predictor.requests import RequestClass

MIXED = (
    GpuNode("a", H100, 4, (GpuAllocation("x/y", 3),)),
    GpuNode("b", H100, 4, (GpuAllocation("team-a/chat", 2), GpuAllocation("x/y", 1)), schedulable=True),
    GpuNode("c", H100, 8, schedulable=False),
    GpuNode("d", H200, 4),
    GpuNode("e", L40S, 2),
)
BUDGET = "EnergyBudget a/b"


def test_the_load_is_that_of_the_spec(ask: Ask) -> None:
    classes = [
        {
            "sharePercent": 25,
            "inputTokens": 100,
            "outputTokens": 50,
            "prefixCacheHitPercent": 40,
            "inputTokensSCV": "2",
            "outputTokensSCV": "500m",
        },
        {"sharePercent": 75, "inputTokens": 1000, "outputTokens": 200},
    ]
    load = ask(workload={"classes": classes, "requestsPerSecond": "1500m", "arrivalSCV": "3"}).load
    assert load.workload.classes == (RequestClass(0.25, 100, 50, 0.4, 2.0, 0.5), RequestClass(0.75, 1000, 200))
    assert (load.requests_per_second, load.concurrency, load.job) == (1.5, None, None)
    assert load.workload.arrival_variation == 3.0
    plain = ask().load
    assert (plain.workload.arrival_variation, plain.requests_per_second) == (1.0, 2.0)


@pytest.mark.parametrize(("after", "idles"), [("Idle", True), ("Release", False)])
def test_a_job_has_its_deadline_and_what_follows(after: str, idles: bool, ask: Ask) -> None:
    job = {"requests": 100, "completeWithinSeconds": 3600, "afterCompletion": after, "startSeconds": 50}
    load = ask(workload={"inputTokens": 300, "outputTokens": 400, "job": job}).load
    assert (load.job, load.concurrency) == (Job(3600.0, idles, 50), 100)


def test_a_factor_on_the_load_keeps_whole_requests_in_flight(ask: Ask) -> None:
    assert replace(ask(), load_factor=1.5).load.requests_per_second == 3.0
    flight = ask(workload={"inputTokens": 300, "outputTokens": 400, "concurrency": 5})
    assert [replace(flight, load_factor=factor).load.concurrency for factor in (1.5, 1.0, 0.5, 0.1)] == [7, 5, 2, 1]


def test_gpus_of_the_own_pods_are_free_and_of_others_are_not(ask: Ask) -> None:
    problem = ask(nodes=MIXED)
    assert problem.products == (H100, H200, L40S)
    assert [problem.free_gpus(product) for product in problem.products] == [(1, 3, 0), (4,), (2,)]
    # H100 draws 72 W, H200 75 W and L40S 51.6 W when idle.
    assert problem.floor_watts == pytest.approx(51.6)
    assert ask(nodes=()).floor_watts == 0.0
    assert ask(nodes=MIXED, hardware={"gpuProducts": ["H200", "L40S"]}).allowed_products == (H200, L40S)


def test_capacity_that_is_kept_free_and_replicas_are_those_of_the_spec(ask: Ask) -> None:
    planning = ask(planning={"headroomPercent": 30, "spareReplicas": 2}).spec.planning
    assert reserve_of(planning) == Reserve(0.3, 2)
    assert reserve_of(ask(planning={"headroomPercent": 0}).spec.planning) == Reserve(0.0)
    assert reserve_of(ask().spec.planning) == Reserve(None)
    assert most_replicas(5, planning) == 7
    assert most_replicas(None, planning) is None
    load = {"inputTokens": 300, "outputTokens": 400, "concurrency": 1}
    spaces = spaces_of(ask("8b", workload=load, planning={"spareReplicas": 2}))
    assert max(int(space.last.max()) for space in spaces) == 3


@pytest.mark.parametrize(
    ("watts", "corrections", "idle", "most"),
    [
        (720.0, None, 72.0, 10),
        (719.5, None, 72.0, 10),
        (719.4, None, 72.0, 9),
        (720.0, Corrections(), 72.0, None),
        (720.0, None, 0.0, None),
        (0.4, None, 0.5, 1),
        (None, None, 72.0, None),
    ],
)
def test_watts_power_a_number_of_idle_gpus(
    watts: float | None, corrections: Corrections | None, idle: float, most: int | None, ask: Ask
) -> None:
    """A plan's power is rounded to whole watts, so that half a watt more counts as available."""
    allowance = None if watts is None else PowerAllowance(watts, BUDGET)
    assert most_powered(ask(allowance=allowance, corrections=corrections), idle) == most


CLIPS: list[tuple[dict[str, Any], bool]] = [
    ({}, False),
    ({"hardware": {"gpuProducts": ["H100"]}}, False),
    ({"hardware": {"maxGPUs": 4}}, False),
    ({"hardware": {"maxGPUsPerReplica": 2}}, False),
    ({"allowance": PowerAllowance(230.0, BUDGET)}, True),
    ({"allowance": PowerAllowance(230.0, BUDGET)}, False),
    ({"planning": {"overrides": {"replicas": 2}}}, False),
]


@pytest.mark.parametrize(("parts", "powered"), CLIPS)
def test_what_limits_forbid_is_left_out_and_nothing_else(parts: dict[str, Any], powered: bool, ask: Ask) -> None:
    problem = replace(ask("8b", nodes=MIXED, **parts), within_limits=True, within_power=powered)
    for space in spaces_of(problem):
        index, replicas = space.expand()
        free = problem.free_gpus(space.gpu.product)
        whole = set()
        for i, count in zip(index.tolist(), replicas.tolist(), strict=True):
            pods, size = int(space.nodes_per_replica[i]), int(space.gpus_per_node[i])
            room = int(replicas_that_fit(free, np.asarray([size]), np.asarray([pods]))[0])
            gpus = pods * size * count
            allowed = count <= room and gpus <= (problem.spec.hardware.max_gpus or gpus)
            allowed &= pods * size <= (problem.spec.hardware.max_gpus_per_replica or gpus)
            allowed &= space.gpu.product in problem.allowed_products
            if powered and problem.allowance is not None:
                allowed &= gpus * space.gpu.idle_watts <= problem.allowance.watts + 0.5
            if allowed:
                whole.add(
                    (tuple(column[i] for column in space.layouts.split), int(space.layouts.max_batch_size[i]), count)
                )
        few = clipped(problem, space)
        index, replicas = few.expand()
        found = [
            (tuple(column[i] for column in few.layouts.split), int(few.layouts.max_batch_size[i]), count)
            for i, count in zip(index.tolist(), replicas.tolist(), strict=True)
        ]
        assert len(found) == len(set(found))
        assert set(found) == whole


def test_a_search_within_limits_chooses_as_one_of_all_candidates(ask: Ask) -> None:
    for parts, _ in CLIPS[:-1]:
        whole = ask("8b", nodes=MIXED, **parts)
        powered = "allowance" in parts
        few = solve(replace(whole, within_limits=True, within_power=powered))
        every = solve(whole)
        assert (few.chosen is None) == (every.chosen is None)
        assert len(few.rows) < len(every.rows)
        if few.chosen is not None and every.chosen is not None:
            for name in ("replicas", "power_watts", "joules_per_output_token", "nodes_per_replica"):
                assert getattr(few.rows, name)[few.chosen] == getattr(every.rows, name)[every.chosen]


@pytest.mark.parametrize(
    ("watts", "bound", "largest"), [(230.0, None, 3), (230.0, 2, 2), (230.0, 16, 3), (1.0, None, 1), (1.0, 16, 1)]
)
def test_no_more_gpus_are_evaluated_than_the_power_may_run_idle(
    watts: float, bound: int | None, largest: int, ask: Ask
) -> None:
    """A GPU draws 72 W when idle; one GPU is always evaluated, so that an answer can say what is missing."""
    problem = ask("8b", allowance=PowerAllowance(watts, BUDGET))
    powered = solve(replace(problem, within_limits=True, within_power=True), bound).rows
    assert (int(powered.gpus.max()) if len(powered) else 1) == largest
    assert solve(problem, bound).rows.gpus.max() == min(8, bound or 8)


def test_candidates_that_are_too_many_are_counted(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = ask("8b")
    every = solve(problem)
    assert every.left_out == ()
    monkeypatch.setattr(module, "MOST_CANDIDATES", 100)
    few = solve(problem)
    (left_out,) = few.left_out
    assert len(few.rows) <= 100
    assert left_out.candidates == len(every.rows) - len(few.rows) > 0
    gpus = int(few.rows.gpus.max())
    text = f"plans of more than {gpus} GPU{'s' if gpus > 1 else ''} of {H100} are not evaluated on this many nodes"
    assert (left_out.rule, left_out.message) == ("SpaceTooLarge", text)
    assert few.rejections[0] == left_out


@pytest.mark.parametrize("free", [(4, 4), (4, 0), (1, 1), (0, 0), (2, 3)])
@pytest.mark.parametrize("objective", ["MinimizeEnergy", "MinimizeGPUs"])
def test_kept_candidates_give_the_answer_for_other_free_gpus(objective: str, free: tuple[int, int], ask: Ask) -> None:
    parts: dict[str, Any] = {"energy": {"objective": objective}, "slo": {"itlMilliseconds": 30, "percentile": "P50"}}
    problem = ask("8b", **parts)
    kept = kept_candidates(solve(problem), problem.spec)
    assert kept is not None
    nodes = tuple(
        replace(node, allocations=(GpuAllocation("x/y", 4 - left),))
        for node, left in zip(problem.nodes, free, strict=True)
    )
    other = replace(problem, nodes=nodes)
    again, fresh = solve_again(other, kept), solve(other)
    assert (again is None) == (fresh.chosen is None)
    if again is not None and again.chosen is not None and fresh.chosen is not None:
        for name in ("replicas", "power_watts", "joules_per_output_token", "nodes_per_replica"):
            assert getattr(again.rows, name)[again.chosen] == getattr(fresh.rows, name)[fresh.chosen]
        assert len(again.rows) < len(fresh.rows)


def test_candidates_whose_steps_may_change_are_predicted_anew(ask: Ask) -> None:
    """Candidates that use less energy break the TTFT, and longer steps might help them; an override fixes the steps."""
    slo = {"ttftMilliseconds": 20}
    problem = ask("8b", slo=slo)
    solution = solve(problem)
    assert solution.chosen is not None
    kept = kept_candidates(solution, problem.spec)
    assert kept is not None
    assert solve_again(problem, kept) is None
    fixed = ask("8b", slo=slo, planning={"overrides": {"maxBatchedTokens": 8192}})
    again = solve_again(fixed, kept)
    assert again is not None
    assert again.chosen is not None
    assert again.rows.power_watts[again.chosen] == solution.rows.power_watts[solution.chosen]
    steps = np.zeros(len(solution.rows), dtype=np.int64)
    steps[-1] = 4096
    rows = replace(solution.rows, layouts=replace(solution.rows.layouts, max_batched_tokens=steps))
    assert kept_candidates(replace(solution, rows=rows), problem.spec) is None
    stepped = replace(solution, rows=rows)
    told = {"type": "VLLM", "extraArgs": ["--max-num-batched-tokens=8192"]}
    job = {"inputTokens": 300, "outputTokens": 400, "job": {"requests": 100, "completeWithinSeconds": 3600}}
    for other in (fixed, ask("8b", slo=slo, engine=told), ask("8b", workload=job)):
        assert kept_candidates(stepped, other.spec) is not None


def lowest_without(problem: Problem, field: str) -> float:
    solution = solve(problem)
    (left,) = (c for c in solution.constraints if c.field == field)
    mask = feasible(solution.constraints, len(solution.rows), without=[left])
    rows = with_limit(solution.rows, problem.spec, left, None)
    return float(objective_values(rows, problem.spec.energy.objective)[mask].min())


@pytest.mark.parametrize(
    ("parts", "field"),
    [
        ({"slo": {"itlMilliseconds": 7, "percentile": "P50"}}, "spec.slo.itlMilliseconds"),
        ({"slo": {"itlMilliseconds": 500}}, "None"),
        ({"hardware": {"gpuProducts": ["H200"]}}, "spec.hardware.gpuProducts"),
        ({"hardware": {"gpuProducts": ["H200"]}, "slo": {"itlMilliseconds": 7}}, "spec.slo.itlMilliseconds"),
        ({"slo": {"itlMilliseconds": 7}, "energy": {"objective": "MinimizeGPUs"}}, "spec.slo.itlMilliseconds"),
        ({"allowance": PowerAllowance(900.0, BUDGET), "slo": {"itlMilliseconds": 9}}, "spec.slo.itlMilliseconds"),
    ],
)
def test_the_binding_constraint_is_the_one_whose_removal_saves_most(
    parts: dict[str, Any], field: str, ask: Ask
) -> None:
    problem = ask("8b", nodes=MIXED, **parts)
    solution = solve(problem)
    assert solution.chosen is not None
    assert binding_constraint(solution, problem.spec) == field
    mask = feasible(solution.constraints, len(solution.rows))
    value = float(objective_values(solution.rows, problem.spec.energy.objective)[mask].min())
    fields = {c.field for c in solution.constraints if c.kind in ("GPUs", "SLO", "Power")}
    lowest = {name: lowest_without(problem, name) for name in fields}
    least = min(lowest, key=lambda name: lowest[name])
    assert (least if lowest[least] < 0.999 * value else "None") == field
    # Nothing is left to gain below a value that no candidate reaches.
    assert binding_constraint(solution, problem.spec, beyond=1e-12) == "None"


def bound_of(rows: Candidates, spec: LLMDeploymentSpec) -> tuple[int | None, str]:
    """Return the chosen candidate and the binding constraint of some rows."""
    rows = with_breach(rows, spec)
    constraints = build_constraints(rows, spec, rows.products, ((8, 8),), None)
    chosen = best(rows, feasible(constraints, len(rows)), "MinimizeEnergy")
    return chosen, binding_constraint(Solution(rows, constraints, chosen), spec)


def test_what_saves_less_than_a_tie_of_the_plan_does_not_bind() -> None:
    """The plan ties with a lower candidate on two nodes; one that breaks the ITL uses less than the plan only."""
    spec = asked(slo={"itlMilliseconds": 30}).spec
    rows = candidates({"joules": 0.4, "own": 0.1, "nodes": 2}, {"joules": 0.405, "own": 0.1}, {"joules": 0.403})
    itl = np.asarray([20.0, 20.0, 35.0])
    rows = replace(rows, itl_ms=itl, itl_upper_ms=itl, itl_decode_upper_ms=itl)
    assert bound_of(rows, spec) == (1, "None")
    lower = replace(rows, joules_per_output_token=np.asarray([0.4, 0.405, 0.39]))
    assert bound_of(lower, spec) == (1, "spec.slo.itlMilliseconds")


def test_an_objective_whose_chance_of_breaking_raises_the_plan_does_not_bind_by_that() -> None:
    """Without the ITL the plan needs 0.3985 J, less than the candidate that breaks the ITL."""
    spec = asked(slo={"itlMilliseconds": 30}).spec
    rows = candidates({"joules": 0.4, "own": 0.1, "nodes": 2}, {"joules": 0.3985, "own": 0.1}, {"joules": 0.399})
    itl, upper = np.asarray([10.0, 25.0, 35.0]), np.asarray([10.0, 25.5, 35.0])
    rows = replace(rows, itl_ms=itl, itl_upper_ms=upper, itl_decode_upper_ms=itl)
    risky = with_breach(rows, spec)
    assert 0.4 < objective_values(risky, "MinimizeEnergy")[1] < 0.404
    assert bound_of(rows, spec) == (1, "None")
