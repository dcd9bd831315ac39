"""Among contenders a search chooses and shows what it does among all candidates, whichever GPUs are free."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.unit.planner.search.large import asked
from tests.unit.planner.search.test_objective import Row, candidates

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import build_constraints, feasible
from energylens.planner.search.contenders import contenders
from energylens.planner.search.frontier import alternatives, frontier_rows, table
from energylens.planner.search.objective import best, objective_values
from energylens.planner.search.problem import Solution, binding_constraint
from energylens.planner.search.steps import directions, highest_tried
from energylens.predictor.types import FloatArray, IntArray

PRODUCTS = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S")
NODES = 6
GPUS = 8
SPECS: tuple[dict[str, Any], ...] = (
    {"slo": {"itlMilliseconds": 30}},
    {"slo": {"itlMilliseconds": 33, "ttftMilliseconds": 510, "tpotMilliseconds": 33}},
    {"slo": {}, "energy": {"objective": "MinimizePower"}},
    {"slo": {"itlMilliseconds": 31}, "energy": {"objective": "MinimizeGPUs"}},
    {"slo": {"itlMilliseconds": 33}, "hardware": {"gpuProducts": ["L40S"], "maxGPUs": 8}},
    {"slo": {"joulesPerOutputToken": "430m"}, "hardware": {"maxGPUsPerReplica": 2}},
)


def drawn(seed: int, size: int) -> Candidates:
    """Return candidates whose figures are in no order, close to each other, and often equal."""
    rng = np.random.default_rng(seed)

    def whole(*values: int) -> IntArray:
        return rng.choice(np.asarray(values, dtype=np.int64), size)

    def steps(low: float, step: float, count: int) -> FloatArray:
        return np.asarray(low * (1.0 + step * rng.integers(0, count, size)))

    rows = candidates(*({} for _ in range(size)))
    layouts = replace(
        rows.layouts,
        tensor_parallel=whole(1, 2, 3, 4, 8),
        pipeline_parallel=whole(1, 1, 2),
        max_batch_size=whole(8, 16, 32, 64),
    )
    joules, itl, ttft = steps(0.4, 0.002, int(rng.choice([4, 60]))), steps(30.0, 0.004, 30), steps(500.0, 0.004, 10)
    late = rng.random(size) < 0.1
    return replace(
        rows,
        products=PRODUCTS,
        product=whole(0, 1),
        layouts=layouts,
        nodes_per_replica=np.where(layouts.gpus % 2 == 0, whole(1, 1, 2), 1),
        replicas=whole(1, 2, 3, 4, 6),
        sustainable=~late,
        joules_per_output_token=joules,
        joules_upper=joules * 1.05,
        power_watts=steps(700.0, 0.002, 60),
        itl_ms=itl,
        itl_upper_ms=itl,
        itl_decode_upper_ms=itl * rng.choice([0.5, 1.0], size),
        tpot_upper_ms=itl * 1.02,
        ttft_ms=ttft,
        ttft_upper_ms=np.where(late, np.inf, ttft),
        utilization=np.full(size, 0.5),
        utilization_limit=np.ones(size),
        burst_sequences=steps(8.0, 1.0, 6),
        unshared_deviation=steps(0.02, 0.5, 5),
        layout_deviation=steps(0.01, 0.5, 5),
        breach_chance=steps(0.0, 0.25, 5),
        nearest=whole(0, 1, 2),
    )


def shown(rows: Candidates, spec: LLMDeploymentSpec, free: Sequence[Sequence[int]]) -> dict[str, object] | None:
    """Return everything that an answer has of a search; None if no candidate satisfies every constraint."""
    allowed = [product for product in PRODUCTS if not spec.hardware.gpu_products or "L40S" in product]
    constraints = build_constraints(rows, spec, allowed, free, None)
    valid, values = feasible(constraints, len(rows)), objective_values(rows, spec.energy.objective)
    chosen = best(rows, valid, spec.energy.objective)
    if chosen is None:
        return None
    order, reasons = frontier_rows(rows, constraints, chosen, spec)
    fewer, more = directions(rows, constraints, spec)
    tried = (fewer | more) & (values <= highest_tried(values, chosen))
    return {
        "table": table(rows, order, reasons),
        "alternatives": alternatives(rows, constraints, order, reasons, chosen, spec),
        "binding": binding_constraint(Solution(rows, constraints, chosen), spec),
        "power": round(float(rows.power_watts[valid].min())),
        "steps are tried": bool(tried.any()),
    }


FREE = st.tuples(*(st.lists(st.integers(0, GPUS), min_size=NODES, max_size=NODES) for _ in PRODUCTS))


@pytest.mark.parametrize("parts", SPECS)
@given(seed=st.integers(0, 2**32), size=st.integers(1, 250), free=st.lists(FREE, min_size=1, max_size=6))
@example(seed=1, size=250, free=[([8] * 6, [8] * 6), ([0] * 6, [1] * 6), ([4] * 6, [0] * 6)])
@settings(max_examples=15)
def test_contenders_are_enough_for_any_free_gpus(
    parts: dict[str, Any], seed: int, size: int, free: list[Sequence[Sequence[int]]]
) -> None:
    spec, rows = asked(**parts).spec, drawn(seed, size)
    allowed = [product for product in PRODUCTS if not spec.hardware.gpu_products or "L40S" in product]
    constraints = build_constraints(rows, spec, allowed, free[0], None)
    few = rows.take(contenders(rows, constraints, spec))
    for gpus in free:
        assert shown(few, spec, gpus) == shown(rows, spec, gpus)


def test_candidates_that_nothing_can_bring_to_light_are_left_out() -> None:
    # Eight times the energy and more GPUs for the same latency.
    rows = candidates({}, {"joules": 3.2, "watts": 6400, "tensor": 4}, {"joules": 0.4, "watts": 790, "tensor": 8})
    spec = asked(slo={}).spec
    constraints = build_constraints(rows, spec, rows.products, [[8]], None)
    assert contenders(rows, constraints, spec).tolist() == [0, 2]


def test_of_equal_candidates_the_first_stays_beside_one_with_smaller_pods() -> None:
    # Two candidates of an early TTFT alike, of one pod with four GPUs and of two pods with two: the first is shown.
    early = {"joules": 1.2, "watts": 2400, "ttft": 100, "replicas": 1, "tensor": 4}
    rows, spec = candidates({}, early, early | {"nodes": 2}), asked(slo={}).spec
    free = ((8,),)
    constraints = build_constraints(rows, spec, rows.products, free, None)
    few = rows.take(contenders(rows, constraints, spec))
    for some in (rows, few):
        order, _ = frontier_rows(some, build_constraints(some, spec, some.products, free, None), 0, spec)
        assert some.nodes_per_replica[order].tolist() == [1, 1]


def test_a_tie_at_its_limit_is_a_contender_with_its_larger_batch() -> None:
    """The lowest candidate needs two nodes; a simpler one ties with 9.5 % more, its larger batch costs 0.09 % more."""
    unsure: Row = {"own": 0.2}
    simple: Row = {**unsure, "joules": 0.4 * float(np.exp(0.0952)), "watts": 900, "batch": 8, "burst": 30}
    larger: Row = {**simple, "joules": simple["joules"] * 1.0009, "batch": 64}
    rows, spec = candidates({**unsure, "nodes": 2, "batch": 32}, simple, larger), asked(slo={}).spec
    constraints = build_constraints(rows, spec, rows.products, ((8, 8),), None)
    assert best(rows, feasible(constraints, len(rows)), "MinimizeEnergy") == 2
    assert set(contenders(rows, constraints, spec)) >= {0, 2}


def test_a_candidate_that_cannot_run_hides_no_other_one() -> None:
    """The frontier also shows candidates that break objectives, but none that cannot sustain the load."""
    chosen: Row = {"joules": 0.8}
    breaking: list[Row] = [{"joules": 0.3}, {"joules": 0.5}]
    rows = candidates(chosen, *breaking, {"joules": 0.1})
    itl = np.asarray([30.0, 45.0, 40.0, 34.0])
    rows = replace(
        rows,
        itl_ms=itl,
        itl_upper_ms=itl,
        itl_decode_upper_ms=itl,
        sustainable=np.asarray([True, True, True, False]),
        utilization_limit=np.ones(4),
    )
    spec = asked(slo={"itlMilliseconds": 30}).spec
    constraints = build_constraints(rows, spec, rows.products, ((8,),), None)
    assert contenders(rows, constraints, spec).tolist() == [0, 1, 2]
