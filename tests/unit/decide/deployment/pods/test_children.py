"""Which children a plan has: none where it is only shown, the same ones where nothing changed, safe limits else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import (
    HASH,
    OLD,
    OTHER,
    PRODUCT,
    RECREATE,
    SURGE,
    deployment,
    model,
    observation,
    plan,
    pod,
    snapshot,
    without_plan,
    workload,
)

from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.pods.children import SAFE_MESSAGE, children, same_template, shape_of
from energylens.decide.reasons import Reason
from energylens.planner.types import ClusterSnapshot, GpuAccess, GpuNode
from energylens.serving.gpus import access_of

LARGER = plan(OTHER, max_batch_size=64)


def planned(wanted: Any, **spec: Any) -> dict[str, Any]:
    return {"planning": PlanChoice(wanted, model(), True, Reason.PLANNED, ""), "deployment": deployment(**spec)}


def test_what_already_is_starts_no_rollout() -> None:
    found = children(observation())
    assert found.acting
    assert found.strategy is None
    assert [manifest["kind"] for manifest in found.manifests] == ["Deployment", "Service", "PodDisruptionBudget"]


@pytest.mark.parametrize("strategy", [SURGE, RECREATE], ids=lambda s: s.name)
def test_limits_of_the_last_rollout_stay_until_the_next_one(strategy: Any) -> None:
    live = workload(strategy=strategy)
    (manifest, *_) = children(observation(workload=live)).manifests
    assert manifest["spec"]["strategy"] == live["spec"]["strategy"]


def test_a_first_plan_starts_with_nothing_to_replace() -> None:
    found = children(observation(workload=None, pods=()))
    assert found.acting
    assert found.strategy is not None
    assert found.strategy.name == "Surge"


def test_a_new_plan_surges_where_gpus_are_free_and_recreates_where_not() -> None:
    free = children(observation(**planned(LARGER), snapshot=snapshot(8)))
    full = children(observation(**planned(LARGER), snapshot=snapshot(0)))
    assert free.strategy is not None
    assert full.strategy is not None
    assert (free.strategy.name, full.strategy.name) == ("Surge", "Recreate")


def test_a_surge_whose_gpus_were_taken_goes_on_by_recreating() -> None:
    pods = (pod("old", OLD), pod("new", ready=False, unschedulable="no node"))
    found = children(observation(pods=pods))
    assert found.strategy is not None
    assert (found.strategy.name, found.strategy.max_surge, found.strategy.message) == ("Recreate", 0, SAFE_MESSAGE)


def test_a_first_start_without_room_is_not_a_stuck_rollout() -> None:
    found = children(observation(pods=(pod("new", ready=False, unschedulable="no node"),)))
    assert found.strategy is None


@pytest.mark.parametrize(
    ("spec", "reason"), [({"mode": "Advisory"}, Reason.ADVISORY), ({"mode": "Manual"}, Reason.AWAITING_APPROVAL)]
)
def test_a_plan_that_is_only_shown_writes_nothing(spec: dict[str, Any], reason: Reason) -> None:
    found = children(observation(deployment=deployment(planning=spec)))
    assert (found.manifests, found.acting, found.reason) == ((), False, reason)


def test_an_approved_plan_is_acted_on() -> None:
    approved = deployment(planning={"mode": "Manual", "approvedPlanHash": HASH})
    assert children(observation(deployment=approved)).acting


def test_suspending_needs_no_approval() -> None:
    stopped = deployment(planning={"mode": "Manual"}, suspend=True)
    (manifest, *_) = children(observation(deployment=stopped)).manifests
    assert manifest["spec"]["replicas"] == 0


def test_without_a_plan_for_the_spec_nothing_is_made_and_nothing_new_is_written() -> None:
    bad = without_plan(Reason.SLO_INFEASIBLE, plan())
    assert children(observation(planning=bad, workload=None, pods=())).manifests == ()
    edited = deployment(engine={"extraArgs": ["--enforce-eager"]})
    assert children(observation(planning=bad, deployment=edited)).manifests == ()


def test_without_a_plan_for_the_spec_foreign_edits_are_still_put_right() -> None:
    live = workload()
    live["spec"]["template"]["spec"]["containers"][0]["args"] = ["--foreign"]
    bad = without_plan(Reason.INSUFFICIENT_GPUS, plan())
    (manifest, *_) = children(observation(planning=bad, workload=live)).manifests
    assert manifest["spec"]["template"]["spec"]["containers"][0]["args"] != ["--foreign"]


def test_a_spec_that_contradicts_the_plan_is_a_reason() -> None:
    spec = deployment(podTemplate={"spec": {"nodeName": "h100-0"}})
    found = children(observation(deployment=spec))
    assert (found.acting, found.reason) == (False, Reason.INVALID_ENGINE_SETTINGS)
    assert "spec.podTemplate.spec.nodeName" in found.message


def test_the_shape_of_what_runs_is_read_from_it() -> None:
    live = workload(plan(OTHER, tensor_parallel=4, replicas=3, gpus=12, gpu_product="NVIDIA-H200"))
    shape = shape_of(live, plan())
    assert (shape.gpu_product, shape.replicas, shape.tensor_parallel, shape.nodes_per_replica) == (
        "NVIDIA-H200",
        3,
        4,
        1,
    )


@pytest.mark.parametrize(("part", "product", "gpus"), [("affinity", "", 1), ("containers", PRODUCT, 0)])
def test_the_shape_of_what_was_edited_beyond_recognition_is_none_of_ours(part: str, product: str, gpus: int) -> None:
    live = workload()
    del live["spec"]["template"]["spec"][part]
    shape = shape_of(live, plan())
    assert (shape.gpu_product, shape.tensor_parallel) == (product, gpus)


def on_nodes(*access: GpuAccess) -> ClusterSnapshot:
    return ClusterSnapshot((GpuNode("n", PRODUCT, 8, access=frozenset(access)),))


@pytest.mark.parametrize("access", ["Resource", "Claim"])
def test_pods_get_their_gpus_as_the_nodes_give_them(access: GpuAccess) -> None:
    found = children(observation(workload=None, pods=(), snapshot=on_nodes(access))).manifests
    assert [body["kind"] for body in found].count("ResourceClaimTemplate") == (access == "Claim")
    (pod,) = [body["spec"]["template"] for body in found if body["kind"] == "Deployment"]
    assert access_of(pod) == access


def claiming() -> dict[str, Any]:
    """Return a Deployment whose pods claim their GPUs."""
    first = children(observation(workload=None, pods=(), snapshot=on_nodes("Claim"))).manifests
    return next(body for body in first if body["kind"] == "Deployment")


def test_running_pods_keep_their_way_to_gpus_while_nodes_offer_it() -> None:
    live = claiming()
    shape = shape_of(live, plan())
    assert (shape.gpu_product, shape.tensor_parallel) == (PRODUCT, 1)
    kept = children(observation(workload=live, snapshot=on_nodes("Claim", "Resource"))).manifests
    assert any(same_template(live, body) for body in kept)
    # No node of the product is known for a moment.
    gone = children(observation(workload=live, snapshot=ClusterSnapshot(()))).manifests
    assert any(same_template(live, body) for body in gone)
    moved = children(observation(workload=live, snapshot=on_nodes("Resource"))).manifests
    assert not any(same_template(live, body) for body in moved)
    assert all(body["kind"] != "ResourceClaimTemplate" for body in moved)


def test_pods_that_wait_for_approval_keep_their_way_to_gpus() -> None:
    live = claiming()
    waiting = deployment(planning={"mode": "Manual"})
    found = children(observation(workload=live, deployment=waiting, snapshot=on_nodes("Resource"), standing=plan()))
    assert not found.acting
    assert any(same_template(live, body) for body in found.manifests)


def test_another_kind_of_workload_never_has_the_same_template() -> None:
    live = workload()
    assert same_template(live, live)
    assert not same_template(live, {**live, "kind": "LeaderWorkerSet"})
    assert not same_template(live, replaced_image(live))


def replaced_image(live: dict[str, Any]) -> dict[str, Any]:
    container = {**live["spec"]["template"]["spec"]["containers"][0], "image": "example.org/other"}
    pod_spec = {**live["spec"]["template"]["spec"], "containers": [container]}
    return {**live, "spec": {**live["spec"], "template": {**live["spec"]["template"], "spec": pod_spec}}}


def test_a_look_at_the_same_observation_gives_the_same_children() -> None:
    first = observation()
    assert children(first) == children(replace(first))
