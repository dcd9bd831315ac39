"""Which nodes a deployment may use, and what to say when it may use none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.capacity import eligible
from energylens.planner.products import resolve_products
from energylens.planner.types import ClusterSnapshot, GpuNode, Infeasible
from energylens.predictor.types import GpuSpec


def usable_nodes(
    spec: LLMDeploymentSpec, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]
) -> tuple[GpuNode, ...]:
    """Return the nodes whose labels, taints and GPU product allow the deployment's pods, free or not."""
    hardware = spec.hardware
    return tuple(
        node
        for node in snapshot.nodes
        if node.allocatable > 0
        and node.product in gpus
        and eligible(node, hardware.node_selector, hardware.tolerations)
    )


def allowed_nodes(
    spec: LLMDeploymentSpec, nodes: tuple[GpuNode, ...], gpus: Mapping[str, GpuSpec]
) -> tuple[GpuNode, ...]:
    """Return the nodes whose product ``spec.hardware.gpuProducts`` allows; all of them where it is empty."""
    wanted = spec.hardware.gpu_products
    if not wanted:
        return nodes
    products = resolve_products(wanted, {node.product for node in nodes}, gpus)
    return tuple(node for node in nodes if node.product in products)


def no_matching_gpus(spec: LLMDeploymentSpec, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]) -> Infeasible:
    """Return why no node of a snapshot can be used."""
    hardware = spec.hardware
    if not snapshot.nodes:
        excluded = "; ".join(f"{node.name}: {node.reason}" for node in snapshot.excluded[:3])
        detail = f"; not usable: {excluded}" if excluded else ""
        return Infeasible("NoMatchingGPUs", f"the cluster has no node with allocatable nvidia.com/gpu{detail}")
    wanted = hardware.gpu_products
    matching = resolve_products(wanted, snapshot.products(), gpus) if wanted else snapshot.products()
    if not matching:
        return Infeasible(
            "NoMatchingGPUs",
            f"spec.hardware.gpuProducts=[{', '.join(wanted)}]: no node has such a GPU; at hand: "
            f"{_at_hand(snapshot.nodes)}",
        )
    known = [product for product in matching if product in gpus]
    if not known:
        return Infeasible(
            "NoMatchingGPUs",
            f"GPU product {', '.join(matching)} is not known to the predictor; known: {', '.join(sorted(gpus))}",
        )
    nodes = [node for node in snapshot.nodes if node.product in known and node.allocatable > 0]
    if nodes and not any(_selected(node, hardware.node_selector) for node in nodes):
        selector = ", ".join(f"{key}={value}" for key, value in sorted(hardware.node_selector.items()))
        return Infeasible(
            "NoMatchingGPUs",
            f"spec.hardware.nodeSelector={{{selector}}}: no node with {', '.join(known)} has these labels; at hand: "
            f"{_at_hand(nodes)}",
        )
    taints = sorted(
        {
            f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"
            for node in nodes
            if _selected(node, hardware.node_selector)
            for taint in node.taints
        }
    )
    return Infeasible(
        "NoMatchingGPUs",
        f"spec.hardware.tolerations: every node with {', '.join(known)} has a taint that is not tolerated: "
        f"{', '.join(taints)}",
    )


def _selected(node: GpuNode, selector: Mapping[str, str]) -> bool:
    return all(node.labels.get(key) == value for key, value in selector.items())


def _at_hand(nodes: Iterable[GpuNode]) -> str:
    counts: Counter[str] = Counter()
    for node in nodes:
        counts[node.product] += node.allocatable
    return ", ".join(f"{product} ({gpus} GPUs)" for product, gpus in sorted(counts.items()))
