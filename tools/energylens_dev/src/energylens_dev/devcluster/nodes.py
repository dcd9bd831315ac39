"""GPU nodes as the NVIDIA GPU operator leaves them: labels of GPU feature discovery, allocatable GPUs, a taint. Pure.

Label keys and the rule for gpu.product's value (the NVML name, blanks as dashes): GPU feature discovery, part of
https://github.com/NVIDIA/k8s-device-plugin. Memory in MiB is what nvidia-smi reports for the product. Processors and
memory of a node are those of a public cloud's machine with these GPUs, per GPU.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from energylens.documents import DocumentError, yaml_documents
from energylens_dev.devcluster.errors import DevClusterError

NODE_LABEL = "energylens.dev/dev-node"
"""Label of every node made here, its value is the pool's name; a node without it is never touched."""

SPEC_ANNOTATION = "energylens.dev/dev-node-spec"
"""Annotation with the hash of a node's manifest: the live object differs by what the API server and kwok add."""


@dataclass(frozen=True)
class GPUProduct:
    """What GPU feature discovery says of a GPU, and the machine it sits in.

    Attributes:
        memory_mib: The nvidia.com/gpu.memory label: memory of one GPU in MiB.
        family: The nvidia.com/gpu.family label.
        compute: CUDA compute capability, major and minor.
        machine: Machine type with these GPUs.
        cpus_per_gpu: Virtual processors of that machine per GPU.
        memory_gib_per_gpu: Main memory of that machine per GPU, in GiB.
        mig: Whether the GPU can be partitioned (multi-instance GPU).
    """

    memory_mib: int
    family: str
    compute: tuple[int, int]
    machine: str
    cpus_per_gpu: int
    memory_gib_per_gpu: int
    mig: bool


PRODUCTS: dict[str, GPUProduct] = {
    "NVIDIA-A100-SXM4-80GB": GPUProduct(81920, "ampere", (8, 0), "p4de.24xlarge", 12, 144, mig=True),
    "NVIDIA-H100-80GB-HBM3": GPUProduct(81559, "hopper", (9, 0), "p5.48xlarge", 24, 256, mig=True),
    "NVIDIA-H200": GPUProduct(143771, "hopper", (9, 0), "p5en.48xlarge", 24, 256, mig=True),
    "NVIDIA-B200": GPUProduct(183359, "blackwell", (10, 0), "p6-b200.48xlarge", 24, 256, mig=True),
    "NVIDIA-L40S": GPUProduct(46068, "ada-lovelace", (8, 9), "g6e.24xlarge", 24, 192, mig=False),
    "NVIDIA-L4": GPUProduct(23034, "ada-lovelace", (8, 9), "g6.24xlarge", 24, 96, mig=False),
    "NVIDIA-A10G": GPUProduct(23028, "ampere", (8, 6), "g5.24xlarge", 24, 96, mig=False),
}
"""GPU products by their nvidia.com/gpu.product label."""

_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,51}[A-Za-z0-9])?")
_MOST_NODES = 5000
_MOST_GPUS = 72
_MOST_MIB = 1 << 20


@dataclass(frozen=True)
class NodePool:
    """Equal nodes.

    Attributes:
        product: The nvidia.com/gpu.product label.
        count: Number of nodes.
        gpus: GPUs of one node.
        memory_mib: Memory of one GPU in MiB; None for that of a product in PRODUCTS.
    """

    product: str
    count: int
    gpus: int
    memory_mib: int | None = None

    @property
    def name(self) -> str:
        """The pool's name, from which its nodes' names are made: h100-80gb-hbm3-x8."""
        stem = self.product.removeprefix("NVIDIA-").lower().replace("_", "-").replace(".", "-")
        return f"{stem}-x{self.gpus}"


DEFAULT_POOLS: tuple[NodePool, ...] = (
    NodePool("NVIDIA-H100-80GB-HBM3", count=2, gpus=8),
    NodePool("NVIDIA-H200", count=2, gpus=8),
    NodePool("NVIDIA-B200", count=2, gpus=8),
    NodePool("NVIDIA-L40S", count=2, gpus=4),
)


def parse_pools(text: str, origin: str) -> tuple[NodePool, ...]:
    """Return the node pools of a YAML list of {product, count, gpus}, with memoryMiB for an unknown product.

    Args:
        text: The YAML.
        origin: Its file's name, for messages.

    Raises:
        DevClusterError: Naming the entry, the field, the value and what is allowed.
    """
    try:
        documents = yaml_documents(text)
    except DocumentError as error:
        raise DevClusterError(f"{origin}: {error}") from error
    entries = documents[0] if len(documents) == 1 else documents
    if not isinstance(entries, list) or not entries:
        raise DevClusterError(f"{origin}: must be a list of {{product, count, gpus}}, not {entries!r}")
    pools = tuple(_pool(entry, f"{origin}: entry {number}") for number, entry in enumerate(entries, 1))
    names = [pool.name for pool in pools]
    for name in names:
        if names.count(name) > 1:
            raise DevClusterError(f"{origin}: two entries have the same product and gpus ({name}): add up their counts")
    return pools


def _pool(entry: object, where: str) -> NodePool:
    fields = ("product", "count", "gpus", "memoryMiB")
    if not isinstance(entry, Mapping):
        raise DevClusterError(f"{where}: must be a mapping with product, count and gpus, not {entry!r}")
    unknown = sorted(str(key) for key in entry if key not in fields)
    if unknown:
        raise DevClusterError(f"{where}: unknown field {unknown[0]!r}: allowed are {', '.join(fields)}")
    product = entry.get("product")
    if not isinstance(product, str) or not _LABEL_VALUE.fullmatch(product):
        raise DevClusterError(
            f"{where}: product is {product!r}: allowed is a value of the label nvidia.com/gpu.product, such as "
            + ", ".join(PRODUCTS)
        )
    memory = entry.get("memoryMiB")
    if memory is None and product not in PRODUCTS:
        raise DevClusterError(
            f"{where}: memoryMiB is missing and product {product!r} is unknown: known are {', '.join(PRODUCTS)}"
        )
    return NodePool(
        product=product,
        count=_whole(entry.get("count"), f"{where}: count", _MOST_NODES),
        gpus=_whole(entry.get("gpus"), f"{where}: gpus", _MOST_GPUS),
        memory_mib=None if memory is None else _whole(memory, f"{where}: memoryMiB", _MOST_MIB),
    )


def _whole(value: object, where: str, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise DevClusterError(f"{where} is {value!r}: allowed is a whole number from 1 to {most}")
    return value


def pools_to_data(pools: Sequence[NodePool]) -> list[dict[str, Any]]:
    """Return the pools as plain data; `pools_from_data` is the reverse."""
    return [asdict(pool) for pool in pools]


def pools_from_data(data: Sequence[Mapping[str, Any]]) -> tuple[NodePool, ...]:
    """Return pools from what `pools_to_data` gave.

    Raises:
        TypeError: When a field is missing or unknown.
    """
    return tuple(NodePool(**entry) for entry in data)


def gpu_labels(pool: NodePool) -> dict[str, str]:
    """Return the labels that GPU feature discovery and the GPU operator put on a node of the pool."""
    known = PRODUCTS.get(pool.product)
    memory = pool.memory_mib or (known.memory_mib if known else 0)
    labels = {
        "nvidia.com/gpu.product": pool.product,
        "nvidia.com/gpu.count": str(pool.gpus),
        "nvidia.com/gpu.memory": str(memory),
        "nvidia.com/gpu.replicas": "1",
        "nvidia.com/gpu.sharing-strategy": "none",
        "nvidia.com/gpu.mode": "compute",
        "nvidia.com/gpu.present": "true",
        "nvidia.com/gpu.deploy.dcgm-exporter": "true",
        "nvidia.com/mps.capable": "false",
        "feature.node.kubernetes.io/pci-10de.present": "true",
    }
    if known is not None:
        labels |= {
            "nvidia.com/gpu.family": known.family,
            "nvidia.com/gpu.machine": known.machine,
            "nvidia.com/gpu.compute.major": str(known.compute[0]),
            "nvidia.com/gpu.compute.minor": str(known.compute[1]),
            "nvidia.com/mig.capable": "true" if known.mig else "false",
        }
        if known.mig:
            labels |= {"nvidia.com/mig.strategy": "single", "nvidia.com/mig.config": "all-disabled"}
    return labels


def node_manifests(pools: Sequence[NodePool]) -> list[dict[str, Any]]:
    """Return the Node objects of the pools, and one node without GPUs for everything else."""
    nodes = [_node("cpu-0", "cpu", labels={}, cpus=32, memory_gib=128, gpus=0)]
    for pool in pools:
        known = PRODUCTS.get(pool.product)
        cpus, memory_gib = (known.cpus_per_gpu, known.memory_gib_per_gpu) if known else (24, 256)
        nodes += [
            _node(
                f"{pool.name}-{number}",
                pool.name,
                labels=gpu_labels(pool),
                cpus=cpus * pool.gpus,
                memory_gib=memory_gib * pool.gpus,
                gpus=pool.gpus,
            )
            for number in range(pool.count)
        ]
    return nodes


def _node(name: str, pool: str, *, labels: dict[str, str], cpus: int, memory_gib: int, gpus: int) -> dict[str, Any]:
    capacity = {"cpu": str(cpus), "memory": f"{memory_gib}Gi", "ephemeral-storage": "2Ti", "pods": "110"}
    # The kubelet and the system keep a share for themselves, so what pods may ask for is less than the machine has.
    allocatable = {**capacity, "cpu": f"{cpus * 1000 - 200}m", "memory": f"{memory_gib * 97 // 100}Gi"}
    spec: dict[str, Any] = {}
    if gpus:
        capacity["nvidia.com/gpu"] = allocatable["nvidia.com/gpu"] = str(gpus)
        # Nearly every GPU cluster has this taint: nothing but what tolerates it lands on an expensive node.
        spec["taints"] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    node: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": {
                "kubernetes.io/arch": "amd64",
                "kubernetes.io/os": "linux",
                "kubernetes.io/hostname": name,
                "type": "kwok",
                NODE_LABEL: pool,
                **labels,
            },
            "annotations": {"kwok.x-k8s.io/node": "fake"},
        },
        "spec": spec,
        "status": {"capacity": capacity, "allocatable": allocatable},
    }
    node["metadata"]["annotations"][SPEC_ANNOTATION] = hashlib.sha256(
        json.dumps(node, sort_keys=True).encode()
    ).hexdigest()[:12]
    return node
