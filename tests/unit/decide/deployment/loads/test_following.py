"""The followed load where it meets the rest of planning: what no plan carries, and plans that were rolled back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, PRODUCT, deployment

from energylens.api.llmdeployment import PlanStatus, RejectedPlan, RollbackStatus
from energylens.decide.deployment.loads.following import (
    at_load,
    carried_load,
    followed_load,
    load_status,
    measured_load,
    most_carried,
    shortfall_text,
)
from energylens.decide.deployment.loads.load import LOWEST_STEP, Followed, FollowedLoad
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.trials import rollback
from energylens.measure.types import WindowMeasurement
from energylens.planner.types import Change, ClusterSnapshot, GpuNode, Infeasible, Relaxation

AUTO = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}, "followLoad": "Auto"}
SNAPSHOT = ClusterSnapshot((GpuNode("h100-0", PRODUCT, 8), GpuNode("h100-1", PRODUCT, 8)))


def ask(load: FollowedLoad | None, status: dict[str, Any] | None = None, **planning: Any) -> Inputs:
    asked = deployment(status, planning=AUTO | planning, rollout={"rollbackOn": ["HigherEnergy"]})
    return Inputs(asked, None, SNAPSHOT, None, False, None, NOW, False, load=load)


def refused(allowed: str, **changes: Any) -> Infeasible:
    relaxation = Relaxation(Change("spec.workload.requestsPerSecond", "9", allowed), 1.0, **changes)
    return Infeasible("LoadTooHigh", "no", (), (relaxation,))


@pytest.mark.parametrize(
    ("allowed", "step"), [("7", 2), ("6250m", 2), ("6", 1), ("4", 0), ("3900m", None), ("4000", None)]
)
def test_what_no_plan_carries_is_lowered_to_a_step_that_one_does(allowed: str, step: int | None) -> None:
    found = most_carried(FollowedLoad(4.0, step=5), refused(allowed))
    assert (None if found is None else found.step) == step


def test_only_a_load_above_the_declared_one_is_lowered() -> None:
    assert most_carried(FollowedLoad(4.0, step=0), refused("3")) is None
    assert most_carried(None, refused("3")) is None
    assert most_carried(FollowedLoad(4.0, step=5), Infeasible("SLOInfeasible", "no")) is None
    both = refused("7", also=Change("spec.hardware.maxGPUs", "1", "2"))
    assert most_carried(FollowedLoad(4.0, step=5), both) is None


def test_the_load_survives_its_way_through_status() -> None:
    load = FollowedLoad(2.0, -3, NOW, NOW, 0.7, NOW)
    asked = deployment({"load": load_status(load).model_dump(by_alias=True)}, planning=AUTO)
    assert followed_load(asked, None) == load


def test_the_declared_step_plans_the_very_spec() -> None:
    asked = deployment(planning=AUTO)
    assert at_load(asked, FollowedLoad(2.0)) is asked
    assert at_load(asked, FollowedLoad(2.0, step=1)).spec.workload.requests_per_second == "2500m"


@pytest.mark.parametrize("missing", ["requests_per_second", "window_start", "window_end"])
def test_a_window_without_a_rate_or_times_changes_nothing(missing: str) -> None:
    window = WindowMeasurement("Measured", "", window_start=0.0, window_end=600.0, requests_per_second=90.0)
    asked = deployment(planning=AUTO)
    assert followed_load(asked, window) != FollowedLoad(2.0)
    changes: dict[str, Any] = {missing: None}
    assert followed_load(asked, replace(window, **changes)) == FollowedLoad(2.0)


def test_a_plan_that_was_rolled_back_is_not_tried_again_under_another_load() -> None:
    service, high = PlanningService(), FollowedLoad(2.0, step=16)
    small, large = (service.planning_for(ask(load)).plan for load in (None, high))
    assert isinstance(small, PlanStatus)
    assert isinstance(large, PlanStatus)
    assert small.replicas < large.replicas
    shape = large.model_dump(include=set(RejectedPlan.model_fields) - {"inputs", "reason", "message", "time"})
    before = RejectedPlan(
        **shape,
        inputs=rollback.inputs_of(ask(None).deployment.spec),
        reason="HigherEnergy",
        message="it drew more",
        time="2026-03-01T11:00:00Z",
    )
    status = {
        "plan": small.model_dump(mode="json", by_alias=True, exclude_none=True),
        "rollback": RollbackStatus(rejected_plans=(before,)).model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    found = service.planning_for(ask(high, status))
    assert (found.adopted, found.decision) == (False, "RolledBack")


def test_no_load_is_followed_where_nobody_asked() -> None:
    window = WindowMeasurement("Measured", "", window_start=0.0, window_end=600.0, requests_per_second=90.0)
    assert followed_load(deployment(planning=AUTO | {"followLoad": "Never"}), window) is None


def test_the_first_step_is_lowered_to_the_declared_load() -> None:
    assert most_carried(FollowedLoad(4.0, step=1), refused("4")) == FollowedLoad(4.0, step=0)


LONGER = Followed(256.0, step=4)


@pytest.mark.parametrize(("allowed", "step"), [("7", 2), ("4", 0), ("3900m", -1), ("1", -7), ("200m", None)])
def test_with_longer_requests_a_rate_below_the_declared_one_is_planned_for(allowed: str, step: int | None) -> None:
    found = most_carried(FollowedLoad(4.0, step=5, outputs=LONGER), refused(allowed))
    assert (None if found is None else found.step) == step


@pytest.mark.parametrize(("step", "longer"), [(-1, False), (0, False), (1, True)])
def test_requests_are_longer_from_the_first_step_on(step: int, longer: bool) -> None:
    length = Followed(256.0, step=step)
    assert FollowedLoad(4.0, outputs=length).is_longer is longer
    assert FollowedLoad(4.0, prompts=length).is_longer is longer


def test_shorter_requests_do_not_lower_the_rate() -> None:
    shorter = FollowedLoad(4.0, prompts=Followed(512.0, step=-1), outputs=Followed(256.0))
    assert most_carried(shorter, refused("3")) is None


def test_a_plan_grows_with_longer_requests_although_no_plan_sustains_the_declared_rate() -> None:
    service, declared = PlanningService(), 40.0
    load = FollowedLoad(declared, outputs=Followed(256.0, step=12))

    def asked(load: FollowedLoad | None) -> Inputs:
        inputs = ask(load)
        workload = inputs.deployment.spec.workload.model_copy(update={"requests_per_second": "40"})
        spec = inputs.deployment.spec.model_copy(update={"workload": workload})
        return replace(inputs, deployment=inputs.deployment.model_copy(update={"spec": spec}))

    before, after = service.planning_for(asked(None)), service.planning_for(asked(load))
    assert before.plan is not None
    assert after.plan is not None
    assert after.good
    assert after.plan.replicas > before.plan.replicas
    assert after.carried_step is not None
    assert LOWEST_STEP <= after.carried_step < 0


def test_ready_says_that_less_than_the_declared_rate_is_planned_for() -> None:
    assert shortfall_text(FollowedLoad(4.0, step=-2, outputs=LONGER)) == (
        "planned for 2.56 of the declared 4 requests per second, with outputs of 625 tokens (declared: 256)"
    )
    for enough in (None, FollowedLoad(4.0, step=-2), FollowedLoad(4.0, outputs=LONGER)):
        assert shortfall_text(enough) == ""


def test_a_step_that_a_plan_carries_is_not_lowered() -> None:
    assert most_carried(FollowedLoad(4.0, step=1), refused("5")) is None


def test_the_load_of_a_plan_has_the_step_of_the_plan() -> None:
    load = FollowedLoad(4.0, step=3)
    assert carried_load(load, 1) == FollowedLoad(4.0, step=1)
    assert carried_load(load, None) is load
    assert carried_load(None, 1) is None


@pytest.mark.parametrize(
    ("running", "waiting", "saturated"),
    [
        (2.0, 2.0, False),
        (2.0, 2.1, True),
        (0.2, 1.0, False),
        (0.2, 1.1, True),
        (None, 9.0, False),
        (2.0, None, False),
    ],
)
def test_engines_are_saturated_while_more_requests_wait_than_run(
    running: float | None, waiting: float | None, saturated: bool
) -> None:
    window = WindowMeasurement(
        "Measured", "", 0.0, 600.0, requests_per_second=3.0, mean_running=running, mean_waiting=waiting
    )
    found = measured_load(window)
    assert found is not None
    assert found.is_saturated is saturated


def test_a_window_without_a_rate_changes_no_length_either() -> None:
    window = WindowMeasurement("Measured", "", None, 600.0, requests=900.0, output_tokens=9e6, requests_per_second=1.5)
    found = followed_load(deployment(planning=AUTO | {"followLengths": "Auto"}), window)
    assert found is not None
    assert found.outputs == Followed(256.0)
