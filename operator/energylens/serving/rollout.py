"""How one plan's pods replace another's so that the rollout can always go on, even when all GPUs are taken.

A Deployment moves on when a new pod becomes ready or when it may stop an old one. Its limits are chosen such that one
of the two is always possible:

* new pods no larger than the old ones, on the same GPU product: a stopped old pod makes room for a new one. With a
  free slot the new pod comes first (Surge), else an old one goes first (Recreate), one at a time.
* all new pods fit beside the old ones, which is the case on another product: they come all first (Surge).
* else the pods that must go may lie on different nodes, and no single one makes room: all go first (Recreate).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.capacity import eligible, replicas_that_fit
from energylens.planner.types import ClusterSnapshot
from energylens.serving.arguments import gpus_per_pod


@dataclass(frozen=True)
class Strategy:
    """Limits of a rolling update, in replicas, and why they were chosen."""

    name: Literal["Surge", "Recreate"]
    max_surge: int
    max_unavailable: int
    message: str = ""


SURGE_ONE = Strategy("Surge", 1, 0, "a new replica starts before an old one stops")


def choose_strategy(
    deployment: LLMDeployment, running: PlanStatus | None, new: PlanStatus, snapshot: ClusterSnapshot
) -> Strategy:
    """Return how to replace the running pods by those of a new plan.

    Args:
        deployment: ``spec.rollout.strategy`` Surge and Recreate fix which of the two is used.
        running: The plan whose pods run; None when there are none.
        new: The plan to bring up; the same plan with other arguments counts too.
        snapshot: The cluster now.
    """
    if running is None:
        return Strategy("Surge", 1, 0, "first rollout")
    wanted = deployment.spec.rollout.strategy
    more = max(0, new.replicas - running.replicas)
    same_product = new.gpu_product == running.gpu_product
    makes_room = same_product and gpus_per_pod(new) <= gpus_per_pod(running)
    makes_room = makes_room and new.nodes_per_replica <= running.nodes_per_replica
    slots = free_replicas(deployment, new, snapshot)
    if wanted != "Recreate" and slots >= new.replicas and not makes_room:
        return Strategy("Surge", new.replicas, 0, f"all {new.replicas} new replicas fit beside the running ones")
    if wanted == "Surge" or (wanted == "Auto" and slots >= 1 and makes_room):
        return Strategy("Surge", 1, more, f"GPUs for {slots} new replicas are free; {SURGE_ONE.message}")
    if makes_room:
        return Strategy("Recreate", 0, more + 1, "too few GPUs are free; an old replica stops before a new one starts")
    return Strategy(
        "Recreate",
        0,
        new.replicas,
        "too few GPUs are free and a new replica is larger than an old one; all old replicas stop first",
    )


def free_replicas(deployment: LLMDeployment, plan: PlanStatus, snapshot: ClusterSnapshot) -> int:
    """Return how many replicas of a plan fit on GPUs that no pod requests now, the deployment's own pods included."""
    hardware = deployment.spec.hardware
    free = [
        node.free_now
        for node in snapshot.nodes
        if node.product == plan.gpu_product
        and node.schedulable
        and eligible(node, hardware.node_selector, hardware.tolerations)
    ]
    pod, pods = np.asarray([gpus_per_pod(plan)]), np.asarray([plan.nodes_per_replica])
    return int(replicas_that_fit(free, pod, pods)[0])


def strategy_of(workload: dict[str, Any]) -> Strategy:
    """Return the strategy that a live Deployment or LeaderWorkerSet carries, so that nothing is written without need.

    Raises:
        KeyError: The object has none of ours.
    """
    spec = workload["spec"]
    if workload["kind"] == "LeaderWorkerSet":
        rolling = spec["rolloutStrategy"]["rollingUpdateConfiguration"]
    else:
        rolling = spec["strategy"]["rollingUpdate"]
    surge, unavailable = int(rolling["maxSurge"]), int(rolling["maxUnavailable"])
    return Strategy("Surge" if surge else "Recreate", surge, unavailable)
