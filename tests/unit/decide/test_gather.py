"""The inputs of planning from the objects of one deployment."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.decide.observations import (
    NOW,
    OTHER,
    PRODUCT,
    deployment,
    measured,
    plan,
    pod,
    revision,
    snapshot,
    workload,
)

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.decide.deployment.observed.named_maps import NamedMap, NamedMaps
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.replica import SeenPods
from energylens.decide.deployment.pods.workloads import Workloads
from energylens.decide.gather import NOTHING_PRESENT, Offered, Present, gather
from energylens.decide.learned.corrections import Pool
from energylens.decide.reasons import Reason
from energylens.planner.search.identity import action_hash
from energylens.planner.types import PowerAllowance
from energylens.predictor.fitted.recalibration import MeasuredPoint
from energylens.serving.support import PLAN_KEY

CAP = PowerAllowance(900.0, "EnergyBudget team/cap")
FOLLOWS = {"followLoad": "Auto"}
RATE = measured(requests_per_second=3.0, mean_running=10.0, mean_waiting=0.0)
HOURLY: dict[str, Any] = {
    "workload": {
        "inputTokens": 512,
        "outputTokens": 256,
        "requestsPerSecond": "2",
        "profile": {"hoursConfigMapRef": {"name": "rates"}},
    }
}


def gathered(
    asked: LLMDeployment | None = None,
    present: Present = NOTHING_PRESENT,
    named: NamedMaps | None = None,
    learned: Pool | None = None,
) -> Inputs:
    offered = Offered(snapshot(), CAP, learned or Pool(), serves_lws=True)
    return gather(asked or deployment(), offered, named or NamedMaps(), present, now=NOW)


def stating(of: PlanStatus, status: dict[str, Any] | None = None, **spec: Any) -> LLMDeployment:
    stated = of.model_dump(mode="json", by_alias=True, exclude_none=True)
    return deployment({"plan": stated, **(status or {})}, **spec)


def made(**changes: Any) -> PlanStatus:
    found = plan(**changes)
    return found.model_copy(update={"hash": action_hash(found)})


def test_a_new_deployment_is_planned_from_its_spec_and_the_cluster() -> None:
    found = gathered()
    assert found == Inputs(deployment(), None, snapshot(), CAP, True, None, NOW, want_table=False)


def test_what_is_present_is_passed_on() -> None:
    asked = stating(plan(), {"planAdoptionTime": "2026-02-01T00:00:00Z"}, validation={"onDrift": "Recalibrate"})
    pool = Pool()
    for _ in range(5):
        pool.learn(asked, plan(), MeasuredPoint(energy_ratio=1.5))
    found = gathered(asked, Present(want_table=True), learned=pool)
    assert found.want_table
    assert found.adopted_at is not None
    assert found.adopted_at.isoformat() == "2026-02-01T00:00:00+00:00"
    assert found.corrections is not None
    assert found.corrections.of(PRODUCT, "TP1", 8.0).energy > 1.2


def test_a_named_config_is_read_or_its_lack_is_the_answer() -> None:
    asked = deployment(model={"name": "in-house", "configRef": {"name": "shapes"}})
    found = gathered(asked, named=NamedMaps(config=NamedMap({"data": {"config.json": json.dumps({"a": 1})}})))
    assert (found.config, found.missing) == ({"a": 1}, None)
    lacking = gathered(asked)
    assert lacking.config is None
    assert lacking.missing is not None
    assert lacking.missing.reason is Reason.MODEL_CONFIG_MISSING


def test_named_hours_are_read_or_their_lack_is_the_answer() -> None:
    rates = NamedMaps(hours=NamedMap({"data": {"hours.yaml": "[{requestsPerSecond: 5}]"}}))
    found = gathered(deployment(**HOURLY), named=rates)
    profile = found.deployment.spec.workload.profile
    assert profile is not None
    assert [entry.requests_per_second for entry in profile.hours] == ["5"]
    assert found.no_hours is None
    assert gathered(deployment(**HOURLY)).no_hours is not None


def test_the_hours_of_a_job_are_read() -> None:
    job = {
        "requests": 10,
        "completeWithinSeconds": 7200,
        "start": {"completeBy": "2026-03-02T00:00:00Z", "forecastConfigMapRef": {"name": "grid"}},
    }
    found = gathered(deployment(workload={"inputTokens": 1, "outputTokens": 1, "job": job}))
    assert found.job_hours is not None
    assert found.job_hours.reason is Reason.FORECAST_MISSING
    assert gathered().job_hours is None


def test_the_load_is_of_the_running_pods_and_the_canary_together() -> None:
    asked = deployment(planning=FOLLOWS)
    alone = gathered(asked, Present(window=RATE))
    assert alone.load is not None
    assert alone.load.requests_per_second == pytest.approx(3.05, abs=0.1)
    seen = SeenPods((pod("p0"), pod("c0", canary=True)), canary=workload(plan(OTHER)), window=RATE)
    both = gathered(asked, Present(window=RATE, seen=seen))
    assert both.load is not None
    assert both.load.requests_per_second == pytest.approx(6.1, abs=0.2)
    unknown = SeenPods((pod("c0", canary=True),))
    kept = gathered(asked, Present(window=RATE, seen=unknown))
    assert kept.load is not None
    assert kept.load.requests_per_second == 2.0


def test_new_plans_are_verified_beside_pods_that_are_observed_if_the_spec_asks() -> None:
    verifies = {"verify": "Measured"}
    live = Present(Workloads((workload(),)), seen=SeenPods((pod("p0"),)), window=RATE)
    found = gathered(stating(plan(), rollout=verifies), live).beside
    assert found is not None
    assert (found.running, found.serving, found.same_model, found.window) == (plan(), True, True, RATE)
    assert gathered(stating(plan()), live).beside is None
    assert gathered(stating(plan(), rollout=verifies), Present(Workloads((workload(),)))).beside is None


def test_a_rollout_that_missed_its_deadline_is_late_unless_its_pods_wait_in_a_queue() -> None:
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    live = Workloads((workload(ready=1, conditions=(late,)),))
    assert "timed out" in gathered(stating(plan()), Present(live)).late
    assert gathered(stating(plan(OTHER)), Present(live)).late == ""
    queued = SeenPods((pod("p0"), pod("p1", revision(), ready=False, queued="Kueue, queue batch")))
    assert gathered(stating(plan()), Present(live, seen=queued)).late == ""
    assert "timed out" in gathered(stating(plan()), Present(live, seen=SeenPods((pod("p0"),)))).late


def test_the_running_plan_stands_while_another_waits_for_approval() -> None:
    old, new = made(), made(max_batch_size=64)
    present = Present(Workloads((workload(old),)), {"data": {PLAN_KEY: old.model_dump_json(by_alias=True)}})
    assert gathered(stating(new, planning={"mode": "Manual"}), present).standing == old
    assert gathered(stating(new), present).standing is None
    assert gathered(stating(new, planning={"mode": "Manual"})).standing is None


def test_a_fixed_number_of_replicas_is_planned_as_an_override() -> None:
    planning = {"overrides": {"tensorParallel": 1}}
    fixed = gathered(deployment(scaling={"mode": "Fixed"}, replicas=3, planning=planning)).deployment.spec.planning
    assert (fixed.overrides.replicas, fixed.overrides.tensor_parallel) == (3, 1)
    free: list[dict[str, Any]] = [
        {"scaling": {"mode": "External"}, "replicas": 3},
        {**HOURLY, "scaling": {"startSeconds": 60}},
        {},
    ]
    for spec in free:
        assert gathered(deployment(**spec)).deployment.spec.planning.overrides.replicas is None


def test_a_plan_of_a_week_counts_with_its_running_replicas_once_the_load_is_constant() -> None:
    weekly = made(planned_replicas=5, peak_power_watts=4000)
    found = gathered(stating(weekly)).deployment.status.plan
    assert found == made()
    assert weekly.hash != made().hash
    for spec in (HOURLY, {"scaling": {"mode": "External"}, "replicas": 2}):
        assert gathered(stating(weekly, **spec)).deployment.status.plan == weekly
    # A hash that an earlier release computed in another way is not computed anew.
    assert gathered(stating(plan(OTHER))).deployment.status.plan == plan(OTHER)
