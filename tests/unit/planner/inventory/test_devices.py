"""GPUs of ResourceSlices: which are whole, which are free, and how pods may get them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from tests.support.devices import claim, counted_by, device_class, gpu, mig, resource_slice, taint_rule

from energylens.data import load_gpus
from energylens.decide.trimmed import trim_claim, trim_class, trim_node, trim_pod, trim_slice, trim_taint_rule
from energylens.planner.fleet.planning import nodes_of
from energylens.planner.inventory.access import access_to, of_another_access, with_one_access
from energylens.planner.inventory.devices import Device, NodeDevices, devices_of, label_form
from energylens.planner.inventory.snapshot import CLAIMED_GPUS_LABEL, OWNER_LABEL, DeviceObjects, snapshot_from_objects
from energylens.planner.types import ClusterSnapshot, GpuAccess, GpuAllocation, GpuNode

Object = dict[str, Any]
H100, A100 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-A100-SXM4-80GB"
CLASSES = (device_class(),)
CLAIMED: frozenset[GpuAccess] = frozenset({"Claim"})
ASKED: frozenset[GpuAccess] = frozenset({"Resource"})
EITHER = CLAIMED | ASKED
SERVING = (device_class(extendedResourceName="nvidia.com/gpu"),)


def node(labels: Mapping[str, str] = {}, gpus: int | None = None) -> Object:
    return {
        "metadata": {"name": "n", "labels": dict(labels)},
        "spec": {},
        "status": {
            "allocatable": {} if gpus is None else {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(name: str, owner: str = "", gpus: int = 0, claimed: int = 0, host: str = "n") -> Object:
    labels = ({OWNER_LABEL: owner} if owner else {}) | ({CLAIMED_GPUS_LABEL: str(claimed)} if claimed else {})
    requests = {"requests": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    return {
        "metadata": {"name": name, "namespace": "team", "labels": labels},
        "spec": {"nodeName": host, "containers": [{"name": "c", "resources": requests}]},
        "status": {"phase": "Running"},
    }


def snapshot(
    nodes: Sequence[Object],
    slices: Sequence[Object],
    claims: Sequence[Object] = (),
    pods: Sequence[Object] = (),
    classes: Sequence[Object] = CLASSES,
    rules: Sequence[Object] = (),
) -> ClusterSnapshot:
    """Return the snapshot, which is the same of whole objects and of what is kept of them."""
    found = snapshot_from_objects(nodes, pods, load_gpus(), DeviceObjects(slices, claims, classes, rules))
    kept = DeviceObjects(
        [trim_slice(body) for body in slices],
        [trim_claim(c) for c in claims],
        [trim_class(c) for c in classes],
        [trim_taint_rule(r) for r in rules],
    )
    assert snapshot_from_objects(map(trim_node, nodes), map(trim_pod, pods), load_gpus(), kept) == found
    return found


def only(*slices: Object, labels: dict[str, str] | None = None, **more: Any) -> GpuNode:
    (found,) = snapshot([node(labels or {})], slices, **more).nodes
    return found


def reason(*slices: Object, **more: Any) -> str:
    (found,) = snapshot([node()], slices, **more).excluded
    return found.reason


def test_whole_gpus_of_a_known_product_count_without_any_label() -> None:
    found = only(resource_slice("n", [gpu(0), gpu(1), mig(2)]))
    assert (found.product, found.allocatable, found.access) == (H100, 2, {"Claim"})


@pytest.mark.parametrize("version", ["v1beta2", "v1beta1", "v1alpha3"])
def test_slices_of_earlier_versions_count_in_files(version: str) -> None:
    devices = [gpu(0), gpu(1, taints=[{"key": "broken", "effect": "NoSchedule"}])]
    if version in ("v1beta1", "v1alpha3"):
        devices = [{"name": device.pop("name"), "basic": device} for device in devices]
    if version == "v1alpha3":
        for device in devices:
            device["basic"]["capacity"] = {"memory": "81559Mi"}
    body = {**resource_slice("n", devices), "apiVersion": f"resource.k8s.io/{version}"}
    found = snapshot_from_objects([node()], [], load_gpus(), DeviceObjects([body], [], CLASSES))
    assert [(each.product, each.allocatable) for each in found.nodes] == [(H100, 1)]


@pytest.mark.parametrize(
    ("selector", "effect", "left"),
    [
        ({"driver": "gpu.nvidia.com", "pool": "n", "device": "gpu-1"}, "NoSchedule", 2),
        ({"device": "gpu-1"}, "NoExecute", 2),
        ({"pool": "n"}, "NoSchedule", 0),
        ({}, "NoSchedule", 0),
        ({"pool": "n"}, "None", 3),
        ({"driver": "other.example.com"}, "NoSchedule", 3),
        ({"pool": "m", "device": "gpu-1"}, "NoSchedule", 3),
    ],
)
def test_gpus_that_a_taint_rule_selects_do_not_count(selector: dict[str, str], effect: str, left: int) -> None:
    body, rule = resource_slice("n", [gpu(0), gpu(1), gpu(2)]), taint_rule("broken", effect, **selector)
    if left:
        assert only(body, rules=[rule]).allocatable == left
    else:
        assert reason(body, rules=[rule]).endswith("has a taint: example.com/broken=xid:NoSchedule")
    # Without a selector a rule selects nothing.
    del rule["spec"]["deviceSelector"]
    assert only(body, rules=[rule]).allocatable == 3


def test_a_gpu_that_is_held_still_counts_after_a_rule_tainted_it() -> None:
    rules = [taint_rule("broken", device="gpu-1")]
    found = only(resource_slice("n", [gpu(0), gpu(1)]), claims=[claim("c", "n", "gpu-1", pod="p")], rules=rules)
    assert (found.allocatable, sum(held.gpus for held in found.allocations)) == (2, 1)


@pytest.mark.parametrize(
    ("name", "product"),
    [
        ("NVIDIA H100 80GB HBM3", H100),
        ("A100-SXM4-80GB", A100),
        ("NVIDIA A100-SXM4-80GB", A100),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "NVIDIA-RTX-PRO-6000-Blackwell-Server-Edition"),
    ],
)
def test_products_are_found_by_their_nvml_names(name: str, product: str) -> None:
    assert only(resource_slice("n", [gpu(0, name, None)])).product == product


def test_names_take_the_form_of_the_label() -> None:
    assert label_form("NVIDIA  H100 (80GB)/HBM3") == "NVIDIA-H100-80GBHBM3"


def test_an_unknown_product_is_shown_as_it_is() -> None:
    assert only(resource_slice("n", [gpu(0, "NVIDIA L40")])).product == "NVIDIA-L40"


XID = {"key": "gpu.nvidia.com/xid", "value": "79", "effect": "NoSchedule"}
FOR_MACHINES = {"name": "gpu-vfio-0", "attributes": {"type": {"string": "vfio"}}}


@pytest.mark.parametrize(
    ("devices", "more", "expected"),
    [
        ([mig(0), mig(1)], {}, "partitioned (MIG): its ResourceSlices list 2 mig"),
        ([mig(0), FOR_MACHINES], {}, "partitioned (MIG): its ResourceSlices list 1 mig, 1 vfio"),
        ([gpu(0, allowMultipleAllocations=True), FOR_MACHINES], {}, "shared between pods"),
        ([FOR_MACHINES], {}, "list no whole GPU: 1 vfio"),
        ([gpu(0)], {"of": 2}, "incomplete: pool n has 1 of 2 ResourceSlices"),
        ([gpu(0, allowMultipleAllocations=True)], {}, "shared between pods"),
        ([gpu(0, memory="40Gi")], {}, f"shares of {H100}"),
        ([gpu(0, "GRID A100D-40C")], {}, "shares of GRID-A100D-40C"),
        ([gpu(0, taints=[XID])], {}, "has a taint: gpu.nvidia.com/xid=79:NoSchedule"),
        ([gpu(0, memory="much")], {}, "a ResourceSlice of it is malformed: ResourceSlice n, device gpu-0"),
    ],
)
def test_what_is_no_whole_gpu_is_named(devices: list[Object], more: Object, expected: str) -> None:
    assert expected in reason(resource_slice("n", devices, **more))


def test_a_node_of_partitions_has_the_product_of_their_gpus() -> None:
    (found,) = snapshot([node()], [resource_slice("n", [FOR_MACHINES, mig(0)])]).excluded
    assert found.product == H100


def test_a_slice_without_counts_is_the_only_one_of_its_pool() -> None:
    body = resource_slice("n", [gpu(0)])
    del body["spec"]["pool"]["resourceSliceCount"], body["spec"]["pool"]["generation"]
    assert only(body).allocatable == 1
    assert only(body, resource_slice("n", [gpu(0), gpu(1)])).allocatable == 2


def test_a_pool_without_all_of_its_slices_hides_no_other_pool() -> None:
    broken, whole = (resource_slice(pool, [gpu(0)], of=of) for pool, of in (("a", 2), ("b", 1)))
    found = devices_of([broken, whole])
    assert (list(found.devices), found.incomplete) == ([("b", "gpu-0")], "pool a has 1 of 2 ResourceSlices")


def test_a_partition_is_of_the_gpu_in_its_pool_that_shares_its_counters() -> None:
    def device(kind: str, *counters: str) -> Device:
        return Device(kind, H100, counters=frozenset(counters))

    found = NodeDevices(
        {
            ("a", "gpu-0"): device("gpu", "0"),
            ("b", "gpu-1"): device("gpu", "1"),
            ("b", "part"): device("mig", "0"),
            ("b", "gpu-0"): device("gpu", "0"),
            ("b", "other"): device("mig", "2"),
        }
    )
    assert found.gpu_of(("b", "part")) == ("b", "gpu-0")
    assert found.gpu_of(("a", "gpu-0")) == ("a", "gpu-0")
    assert found.gpu_of(("b", "other")) is None
    assert found.gpu_of(("c", "gpu-0")) is None


def test_gpus_that_no_class_gives_are_named() -> None:
    assert "has no DeviceClass gpu.nvidia.com" in reason(resource_slice("n", [gpu(0)]), classes=())


def test_slices_of_other_drivers_and_nodes_do_not_count() -> None:
    others = [resource_slice("n", [gpu(0)], driver="dra.net"), resource_slice("m", [gpu(0), gpu(1)])]
    assert snapshot([node()], others) == ClusterSnapshot(())
    assert only(*others, resource_slice("n", [gpu(0)], name="own")).allocatable == 1


def test_of_a_pool_only_the_newest_generation_counts() -> None:
    old, new = resource_slice("n", [gpu(0)]), resource_slice("n", [gpu(1), gpu(2)], name="new", generation=2)
    assert only(old, new).allocatable == 2
    assert only(new, resource_slice("n", [gpu(3)], name="old", of=2)).allocatable == 2


def test_all_slices_of_a_pool_count_together() -> None:
    slices = [resource_slice("n", [counted_by(gpu(i), i)], name=f"n-{i}", of=3) for i in range(2)]
    counters = resource_slice("n", [], name="counters", of=3)
    assert only(counters, *slices).allocatable == 2


def test_devices_that_claims_hold_are_not_free_and_belong_to_their_pods() -> None:
    found = only(
        resource_slice("n", [gpu(index) for index in range(4)]),
        claims=[claim("a", "n", "gpu-0", "gpu-1", pod="mine"), claim("b", "n", "gpu-2", pod="other")],
        pods=[pod("mine", "chat", claimed=2), pod("other")],
    )
    assert found.allocations == (GpuAllocation("", 1), GpuAllocation("team/chat", 2, "Claim"))
    assert found.free_now == 1


def test_a_claim_of_a_pod_that_is_not_known_yet_holds_its_gpu() -> None:
    slices = [resource_slice("n", [gpu(0), gpu(1)])]
    for users in ({"pod": "unseen"}, {}):
        assert only(*slices, claims=[claim("a", "n", "gpu-0", **users)]).free_now == 1
    owned = claim("a", "n", "gpu-0")
    owned["metadata"]["ownerReferences"] = [{"kind": "Pod", "name": "mine", "uid": "u"}]
    assert only(*slices, claims=[owned], pods=[pod("mine", "chat")]).allocations == (GpuAllocation("team/chat", 1),)


def test_a_claim_without_its_pod_on_the_node_holds_its_gpus_for_its_llmdeployment() -> None:
    """The scheduler allocates before it binds, and a claim outlives its pod by seconds."""
    own = claim("a", "n", "gpu-0", "gpu-1", pod="mine")
    own["metadata"]["labels"] = {OWNER_LABEL: "chat", "other": "label"}
    slices = [resource_slice("n", [gpu(0), gpu(1), gpu(2)])]
    for pods in ((), (pod("mine", "chat", claimed=2, host=""),)):
        assert only(*slices, claims=[own], pods=pods).allocations == (GpuAllocation("team/chat", 2, "Claim"),)
    own["status"]["reservedFor"] = []
    assert only(*slices, claims=[own]).allocations == (GpuAllocation("team/chat", 2, "Claim"),)
    # The pod itself says best whose it is.
    own["status"]["reservedFor"] = [{"resource": "pods", "name": "mine", "uid": "mine"}]
    assert only(*slices, claims=[own], pods=[pod("mine")]).allocations == (GpuAllocation("", 2),)


def test_a_pod_whose_claim_is_not_known_yet_holds_what_it_asks_for() -> None:
    found = only(resource_slice("n", [gpu(0), gpu(1)]), pods=[pod("mine", "chat", claimed=2)])
    assert found.allocations == (GpuAllocation("team/chat", 2, "Claim"),)


def test_shared_claims_hold_each_gpu_once() -> None:
    shared = claim("a", "n", "gpu-0", pod="one")
    shared["status"]["reservedFor"].append({"resource": "pods", "name": "two", "uid": "two"})
    found = only(resource_slice("n", [gpu(0), gpu(1)]), claims=[shared], pods=[pod("one"), pod("two")])
    assert found.free_now == 1


def test_administrative_access_holds_no_gpu() -> None:
    assert (
        only(resource_slice("n", [gpu(0)]), claims=[claim("a", "n", "gpu-0", pod="p", adminAccess=True)]).free_now == 1
    )


def test_claims_of_other_drivers_hold_no_gpu() -> None:
    assert (
        only(resource_slice("n", [gpu(0)]), claims=[claim("a", "n", "gpu-0", pod="p", driver="dra.net")]).free_now == 1
    )


def test_an_allocated_partition_takes_its_gpu() -> None:
    devices = [counted_by(gpu(0), 0), counted_by(mig(0), 0), counted_by(gpu(1), 1), counted_by(mig(1), 1)]
    found = only(resource_slice("n", devices), claims=[claim("a", "n", "gpu-0-mig-1g10gb-19-0", pod="p")])
    assert (found.allocatable, found.free_now) == (2, 1)


def test_a_tainted_gpu_counts_only_while_it_is_held() -> None:
    tainted = gpu(0, taints=[{"key": "k", "effect": "NoSchedule"}])
    slices = [resource_slice("n", [tainted, gpu(1, taints=[{"key": "seen", "effect": "None"}])])]
    assert only(*slices).allocatable == 1
    held = only(*slices, claims=[claim("a", "n", "gpu-0", pod="mine")], pods=[pod("mine", "chat", claimed=1)])
    assert (held.allocatable, held.free_now, held.free_for("team/chat")) == (2, 1, 2)


def test_a_gpu_that_is_an_extended_resource_and_a_device_counts_once() -> None:
    slices = [resource_slice("n", [gpu(index) for index in range(8)])]
    plugin = node({"nvidia.com/gpu.product": H100}, gpus=8)
    claims = [claim("a", "n", "gpu-7", pod="claims")]
    (found,) = snapshot([plugin], slices, claims, [pod("asks", "chat", gpus=2), pod("claims")]).nodes
    assert (found.allocatable, found.free_now, found.access) == (8, 5, {"Resource"})
    # With the mapping the scheduler makes a claim for what the pod requests.
    mapped = only(
        *slices,
        labels={"nvidia.com/gpu.product": H100},
        claims=[claim("a", "n", "gpu-0", "gpu-1", pod="asks")],
        pods=[pod("asks", "chat", gpus=2)],
        classes=SERVING,
    )
    assert (mapped.allocatable, mapped.free_now, mapped.access) == (8, 6, {"Resource", "Claim"})


def another(created: str = "2026-01-01T00:00:00Z", name: str = "ours") -> Object:
    """Return a class that serves the resource too, and may give out other GPUs."""
    return device_class(name, created, extendedResourceName="nvidia.com/gpu")


@pytest.mark.parametrize(
    ("classes", "label", "expected"),
    [
        (SERVING, H100, EITHER),
        (SERVING, "", CLAIMED),
        (SERVING, A100, CLAIMED),
        (CLASSES, H100, CLAIMED),
        # The youngest class gets the requests, and of equally old ones the first by name.
        ((*SERVING, another("2026-02-01T00:00:00Z")), H100, CLAIMED),
        ((*SERVING, another("2025-02-01T00:00:00Z")), H100, EITHER),
        ((*SERVING, another()), H100, EITHER),
        ((*SERVING, another(name="a")), H100, CLAIMED),
    ],
)
def test_requests_reach_gpus_only_where_the_scheduler_gives_this_product(
    classes: Sequence[Object], label: str, expected: frozenset[GpuAccess]
) -> None:
    labels = {"nvidia.com/gpu.product": label} if label else {}
    assert only(resource_slice("n", [gpu(0)]), labels=labels, classes=classes).access == expected


def test_of_several_products_on_a_node_the_most_gpus_count_and_are_claimed() -> None:
    devices = [gpu(0, "NVIDIA A100-SXM4-80GB"), gpu(1, "NVIDIA A100-SXM4-80GB"), gpu(2, "NVIDIA DGX Display", "4Gi")]
    found = only(
        resource_slice("n", devices),
        labels={"nvidia.com/gpu.product": A100},
        claims=[claim("a", "n", "gpu-2", pod="desktop"), claim("b", "n", "gpu-1", pod="p")],
        classes=SERVING,
    )
    assert (found.product, found.allocatable, found.free_now, found.access) == (A100, 2, 1, {"Claim"})


def test_labels_about_the_device_plugin_say_nothing_of_devices() -> None:
    labels = {"nvidia.com/gpu.product": f"{H100}-SHARED", "nvidia.com/gpu.replicas": "4"}
    assert only(resource_slice("n", [gpu(0)]), labels=labels).allocatable == 1
    assert (
        "Windows"
        in snapshot([node({"kubernetes.io/os": "windows"})], [resource_slice("n", [gpu(0)])]).excluded[0].reason
    )


def nodes(*accesses: frozenset[GpuAccess], gpus: int = 8) -> tuple[GpuNode, ...]:
    return tuple(GpuNode(f"n{i}", H100, gpus, access=access) for i, access in enumerate(accesses))


@pytest.mark.parametrize(
    ("accesses", "usable", "access"),
    [
        ((ASKED, ASKED), 2, "Resource"),
        ((CLAIMED, CLAIMED), 2, "Claim"),
        ((EITHER, EITHER), 2, "Resource"),
        ((EITHER, ASKED), 2, "Resource"),
        ((EITHER, CLAIMED), 1, "Resource"),
        ((EITHER, CLAIMED, CLAIMED), 3, "Claim"),
        ((ASKED, CLAIMED), 1, "Resource"),
        ((ASKED, CLAIMED, CLAIMED), 2, "Claim"),
    ],
)
def test_the_pods_of_a_plan_get_gpus_in_one_way(
    accesses: tuple[frozenset[GpuAccess], ...], usable: int, access: str
) -> None:
    everything = nodes(*accesses)
    found = with_one_access(everything, ())
    assert len(found) == usable
    assert access_to(found, H100) == access
    left_out = of_another_access(everything, "team/chat")
    assert {node.name for node in found} | {node.name for node in left_out} == {node.name for node in everything}
    for node in left_out:
        assert "the pods of a plan use one of the two; to use these nodes, select them alone" in node.reason


def test_the_way_of_running_pods_stays_while_it_is_possible() -> None:
    assert access_to(nodes(EITHER), H100, "Claim") == "Claim"
    assert access_to(nodes(CLAIMED), H100, "Resource") == "Claim"
    # While the nodes are gone, nothing is known against it.
    assert access_to((), H100, "Claim") == "Claim"
    assert access_to((), H100) == "Resource"


def test_a_fleet_is_placed_on_nodes_that_its_plans_may_use_together() -> None:
    found = nodes_of(ClusterSnapshot(nodes(ASKED, CLAIMED, CLAIMED)), ())
    assert [(node.name, node.gpus) for node in found] == [("n1", 8), ("n2", 8)]


def test_products_have_ways_of_their_own() -> None:
    mixed = (GpuNode("a", H100, 8, access=CLAIMED), GpuNode("b", A100, 8))
    assert with_one_access(mixed, ()) == mixed
    assert [access_to(mixed, product) for product in (H100, A100)] == ["Claim", "Resource"]
