"""Speed of the network between nodes, from the spec, from node labels, or unknown.

Labels of Node Feature Discovery and of the NVIDIA network operator say that a node has RDMA but not how fast it is; a
cloud's instance type does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.types import GpuNode
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

SPEED_LABEL = "energylens.dev/inter-node-gigabits-per-second"
"""Node label: total Gbit/s of all network adapters of a node, in one direction."""
INSTANCE_LABELS = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
FIELD = "spec.hardware.interNodeGigabitsPerSecond"
MOST_GIGABITS = 100_000
INSTANCES: Mapping[str, int] = {
    # Network performance of accelerated computing instances, docs.aws.amazon.com/ec2/latest/instancetypes/ac.html
    "p4d.24xlarge": 400,
    "p4de.24xlarge": 400,
    "p5.48xlarge": 3200,
    "p5e.48xlarge": 3200,
    "p5en.48xlarge": 3200,
    "g5.48xlarge": 100,
    "g6.48xlarge": 100,
    "g6e.12xlarge": 100,
    "g6e.24xlarge": 200,
    "g6e.48xlarge": 400,
    # Maximum network bandwidth of GPU machine types, docs.cloud.google.com/compute/docs/gpus
    "a2-highgpu-8g": 100,
    "a2-ultragpu-8g": 100,
    "a3-highgpu-8g": 1000,
    "a3-megagpu-8g": 1800,
    # An InfiniBand adapter per GPU, learn.microsoft.com/azure/virtual-machines/sizes/gpu-accelerated
    "Standard_ND96asr_v4": 1600,
    "Standard_ND96amsr_A100_v4": 1600,
    "Standard_ND96isr_H100_v5": 3200,
    "Standard_ND96isr_H200_v5": 3200,
}
"""Gbit/s of a machine by the value of its instance-type label."""


@dataclass(frozen=True)
class Network:
    """The network between the nodes of one product."""

    gigabits_per_second: int | None
    """Gbit/s of a node, in one direction; None if unknown."""
    source: str
    """Source of the speed, in words."""


def network_of(spec: LLMDeploymentSpec, nodes: Iterable[GpuNode]) -> Network:
    """Return the network between nodes: the spec's value, otherwise that of the slowest node whose labels state one."""
    asked = spec.hardware.inter_node_gigabits_per_second
    if asked is not None:
        return Network(asked, FIELD)
    known = [found for node in nodes if (found := _of_labels(node.labels)) is not None]
    if not known:
        return Network(None, f"neither {FIELD} nor a node label {SPEED_LABEL} is set")
    slowest = min(known, key=lambda network: (network.gigabits_per_second or 0, network.source))
    return slowest


def with_networks(
    spec: LLMDeploymentSpec, nodes: Iterable[GpuNode], gpus: Mapping[str, GpuSpec]
) -> Mapping[str, GpuSpec]:
    """Return GPU products with the network between their nodes, if it is known.

    Args:
        spec: The deployment's spec.
        nodes: Nodes that the spec may use.
        gpus: Known GPU products.
    """
    by_product: dict[str, list[GpuNode]] = {}
    for node in nodes:
        by_product.setdefault(node.product, []).append(node)
    found = dict(gpus)
    for product, here in by_product.items():
        speed = network_of(spec, here).gigabits_per_second
        if speed is not None and product in found:
            found[product] = replace(found[product], network_bandwidth=speed * 1e9 / 8.0)
    return found


def _of_labels(labels: Mapping[str, str]) -> Network | None:
    speed = labels.get(SPEED_LABEL, "")
    if speed.isascii() and speed.isdecimal() and 0 < int(speed) <= MOST_GIGABITS:
        return Network(int(speed), f"label {SPEED_LABEL}")
    machine = next((labels[label] for label in INSTANCE_LABELS if labels.get(label)), "")
    return Network(INSTANCES[machine], f"instance type {machine}") if machine in INSTANCES else None
