"""Nodes that the pods of a plan must avoid, because the planner does not count their GPUs. Pure.

The labels of these nodes claim whole GPUs, but their counts show shares of GPUs, or too few. A change of the list
restarts every pod, so a change waits for the next rollout, unless pods run on such a node or wait for a node that now
has whole GPUs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from energylens.api.llmdeployment import PlanStatus
from energylens.decide.deployment.observed.observation import PodState
from energylens.decide.deployment.pods.workloads import pod_spec_of
from energylens.planner.types import ClusterSnapshot
from energylens.serving.pod import NODE_NAME_FIELD

MOST = 50
"""Maximum number of nodes on the list: each adds a line to every term of the affinity."""


def uncounted(snapshot: ClusterSnapshot, plan: PlanStatus) -> tuple[str, ...]:
    """Return the nodes whose labels offer GPUs of the plan's product that the planner does not count, sorted."""
    return tuple(node.name for node in snapshot.excluded if node.gpus and node.product == plan.gpu_product)[:MOST]


def avoided(live: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the nodes that the pods of a workload avoid."""
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
    """Return the list for the pods: the list of the live workload unless a pod needs the current one.

    Args:
        known: The list of the live workload.
        now: The current list.
        pods: The pods of the deployment.
    """
    alive = [pod for pod in pods if not pod.finished and not pod.ends_by]
    strayed = any(pod.node in now and pod.node not in known for pod in alive)
    waits = any(pod.unschedulable for pod in alive) and not set(known) <= set(now)
    return now if strayed or waits else known
