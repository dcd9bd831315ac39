"""Contents of a pod's engine container: image, environment, files from ConfigMaps, ports."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import yaml

from energylens.measure.types import PodRef
from energylens.planner.inventory.node_gpus import GPU_RESOURCE
from energylens.planner.inventory.snapshot import container_gpus
from energylens.records import dataclass

Object = Mapping[str, Any]
ConfigMaps = Mapping[tuple[str, str], Object]
"""ConfigMaps by namespace and name."""
_ACCELERATORS = (
    "nvidia.com/gpu",
    "nvidia.com/mig-",
    # Names of virtual GPUs; the plugins of network cards use the same domain in lower case.
    "nvidia.com/GRID",
    "nvidia.com/NVIDIA",
    "amd.com/gpu",
    "gpu.intel.com/",
    "habana.ai/",
    "google.com/tpu",
    "aws.amazon.com/neuron",
)
_USED = re.compile(r"\$[({]?([A-Za-z_][A-Za-z0-9_]*)")
"""A reference of the kubelet or of a shell to a variable."""
_LIBRARIES = ("HF_", "NCCL_", "CUDA_", "TORCH", "PYTORCH_", "OMP_", "RAY_", "FLASHINFER_", "VLLM_", "SGLANG_", "LD_")
"""Beginnings of variables that engines and their libraries read, even where a script uses them too."""
TOKEN_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True)
class Environment:
    """The variables of a container."""

    values: Mapping[str, str]
    """Variables whose value is known."""
    token_secret: tuple[str, str] | None
    """Name and key of the Secret that has the Hugging Face token."""
    plain: Mapping[str, str]
    """Variables that the container sets itself and that the engine reads."""


def reference_of(pod: Object) -> PodRef:
    """Return a pod by namespace and name."""
    return PodRef(pod["metadata"].get("namespace") or "default", pod["metadata"]["name"])


def pod_spec(pod: Object) -> Object:
    """Return the spec of a pod from a cluster, or from a file that a user may have shortened."""
    return pod.get("spec") or {}


def engine_container(pod: Object) -> Object | None:
    """Return the container that holds the most GPUs; None if none holds any.

    Raises:
        ValueError: A quantity is not a whole number of GPUs.
    """
    return max(holding_containers(pod), key=container_gpus, default=None)


def holding_containers(pod: Object) -> list[Object]:
    """Return the containers that hold GPUs.

    Raises:
        ValueError: A quantity is not a whole number of GPUs.
    """
    return [container for container in pod_spec(pod).get("containers") or () if container_gpus(container)]


def other_accelerators(pod: Object) -> list[str]:
    """Return the resources of a pod that are accelerators but not whole NVIDIA GPUs, such as MIG partitions."""
    names = {
        name
        for container in pod_spec(pod).get("containers") or ()
        for part in ("requests", "limits")
        for name, amount in ((container.get("resources") or {}).get(part) or {}).items()
        if str(amount) != "0"
    }
    return sorted(name for name in names if name.startswith(_ACCELERATORS) and name != GPU_RESOURCE)


def settings_of_engine(container: Object, plain: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that an engine reads, without those that only fill in the container's command."""
    script = " ".join(map(str, (*(container.get("command") or ()), *(container.get("args") or ()))))
    used = {found[1] for found in _USED.finditer(script)}

    def is_read(name: str, value: str) -> bool:
        # VLLM_ARGS="--max-model-len 4096" is a name that only a script reads.
        return name not in used or (name.startswith(_LIBRARIES) and not value.lstrip().startswith("-"))

    return {name: value for name, value in plain.items() if is_read(name, value)}


def environment_of(container: Object, namespace: str, config_maps: ConfigMaps) -> Environment:
    """Return a container's variables; from Secrets only the reference to a Hugging Face token is read."""
    values: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found = config_maps.get((namespace, (source.get("configMapRef") or {}).get("name", "")))
        prefix = source.get("prefix") or ""
        values |= {f"{prefix}{key}": str(value) for key, value in ((found or {}).get("data") or {}).items()}
    plain: dict[str, str] = {}
    secret = None
    for entry in container.get("env") or ():
        name, source = entry.get("name", ""), entry.get("valueFrom") or {}
        reference = source.get("configMapKeyRef") or {}
        if "value" in entry:
            # The kubelet expands references to the variables above.
            value = _expanded(str(entry["value"]), values)
            values[name] = plain[name] = value
        elif reference:
            data = (config_maps.get((namespace, reference.get("name", ""))) or {}).get("data") or {}
            if reference.get("key") in data:
                values[name] = str(data[reference["key"]])
        elif name in TOKEN_VARIABLES and source.get("secretKeyRef"):
            secret = source["secretKeyRef"].get("name", ""), source["secretKeyRef"].get("key", "")
    return Environment(values, secret, settings_of_engine(container, plain))


def _expanded(text: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        text = text.replace(f"$({name})", value)
    return text


def mounted_text(pod: Object, container: Object, path: str, namespace: str, config_maps: ConfigMaps) -> str | None:
    """Return the text of a file that is mounted from a ConfigMap.

    None if it is not, or if the ConfigMap is unreadable.
    """
    for mount in container.get("volumeMounts") or ():
        root = str(mount.get("mountPath") or "").rstrip("/")
        sub_path = mount.get("subPath")
        if sub_path:
            key = sub_path if path == root else None
        else:
            key = path[len(root) + 1 :] if path.startswith(root + "/") else None
        if key is None:
            continue
        for volume in pod_spec(pod).get("volumes") or ():
            source = volume.get("configMap") or {}
            if volume.get("name") != mount.get("name") or not source:
                continue
            items = {item.get("path"): item.get("key") for item in source.get("items") or ()}
            data = (config_maps.get((namespace, source.get("name", ""))) or {}).get("data") or {}
            text = data.get(items.get(key, key))
            return None if text is None else str(text)
    return None


def mounted_options(
    pod: Object, container: Object, namespace: str, config_maps: ConfigMaps, path: str
) -> Mapping[str, Any] | None:
    """Return the options in a YAML file that is mounted from a ConfigMap; None if they cannot be read."""
    text = mounted_text(pod, container, path, namespace, config_maps)
    if text is None:
        return None
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return found if isinstance(found, Mapping) else None


def config_map_names(pod: Object) -> Iterator[str]:
    """Yield the ConfigMaps from which a pod's containers take variables or files."""
    spec = pod_spec(pod)
    for container in spec.get("containers") or ():
        for source in container.get("envFrom") or ():
            yield (source.get("configMapRef") or {}).get("name", "")
        for entry in container.get("env") or ():
            yield ((entry.get("valueFrom") or {}).get("configMapKeyRef") or {}).get("name", "")
    for volume in spec.get("volumes") or ():
        yield (volume.get("configMap") or {}).get("name", "")


def stored_model(pod: Object, path: str) -> str:
    """Return the Hugging Face id that KServe's storage initializer downloads to a path; "" if there is none."""
    for container in pod_spec(pod).get("initContainers") or ():
        args = [str(word) for word in container.get("args") or ()]
        for source, target in pairwise(args):
            if source.startswith("hf://") and path.rstrip("/") == target.rstrip("/"):
                return source.removeprefix("hf://").partition(":")[0]
    return ""
