"""Which nodes a deployment may use, and what to report if it may use none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.api.selectors import carries
from energylens.api.words import counted
from energylens.planner.inventory.access import of_another_access, with_one_access
from energylens.planner.inventory.capacity import (
    BLOCKING_EFFECTS,
    GPU_TOLERATION,
    eligible,
    tolerates,
    tolerates_for_good,
)
from energylens.planner.inventory.products import resolve_products
from energylens.planner.types import ClusterSnapshot, ExcludedNode, GpuNode, Infeasible, Taint
from energylens.predictor.gpu_names import index_of, name_key, nearest_first
from energylens.predictor.types import GpuSpec

_REASONS = 3
_NAMES = 3
_NEAREST = 3
"""Number of reasons, nodes per reason, and products that a message names."""


def usable_nodes(
    spec: LLMDeploymentSpec, owner: str, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]
) -> tuple[GpuNode, ...]:
    """Return the nodes whose labels, taints and GPU product allow the deployment's pods, free or not.

    Of each product only nodes that share a way to their GPUs count (:func:`with_one_access`).

    Args:
        spec: The deployment's spec.
        owner: The deployment, as ``namespace/name``.
        snapshot: The cluster's nodes.
        gpus: Known GPU products.
    """
    return with_one_access(_usable(spec, snapshot, gpus), (owner,))


def _usable(spec: LLMDeploymentSpec, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]) -> tuple[GpuNode, ...]:
    hardware = spec.hardware
    # The result for each set of taints is reused: most nodes of a large cluster have equal taints, and most specs
    # select no labels.
    accepted: dict[tuple[Taint, ...], bool] = {}

    def is_usable(node: GpuNode) -> bool:
        if node.allocatable <= 0 or node.product not in gpus:
            return False
        if hardware.node_selector:
            return eligible(node, hardware.node_selector, hardware.tolerations)
        found = accepted.get(node.taints)
        if found is None:
            found = accepted[node.taints] = eligible(node, {}, hardware.tolerations)
        return found

    return tuple(filter(is_usable, snapshot.nodes))


def allowed_nodes(
    spec: LLMDeploymentSpec, nodes: tuple[GpuNode, ...], gpus: Mapping[str, GpuSpec]
) -> tuple[GpuNode, ...]:
    """Return the nodes whose product ``spec.hardware.gpuProducts`` allows; all nodes if the field is empty."""
    wanted = spec.hardware.gpu_products
    if not wanted:
        return nodes
    products = resolve_products(wanted, {node.product for node in nodes}, gpus)
    return tuple(node for node in nodes if node.product in products)


def unknown_products(spec: LLMDeploymentSpec, gpus: Mapping[str, GpuSpec]) -> str:
    """Return the names in ``spec.hardware.gpuProducts`` that are no product, with the nearest known names.

    Empty if all are known.
    """
    names = index_of(gpus.values())
    unknown = [name for name in spec.hardware.gpu_products if name_key(name) not in names]
    if not unknown:
        return ""
    verb = "is not a known product" if len(unknown) == 1 else "are not known products"
    return f"{', '.join(unknown)} {verb}, nearest: {', '.join(nearest_first(unknown, gpus)[:_NEAREST])}"


def no_matching_gpus(spec: LLMDeploymentSpec, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]) -> Infeasible:
    """Return why no node of a snapshot can be used."""
    return Infeasible("NoMatchingGPUs", _no_match(spec, snapshot, gpus) + unusable(snapshot.excluded))


def unusable(excluded: Iterable[ExcludedNode]) -> str:
    """Return the nodes with GPUs that cannot be planned, grouped by reason, as the end of a message.

    Empty if there are none.
    """
    by_reason: dict[str, list[str]] = {}
    for node in excluded:
        by_reason.setdefault(node.reason, []).append(node.name)
    if not by_reason:
        return ""
    parts = []
    for reason, names in list(by_reason.items())[:_REASONS]:
        more = len(names) - _NAMES
        parts.append(f"{', '.join(names[:_NAMES])}{f' and {more} more' if more > 0 else ''}: {reason}")
    left = sum(len(names) for names in list(by_reason.values())[_REASONS:])
    return f"; not usable: {'; '.join(parts)}" + (f"; and {left} more" if left else "")


def excluded_for(
    spec: LLMDeploymentSpec, owner: str, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]
) -> tuple[ExcludedNode, ...]:
    """Return the nodes that cannot be planned and whose product the spec allows."""
    wanted = spec.hardware.gpu_products
    known = {node.product for node in snapshot.excluded if node.product in gpus}
    products = set(resolve_products(wanted, known, gpus) if wanted else known)
    named = tuple(node for node in snapshot.excluded if node.product in products)
    allowed = allowed_nodes(spec, _usable(spec, snapshot, gpus), gpus)
    return (*named, *of_another_access(allowed, owner))


def _no_match(spec: LLMDeploymentSpec, snapshot: ClusterSnapshot, gpus: Mapping[str, GpuSpec]) -> str:
    hardware = spec.hardware
    if not snapshot.nodes:
        return "the cluster has no node with allocatable nvidia.com/gpu or with GPUs in ResourceSlices"
    wanted = hardware.gpu_products
    matching = resolve_products(wanted, snapshot.products(), gpus) if wanted else snapshot.products()
    if not matching:
        unknown = unknown_products(spec, gpus)
        return (
            f"spec.hardware.gpuProducts=[{', '.join(wanted)}]: no node has such a GPU; available: "
            f"{_at_hand(snapshot.nodes)}{unknown and f'; {unknown}'}"
        )
    known = [product for product in matching if product in gpus]
    if not known:
        return (
            f"GPU product {', '.join(matching)} is not known to the predictor; known, nearest first: "
            f"{', '.join(nearest_first(matching, gpus))}"
        )
    nodes = [node for node in snapshot.nodes if node.product in known]
    if not any(carries(node.labels, hardware.node_selector) for node in nodes):
        selector = ", ".join(f"{key}={value}" for key, value in sorted(hardware.node_selector.items()))
        return (
            f"spec.hardware.nodeSelector={{{selector}}}: no node with {', '.join(known)} has these labels; available: "
            f"{_at_hand(nodes)}"
        )
    tolerations = (GPU_TOLERATION, *hardware.tolerations)
    taints = {
        taint
        for node in nodes
        if carries(node.labels, hardware.node_selector)
        for taint in node.taints
        if taint.effect in BLOCKING_EFFECTS and not tolerates_for_good(tolerations, taint)
    }
    passing = any(any(tolerates(toleration, taint) for toleration in tolerations) for taint in taints)
    limited = " without a time limit (tolerationSeconds)" if passing else ""
    return (
        f"spec.hardware.tolerations: every node with {', '.join(known)} has a taint that is not tolerated{limited}: "
        f"{', '.join(sorted(map(_taint_text, taints)))}"
    )


def _taint_text(taint: Taint) -> str:
    return f"{taint.key}={taint.value}:{taint.effect}" if taint.value else f"{taint.key}:{taint.effect}"


def _at_hand(nodes: Iterable[GpuNode]) -> str:
    counts: Counter[str] = Counter()
    for node in nodes:
        counts[node.product] += node.allocatable
    return ", ".join(f"{product} ({counted(gpus, 'GPU')})" for product, gpus in sorted(counts.items()))
