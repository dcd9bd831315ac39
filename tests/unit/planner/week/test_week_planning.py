"""One layout and its replicas over the week, beside every layout with every sequence of replicas."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from tests.unit.planner.conftest import H100, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.planner import plan
from energylens.planner.adoption import pinned_to
from energylens.planner.search.starts import FIXED_SECONDS, POWER_RATIO, start_of
from energylens.planner.search.week_load import at_rate
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PowerAllowance
from energylens.planner.week.planning import WeekPlan, WeekProblem, plan_week, saving_text
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

BUSY = {"days": ["Mon", "Wed"], "fromHour": 8, "toHour": 18, "requestsPerSecond": "700"}
Ask = Callable[..., WeekPlan | Infeasible]


@pytest.fixture
def problem(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    predictor: ArithmeticPredictor,
) -> Callable[..., WeekProblem]:
    """Return a week on four H100; keyword arguments replace parts of the spec."""

    def build(
        *hours: dict[str, Any],
        base: str = "100",
        pools: tuple[tuple[str, int, int], ...] = ((H100, 4, 1),),
        allowance: PowerAllowance | None = None,
        **parts: Any,
    ) -> WeekProblem:
        workload = {"inputTokens": 300, "outputTokens": 100, "requestsPerSecond": base}
        workload |= {"profile": {"hours": list(hours or (BUSY,))}}
        parts = {"slo": {"itlMilliseconds": 40}} | parts
        asked = make_deployment("meta-llama/Llama-3.1-8B-Instruct", workload=workload, **parts)
        return WeekProblem(asked, models["8b"], make_snapshot(*pools), gpus, predictor, allowance)

    return build


def every_week(asked: WeekProblem, start: float, limits: Sequence[float] = ()) -> float:
    """Return the least energy of three layouts with all sequences of replicas, J, from plans for one rate each.

    ``limits`` of the power of each span, W, rule out sequences.
    """
    spans, best = asked.load.spans, float("inf")
    for tensor in (1, 2, 4):
        watts: dict[str, dict[int, float]] = {}
        for rate in {span.requests_per_second for span in spans}:
            watts[rate] = {}
            for replicas in range(1, 4 // tensor + 1):
                spec = at_rate(asked.deployment, rate).spec
                update = {"tensor_parallel": tensor, "replicas": replicas}
                overrides = spec.planning.overrides.model_copy(update=update)
                planning = spec.planning.model_copy(update={"overrides": overrides})
                one = asked.deployment.model_copy(update={"spec": spec.model_copy(update={"planning": planning})})
                answer = plan(one, asked.model, asked.snapshot, asked.gpus, asked.predictor)
                if isinstance(answer, Feasible):
                    predicted = answer.plan.predicted
                    joules = float(parse_quantity(predicted.joules_per_output_token))
                    watts[rate][replicas] = joules * predicted.output_tokens_per_second
        for path in itertools.product(*(watts[span.requests_per_second] for span in spans)):
            drawn = [watts[span.requests_per_second][n] for span, n in zip(spans, path, strict=True)]
            if any(round(power) > limit for power, limit in zip(drawn, limits, strict=False)):
                continue
            held = sum(
                watts[span.requests_per_second][n] * 3600 * span.hours for span, n in zip(spans, path, strict=True)
            )
            added = sum(max(0, n - path[i - 1]) for i, n in enumerate(path))
            best = min(best, held + start * tensor * added)
    return best


def test_no_layout_and_no_sequence_of_replicas_takes_less_energy(problem: Callable[..., WeekProblem]) -> None:
    asked = problem(planning={"overrides": {"pipelineParallel": 1, "maxBatchSize": 1024}})
    found = plan_week(asked)
    assert isinstance(found, WeekPlan)
    one_gpu = found.start.joules / (found.plan.gpus // found.plan.replicas)
    # Figures of a plan are rounded to three digits.
    assert found.joules == pytest.approx(every_week(asked, one_gpu), rel=2e-3)
    assert len(set(found.replicas)) > 1


def test_every_hour_holds_the_objectives_the_headroom_and_the_spare_replicas(
    problem: Callable[..., WeekProblem],
) -> None:
    asked = problem(planning={"headroomPercent": 30, "spareReplicas": 1})
    found = plan_week(asked)
    assert isinstance(found, WeekPlan)
    assert min(found.replicas) >= 2
    for span, replicas in zip(found.load.spans, found.replicas, strict=True):
        one = at_rate(asked.deployment, span.requests_per_second)
        pinned = pinned_to(one, found.plan.model_copy(update={"replicas": replicas}), asked.gpus)
        assert not isinstance(pinned, str)
        assert isinstance(plan(pinned, asked.model, asked.snapshot, asked.gpus, asked.predictor), Feasible)


def test_the_week_takes_no_more_than_the_best_constant_plan(problem: Callable[..., WeekProblem]) -> None:
    found = plan_week(problem())
    assert isinstance(found, WeekPlan)
    assert found.constant is not None
    assert found.joules < found.constant.joules
    saved = 100 * (1 - found.joules / found.constant.joules)
    assert f"{saved:.1f} % less than" in saving_text(found)
    # Kept on all replicas all week, the same layout takes at least what the best constant plan takes.
    most = max(found.replicas)
    assert found.released_gpu_hours == sum(
        span.hours * (most - count) * found.plan.gpus // most
        for span, count in zip(found.load.spans, found.replicas, strict=True)
    )


def test_replicas_are_kept_where_a_start_takes_more_energy_than_idling(problem: Callable[..., WeekProblem]) -> None:
    free = plan_week(problem(scaling={"startJoules": 0}))
    dear = plan_week(problem(scaling={"startJoules": 1_000_000_000}))
    assert isinstance(free, WeekPlan)
    assert isinstance(dear, WeekPlan)
    assert free.starts > 0
    assert (dear.starts, len(set(dear.replicas))) == (0, 1)
    assert dear.constant is not None
    assert dear.joules == pytest.approx(dear.constant.joules, rel=1e-9)


def test_a_profile_of_one_rate_has_the_plan_of_a_constant_load(problem: Callable[..., WeekProblem]) -> None:
    asked = problem({"requestsPerSecond": "700"})
    found = plan_week(asked)
    assert isinstance(found, WeekPlan)
    answer = asked.answer(found.load.peak)
    assert isinstance(answer, Feasible)
    assert found.plan.layout == answer.plan.layout
    assert (found.replicas, found.starts) == ((answer.plan.replicas,), 0)
    assert found.plan.hash == answer.plan.hash


def test_gpu_hours_are_minimised_where_the_spec_asks_for_few_gpus(problem: Callable[..., WeekProblem]) -> None:
    def gpu_hours(found: WeekPlan) -> float:
        return sum(
            span.hours * count * found.plan.gpus / found.plan.replicas
            for span, count in zip(found.load.spans, found.replicas, strict=True)
        )

    few = plan_week(problem(energy={"objective": "MinimizeGPUs"}))
    energy = plan_week(problem(scaling={"startJoules": 0}))
    assert isinstance(few, WeekPlan)
    assert isinstance(energy, WeekPlan)
    assert gpu_hours(few) <= gpu_hours(energy)


def test_bounds_of_the_spec_hold_every_hour(problem: Callable[..., WeekProblem]) -> None:
    found = plan_week(problem(scaling={"minReplicas": 2, "maxReplicas": 3}))
    assert isinstance(found, WeekPlan)
    assert set(found.replicas) <= {2, 3}


@pytest.mark.parametrize(
    ("scaling", "field"), [({"maxReplicas": 1}, "maxReplicas"), ({"minReplicas": 4}, "minReplicas")]
)
def test_bounds_that_no_plan_keeps_are_named_with_the_nearest_that_works(
    problem: Callable[..., WeekProblem], scaling: dict[str, int], field: str
) -> None:
    is_high = field == "minReplicas"
    fixed = {"planning": {"overrides": {"tensorParallel": 2 if is_high else 1}}}
    busy = {**BUSY, "requestsPerSecond": "300" if is_high else "700"}
    asked = problem(busy, scaling=scaling, pools=((H100, 4, 1), (L40S, 2, 1)), **fixed)
    refused = plan_week(asked)
    assert isinstance(refused, Infeasible)
    assert f"spec.scaling.{field}={scaling[field]}" in refused.message
    (change,) = refused.relaxations
    assert change.field == f"spec.scaling.{field}"
    works = {**scaling, field: int(change.allowed)}
    assert isinstance(plan_week(problem(busy, scaling=works, pools=((H100, 4, 1), (L40S, 2, 1)), **fixed)), WeekPlan)


def test_a_rate_that_no_plan_sustains_is_named_with_its_hour(problem: Callable[..., WeekProblem]) -> None:
    refused = plan_week(problem({**BUSY, "requestsPerSecond": "9000"}))
    assert isinstance(refused, Infeasible)
    assert refused.reason == "LoadTooHigh"
    assert refused.message.startswith("Mon 08:00, 9000 requests per second: ")
    assert "spec.workload.requestsPerSecond" not in refused.message


def test_an_energy_objective_that_quiet_hours_break_is_named_with_their_hour(
    problem: Callable[..., WeekProblem],
) -> None:
    """An idle replica takes more energy per token: the objective holds at the highest rate, and not at night."""
    busy = plan_week(problem({**BUSY, "requestsPerSecond": "60"}, base="60"))
    assert isinstance(busy, WeekPlan)
    high = float(parse_quantity(busy.plan.predicted.joules_per_output_token_high))
    refused = plan_week(problem(base="100m", slo={"joulesPerOutputToken": f"{1100 * high:.0f}m"}))
    assert isinstance(refused, Infeasible)
    assert refused.message.startswith("Mon 18:00, 100m requests per second: ")


def test_power_that_a_budget_leaves_holds_at_the_highest_rate(problem: Callable[..., WeekProblem]) -> None:
    free = plan_week(problem())
    assert isinstance(free, WeekPlan)
    less = PowerAllowance(max(free.watts) - 1.0, "EnergyBudget team-a/cap")
    found = plan_week(problem(allowance=less))
    assert isinstance(found, Infeasible) or max(found.watts) <= less.watts
    refused = plan_week(problem(allowance=PowerAllowance(10.0, "EnergyBudget team-a/cap")))
    assert isinstance(refused, Infeasible)
    assert refused.reason == "BudgetExceeded"


def test_the_power_of_each_hour_keeps_to_what_budgets_leave_in_it(problem: Callable[..., WeekProblem]) -> None:
    fixed = {"overrides": {"pipelineParallel": 1, "maxBatchSize": 1024}}
    other = {**BUSY, "days": ["Fri"], "requestsPerSecond": "690"}
    free = plan_week(problem(BUSY, other, planning=fixed))
    assert isinstance(free, WeekPlan)
    # Wednesday and Friday leave less than Monday, as where other members have their peak.
    peak = max(free.watts)
    for share in (1.0, 0.98, 0.9, 0.8, 0.5):
        hours = [peak + 1.0] * 168
        for hour in range(48, 168):
            hours[hour] = float(int(share * peak))
        left = PowerAllowance(peak + 1.0, "EnergyBudget team/cap", hours=tuple(hours))
        asked = problem(BUSY, other, planning=fixed, allowance=left)
        found = plan_week(asked)
        limits = [left.within(span.start, span.hours).watts for span in asked.load.spans]
        least = every_week(problem(BUSY, other, planning=fixed), start_joules(free), limits)
        if isinstance(found, Infeasible):
            assert least == float("inf")
            assert "EnergyBudget team/cap" in found.message
            assert found.message.startswith(("Wed 08:00", "Fri 08:00", "Fri 18:00", "Wed 18:00", "Mon 18:00"))
            continue
        assert all(round(watts) <= limit for watts, limit in zip(found.watts, limits, strict=True))
        assert found.joules == pytest.approx(least, rel=2e-3)


def test_a_limit_of_the_night_stops_replicas_that_a_start_would_be_too_dear_for(
    problem: Callable[..., WeekProblem],
) -> None:
    parts: dict[str, Any] = {
        "planning": {"overrides": {"pipelineParallel": 1, "maxBatchSize": 1024, "tensorParallel": 1}},
        "scaling": {"startJoules": 1_000_000_000},
    }
    free = plan_week(problem(**parts))
    assert isinstance(free, WeekPlan)
    assert len(set(free.replicas)) == 1
    night = next(watts for span, watts in zip(free.load.spans, free.watts, strict=True) if span.hour == 18)
    hours = tuple(1e6 if day in (0, 2) and 8 <= hour < 18 else night - 1.0 for day in range(7) for hour in range(24))
    found = plan_week(problem(**parts, allowance=PowerAllowance(1e6, "EnergyBudget team/cap", hours=hours)))
    assert isinstance(found, WeekPlan)
    assert min(found.replicas) < max(found.replicas) == max(free.replicas)
    limits = [night - 1.0 if span.hour == 18 else 1e6 for span in found.load.spans]
    one = found.start.joules / (found.plan.gpus // found.plan.replicas)
    assert found.joules == pytest.approx(every_week(problem(**parts), one, limits), rel=2e-3)
    assert found.constant is None


def start_joules(found: WeekPlan) -> float:
    """Return the energy of the start of one GPU, J."""
    return found.start.joules / (found.plan.gpus // found.plan.replicas)


def test_a_start_takes_what_was_measured_of_an_8b_model_on_one_h200() -> None:
    from energylens.data import load_gpus

    h200 = load_gpus()["NVIDIA-H200"]
    start = start_of(1, h200, 16.06e9, None)
    assert (start.seconds, start.joules) == (pytest.approx(127.0), pytest.approx(13_500.0))
    assert pytest.approx(1.07, abs=0.01) == POWER_RATIO
    large = start_of(8, h200, 810e9, None)
    assert large.seconds == pytest.approx(FIXED_SECONDS + 810)
    assert large.joules == pytest.approx(8 * 13_500.0 / 127.0 * large.seconds)
