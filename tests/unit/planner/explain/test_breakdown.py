"""What constraints cost and where energy goes, of planned candidates."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, H200, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.data import find_gpu, load_gpus, load_model
from energylens.data.predictor import load_predictor
from energylens.planner.explain.breakdown import JOB_PART, parts_of, prices
from energylens.planner.planning import problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.breakdown import EnergyParts, energy_parts
from energylens.predictor.fitted.recalibration import Learned, Lesson
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec


@pytest.fixture
def problem(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> Problem:
    asked = make_deployment(
        slo={"percentile": "P50", "itlMilliseconds": 15, "ttftMilliseconds": 4000},
        hardware={"gpuProducts": ["H100", "L40S"], "maxGPUs": 8},
    )
    snapshot = make_snapshot((H100, 8, 1), (H200, 8, 1), (L40S, 4, 1))
    return problem_for(asked, models["70b"], snapshot, gpus, predictor, None, None)


def energy_within(problem: Problem, itl_milliseconds: int) -> float:
    """Return the joules per output token of the plan under another objective."""
    slo = problem.spec.slo.model_copy(update={"itl_milliseconds": itl_milliseconds})
    found = solve(replace(problem, spec=problem.spec.model_copy(update={"slo": slo})))
    assert found.chosen is not None
    return float(found.rows.joules_per_output_token[found.chosen])


def test_each_price_is_what_planning_without_the_constraint_saves(problem: Problem) -> None:
    solution = solve(problem)
    assert solution.chosen is not None
    found = {price.field: price for price in prices(problem, solution)}
    assert set(found) == {"spec.slo.itlMilliseconds", "spec.hardware.gpuProducts"}
    slo = problem.spec.slo.model_copy(update={"itl_milliseconds": None})
    without = solve(replace(problem, spec=problem.spec.model_copy(update={"slo": slo})))
    assert without.chosen is not None
    energies = (
        solution.rows.joules_per_output_token[solution.chosen],
        without.rows.joules_per_output_token[without.chosen],
    )
    price = found["spec.slo.itlMilliseconds"]
    assert price.joules_saved == pytest.approx(energies[0] - energies[1])
    assert price.value == "15"
    assert price.needed is not None
    assert energy_within(problem, int(price.needed)) == pytest.approx(energies[1], rel=1e-3)
    assert energy_within(problem, int(price.needed) - 1) > 1.001 * energies[1]
    assert found["spec.hardware.gpuProducts"].needed is None


def test_another_plan_that_saves_as_much_needs_no_more(
    make_deployment: Callable[..., LLMDeployment], make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    """The best plan without a latency may have a smaller batch than an equal one that wins at a lower limit."""
    asked = make_deployment(
        workload={"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "4"},
        slo={"percentile": "P50", "ttftMilliseconds": 2000, "itlMilliseconds": 30},
        planning={"overrides": {"replicas": 1}},
    )
    model = load_model("meta-llama/Llama-3.1-70B-Instruct")
    snapshot = make_snapshot((find_gpu("B200").product, 8, 1), (find_gpu("H200").product, 8, 1))
    problem = problem_for(asked, model, snapshot, load_gpus(), load_predictor(), None, None)
    solution = solve(problem)
    (price,) = (price for price in prices(problem, solution) if price.field == "spec.slo.itlMilliseconds")
    saves = float(solution.rows.joules_per_output_token[price.plan])
    assert price.needed is not None
    assert energy_within(problem, int(price.needed)) == pytest.approx(saves, rel=1.1e-3)
    assert energy_within(problem, int(price.needed) - 1) > 1.1 * saves
    # The price of that limit is no news.
    slo = problem.spec.slo.model_copy(update={"itl_milliseconds": int(price.needed)})
    within = replace(problem, spec=problem.spec.model_copy(update={"slo": slo}))
    assert prices(within, solve(within)) == ()


ARRIVING, IN_FLIGHT = {"requestsPerSecond": "2"}, {"concurrency": 64}


@pytest.mark.parametrize(
    ("objective", "figure"),
    [("MinimizeEnergy", "joules_per_output_token"), ("MinimizePower", "power_watts"), ("MinimizeGPUs", "gpus")],
)
@pytest.mark.parametrize("products", [["H100", "L40S"], []])
@pytest.mark.parametrize(
    ("load", "slo", "priced"),
    [
        (ARRIVING, {"itlMilliseconds": 19}, ("itlMilliseconds",) * 3),
        (ARRIVING, {"ttftMilliseconds": 40}, ("ttftMilliseconds",) * 3),
        (IN_FLIGHT, {"joulesPerOutputToken": "600m"}, ("", "joulesPerOutputToken", "joulesPerOutputToken")),
    ],
)
def test_a_needed_value_is_the_least_with_which_the_plan_is_as_good(
    objective: str,
    figure: str,
    products: list[str],
    load: dict[str, Any],
    slo: dict[str, Any],
    priced: tuple[str, str, str],
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: Mapping[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> None:
    snapshot = make_snapshot((H100, 8, 1), (H200, 8, 1), (L40S, 4, 1))

    def solved(**parts: Any) -> tuple[Problem, Solution]:
        workload = {"inputTokens": 300, "outputTokens": 400, **load}
        asked = make_deployment(workload=workload, energy={"objective": objective}, **parts)
        found = problem_for(asked, models["70b"], snapshot, gpus, predictor, None, None)
        return found, solve(found)

    def value(solution: Solution, row: int | None) -> float:
        return math.inf if row is None else float(getattr(solution.rows, figure)[row])

    parts: dict[str, dict[str, Any]] = {"slo": {"percentile": "P50", **slo}, "hardware": {"gpuProducts": products}}
    problem, solution = solved(**parts)
    assert solution.chosen is not None
    found = prices(problem, solution)
    if products:
        expected = dict(zip(("MinimizeEnergy", "MinimizePower", "MinimizeGPUs"), priced, strict=True))[objective]
        assert expected in {"", *(price.field.rpartition(".")[2] for price in found)}
    for price in found:
        joules, watts = (
            float(getattr(solution.rows, name)[solution.chosen] - getattr(solution.rows, name)[price.plan])
            for name in ("joules_per_output_token", "power_watts")
        )
        assert (price.joules_saved, price.watts_saved) == (joules, watts)
        least = value(solution, price.plan)
        assert least < 0.999 * value(solution, solution.chosen)
        if price.needed is None:
            continue
        name = price.field.rpartition(".")[2]
        for nearer, holds in ((0, True), (1, False)):
            if name == "joulesPerOutputToken":
                limit: Any = f"{1000 * float(parse_quantity(price.needed)) - 0.001 * nearer:.3f}m"
            else:
                limit = int(price.needed) - nearer
            within = solved(**(parts | {"slo": parts["slo"] | {name: limit}}))[1]
            assert (value(within, within.chosen) <= 1.001 * least) is holds, price


def test_prices_need_a_plan(problem: Problem) -> None:
    impossible = problem.spec.slo.model_copy(update={"itl_milliseconds": 1})
    nothing = replace(problem, spec=problem.spec.model_copy(update={"slo": impossible}))
    with pytest.raises(ValueError, match="there is no plan"):
        prices(nothing, solve(nothing))


def test_a_stand_in_for_the_predictor_has_no_parts(problem: Problem) -> None:
    solution = solve(problem)
    assert solution.chosen is not None
    assert parts_of(problem, solution.rows, solution.chosen) is None


LESSON = Lesson("TP8", "", 16.0, Learned({"energy": 0.1}, {"energy": 5.0}))


@pytest.mark.parametrize("load", [{"requestsPerSecond": "2"}, {"concurrency": 24}])
@pytest.mark.parametrize("corrections", [None, Corrections({find_gpu("H100").product: (LESSON,)})])
def test_parts_add_up_to_the_energy_of_the_candidate(
    load: dict[str, object],
    corrections: Corrections | None,
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
) -> None:
    asked = make_deployment(
        workload={"inputTokens": 300, "outputTokens": 400, **load}, planning={"overrides": {"replicas": 2}}
    )
    snapshot = make_snapshot((find_gpu("H100").product, 4, 4))
    model = load_model("meta-llama/Llama-3.1-70B-Instruct")
    problem = problem_for(asked, model, snapshot, load_gpus(), load_predictor(), None, corrections)
    solution = solve(problem)
    rows = solution.rows
    spanning = int(rows.sustainable.nonzero()[0][rows.nodes_per_replica[rows.sustainable].argmax()])
    assert rows.nodes_per_replica[spanning] > 1
    for i in (solution.chosen, spanning):
        assert i is not None
        parts = parts_of(problem, rows, i)
        assert parts is not None
        assert sum(parts.values()) == pytest.approx(float(rows.joules_per_output_token[i]))


@pytest.mark.parametrize("load", [{"requestsPerSecond": "2"}, {"concurrency": 24}])
def test_parts_are_those_of_one_replica_under_its_part_of_the_load(
    load: dict[str, Any],
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
) -> None:
    asked = make_deployment(
        workload={"inputTokens": 300, "outputTokens": 400, **load}, planning={"overrides": {"replicas": 2}}
    )
    model, gpu = load_model("meta-llama/Llama-3.1-8B-Instruct"), find_gpu("H100")
    snapshot, predictor = make_snapshot((gpu.product, 4, 1)), load_predictor()
    problem = problem_for(asked, model, snapshot, load_gpus(), predictor, None, None)
    solution = solve(problem)
    assert solution.chosen is not None
    layouts, workload = solution.rows.layouts.take(np.array([solution.chosen])), problem.load.workload
    if "concurrency" in load:
        one = predictor.at_concurrency(problem.model, gpu, layouts, workload, np.array([12.0]))
    else:
        one = predictor.at_rate(problem.model, gpu, layouts, workload, np.array([1.0]))
    expected = energy_parts(predictor, problem.model, gpu, layouts, workload, one, saturated="concurrency" in load)
    assert parts_of(problem, solution.rows, solution.chosen) == {
        f.name: pytest.approx(float(getattr(expected, f.name)[0])) for f in fields(EnergyParts)
    }


def test_a_job_also_pays_for_its_start_and_for_idling(
    make_deployment: Callable[..., LLMDeployment], make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    job = {"requests": 2000, "completeWithinSeconds": 3600}
    asked = make_deployment(workload={"inputTokens": 300, "outputTokens": 400, "job": job}, slo={})
    snapshot = make_snapshot((find_gpu("H100").product, 4, 1))
    model = load_model("meta-llama/Llama-3.1-8B-Instruct")
    problem = problem_for(asked, model, snapshot, load_gpus(), load_predictor(), None, None)
    solution = solve(problem)
    assert solution.chosen is not None
    total = float(solution.rows.joules_per_output_token[solution.chosen])
    beside = float(solution.rows.idle_job_share[solution.chosen])
    parts = parts_of(problem, solution.rows, solution.chosen)
    assert parts is not None
    assert 0.05 < beside < 0.95
    assert parts[JOB_PART] == pytest.approx(beside * total)
    assert sum(parts.values()) == pytest.approx(total)
