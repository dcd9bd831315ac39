"""Membership of LLMDeployments in a budget, and the share of each member that counts. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from energylens.api.energybudget import ClusterEnergyBudgetSpec, EnergyBudgetSpec
from energylens.api.selectors import carries, selects
from energylens.decide.planned import PlannedDeployment
from energylens.planner.types import GpuNode
from energylens.records import dataclass


@dataclass(frozen=True)
class Surroundings:
    """Inputs of membership besides the objects themselves."""

    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels of every namespace."""
    nodes: Sequence[GpuNode] = ()
    """Nodes, with the GPUs that bound pods hold."""
    _selected: dict[frozenset[tuple[str, str]], _Selected] = field(default_factory=dict, compare=False, repr=False)
    """Cached counts of the nodes that a selector selects: thousands of members share a selector."""

    def selected(self, selector: Mapping[str, str]) -> _Selected:
        """Return the nodes with these labels, and the GPUs on them by owner."""
        key = frozenset(selector.items())
        if key not in self._selected:
            nodes = tuple(node for node in self.nodes if carries(node.labels, selector))
            held: dict[str, int] = {}
            for node in nodes:
                for allocation in node.allocations:
                    held[allocation.owner] = held.get(allocation.owner, 0) + allocation.gpus
            self._selected[key] = _Selected(nodes, held)
        return self._selected[key]


@dataclass(frozen=True)
class _Selected:
    nodes: tuple[GpuNode, ...]
    held: Mapping[str, int]
    """GPUs by owner."""


def is_member(spec: EnergyBudgetSpec, namespace: str, deployment: PlannedDeployment, around: Surroundings) -> bool:
    """Return whether a deployment is a member of a budget.

    Args:
        spec: Spec of the budget.
        namespace: Namespace of the budget; "" for a ClusterEnergyBudget.
        deployment: An LLMDeployment.
        around: Namespaces and nodes.
    """
    own = deployment.namespace
    if namespace and namespace != own:
        return False
    if not selects(spec.selector, deployment.labels):
        return False
    if isinstance(spec, ClusterEnergyBudgetSpec):
        if not selects(spec.namespace_selector, around.namespaces.get(own, {})):
            return False
        return not spec.node_selector or share(spec, deployment, around) > 0 or _may_come(spec, deployment, around)
    return True


def share(spec: EnergyBudgetSpec, deployment: PlannedDeployment, around: Surroundings) -> float:
    """Return the share of a member's plan that counts against a budget, 0 to 1.

    The share is 1, unless the budget covers only some nodes. Then the GPUs of pods on these nodes count, and the GPUs
    of unplaced pods if they may be placed there.
    """
    selector, plan = node_selector(spec), deployment.plan
    if not selector:
        return 1.0
    if plan is None:
        return float(_may_come(spec, deployment, around))
    owner, total = deployment.owner, plan.gpus
    bound, counted = around.selected({}).held.get(owner, 0), around.selected(selector).held.get(owner, 0)
    if _may_come(spec, deployment, around):
        counted += max(0, total - bound)
    return min(1.0, counted / total) if total else 0.0


def node_selector(spec: EnergyBudgetSpec) -> Mapping[str, str]:
    """Return the labels of the nodes that a budget covers; empty for all."""
    return spec.node_selector if isinstance(spec, ClusterEnergyBudgetSpec) else {}


def counted_nodes(spec: EnergyBudgetSpec, around: Surroundings) -> frozenset[str] | None:
    """Return the names of the nodes that a budget covers; None for all."""
    selector = node_selector(spec)
    return frozenset(node.name for node in around.selected(selector).nodes) if selector else None


def held_gpus(spec: EnergyBudgetSpec, deployment: PlannedDeployment, around: Surroundings) -> int:
    """Return the GPUs that a member's pods hold on the nodes that the budget covers."""
    return around.selected(node_selector(spec)).held.get(deployment.owner, 0)


def bound_gpus(deployment: PlannedDeployment, around: Surroundings) -> int:
    """Return the GPUs that a deployment's pods hold anywhere."""
    return around.selected({}).held.get(deployment.owner, 0)


def _may_come(spec: EnergyBudgetSpec, deployment: PlannedDeployment, around: Surroundings) -> bool:
    return any(carries(node.labels, deployment.node_selector) for node in around.selected(node_selector(spec)).nodes)
