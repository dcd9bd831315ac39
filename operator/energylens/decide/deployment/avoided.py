"""Which nodes the pods of a plan keep away from: those that they would fit on and the planner does not count. Pure.

Labels name their GPUs as whole ones, and counts say that they are shares of GPUs, or too small. A change of the list
would restart every pod, so it waits for the next rollout unless pods are on such a node, or wait for one that has
become whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.observation import PodState
from energylens.decide.deployment.rollouts import pod_spec_of
from energylens.planner.types import ClusterSnapshot
from energylens.serving.pod import NODE_NAME_FIELD

MOST = 50
"""Nodes on the list: each has a line in every term of the affinity."""


def uncounted(snapshot: ClusterSnapshot, plan: PlanStatus) -> tuple[str, ...]:
    """Return the nodes on which pods of a plan would find GPUs of its product that nobody planned with, sorted."""
    return tuple(node.name for node in snapshot.excluded if node.gpus and node.product == plan.gpu_product)[:MOST]


def avoided(live: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the nodes that the pods of a workload keep away from."""
    affinity = (pod_spec_of(live).get("affinity") or {}).get("nodeAffinity") or {}
    terms = (affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or ()
    fields = (terms[0].get("matchFields") or ()) if terms else ()
    return tuple(
        name
        for field in fields
        if field.get("key") == NODE_NAME_FIELD and field.get("operator") == "NotIn"
        for name in field.get("values") or ()
    )


def to_avoid(known: tuple[str, ...], now: tuple[str, ...], pods: Iterable[PodState]) -> tuple[str, ...]:
    """Return the list for pods that may go on as they are.

    Args:
        known: The list of the live workload.
        now: The nodes as they are.
        pods: Of the deployment.
    """
    alive = [pod for pod in pods if not pod.finished and not pod.ends_by]
    strayed = any(pod.node in now and pod.node not in known for pod in alive)
    waits = any(pod.unschedulable for pod in alive) and not set(known) <= set(now)
    return now if strayed or waits else known
