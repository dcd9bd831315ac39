"""Which LLMDeployments a budget is about, and how much of each counts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from energylens.api.energybudget import ClusterEnergyBudgetSpec, EnergyBudgetSpec, LabelSelector
from energylens.planner.types import GpuNode

Body = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name; the namespace of a ClusterEnergyBudget is ""."""


@dataclass(frozen=True)
class Surroundings:
    """What membership depends on besides the objects themselves."""

    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels of every namespace."""
    nodes: Sequence[GpuNode] = ()
    """With the GPUs that bound pods hold."""


def key_of(body: Body) -> Key:
    """Return the key of an object."""
    return body["metadata"].get("namespace") or "", body["metadata"]["name"]


def name_of(body: Body) -> str:
    """Return a budget as messages name it: ``EnergyBudget team/cap``, ``ClusterEnergyBudget row-b``."""
    namespace, name = key_of(body)
    return f"EnergyBudget {namespace}/{name}" if namespace else f"ClusterEnergyBudget {name}"


def selects(selector: LabelSelector, labels: Mapping[str, str]) -> bool:
    """Return whether a label selector selects an object with these labels."""
    if any(labels.get(key) != value for key, value in selector.match_labels.items()):
        return False
    for requirement in selector.match_expressions:
        present = requirement.key in labels
        inside = present and labels[requirement.key] in requirement.values
        if {
            "In": not inside,
            "NotIn": inside,
            "Exists": not present,
            "DoesNotExist": present,
        }[requirement.operator]:
            return False
    return True


def is_member(spec: EnergyBudgetSpec, namespace: str, deployment: Body, around: Surroundings) -> bool:
    """Return whether a deployment is under a budget.

    Args:
        spec: The budget's.
        namespace: The budget's; "" for a ClusterEnergyBudget.
        deployment: An LLMDeployment.
        around: Namespaces and nodes.
    """
    own = deployment["metadata"]["namespace"]
    if namespace and namespace != own:
        return False
    if not selects(spec.selector, deployment["metadata"].get("labels") or {}):
        return False
    if isinstance(spec, ClusterEnergyBudgetSpec):
        if not selects(spec.namespace_selector, around.namespaces.get(own, {})):
            return False
        return not spec.node_selector or share(spec, deployment, around) > 0 or _may_come(spec, deployment, around)
    return True


def share(spec: EnergyBudgetSpec, deployment: Body, around: Surroundings) -> float:
    """Return the share of a member's plan that counts against a budget, 0 to 1.

    All of it, but where the budget is about some nodes: there the GPUs that its pods hold on them count, and those of
    pods that are not placed yet, as long as they may come there.
    """
    selector = node_selector(spec)
    plan = (deployment.get("status") or {}).get("plan")
    if not selector:
        return 1.0
    if plan is None:
        return float(_may_come(spec, deployment, around))
    owner = "/".join(key_of(deployment))
    held = [(sum(a.gpus for a in node.allocations if a.owner == owner), _on(node, selector)) for node in around.nodes]
    total, bound = int(plan["gpus"]), sum(gpus for gpus, _ in held)
    counted = sum(gpus for gpus, on in held if on)
    if _may_come(spec, deployment, around):
        counted += max(0, total - bound)
    return min(1.0, counted / total) if total else 0.0


def node_selector(spec: EnergyBudgetSpec) -> Mapping[str, str]:
    """Return the labels of the nodes that a budget is about; empty: all of them."""
    return spec.node_selector if isinstance(spec, ClusterEnergyBudgetSpec) else {}


def counted_nodes(spec: EnergyBudgetSpec, nodes: Iterable[GpuNode]) -> frozenset[str] | None:
    """Return the names of the nodes that a budget is about; None for all of them."""
    selector = node_selector(spec)
    return frozenset(node.name for node in nodes if _on(node, selector)) if selector else None


def _may_come(spec: EnergyBudgetSpec, deployment: Body, around: Surroundings) -> bool:
    wanted = ((deployment.get("spec") or {}).get("hardware") or {}).get("nodeSelector") or {}
    selector = node_selector(spec)
    return any(_on(node, selector) and _on(node, wanted) for node in around.nodes)


def _on(node: GpuNode, selector: Mapping[str, str]) -> bool:
    return all(node.labels.get(key) == value for key, value in selector.items())
