"""GPUs of dynamic resource allocation: a real scheduler allocates them for the operator's pods, and they count once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.controlplane.test_operator_scheduling import GPU_TAINT, node
from tests.support.devices import CLASS, DRIVER, device_class, gpu, mig, resource_slice, taint_rule
from tests.support.operator_cluster import Object, OperatorCluster, Team, layout

from energylens_dev.devcluster import eventually

GPU = "nvidia.com/gpu"
H100 = "NVIDIA-H100-80GB-HBM3"
MakeNode = Callable[..., str]


@pytest.fixture
def device_nodes(operator: OperatorCluster, team: Team) -> Iterator[MakeNode]:
    """Make a node whose GPUs a ResourceSlice lists; return its name. Everything is gone afterwards."""
    made: list[str] = []

    def make(devices: list[Object], **labels: str) -> str:
        name = f"{team.namespace}-{len(made)}"
        made.append(name)
        # No device plugin runs on it.
        body = node(name, {"pool": team.namespace, **labels}, [GPU_TAINT], 0)
        del body["status"]
        operator.api.apply(body)
        operator.api.apply(resource_slice(name, devices))
        eventually(lambda: is_ready(operator, name))
        return name

    yield make
    team.clear()
    operator.api.run("delete", "resourceslice", *made, "--ignore-not-found")
    operator.api.run("delete", "node", *made, "--ignore-not-found")
    operator.api.run("delete", "deviceclass", CLASS, "--ignore-not-found")


def is_ready(operator: OperatorCluster, name: str) -> bool:
    found = operator.api.get("node", name)
    return found is not None and any(
        c["type"] == "Ready" and c["status"] == "True" for c in found["status"].get("conditions", ())
    )


def hardware(team: Team) -> Object:
    return {"nodeSelector": {"pool": team.namespace}}


def devices_held(team: Team) -> dict[str, set[str]]:
    """Return the devices that the claims of the namespace hold, by the pool, which has the node's name."""
    held: dict[str, set[str]] = {}
    for claim in team.kubectl.list("resourceclaims"):
        for result in claim["status"]["allocation"]["devices"]["results"]:
            devices = held.setdefault(result["pool"], set())
            assert result["device"] not in devices, f"{result['device']} is held twice"
            devices.add(result["device"])
    return held


def test_pods_claim_what_slices_list_and_others_plan_on_the_rest(
    operator: OperatorCluster, team: Team, device_nodes: MakeNode
) -> None:
    operator.api.apply(device_class())
    names = {device_nodes([gpu(0), gpu(1), mig(2)]), device_nodes([gpu(0), gpu(1)])}
    team.apply("first", hardware=hardware(team), planning=layout(tensorParallel=2, replicas=1))
    status = team.ready("first")
    assert status["plan"]["gpuProduct"] == H100
    (pod,) = team.pods("first")
    assert devices_held(team) == {pod["spec"]["nodeName"]: {"gpu-0", "gpu-1"}}
    # Three replicas of one GPU do not fit beside it, two do, under a budget that leaves power for them.
    watts = int(status["plan"]["predicted"]["powerWatts"])
    budget: Object = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap"},
        "spec": {"powerWatts": watts + 1, "action": "Deny"},
    }
    team.kubectl.apply(budget)
    team.apply("second", hardware=hardware(team), planning=layout(replicas=3))
    message = team.wait("PlanReady", "False", "InsufficientGPUs", name="second")["message"]
    assert "2" in message
    team.apply("second", hardware=hardware(team))
    assert "EnergyBudget" in team.wait("PlanReady", "False", "BudgetExceeded", name="second")["message"]
    budget["spec"]["powerWatts"] = 3 * watts
    team.kubectl.apply(budget)
    team.ready("second")
    held = devices_held(team)
    assert {name: len(devices) for name, devices in held.items()} == dict.fromkeys(names, 2)
    # The next layout needs another claim, and the template of the first one goes with its pods.
    (before,) = team.kubectl.list("resourceclaimtemplates", "-l", "energylens.dev/llmdeployment=second")
    team.apply("second", hardware=hardware(team), planning=layout(tensorParallel=2, replicas=1))

    def count_of_the_only_template() -> int:
        found = team.kubectl.list("resourceclaimtemplates", "-l", "energylens.dev/llmdeployment=second")
        assert len(found) == 1
        assert found[0]["metadata"]["name"] != before["metadata"]["name"]
        return int(found[0]["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"])

    team.ready("second")
    assert eventually(count_of_the_only_template) == 2


def test_requests_of_the_resource_are_counted_once_where_a_class_serves_them(
    operator: OperatorCluster, team: Team, device_nodes: MakeNode
) -> None:
    operator.api.apply(device_class(extendedResourceName=GPU))
    name = device_nodes([gpu(0), gpu(1), gpu(2)], **{"nvidia.com/gpu.product": H100})
    team.apply("first", hardware=hardware(team))
    team.ready("first")
    assert not team.kubectl.list("resourceclaimtemplates")
    pods = team.pods("first")
    assert [pod["spec"]["containers"][0]["resources"]["limits"][GPU] for pod in pods] == ["1", "1"]
    # The scheduler made a claim for each pod.
    assert {pool: len(devices) for pool, devices in devices_held(team).items()} == {name: 2}
    team.apply("second", hardware=hardware(team))
    assert "1" in team.wait("PlanReady", "False", "InsufficientGPUs", name="second")["message"]
    team.apply("second", hardware=hardware(team), planning=layout(replicas=1))
    team.ready("second")
    assert {pool: len(devices) for pool, devices in devices_held(team).items()} == {name: 3}


def test_a_second_deployment_uses_the_slices_once_the_device_plugins_gpus_are_taken(
    operator: OperatorCluster, team: Team, device_nodes: MakeNode
) -> None:
    operator.api.apply(device_class())
    claimed = device_nodes([gpu(0), gpu(1)])
    plugin = f"{team.namespace}-plugin"
    operator.api.apply(node(plugin, {"pool": team.namespace, "nvidia.com/gpu.product": H100}, [GPU_TAINT], 2))
    try:
        eventually(lambda: is_ready(operator, plugin))
        for name, host in (("first", plugin), ("second", claimed)):
            team.apply(name, hardware=hardware(team), planning=layout(tensorParallel=2, replicas=1))
            team.ready(name)
            (pod,) = team.pods(name)
            assert pod["spec"]["nodeName"] == host
        assert {pool: len(devices) for pool, devices in devices_held(team).items()} == {claimed: 2}
        team.apply("third", hardware=hardware(team), planning=layout(replicas=1))
        team.wait("PlanReady", "False", "InsufficientGPUs", name="third")
    finally:
        team.clear()
        operator.api.run("delete", "node", plugin, "--ignore-not-found")


def test_gpus_with_a_taint_rule_are_neither_planned_nor_allocated_until_it_goes(
    operator: OperatorCluster, team: Team, device_nodes: MakeNode
) -> None:
    operator.api.apply(device_class())
    name = device_nodes([gpu(0), gpu(1)])
    rule = f"broken-{team.namespace}"
    operator.api.apply(taint_rule(rule, driver=DRIVER, pool=name, device="gpu-1"))
    try:
        team.apply("first", hardware=hardware(team))
        assert "1" in team.wait("PlanReady", "False", "InsufficientGPUs", name="first")["message"]
        team.apply("first", hardware=hardware(team), planning=layout(replicas=1))
        team.ready("first")
        assert devices_held(team) == {name: {"gpu-0"}}
        # The scheduler agrees: a second pod would not get the other one.
        team.apply("second", hardware=hardware(team), planning=layout(replicas=1))
        team.wait("PlanReady", "False", "InsufficientGPUs", name="second")
    finally:
        operator.api.run("delete", "devicetaintrule", rule)
    team.ready("second")
    assert devices_held(team) == {name: {"gpu-0", "gpu-1"}}


def claiming_pod(team: Team, name: str, **request: object) -> None:
    """Run a pod of somebody else with a claim."""
    exactly = {"deviceClassName": f"{name}.example.com", **request}
    devices = {"requests": [{"name": "gpus", "exactly": exactly}]}
    claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name}}
    team.kubectl.apply({**claim, "spec": {"devices": devices}})
    container = {"name": "c", "image": "busybox", "resources": {"claims": [{"name": "gpus"}]}}
    spec = {
        "nodeSelector": {"pool": team.namespace},
        "tolerations": [{"operator": "Exists"}],
        "resourceClaims": [{"name": "gpus", "resourceClaimName": name}],
        "containers": [container],
    }
    team.kubectl.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})

    def scheduled() -> bool:
        found = team.kubectl.get("pod", name)
        return found is not None and bool(found["spec"].get("nodeName"))

    eventually(scheduled)


def test_a_partition_takes_its_gpu_by_shared_counters_and_administrators_take_none(
    operator: OperatorCluster, team: Team, device_nodes: MakeNode
) -> None:
    def counted(device: Object, slices: int) -> Object:
        used = {"counterSet": "gpu-0", "counters": {"slices": {"value": str(slices)}}}
        return {**device, "consumesCounters": [used]}

    operator.api.apply(device_class())
    name = device_nodes([gpu(1)])
    # As NVIDIA's driver lists GPUs with dynamic MIG: the counters in a slice of their own.
    devices = resource_slice(name, [counted(gpu(0), 7), counted(mig(0), 1), gpu(1)], generation=2, of=2)
    counters = resource_slice(name, [], name=f"{name}-counters", generation=2, of=2)
    del counters["spec"]["devices"]
    counters["spec"]["sharedCounters"] = [{"name": "gpu-0", "counters": {"slices": {"value": "7"}}}]
    classes = {
        "partition": f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].type == 'mig'",
        "monitor": f"device.driver == '{DRIVER}' && device.attributes['{DRIVER}'].uuid == 'GPU-1'",
    }
    try:
        operator.api.apply(counters)
        operator.api.apply(devices)
        for short, expression in classes.items():
            operator.api.apply(device_class(f"{short}.example.com", selectors=[{"cel": {"expression": expression}}]))
        operator.api.run("label", "namespace", team.namespace, "resource.kubernetes.io/admin-access=true")
        claiming_pod(team, "partition")
        claiming_pod(team, "monitor", adminAccess=True)
        team.apply("first", hardware=hardware(team))
        assert "1" in team.wait("PlanReady", "False", "InsufficientGPUs", name="first")["message"]
        team.apply("first", hardware=hardware(team), planning=layout(replicas=1))
        team.ready("first")
        # The other GPU becomes free with its partition.
        team.apply("second", hardware=hardware(team), planning=layout(replicas=1))
        team.wait("PlanReady", "False", "InsufficientGPUs", name="second")
        team.kubectl.run("delete", "pod", "partition", "--timeout=60s")
        team.kubectl.run("delete", "resourceclaim", "partition", "--timeout=60s")
        team.ready("second")
    finally:
        for kind in ("pod", "resourceclaim"):
            team.kubectl.run("delete", kind, "partition", "monitor", "--ignore-not-found", "--timeout=60s")
        operator.api.run("delete", "resourceslice", f"{name}-counters", "--ignore-not-found")
        operator.api.run("delete", "deviceclass", *(f"{short}.example.com" for short in classes))
