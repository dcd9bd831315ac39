"""Following a noisy load under all rules of adoption together, with real plans: no plan comes back."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.decide.deployment.loads.load import FollowedLoad, MeasuredLoad, follow
from energylens.planner import plan
from energylens.planner.adoption import decide, pinned_to, switch_cost
from energylens.planner.types import ClusterSnapshot, Feasible, PlanningResult
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.types import GpuSpec

H100, H200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"
WINDOW = timedelta(minutes=10)
START = datetime(2026, 3, 1, tzinfo=UTC)
Follow = Callable[[float, list[float]], list[tuple[datetime, PlanStatus]]]


@pytest.fixture(scope="module")
def follow_load(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_snapshot: Callable[..., ClusterSnapshot],
    make_deployment: Callable[..., LLMDeployment],
) -> Follow:
    """Return a function from a declared rate and the measured ones to the plans adopted and when."""
    snapshot, model = make_snapshot((H100, 8, 1), (H200, 8, 1)), models["70b"]
    known: dict[tuple[float, PlanStatus | None], PlanningResult | str] = {}

    def deployment(rate: float) -> LLMDeployment:
        load = {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": f"{round(rate * 1000)}m"}
        # Small batches, so that it takes more replicas to carry more.
        planning = {"overrides": {"tensorParallel": 2, "pipelineParallel": 1, "maxBatchSize": 16}}
        return make_deployment(workload=load, planning=planning)

    def solve(rate: float, running: PlanStatus | None = None) -> PlanningResult | str:
        if (rate, running) not in known:
            asked: LLMDeployment | str = deployment(rate)
            if running is not None and isinstance(asked, LLMDeployment):
                asked = pinned_to(asked, running, gpus)
            solved = asked if isinstance(asked, str) else plan(asked, model, snapshot, gpus, predictor)
            known[rate, running] = solved
        return known[rate, running]

    def run(declared: float, rates: list[float]) -> list[tuple[datetime, PlanStatus]]:
        load = FollowedLoad(declared)
        hold = timedelta(seconds=deployment(declared).spec.planning.replan.cooldown_seconds)
        adopted: list[tuple[datetime, PlanStatus]] = []
        current: PlanStatus | None = None
        for number, rate in enumerate([declared, *rates]):
            now = START + number * WINDOW
            load = follow(load, MeasuredLoad(now - WINDOW, now, rate), hold)
            candidate = solve(load.requests_per_second)
            if not isinstance(candidate, Feasible):
                continue
            decision = decide(
                current,
                candidate,
                running=None if current is None else solve(load.requests_per_second, current),
                seconds_since_adoption=(now - adopted[-1][0]).total_seconds() if adopted else None,
                cost=switch_cost(candidate.plan, float(weight_bytes(model)), gpus[candidate.plan.gpu_product]),
            )
            # Figures of a kept plan are those of today, and no reason to plan again.
            current = decision.plan if decision.adopt else current
            if decision.adopt:
                adopted.append((now, decision.plan))
        return adopted

    return run


def layouts(adopted: list[tuple[datetime, PlanStatus]]) -> list[tuple[str, int, int, int, int]]:
    return [(p.gpu_product, p.replicas, p.tensor_parallel, p.pipeline_parallel, p.max_batch_size) for _, p in adopted]


@settings(max_examples=30, deadline=None)
@given(
    declared=st.sampled_from([1.0, 2.0, 4.0]),
    mean=st.sampled_from([0.3, 0.8, 1.2, 2.0, 3.0, 4.5]),
    noise=st.lists(st.floats(0.91, 1.09), min_size=30, max_size=72),
)
def test_a_noisy_load_ends_in_one_plan_and_no_plan_comes_back(
    declared: float, mean: float, noise: list[float], follow_load: Follow
) -> None:
    adopted = follow_load(declared, [mean * factor for factor in noise])
    assert len(set(layouts(adopted))) == len(adopted)
    assert len(adopted) <= 3
    # Noise that stays low for an hour may leave the step of the first hours, but not come back to it.
    settled = START + timedelta(hours=3)
    assert len([time for time, _ in adopted if time > settled]) <= 1


@settings(max_examples=30, deadline=None)
@given(rates=st.lists(st.floats(0.05, 6.0), min_size=10, max_size=72))
def test_whatever_the_load_does_plans_that_only_save_energy_are_an_hour_apart(
    rates: list[float], follow_load: Follow
) -> None:
    adopted = follow_load(2.0, rates)
    for (before, old), (after, new) in itertools.pairwise(adopted):
        if new.predicted.output_tokens_per_second < old.predicted.output_tokens_per_second:
            assert after - before >= timedelta(hours=1)


def test_a_load_that_falls_for_good_is_followed(follow_load: Follow) -> None:
    adopted = follow_load(6.0, [0.5] * 20)
    assert len(adopted) == 2
    assert adopted[1][1].gpus < adopted[0][1].gpus
    assert adopted[1][0] - adopted[0][0] >= timedelta(hours=1)


def test_a_load_that_rises_is_followed_at_once(follow_load: Follow) -> None:
    adopted = follow_load(1.0, [5.0] * 3)
    assert [time for time, _ in adopted] == [START, START + WINDOW]
