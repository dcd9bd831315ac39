"""What is counted again only where something changed is what counting everything again would give."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tests.support.devices import claim, device_class, gpu, resource_slice, taint_rule

from energylens.api.llmdeployment import JobStartStatus
from energylens.controller.state.inventory import Inventory
from energylens.controller.state.store import Key, Store
from energylens.data import load_gpus
from energylens.decide.planned import planned
from energylens.decide.reservations import reservation, reserve
from energylens.planner.inventory.snapshot import CLAIMED_GPUS_LABEL, OWNER_LABEL, DeviceObjects, snapshot_from_objects
from energylens.planner.types import ClusterSnapshot

PRODUCTS = ("NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S")
NAMES = ("a", "b", "c", "d")


def node(name: str, product: str, gpus: int = 8) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "spec": {},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(name: str, owner: str, host: str, gpus: int) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "team", "uid": name, "labels": {OWNER_LABEL: owner}},
        "spec": {"nodeName": host, "containers": [{"resources": {"requests": {"nvidia.com/gpu": str(gpus)}}}]},
        "status": {"phase": "Running"},
    }


def plan(product: str, gpus_per_replica: int, replicas: int) -> dict[str, Any]:
    return {
        "gpuProduct": product,
        "gpus": gpus_per_replica * replicas,
        "tensorParallel": gpus_per_replica,
        "pipelineParallel": 1,
        "dataParallel": 1,
    }


def deployment(name: str, version: int, status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team", "uid": name, "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": spec, "status": status}


def counted_anew(store: Store, key: Key, under_way: dict[Key, dict[str, Any]]) -> ClusterSnapshot:
    base = snapshot_from_objects(store.nodes.values(), store.pods.values(), load_gpus())
    wanted = []
    for other, body in sorted(store.deployments.items()):
        held = sum(a.gpus for n in base.nodes for a in n.allocations if a.owner == f"{other[0]}/{other[1]}")
        seen = {**body, "status": {"plan": under_way[other]}} if other in under_way else body
        found = reservation(planned(seen), held)
        if other != key and found is not None:
            wanted.append(found)
    return reserve(base, wanted)


@pytest.mark.parametrize("seed", range(8))
def test_after_any_changes_the_snapshot_is_that_of_counting_anew(seed: int) -> None:
    random_ = random.Random(seed)
    store, under_way = Store(), dict[Key, dict[str, Any]]()
    inventory = Inventory(store)
    for index in range(4):
        store.put_node(node(f"n{index}", PRODUCTS[index % 2]), deleted=False)
    for step in range(120):
        name = random_.choice(NAMES)
        key = ("team", name)
        some_plan = plan(random_.choice(PRODUCTS), random_.choice((1, 2, 4)), random_.choice((1, 2, 3)))
        action = random_.randrange(6)
        if action == 0:
            store.put_deployment(deployment(name, step, {"plan": some_plan}), deleted=False)
        elif action == 1:
            store.put_deployment(deployment(name, step, {"plan": some_plan}, suspend=True), deleted=False)
        elif action == 2:
            store.put_deployment(deployment(name, step, {}), deleted=True)
        elif action == 3:
            body = pod(f"p{random_.randrange(6)}", name, f"n{random_.randrange(4)}", random_.choice((1, 2)))
            store.put_pod(body, deleted=bool(random_.randrange(3)) is False)
        elif action == 4:
            inventory.adopt(key, some_plan)
            under_way[key] = some_plan
        else:
            inventory.settle(key)
            under_way.pop(key, None)
        asked = ("team", random_.choice(NAMES))
        assert inventory.snapshot(asked) == counted_anew(store, asked, under_way), f"step {step}"


@pytest.mark.parametrize("seed", range(4))
def test_after_any_changes_of_devices_the_snapshot_is_that_of_counting_anew(seed: int) -> None:
    random_ = random.Random(seed)
    store = Store()
    inventory = Inventory(store)
    for index in range(3):
        body = node(f"n{index}", PRODUCTS[0])
        del body["status"]["allocatable"]
        store.put_node(body, deleted=False)
    for step in range(150):
        host, name = f"n{random_.randrange(3)}", random_.choice(NAMES)
        gone, action = not random_.randrange(3), random_.randrange(6)
        if action == 0:
            body = resource_slice(host, [gpu(i) for i in range(random_.randrange(4))], name=f"s{random_.randrange(4)}")
            body["spec"]["pool"]["resourceSliceCount"] = random_.choice((1, 2))
            store.put_device_object("ResourceSlice", body, gone)
        elif action in (1, 2):
            body = claim(
                f"c{random_.randrange(4)}", host, f"gpu-{random_.randrange(4)}", pod=f"p{random_.randrange(4)}"
            )
            store.put_device_object("ResourceClaim", body, gone)
        elif action == 3:
            body = device_class(**random_.choice(({}, {"extendedResourceName": "nvidia.com/gpu"})))
            store.put_device_object("DeviceClass", body, gone)
        elif action == 4:
            effect, selected = random_.choice(("NoSchedule", "None")), random_.choice(("gpu-0", "gpu-1"))
            store.put_device_object("DeviceTaintRule", taint_rule("r", effect, pool=host, device=selected), gone)
        else:
            body = pod(f"p{random_.randrange(4)}", name, host, 0)
            body["spec"]["resourceClaims"] = [{"name": "gpus", "resourceClaimTemplateName": "t"}]
            body["metadata"]["labels"][CLAIMED_GPUS_LABEL] = "1"
            store.put_pod(body, deleted=gone)
        kinds = ("ResourceSlice", "ResourceClaim", "DeviceClass", "DeviceTaintRule")
        # By name: of two claims of one device, which only a faulty allocator makes, the first counts.
        devices = DeviceObjects(*([body for _, body in sorted(store.devices.bodies[kind].items())] for kind in kinds))
        anew = snapshot_from_objects(store.nodes.values(), store.pods.values(), load_gpus(), devices)
        assert inventory.snapshot(("team", "x")) == anew, f"step {step}"


def test_an_allocation_is_a_change_of_the_inventory_and_another_drivers_is_not() -> None:
    store = Store()
    store.put_device_object("ResourceSlice", resource_slice("n", [gpu(0)]), deleted=False)
    versions = store.inventory_version, store.nodes_version
    store.put_device_object("ResourceClaim", claim("a", "n", "nic-0", driver="dra.net"), deleted=False)
    assert (store.inventory_version, store.nodes_version) == versions
    store.put_device_object("ResourceClaim", claim("b", "n", "gpu-0"), deleted=False)
    assert (store.inventory_version, store.nodes_version) == (versions[0] + 1, versions[1])
    store.put_device_object("ResourceClaim", claim("b", "n", "gpu-0"), deleted=True)
    assert store.inventory_version == versions[0] + 2


def test_a_late_deletion_of_a_claim_takes_no_successor_of_its_name_away() -> None:
    store = Store()
    store.put_device_object("ResourceSlice", resource_slice("n", [gpu(0)]), deleted=False)
    first, second = claim("a", "n", "gpu-0"), claim("a", "n", "gpu-0")
    first["metadata"]["uid"], second["metadata"]["uid"] = "1", "2"
    for body, deleted in ((first, False), (second, False), (first, True)):
        store.put_device_object("ResourceClaim", body, deleted)
    assert list(store.devices.bodies["ResourceClaim"]) == [("team", "a")]


def test_a_snapshot_is_made_once_per_change_of_nodes_and_pods() -> None:
    store = Store()
    inventory = Inventory(store)
    store.put_node(node("n0", PRODUCTS[0]), deleted=False)
    first = inventory.snapshot(("team", "a"))
    store.put_deployment(deployment("b", 1, {}), deleted=False)
    assert inventory.snapshot(("team", "a")) is first
    store.put_pod(pod("p0", "b", "n0", 2), deleted=False)
    assert inventory.snapshot(("team", "a")).nodes[0].free_now == 6


def test_each_pod_is_reserved_on_the_fullest_node_that_it_fits_on() -> None:
    store = Store()
    for index, gpus in enumerate((8, 4, 2)):
        store.put_node(node(f"n{index}", PRODUCTS[0], gpus), deleted=False)
    store.put_deployment(deployment("b", 1, {"plan": plan(PRODUCTS[0], 4, 2)}), deleted=False)
    assert [n.free_now for n in Inventory(store).snapshot(("team", "a")).nodes] == [4, 0, 2]


SUMMARY = '{"hash":"new","gpuProduct":"NVIDIA-L40S","gpus":4,"tensorParallel":4,"pipelineParallel":1,"dataParallel":1,"predicted":{"powerWatts":900}}'  # noqa: E501


def workload(summary: str | None, version: int = 2) -> dict[str, Any]:
    annotations = {} if summary is None else {"energylens.dev/plan-summary": summary}
    labels = {OWNER_LABEL: "a"}
    metadata = {"name": "a", "namespace": "team", "uid": "w", "resourceVersion": str(version), "labels": labels}
    return {"kind": "Deployment", "metadata": {**metadata, "annotations": annotations}, "spec": {}}


def free(inventory: Inventory) -> int:
    return sum(each.free_now for each in inventory.snapshot(("team", "b")).nodes)


def test_a_workload_whose_plan_no_status_has_holds_its_gpus_and_its_power() -> None:
    store = Store()
    store.put_node(node("n", "NVIDIA-L40S"), deleted=False)
    store.put_deployment(deployment("a", 1, {}), deleted=False)
    inventory = Inventory(store)
    assert free(inventory) == 8
    store.put_child("Deployment", workload(SUMMARY), deleted=False)
    assert free(inventory) == 4
    held = inventory.with_plan(("team", "a"), store.deployments["team", "a"])
    assert held["status"]["plan"]["predicted"]["powerWatts"] == 900
    # Its status has caught up: what it says counts.
    known = {"plan": {**plan("NVIDIA-L40S", 1, 1), "hash": "new"}}
    store.put_deployment(deployment("a", 3, known), deleted=False)
    assert free(inventory) == 7
    store.put_child("Deployment", workload(SUMMARY, 4), deleted=True)
    assert free(inventory) == 7


@pytest.mark.parametrize("summary", [None, "no JSON", "[]", '{"gpus":0}', '{"gpus":4}'])
def test_a_summary_that_says_nothing_counts_as_none(summary: str | None) -> None:
    store = Store()
    store.put_node(node("n", "NVIDIA-L40S"), deleted=False)
    store.put_deployment(deployment("a", 1, {}), deleted=False)
    store.put_child("Deployment", workload(summary), deleted=False)
    assert free(Inventory(store)) == 8


def test_a_job_for_which_budgets_have_room_again_counts_before_its_status_says_so() -> None:
    key, store = ("team", "a"), Store()
    inventory = Inventory(store)
    refused = JobStartStatus(
        state="Waiting", latest_start_time="2026-11-28T06:00:00Z", reason="BudgetExceeded", message="no room"
    )
    some_plan = {**plan(PRODUCTS[0], 1, 1), "predicted": {"powerWatts": 600}}
    status = {"plan": some_plan, "jobStart": refused.model_dump(mode="json", by_alias=True, exclude_none=True)}
    body = deployment("a", 1, status, workload={"job": {"requests": 1, "completeWithinSeconds": 60}})
    store.put_deployment(body, deleted=False)
    inventory.start(key, refused, refused)
    assert planned(inventory.with_plan(key, store.deployments[key])).reserved_watts == 0
    inventory.start(key, None, refused)
    assert planned(inventory.with_plan(key, store.deployments[key])).reserved_watts == 600
    inventory.settle(key)
    assert planned(inventory.with_plan(key, store.deployments[key])).reserved_watts == 0
