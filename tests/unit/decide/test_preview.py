"""The statuses that the operator would write: what each deployment sees of the cluster and of those before it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, PRODUCT, deployment, model, plan, pod, workload

from energylens.api.llmdeployment import EnergyAccount, LLMDeployment, PlanStatus
from energylens.decide.deployment.pods.workloads import Workloads, workload_revision
from energylens.decide.preview import Preview, World, counted_from_now, new_body, preview
from energylens.decide.reasons import Reason
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode
from energylens.serving.support import PLAN_KEY

KEY, CAP = ("team", "llama"), "EnergyBudget team/cap"
PINNED = {"overrides": {"tensorParallel": 2, "maxBatchSize": 64, "replicas": 2}}
FORECAST = "time,gramsPerKilowattHour\n" + "".join(f"2026-03-01T{hour:02}:00:00Z,500\n" for hour in range(24))


def asked(name: str = "llama", status: dict[str, Any] | None = None, **spec: Any) -> LLMDeployment:
    """Return a deployment of two replicas of two GPUs each."""
    found = deployment(status, **{"planning": PINNED, **spec})
    metadata = found.metadata.model_copy(update={"name": name, "labels": {"app": name}})
    return found.model_copy(update={"metadata": metadata})


def cluster(*gpus: int, **changes: Any) -> World:
    nodes = tuple(GpuNode(f"h100-{index}", PRODUCT, count) for index, count in enumerate(gpus or (8,)))
    return World(**{"snapshot": ClusterSnapshot(nodes), **changes})


def budget(spec: dict[str, Any], generation: int | None = 3, **status: Any) -> dict[str, Any]:
    metadata = {"name": "cap", "namespace": "team", **({} if generation is None else {"generation": generation})}
    return {"metadata": metadata, "spec": spec, "status": status}


def previews(world: World, *of: LLMDeployment) -> list[Preview]:
    return list(preview(of or (asked(),), world, NOW))


def only(world: World, of: LLMDeployment | None = None) -> Preview:
    (found,) = previews(world, *(() if of is None else (of,)))
    return found


def conditions(status: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]}


def planned(found: Preview) -> PlanStatus:
    assert found.planning.plan is not None
    return found.planning.plan


def test_a_new_deployment_has_its_plan_and_pods_that_do_not_exist_yet() -> None:
    found = only(cluster())
    assert (planned(found).gpus, found.own_account) == (4, None)
    assert found.status["plan"]["hash"] == planned(found).hash
    assert found.status["activeRevision"]["planHash"] == planned(found).hash
    assert conditions(found.status)["Progressing"] == ("True", "Starting")
    assert found.inputs.want_table


def test_a_deployment_sees_what_is_left_by_those_before_it() -> None:
    first, second, third = previews(cluster(8), asked("a"), asked("b"), asked("c"))
    assert [len(one.inputs.snapshot.nodes[0].allocations) for one in (first, second, third)] == [0, 2, 4]
    assert (first.planning.good, second.planning.good) == (True, True)
    assert (third.planning.good, third.planning.reason) == (False, Reason.INSUFFICIENT_GPUS)


def test_a_deployment_does_not_see_itself_as_another() -> None:
    before = only(cluster(4))
    again = only(cluster(4, deployments={KEY: new_body(before.deployment) | {"status": before.status}}))
    assert again.inputs.snapshot.nodes[0].allocations == ()


def test_gpus_that_pods_hold_are_not_reserved_again() -> None:
    held = {"hash": "f" * 16, "gpuProduct": PRODUCT, "gpus": 4, "replicas": 4}
    body = new_body(asked("other")) | {"status": {"plan": held}}
    nodes = (
        GpuNode("h100-0", PRODUCT, 8, (GpuAllocation("team/other", 1), GpuAllocation("", 3))),
        GpuNode("h100-1", PRODUCT, 8, (GpuAllocation("team/other", 1),)),
        GpuNode("h100-2", PRODUCT, 8),
    )
    others: dict[tuple[str, str], Any] = {("team", "other"): body, KEY: body}

    def reserved(deployments: dict[tuple[str, str], Any]) -> list[tuple[GpuAllocation, ...]]:
        seen = World(ClusterSnapshot(nodes), deployments=deployments).snapshot_for(KEY)
        return [node.allocations[len(before.allocations) :] for node, before in zip(seen.nodes, nodes, strict=True)]

    # Two of its four pods are bound; the other two go to the fullest node.
    pod_of_other = GpuAllocation("team/other", 1)
    assert reserved(others) == [(pod_of_other, pod_of_other), (), ()]
    assert reserved({("team", "third"): new_body(asked("third")) | {"status": {"plan": held}}}) == [
        (GpuAllocation("team/third", 1),) * 4,
        (),
        (),
    ]


def test_later_deployments_see_the_power_that_earlier_ones_commit() -> None:
    watts = planned(only(cluster())).predicted.power_watts
    cap = budget({"powerWatts": round(1.5 * watts), "action": "Deny"})
    first, second = previews(cluster(8, 8, budgets=[cap]), asked("a"), asked("b"))
    assert first.status["budget"]["name"] == CAP
    assert conditions(first.status)["WithinEnergyBudget"] == ("True", "WithinBudget")
    allowance = second.inputs.allowance
    assert allowance is not None
    assert allowance.watts == pytest.approx(round(1.5 * watts) - watts)
    assert second.planning.reason is Reason.BUDGET_EXCEEDED


def test_a_new_plan_counts_in_the_condition_on_its_budget() -> None:
    watts = planned(only(cluster())).predicted.power_watts
    report = budget({"powerWatts": watts - 1, "action": "Report"})
    assert conditions(only(cluster(budgets=[report])).status)["WithinEnergyBudget"] == ("False", "OverBudget")
    # Where nothing is adopted, the running plan counts.
    none = only(cluster(1, budgets=[report]))
    assert conditions(none.status)["WithinEnergyBudget"][0] == "True"


def test_a_budget_never_displaces_the_running_plan() -> None:
    first = only(cluster())
    few = budget({"powerWatts": 1, "action": "Deny"})
    stays = only(cluster(budgets=[few], **running(first)), asked(status=first.status))
    assert stays.inputs.allowance is not None
    assert stays.inputs.allowance.watts == planned(first).predicted.power_watts


def test_the_plan_of_the_pods_is_read_while_another_waits_for_approval() -> None:
    first = only(cluster())
    manual = {"overrides": {**PINNED["overrides"], "maxBatchSize": 32}, "mode": "Manual"}
    new = only(cluster(), asked(planning=manual))
    table = {"data": {PLAN_KEY: planned(first).model_dump_json(by_alias=True, exclude_none=True)}}
    waits = only(
        cluster(config_maps={("team", "llama-plan"): table}, **running(first)),
        asked(status=new.status, planning=manual),
    )
    assert planned(waits).hash == planned(new).hash
    assert (waits.status["activeRevision"]["planHash"], waits.status["activeRevision"]["maxBatchSize"]) == (
        planned(first).hash,
        64,
    )
    assert waits.inputs.standing == planned(first)


def test_objects_are_read_in_the_namespace_of_the_deployment() -> None:
    shapes = {"data": {"config.json": "[]"}}
    named = asked(model={"name": "in-house", "configRef": {"name": "shapes"}})
    here, elsewhere = (only(cluster(config_maps={(space, "shapes"): shapes}), named) for space in ("team", "prod"))
    assert here.planning.reason is Reason.MODEL_UNSUPPORTED
    assert elsewhere.planning.reason is Reason.MODEL_CONFIG_MISSING
    cached = asked(model={"name": model().name, "cache": {"persistentVolumeClaim": "weights"}})
    claim = {"spec": {"accessModes": ["ReadWriteOncePod"]}}
    exclusive = only(cluster(claims={("team", "weights"): claim}), cached)
    assert conditions(exclusive.status)["PlanReady"] == ("False", "ClaimNotShareable")
    assert conditions(only(cluster(claims={("prod", "weights"): claim}), cached).status)["PlanReady"][0] == "True"


def running(of: Preview) -> dict[str, Any]:
    """Return the world's view of the two ready pods of a plan."""
    live = workload(planned(of), planning=PINNED)
    pods = tuple(pod(name, workload_revision(live)) for name in ("p0", "p1"))
    return {"workloads": {KEY: Workloads((live,))}, "pods": {KEY: pods}}


def messages(found: Preview) -> dict[str, str]:
    return {c["type"]: c["message"] for c in found.status["conditions"]}


def test_a_running_deployment_that_stays_keeps_the_state_of_its_pods() -> None:
    first = only(cluster())
    stays = only(cluster(**running(first)), asked(status=first.status))
    assert planned(stays).hash == planned(first).hash
    assert stays.status["activeRevision"]["readyReplicas"] == 2
    assert conditions(stays.status)["Ready"][0] == "True"


def test_another_number_of_the_same_pods_is_not_reached_yet() -> None:
    first = only(cluster())
    more = {"overrides": {**PINNED["overrides"], "replicas": 3}}
    found = only(cluster(**running(first)), asked(planning=more))
    assert conditions(found.status)["Progressing"][0] == "True"
    assert messages(found)["Ready"] == (
        f"2 of 3 replicas of plan {planned(found).hash} are ready; the controller of the Deployment has not acted on "
        "its last change yet"
    )
    revision = found.status["activeRevision"]
    assert (revision["planHash"], revision["replicas"], revision["readyReplicas"]) == (planned(found).hash, 3, 2)


def test_other_pods_are_a_rollout_that_its_controller_has_not_begun() -> None:
    first = only(cluster())
    other = {"overrides": {**PINNED["overrides"], "maxBatchSize": 32}}
    found = only(cluster(**running(first)), asked(planning=other))
    assert conditions(found.status)["Progressing"][0] == "True"
    assert found.status["activeRevision"]["planHash"] == planned(found).hash
    assert found.status["activeRevision"]["readyReplicas"] == 0


def test_a_plan_of_several_nodes_takes_over_from_the_deployment_that_serves() -> None:
    first = only(cluster())
    spanning = {"overrides": {"tensorParallel": 8, "pipelineParallel": 2, "maxBatchSize": 64, "replicas": 1}}
    found = only(cluster(8, 8, 8, **running(first)), asked(planning=spanning))
    assert found.status["activeRevision"]["workloadRef"]["kind"] == "LeaderWorkerSet"
    assert messages(found)["Ready"] == (
        f"0 of 1 replicas of plan {planned(found).hash} are ready; 2 replicas of the previous revision still serve"
    )
    # The Deployment goes once the new pods are ready, whether its pods are known or not.
    unseen = running(first) | {"pods": {}}
    replaced = only(cluster(8, 8, 8, **unseen), asked(planning=spanning))
    assert conditions(replaced.status)["Progressing"] == ("True", "RollingSurge")


LIMITED: dict[str, Any] = {"energy": {"budget": {"energyWattHours": 200_000, "action": "Enforce"}}}


def test_an_own_limit_of_energy_has_its_account() -> None:
    account = EnergyAccount(
        period_start="2026-03-01T00:00:00Z",
        reset_time="2026-04-01T00:00:00Z",
        accounted_until="2026-03-01T11:00:00Z",
        measured_joules=360_000_000,
    )
    stated = {"energyAccount": account.model_dump(mode="json", by_alias=True, exclude_none=True)}
    fresh, used = only(cluster(), asked(**LIMITED)), only(cluster(), asked(status=stated, **LIMITED))
    assert fresh.own_account is not None
    assert (fresh.own_account.measured_joules, fresh.own_account.period_start) == (0, "2026-03-01T00:00:00Z")
    assert used.own_account is not None
    assert used.own_account.measured_joules == 360_000_000
    assert used.status["energyAccount"]["measuredJoules"] == 360_000_000
    assert fresh.inputs.allowance is not None
    assert used.inputs.allowance is not None
    assert used.inputs.allowance.watts < fresh.inputs.allowance.watts
    assert new_body(asked(status=stated, **LIMITED))["status"] == {"energyAccount": stated["energyAccount"]}


def test_a_body_without_pods_has_the_spec_and_nothing_of_the_status() -> None:
    found = new_body(asked(status={"plan": plan().model_dump(mode="json", by_alias=True)}))
    assert found["metadata"] == {"name": "llama", "namespace": "team", "uid": "u1", "labels": {"app": "llama"}}
    assert found["status"] == {}
    assert found["spec"]["planning"] == PINNED
    assert "slo" not in found["spec"]


def counted(body: dict[str, Any], config_maps: dict[tuple[str, str], Any] | None = None) -> dict[str, Any]:
    return dict(counted_from_now(body, config_maps or {}, NOW))


@pytest.mark.parametrize(
    "body",
    [
        budget({"powerWatts": 0}),
        budget({"powerWatts": 1000}),
        budget({"energyWattHours": 1000}, observedGeneration=2),
    ],
    ids=["unreadable", "power only", "reconciled before"],
)
def test_a_budget_that_no_first_reconcile_would_count_stays(body: dict[str, Any]) -> None:
    assert counted(body) is not body
    assert counted(body) == body


@pytest.mark.parametrize("generation", [3, None])
def test_a_new_budget_of_energy_has_all_of_it(generation: int | None) -> None:
    found = counted(budget({"energyWattHours": 1000, "period": "Day"}, generation))
    status = found["status"]
    assert found["spec"] == {"energyWattHours": 1000, "period": "Day"}
    assert (status["observedGeneration"], status["usedWattHours"], status["remainingWattHours"]) == (
        generation or 1,
        0,
        1000,
    )
    assert (status["periodStart"], status["resetTime"]) == ("2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z")
    assert conditions(status)["Ready"] == ("True", "Checked")
    assert None not in status.values()


CARBON = {
    "period": "Day",
    "carbon": {"gramsPerPeriod": 5000, "forecastConfigMapRef": {"name": "grid", "key": "forecast.csv"}},
}


def test_a_new_allowance_of_carbon_needs_its_forecast() -> None:
    maps = {("team", "grid"): {"data": {"forecast.csv": FORECAST}}}
    status = counted(budget(CARBON), maps)["status"]
    assert conditions(status)["Ready"] == ("True", "Checked")
    # 5,000 g at 500 g/kWh.
    assert status["remainingWattHours"] == pytest.approx(10_000, abs=1)
    for wrong, reason in (
        ({}, "ForecastMissing"),
        ({("team", "grid"): {"data": {"forecast.csv": "x"}}}, "ForecastInvalid"),
    ):
        assert conditions(counted(budget(CARBON), wrong)["status"])["Ready"] == ("False", reason)


def test_energy_and_carbon_limit_together() -> None:
    both = {**CARBON, "energyWattHours": 4000}
    maps = {("team", "grid"): {"data": {"forecast.csv": FORECAST}}}
    assert counted(budget(both), maps)["status"]["remainingWattHours"] == 4000
    # Without the forecast nothing is known of either.
    assert conditions(counted(budget(both))["status"])["Ready"] == ("False", "ForecastMissing")


def test_a_forecast_that_begins_later_is_named() -> None:
    late = FORECAST.replace("2026-03-01", "2026-03-05")
    found = counted(budget(CARBON), {("team", "grid"): {"data": {"forecast.csv": late}}})["status"]
    ready = next(c for c in found["conditions"] if c["type"] == "Ready")
    assert (ready["status"], ready["reason"]) == ("False", "ForecastInvalid")
    assert ready["message"].startswith("spec.carbon.forecastConfigMapRef: ConfigMap team/grid ")
