"""What is kept of nodes, pods, slices, claims and classes: what decisions read, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.decide.trimmed import (
    trim_child,
    trim_claim,
    trim_class,
    trim_node,
    trim_pod,
    trim_slice,
)
from energylens.planner.inventory.devices import DRIVER, PRODUCT_ATTRIBUTE
from energylens.planner.inventory.snapshot import OWNER_LABEL

OWN = {OWNER_LABEL: "llama"}
GPU = "nvidia.com/gpu"


def test_a_node_keeps_gpus_labels_taints_and_whether_it_is_ready() -> None:
    taint = {"key": "nvidia.com/gpu", "effect": "NoSchedule"}
    found = trim_node(
        {
            "metadata": {
                "name": "h100-0",
                "uid": "1",
                "labels": {"a": "b"},
                "deletionTimestamp": "2026-03-01T12:00:00Z",
            },
            "spec": {"taints": [taint], "unschedulable": True, "podCIDR": "10.0.0.0/24"},
            "status": {
                "allocatable": {GPU: "8", "cpu": "64"},
                "capacity": {GPU: "8", "nvidia.com/mig-1g.10gb": "2", "memory": "1Ti"},
                "conditions": [
                    {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-03-01T12:00:00Z"},
                    {"type": "MemoryPressure", "status": "False"},
                ],
                "images": [{"names": ["a"]}],
            },
        }
    )
    assert found == {
        "metadata": {"name": "h100-0", "labels": {"a": "b"}, "deletionTimestamp": "2026-03-01T12:00:00Z"},
        "spec": {"taints": [taint], "unschedulable": True},
        "status": {
            "allocatable": {GPU: "8"},
            "capacity": {GPU: "8", "nvidia.com/mig-1g.10gb": "2"},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"spec": None, "status": None},
        {"spec": {}, "status": {"allocatable": None, "capacity": None, "conditions": None}},
    ],
)
def test_a_node_that_just_joined_has_nothing_yet(more: dict[str, Any]) -> None:
    assert trim_node({"metadata": {"name": "new", "labels": None}, **more}) == {
        "metadata": {"name": "new", "labels": {}},
        "spec": {},
        "status": {"allocatable": {}, "capacity": {}, "conditions": []},
    }


def pod(labels: dict[str, str] | None) -> dict[str, Any]:
    """Return a pod with everything that a pod of the operator may have."""
    waiting = {"reason": "ImagePullBackOff", "message": "not found", "more": 1}
    ended = {"reason": "Error", "exitCode": 1, "signal": 9, "message": "no", "finishedAt": "2026-03-01T12:00:00Z"}
    return {
        "metadata": {
            "name": "p",
            "namespace": "team",
            "uid": "u",
            "labels": labels,
            "creationTimestamp": "2026-03-01T11:00:00Z",
            "deletionTimestamp": "2026-03-01T12:00:00Z",
            "annotations": {"a": "b"},
        },
        "spec": {
            "nodeName": "h100-0",
            "containers": [{"name": "e", "resources": {"requests": {GPU: 2, "cpu": 1}, "limits": {GPU: 2}}}],
            "initContainers": [{"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": 1}}}],
            "resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "t", "more": 1}, {"name": "other"}],
            "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}, {"name": "b"}],
            "volumes": [],
        },
        "status": {
            "phase": "Pending",
            "podIP": "10.0.0.7",
            "reason": "Evicted",
            "message": "low on disk",
            "startTime": "2026-03-01T11:00:00Z",
            "conditions": [
                {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "lastProbeTime": None},
                {"type": "Initialized", "status": "True"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T11:00:01Z"},
            ],
            "initContainerStatuses": [{"name": "s", "ready": True, "state": {"running": {}}}],
            "containerStatuses": [
                {"name": "e", "restartCount": 3, "state": {"waiting": waiting}, "lastState": {"terminated": ended}}
            ],
        },
    }


CONTAINERS = {
    "containers": [{"resources": {"requests": {GPU: 2}, "limits": {GPU: 2}}}],
    "initContainers": [{"resources": {}, "restartPolicy": "Always"}],
    "resourceClaims": [{"name": "gpus", "resourceClaimTemplateName": "t"}, {"name": "other"}],
}
CONDITIONS = [
    {"type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "", "lastTransitionTime": ""},
    {
        "type": "PodScheduled",
        "status": "True",
        "reason": "",
        "message": "",
        "lastTransitionTime": "2026-03-01T11:00:01Z",
    },
]


def test_of_a_pod_of_the_operator_all_that_says_why_it_waits_is_kept() -> None:
    ended = {"reason": "Error", "message": "no", "exitCode": 1, "signal": 9}
    started = {"name": "s", "ready": True, "restarts": 0, "waiting": {}, "ended": {}}
    waiting = {"reason": "ImagePullBackOff", "message": "not found"}
    assert trim_pod(pod(OWN)) == {
        "metadata": {
            "name": "p",
            "namespace": "team",
            "uid": "u",
            "labels": OWN,
            "deleting": True,
            "creationTimestamp": "2026-03-01T11:00:00Z",
            "deletionTimestamp": "2026-03-01T12:00:00Z",
        },
        "spec": {"nodeName": "h100-0", **CONTAINERS, "schedulingGates": ["kueue.x-k8s.io/admission", "b"]},
        "status": {
            "phase": "Pending",
            "podIP": "10.0.0.7",
            "reason": "Evicted",
            "message": "low on disk",
            "conditions": CONDITIONS,
            "containers": [started, {"name": "e", "ready": False, "restarts": 3, "waiting": waiting, "ended": ended}],
        },
    }


@pytest.mark.parametrize("labels", [None, {"app": "training"}])
def test_of_a_foreign_pod_only_its_gpus_and_where_it_is_are_kept(labels: dict[str, str] | None) -> None:
    assert trim_pod(pod(labels)) == {
        "metadata": {"name": "p", "namespace": "team", "uid": "u", "labels": labels or {}, "deleting": True},
        "spec": {"nodeName": "h100-0", **CONTAINERS},
        "status": {"phase": "Pending", "podIP": "10.0.0.7", "conditions": CONDITIONS, "containers": []},
    }


@pytest.mark.parametrize("labels", [OWN, None])
def test_a_pod_that_was_just_created_has_nothing_yet(labels: dict[str, str] | None) -> None:
    bare = {"metadata": {"name": "p", "namespace": "team", "labels": labels}, "spec": None, "status": None}
    assert trim_pod(bare) == {
        "metadata": {"name": "p", "namespace": "team", "uid": "", "labels": labels or {}, "deleting": False},
        "spec": {"nodeName": ""},
        "status": {"phase": "", "podIP": "", "conditions": [], "containers": []},
    }
    empty = {"conditions": None, "containerStatuses": None, "initContainerStatuses": None, "message": ""}
    spec = {"containers": [{"resources": None}], "schedulingGates": None, "resourceClaims": None}
    found = trim_pod({**bare, "spec": spec, "status": empty})
    assert found["spec"] == {"nodeName": "", "containers": [{"resources": {}}]}
    assert found["status"] == {"phase": "", "podIP": "", "conditions": [], "containers": []}


@pytest.mark.parametrize(
    ("status", "ended"),
    [
        ({"state": {"terminated": {"exitCode": 2}}, "lastState": {"terminated": {"exitCode": 1}}}, {"exitCode": 2}),
        ({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1}}}, {"exitCode": 1}),
        ({"state": None, "lastState": None}, {}),
    ],
)
def test_how_a_container_ended_last_is_how_it_ended(status: dict[str, Any], ended: dict[str, Any]) -> None:
    body = {"metadata": {"name": "p", "namespace": "n", "labels": OWN}, "status": {"containerStatuses": [status]}}
    (found,) = trim_pod(body)["status"]["containers"]
    assert found == {"name": "", "ready": False, "restarts": 0, "waiting": {}, "ended": ended}


IDENTITY = {"name": "s", "uid": "1", "resourceVersion": "7"}


def test_of_a_slice_of_gpus_the_devices_are_kept() -> None:
    attributes = {
        "type": {"string": "gpu"},
        f"{DRIVER}/{PRODUCT_ATTRIBUTE}": {"string": "H100"},
        "uuid": {"string": "x"},
    }
    device = {
        "name": "gpu-0",
        "attributes": attributes,
        "capacity": {f"{DRIVER}/memory": {"value": "80Gi"}, "multiprocessors": {"value": "132"}},
        "consumesCounters": [{"counterSet": "gpu-0", "counters": {}}],
        "taints": [{"key": "a"}],
        "allowMultipleAllocations": True,
    }
    pool = {"name": "h100-0", "generation": 1}
    body = {
        "metadata": IDENTITY,
        "spec": {"driver": DRIVER, "nodeName": "h100-0", "pool": pool, "devices": [device, {"name": "gpu-1"}], "x": 1},
    }
    attributes = {name: attributes[name] for name in ("type", f"{DRIVER}/{PRODUCT_ATTRIBUTE}")}
    assert trim_slice(body) == {
        "metadata": {"uid": "1", "name": "s"},
        "spec": {
            "driver": DRIVER,
            "nodeName": "h100-0",
            "pool": pool,
            "devices": [
                {
                    "name": "gpu-0",
                    "attributes": attributes,
                    "capacity": {f"{DRIVER}/memory": {"value": "80Gi"}},
                    "consumesCounters": [{"counterSet": "gpu-0"}],
                    "taints": [{"key": "a"}],
                    "allowMultipleAllocations": True,
                },
                {"name": "gpu-1", "attributes": {}, "capacity": {}, "consumesCounters": []},
            ],
        },
    }


def test_a_slice_of_gpus_without_devices_has_none() -> None:
    assert trim_slice({"metadata": {}, "spec": {"driver": DRIVER}}) == {
        "metadata": {"uid": ""},
        "spec": {"driver": DRIVER, "devices": []},
    }


@pytest.mark.parametrize(
    "spec", [{"driver": "nics.example.com", "nodeName": "a", "devices": [{"name": "nic"}]}, {}, None]
)
def test_of_a_slice_of_another_driver_only_the_driver_is_kept(spec: dict[str, Any] | None) -> None:
    found = trim_slice({"metadata": IDENTITY, "spec": spec})
    assert found == {"metadata": {"uid": "1", "name": "s"}, "spec": {"driver": (spec or {}).get("driver")}}


def claim(driver: str, **more: Any) -> dict[str, Any]:
    result = {"driver": driver, "pool": "h100-0", "device": "gpu-0", "adminAccess": True, "request": "gpus"}
    owners = [{"kind": "Pod", "name": "p", "uid": "9"}]
    return {
        "metadata": {**IDENTITY, "namespace": "team", "labels": {**OWN, "a": "b"}, "ownerReferences": owners, **more},
        "status": {
            "allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": "p", "uid": "9"}],
        },
    }


def test_of_a_claim_of_gpus_its_gpus_and_users_are_kept() -> None:
    result = {"driver": DRIVER, "pool": "h100-0", "device": "gpu-0", "adminAccess": True}
    identity = {"uid": "1", "name": "s", "namespace": "team"}
    kept = {
        "metadata": {**identity, "ownerReferences": [{"kind": "Pod", "name": "p"}], "labels": OWN},
        "status": {
            "allocation": {"devices": {"results": [result]}},
            "reservedFor": [{"resource": "pods", "name": "p"}],
        },
    }
    assert trim_claim(claim(DRIVER)) == kept
    for labels in (None, {"a": "b"}):
        foreign = trim_claim(claim(DRIVER, labels=labels, ownerReferences=None))
        assert foreign["metadata"] == {**identity, "ownerReferences": []}


def test_of_a_claim_without_gpus_only_the_name_is_kept() -> None:
    kept = {"metadata": {"uid": "1", "name": "s", "namespace": "team"}}
    assert trim_claim(claim("nics.example.com")) == kept
    for status in (None, {}, {"allocation": None}, {"allocation": {"devices": None}}):
        assert trim_claim({**claim(DRIVER), "status": status}) == kept
    unused = claim(DRIVER)
    unused["status"]["reservedFor"] = None
    assert trim_claim(unused)["status"]["reservedFor"] == []


def test_of_a_class_the_resource_that_it_stands_for_is_kept() -> None:
    metadata = {**IDENTITY, "creationTimestamp": "2026-03-01T12:00:00Z"}
    found = trim_class({"metadata": metadata, "spec": {"extendedResourceName": "nvidia.com/gpu", "selectors": []}})
    kept = {"uid": "1", "name": "s", "creationTimestamp": "2026-03-01T12:00:00Z"}
    assert found == {"metadata": kept, "spec": {"extendedResourceName": "nvidia.com/gpu"}}
    assert trim_class({"metadata": {}, "spec": None}) == {"metadata": {"uid": ""}, "spec": {}}


@pytest.mark.parametrize(("length", "is_kept"), [(1024, True), (1025, False)])
def test_texts_of_a_config_map_are_kept_up_to_a_length(length: int, is_kept: bool) -> None:
    body = {"kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"table": "x" * length, "number": 7}}
    found = trim_child(body)["data"]
    assert isinstance(found["table"], str) is is_kept
    assert found["number"] == 7


@pytest.mark.parametrize("part", ["spec", "data"])
def test_a_part_of_a_child_that_is_no_mapping_stays_as_it_is(part: str) -> None:
    assert trim_child({"kind": "X", "metadata": {"name": "a"}, part: None})[part] is None
