"""Inventory files with the objects of dynamic resource allocation, for plans and for audits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support.devices import claim, counted_by, device_class, gpu, mig, resource_slice

from energylens.audit.claimed import listed_gpus
from energylens.cli.errors import InputError
from energylens.cli.inputs.audit import audited_file, served
from energylens.cli.inputs.files import device_objects
from energylens.cli.inputs.world import world_of_file
from energylens.planner.inventory.snapshot import NO_DEVICE_OBJECTS, DeviceObjects, gpus_of_pod
from energylens.planner.types import GpuAllocation

Object = dict[str, Any]


def node() -> Object:
    status = {"allocatable": {"cpu": "96"}, "conditions": [{"type": "Ready", "status": "True"}]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}, "spec": {}, "status": status}


def pod(name: str) -> Object:
    engine = {"name": "vllm", "image": "vllm/vllm-openai:v0.33.0", "args": ["--model=meta-llama/Llama-3.1-8B-Instruct"]}
    engine["resources"] = {"claims": [{"name": "gpus"}]}  # type: ignore[assignment]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"nodeName": "n", "containers": [{"name": "sidecar"}, engine]},
        "status": {"phase": "Running"},
    }


def written(path: Path, *objects: Object) -> Path:
    file = path / "cluster.json"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}))
    return file


DEVICES = (
    resource_slice("n", [gpu(0), gpu(1), gpu(2), mig(3)]),
    claim("a", "n", "gpu-0", "gpu-1", pod="engine"),
    claim("b", "n", "gpu-3-mig-1g10gb-19-0", pod="notebook"),
    device_class(),
)


def test_a_plan_counts_the_gpus_of_slices_and_claims(tmp_path: Path) -> None:
    (found,) = world_of_file(written(tmp_path, node(), pod("engine"), *DEVICES)).snapshot.nodes
    assert (found.product, found.allocatable, found.free_now) == ("NVIDIA-H100-80GB-HBM3", 3, 1)


def test_an_audit_reads_the_gpus_that_pods_claim(tmp_path: Path) -> None:
    audited = audited_file(written(tmp_path, node(), pod("engine"), pod("notebook"), *DEVICES))
    assert [gpus_of_pod(pod) for pod in audited.pods] == [2, 0]
    snapshot, (model,) = served(audited, {}, "a file")
    assert model.model == "meta-llama/Llama-3.1-8B-Instruct"
    assert model.products == {"NVIDIA-H100-80GB-HBM3": 2}
    assert snapshot.nodes[0].allocations == (GpuAllocation("", 2),)


def test_an_audit_counts_a_claimed_gpu_once_where_a_device_plugin_offers_it_too(tmp_path: Path) -> None:
    both = node()
    both["metadata"]["labels"] = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    both["status"]["allocatable"]["nvidia.com/gpu"] = "3"
    held = claim("a", "n", "gpu-0", "gpu-1", pod="engine")
    slices = resource_slice("n", [gpu(0), gpu(1), gpu(2)])
    audited = audited_file(written(tmp_path, both, pod("engine"), slices, held, device_class()))
    snapshot, (model,) = served(audited, {}, "a file")
    assert model.gpus == 2
    assert snapshot.nodes[0].free_now == 1
    found = world_of_file(written(tmp_path, both, pod("engine"), slices, held, device_class()))
    assert found.snapshot == snapshot


def test_hosts_have_the_gpus_of_slices_unless_a_board_is_only_listed_in_parts() -> None:
    slices = [
        resource_slice("whole", [gpu(0), gpu(1)]),
        resource_slice("both", [counted_by(gpu(0), 0), counted_by(mig(0), 0)]),
        resource_slice("parts", [gpu(0), mig(1)]),
        resource_slice("half", [gpu(0)], of=2),
    ]
    assert listed_gpus(DeviceObjects(slices)) == {"whole": 2, "both": 1}


@pytest.mark.parametrize("missing", ["ResourceSlice", "ResourceClaim", "DeviceClass"])
def test_devices_are_not_counted_without_one_of_their_kinds(missing: str) -> None:
    objects = {"ResourceSlice": [DEVICES[0]], "ResourceClaim": [DEVICES[1]], "DeviceClass": [DEVICES[3]]}
    assert device_objects(objects).claims == [DEVICES[1]]
    del objects[missing]
    assert device_objects(objects) == NO_DEVICE_OBJECTS


def test_a_slice_that_is_not_as_kubectl_prints_it_is_one_line(tmp_path: Path) -> None:
    broken = resource_slice("n", [gpu(0), {"attributes": {}}])
    with pytest.raises(InputError, match="lacks the field 'name'"):
        world_of_file(written(tmp_path, node(), broken, device_class()))
    held = claim("a", "n", "gpu-0", pod="engine")
    with pytest.raises(InputError, match="lacks the field 'name'"):
        audited_file(written(tmp_path, node(), pod("engine"), broken, held, device_class()))
