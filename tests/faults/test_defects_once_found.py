"""Defects that a review found: each test failed before its mend."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.support.metrics_page import scrape
from tests.support.world import KEY, Faults, World, llama, overrides, plain

from energylens.api.parse import parse_llmdeployment
from energylens.cluster.port import Object
from energylens.decide.deployment.observed.observation import Observation
from energylens.decide.deployment.plans import planning as deployment_planning
from energylens.decide.deployment.pods.children import _stuck
from energylens.decide.deployment.pods.rollouts import rollout
from energylens.measure.types import WindowMeasurement
from energylens.serving import Strategy


async def ready(spec: Object | None = None) -> World:
    world = World()
    world.cluster.put(spec or llama())
    await world.settle()
    return world


async def test_an_edit_that_comes_with_the_answer_to_a_status_write_is_looked_at_soon() -> None:
    world = World()
    edited = llama(planning=overrides(replicas=3))

    class EditsBeforeStatus(Faults):
        """A user edits the spec while a pass is about to write the status."""

        async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
            if edited:
                world.cluster.put(dict(edited))
                edited.clear()
            return await super().apply_status(manifest)

    world.start(EditsBeforeStatus(world.cluster))
    world.cluster.put(llama())
    world.delayed = []
    assert await world.reconciler.reconcile(KEY) == 0.0
    # The event of the edit comes late: the answer had it already, and it asks for no pass.
    assert all(
        world.store.put_deployment(body, deleted) is None
        for kind, body, deleted in world.delayed
        if kind == "LLMDeployment"
    )


async def test_a_look_without_an_edit_comes_after_the_resync() -> None:
    world = await ready()
    assert await world.reconciler.reconcile(KEY) == 300.0


STRATEGIES = [
    {"type": "Recreate"},
    {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=["no limits", "percentages"])
async def test_foreign_limits_of_the_rolling_update_are_put_right(strategy: Object) -> None:
    world = await ready()

    def edit(body: Object) -> None:
        body["spec"]["strategy"] = strategy

    world.cluster.edit("Deployment", *KEY, edit)
    await world.settle()
    live = world.cluster.objects["Deployment", *KEY]["spec"]["strategy"]
    assert live == {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    assert world.condition("Ready")["status"] == "True"


async def test_a_suspension_needs_no_approval() -> None:
    world = await ready()
    planning = {**overrides(maxBatchSize=32), "mode": "Manual"}
    world.cluster.put(llama(planning=planning))
    await world.settle()
    assert world.condition("PlanReady")["reason"] == "AwaitingApproval"
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2
    world.cluster.put(llama(planning=planning, suspend=True))
    await world.settle()
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 0


def window(**values: Any) -> WindowMeasurement:
    times = {"window_start": 1000.0, "window_end": 1060.0, "coverage_percent": 100.0}
    return WindowMeasurement("Measured", "measured", **{**times, **values})


async def test_a_window_of_another_plans_pods_is_not_held_against_the_new_plan() -> None:
    world = await ready()
    old_hash = world.status()["plan"]["hash"]
    asked: list[str] = []

    def latest(key: tuple[str, str], plan_hash: str) -> WindowMeasurement | None:
        asked.append(plan_hash)
        found = window(energy_joules=600.0, power_watts=600.0, joules_per_output_token=2.0)
        return found if plan_hash == old_hash else None

    world.reconciler.observing.measurements = latest
    await world.settle()
    assert world.status()["measured"]["joulesPerOutputToken"] == "2000m"
    world.cluster.put(llama(planning=overrides(maxBatchSize=32)))
    await world.settle()
    assert world.status()["plan"]["hash"] != old_hash
    assert "measured" not in world.status()
    assert asked[-1] != old_hash


async def test_a_restart_keeps_what_was_said_of_missing_metrics() -> None:
    world = await ready()
    missing = WindowMeasurement("NoSource", "no dcgm-exporter was found")
    world.reconciler.observing.measurements = lambda key, plan_hash: missing
    await world.settle()
    said = world.condition("EnergyMetricsAvailable")
    assert (said["status"], said["reason"]) == ("False", "NoSource")
    mark = world.mark
    world.clock.advance(60)
    world.start()
    await world.settle()
    assert world.writes_since(mark) == []


async def test_nothing_is_remembered_of_a_deleted_deployment() -> None:
    world = await ready()
    world.cluster.put(llama(planning=overrides(maxBatchSize=32)))
    await world.reconciler.reconcile(KEY)
    planning = world.reconciler._planning
    assert KEY in planning._remembered
    world.cluster.remove("LLMDeployment", *KEY)
    await world.reconciler.reconcile(KEY)
    assert not planning._remembered


async def test_of_many_deployments_the_latest_tables_are_remembered_and_the_others_made_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deployment_planning, "MOST_TABLES", 2)
    world, keys = World(), [(KEY[0], f"llama-{number}") for number in range(4)]
    world.pods_run = False
    for _, name in keys:
        world.cluster.put(llama(name=name))
    for key in keys:
        await world.reconciler.reconcile(key)
    service = world.reconciler._planning
    assert list(service._remembered) == keys[2:]
    plans = {key: world.status(key)["plan"] for key in keys}
    await world.settle(*keys)
    assert {key: world.status(key)["plan"] for key in keys} == plans
    assert not service._remembered
    assert not service._with_tables


async def observation(world: World) -> Observation:
    body = copy.deepcopy(world.store.deployments[KEY])
    deployment = parse_llmdeployment(body, strict=False)
    found = await world.reconciler._decide(KEY, body, deployment)
    return found.observed


def pods(observed: Observation, **changes: Any) -> tuple[Any, ...]:
    return tuple(replace(pod, **changes) for pod in observed.pods)


async def test_old_pods_on_another_product_are_not_stopped_for_new_ones_that_wait() -> None:
    world = await ready()
    observed = await observation(world)
    plan = observed.planning.plan
    assert plan is not None
    (new, _) = pods(observed)
    waiting = replace(new, name="new", ready=False, node="", unschedulable="Insufficient nvidia.com/gpu")
    surge = Strategy("Surge", 1, 0)
    same = replace(new, name="old", revision="0" * 16, node="h100-0")
    assert _stuck(replace(observed, pods=(waiting, same)), surge)
    other = replace(same, node="h200-0")
    assert not _stuck(replace(observed, pods=(waiting, other)), surge)


async def test_a_leader_worker_set_that_reports_no_generation_still_becomes_current() -> None:
    world = await ready()
    observed = await observation(world)
    live = copy.deepcopy(dict(observed.workload or {}))
    live["kind"] = "LeaderWorkerSet"
    strategy = {"rollingUpdateConfiguration": {"maxSurge": 1, "maxUnavailable": 0}}
    live["spec"] = {**live["spec"], "rolloutStrategy": strategy}
    live["status"] = {"replicas": 2, "updatedReplicas": 2, "readyReplicas": 2}
    observed = replace(observed, workload=live, pods=pods(observed, group="0"))
    assert rollout(observed).current
    old = pods(observed, revision="0" * 16)
    assert not rollout(replace(observed, pods=(*old, *observed.pods))).current
    live["status"]["observedGeneration"] = 0
    live["metadata"]["generation"] = 2
    assert not rollout(observed).current


FOREIGN = ("Deployment", "Service", "PodDisruptionBudget")


@pytest.mark.parametrize("kind", FOREIGN)
async def test_an_object_of_somebody_else_is_not_taken_over(kind: str) -> None:
    theirs = (await ready()).cluster.objects[kind, *KEY]
    for part in ("labels", "annotations", "ownerReferences", "uid"):
        theirs["metadata"].pop(part, None)
    world = World()
    world.cluster.put({**theirs, "metadata": {**theirs["metadata"], "labels": {"app": "theirs"}}})
    before = copy.deepcopy(world.cluster.objects[kind, *KEY])
    world.cluster.put(llama())
    world.pods_run = False
    await world.settle()
    assert world.cluster.objects[kind, *KEY] == before
    degraded = world.condition("Degraded")
    assert degraded["reason"] == "ApplyRefused"
    assert f"{kind} llama exists and does not belong" in degraded["message"]
    world.cluster.remove(kind, *KEY)
    world.pods_run = True
    await world.settle()
    assert world.condition("Degraded")["status"] == "False"
    assert world.condition("Ready")["status"] == "True"


async def test_a_child_that_lost_its_labels_is_not_foreign() -> None:
    world = await ready()
    world.cluster.edit("Service", *KEY, lambda body: body["metadata"].pop("labels"))
    await world.settle()
    assert world.cluster.objects["Service", *KEY]["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "energylens"


async def test_the_series_of_another_plans_measurement_go_with_that_plan() -> None:
    world = await ready()
    old_hash = world.status()["plan"]["hash"]
    found = window(energy_joules=600.0, power_watts=600.0, joules_per_output_token=2.0)
    world.reconciler.observing.measurements = lambda key, plan_hash: found if plan_hash == old_hash else None
    await world.settle()
    labels = {"namespace": KEY[0], "name": KEY[1]}
    before = await scrape(world.reconciler._metrics)
    assert before.value("energylens_measured_power_watts", **labels) == 600.0
    world.cluster.put(llama(planning=overrides(maxBatchSize=32)))
    await world.settle()
    after = await scrape(world.reconciler._metrics)
    assert after.value("energylens_measured_power_watts", **labels) is None
    assert after.value("energylens_predicted_joules_per_output_token", **labels) is not None


async def test_the_event_of_a_switch_says_what_it_costs_and_what_it_saves() -> None:
    world = await ready()
    world.cluster.put(llama(planning={"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}))
    await world.settle()
    assert world.condition("PlanReady")["reason"] == "KeepingRunningPlan"
    assert "cooldownSeconds=3600 has not passed" in world.condition("PlanReady")["message"]
    world.clock.advance(3601)
    await world.settle()
    (note,) = [e["note"] for e in world.cluster.events if e["reason"] == "PlanAdopted"]
    assert note.startswith("EnergySaving: 1 x NVIDIA-H100-80GB-HBM3 TP1, max batch 64: switching costs ")
    assert " Wh, the saving of " in note
    assert " Wh in 1.0 h" in note


async def test_a_crash_of_pods_does_not_put_off_a_better_plan() -> None:
    world = await ready()
    adopted = world.status()["planAdoptionTime"]
    world.clock.advance(3000)
    world.pods_run = False
    for key in [key for key in world.cluster.objects if key[0] == "Pod"]:
        world.cluster.remove(*key)
    await world.settle()
    assert world.condition("Ready")["status"] == "False"
    world.pods_run = True
    world.clock.advance(601)
    world.cluster.put(llama(planning={"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}))
    await world.settle()
    assert world.status()["plan"]["replicas"] == 1
    assert world.status()["planAdoptionTime"] != adopted


def edit_arguments(body: Object) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["args"][-1] = "--enforce-eager"


def edit_replicas(body: Object) -> None:
    body["spec"]["replicas"] = 7


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("edit", [edit_arguments, edit_replicas])
async def test_while_a_plan_waits_for_approval_foreign_edits_of_the_running_one_are_put_right(
    edit: Any, restart: bool
) -> None:
    world = await ready()
    approved = world.status()["plan"]["hash"]
    waiting = {**overrides(maxBatchSize=32), "mode": "Manual", "approvedPlanHash": approved}
    world.cluster.put(llama(planning=waiting))
    await world.settle()
    assert world.condition("PlanReady")["reason"] == "AwaitingApproval"
    before = {key: plain(body) for key, body in world.cluster.children().items()}
    if restart:
        world.start()
    world.cluster.edit("Deployment", *KEY, edit)
    world.cluster.remove("Service", *KEY)
    await world.settle()
    assert {key: plain(body) for key, body in world.cluster.children().items()} == before
    assert world.condition("PlanReady")["reason"] == "AwaitingApproval"


async def test_a_spec_that_waits_for_approval_changes_no_pod_of_the_running_plan() -> None:
    world = await ready()
    before = world.cluster.children()
    waiting = {**overrides(maxBatchSize=32), "mode": "Manual"}
    world.cluster.put(llama(planning=waiting, engine={"extraArgs": ["--enforce-eager"]}))
    await world.settle()
    assert world.cluster.children() == before


async def test_a_plan_that_waits_for_approval_is_compared_with_the_one_that_runs() -> None:
    """Three replicas were proposed and never approved: what is not worth it after that keeps the two that run."""
    world = await ready()
    running = world.status()["plan"]
    for planning in (overrides(replicas=3), {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}):
        world.cluster.put(llama(planning={**planning, "mode": "Manual", "approvedPlanHash": running["hash"]}))
        await world.settle()
    assert world.condition("PlanReady")["status"] == "True"
    assert world.status()["plan"]["hash"] == running["hash"]


async def test_a_plan_that_waits_for_approval_keeps_no_gpus_from_others() -> None:
    """Sixteen GPUs: the first plan asks for all of them and is not approved."""
    world = World()
    world.cluster.put(llama(planning={**overrides(replicas=16), "mode": "Manual"}))
    world.cluster.put(llama("other", planning=overrides(replicas=16)))
    await world.settle(KEY, (KEY[0], "other"))
    assert world.condition("PlanReady")["reason"] == "AwaitingApproval"
    assert world.condition("Ready", (KEY[0], "other"))["status"] == "True"
