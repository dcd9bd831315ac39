"""The status of a plan shows the figures of its candidate, in the units and roundings of the API."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, H200
from tests.unit.planner.search.conftest import Ask

from energylens.planner.search import plan_status as module
from energylens.planner.search.constraints import feasible
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.plan_status import lowest_power, plan_status
from energylens.planner.search.problem import Solution, solve
from energylens.planner.types import GpuNode, PowerAllowance
from energylens.predictor.fitted.recalibration import Learned, Lesson


def row_of(solution: Solution, **wanted: int) -> int:
    rows = solution.rows
    mask = rows.supported & rows.fits & rows.sustainable
    for name, value in wanted.items():
        mask &= getattr(rows if hasattr(rows, name) else rows.layouts, name) == value
    return int(np.flatnonzero(mask)[0])


def test_the_caches_of_all_ranks_count_and_a_request_lies_in_one(ask: Ask) -> None:
    problem = ask("moe", planning={"overrides": {"tensorParallel": 1, "pipelineParallel": 1}})
    solution = solve(problem)
    i = row_of(solution, data_parallel=2, replicas=1)
    status = plan_status(problem, solution, i)
    held = float(solution.rows.kv_cache_tokens[i])
    assert status.kv_cache_tokens == int(2 * held)
    context = problem.model.max_position
    assert status.longest_request_tokens == min(context, int(held))
    for tokens, shown, longest in ((100.9, 201, 100), (1e9, 2 * 10**9, context), (math.inf, None, context)):
        rows = replace(solution.rows, kv_cache_tokens=np.full(len(solution.rows), tokens))
        status = plan_status(problem, replace(solution, rows=rows), i)
        assert (status.kv_cache_tokens, status.longest_request_tokens) == (shown, longest)
    told = ask("moe", engine={"extraArgs": ["--max-model-len=1000"]})
    assert plan_status(told, solve(told), row_of(solve(told))).longest_request_tokens == 1000


def test_figures_are_those_of_the_row(ask: Ask) -> None:
    problem = ask("8b")
    solution = solve(problem)
    i = row_of(solution, replicas=2)
    rows, shown = solution.rows, plan_status(problem, solution, i).predicted
    assert (shown.power_watts, shown.idle_power_watts, shown.output_tokens_per_second, shown.concurrency) == tuple(
        round(float(column[i]))
        for column in (rows.power_watts, rows.idle_power_watts, rows.output_tokens_per_second, rows.concurrency)
    )
    assert (
        shown.ttft_milliseconds,
        shown.itl_milliseconds,
        shown.tpot_milliseconds,
        shown.end_to_end_milliseconds,
    ) == (
        tuple(math.ceil(float(column[i])) for column in (rows.ttft_ms, rows.itl_ms, rows.tpot_ms, rows.end_to_end_ms))
    )
    assert shown.utilization_percent == math.ceil(100 * float(rows.utilization[i]))
    assert shown.joules_per_output_token == f"{round(1000 * float(rows.joules_per_output_token[i]))}m"


@pytest.mark.parametrize("role", ["aggregated", "decode"])
def test_confidence_is_that_of_one_replica(role: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []

    def confidence_of(*args: Any, apart: bool) -> tuple[str, str]:
        asked.append((*args, apart))
        return "Measured", "it was measured"

    monkeypatch.setattr(module, "confidence_of", confidence_of)
    problem = ask("8b")
    solution = solve(problem)
    i = row_of(solution, replicas=4)
    status = plan_status(problem, replace(solution, rows=replace(solution.rows, role=role)), i)
    assert (status.confidence, status.confidence_reason) == ("Measured", "it was measured")
    ((_, nearest, *_, sequences, apart),) = asked
    assert nearest == solution.rows.nearest[i]
    assert sequences == pytest.approx(solution.rows.concurrency[i] / 4)
    assert apart is (role == "decode")


def test_the_network_is_that_of_the_plans_product_where_nodes_are_joined(ask: Ask) -> None:
    slow, fast = ({"energylens.dev/inter-node-gigabits-per-second": text} for text in ("100", "400"))
    label = next(iter(slow))
    nodes = (
        *(GpuNode(f"a{i}", H100, 4, labels=fast) for i in range(2)),
        *(GpuNode(f"b{i}", H200, 4, labels=slow) for i in range(2)),
    )
    problem = ask(nodes=nodes, planning={"overrides": {"tensorParallel": 4, "pipelineParallel": 2}})
    solution = solve(problem)
    for number, speed in ((0, 400), (1, 100)):
        assert problem.products[number] == (H100, H200)[number]
        joined = plan_status(problem, solution, row_of(solution, nodes_per_replica=2, product=number))
        assert joined.inter_node_network == f"{speed} Gbit/s per node (label {label})"
    unknown = ask(planning={"overrides": {"tensorParallel": 4, "pipelineParallel": 2}})
    found = plan_status(unknown, solve(unknown), row_of(solve(unknown), nodes_per_replica=2))
    assert found.inter_node_network is not None
    # 64 GB/s.
    assert found.inter_node_network.startswith("unknown, assumed to be the PCIe speed of one GPU (512 Gbit/s): ")
    alone = ask(planning={"overrides": {"tensorParallel": 4}})
    assert plan_status(alone, solve(alone), row_of(solve(alone), nodes_per_replica=1)).inter_node_network is None


def test_factors_are_those_of_the_plans_layout_and_load(ask: Ask) -> None:
    means = {"itl": math.log(1.5)}
    at_eight = Lesson("TP2", "chat", 8.0, Learned(means, {"itl": 1e6}))
    corrections = Corrections({H100: (at_eight,)}, "chat")
    problem = ask("8b", corrections=corrections, workload={"inputTokens": 300, "outputTokens": 400, "concurrency": 16})
    solution = solve(problem)
    taught = plan_status(problem, solution, row_of(solution, tensor_parallel=2, replicas=2)).correction
    assert taught is not None
    assert taught.itl == "1500m"
    distant = plan_status(problem, solution, row_of(solution, tensor_parallel=2, replicas=1)).correction
    assert distant is not None
    assert distant.itl != "1500m"
    assert plan_status(ask("8b"), solve(ask("8b")), row_of(solve(ask("8b")))).correction is None


def test_the_lowest_power_leaves_budgets_aside(ask: Ask) -> None:
    free = solve(ask("8b"))
    mask = feasible(free.constraints, len(free.rows))
    least = round(float(free.rows.power_watts[mask].min()))
    assert lowest_power(free) == least
    assert round(float(free.rows.power_watts[mask].max())) > least
    tight = solve(ask("8b", allowance=PowerAllowance(1.0, "EnergyBudget a/b")))
    assert tight.chosen is None
    assert lowest_power(tight) == least
    assert lowest_power(solve(ask("8b", slo={"itlMilliseconds": 1}))) is None
