"""How the pods of a new plan replace the old ones so that a rollout never blocks, even if all GPUs are in use.

A rollout of a Deployment advances when a new pod becomes ready or an old pod may stop. The limits are chosen so that
one of the two is always possible:

* Recreate stops one old pod before it starts a new one. On the same GPU product, this always frees enough GPUs: an old
  pod that is no larger than a new pod blocks at most one place, and a larger old pod frees at least one place.
* Surge starts one new pod first, for which a place must be free. The rollout can continue only if the new pods are no
  larger than the old pods; larger pods surge only if all of them fit beside the old pods.
* On another product, all new pods fit beside the old pods (otherwise there would be no such plan) and start first.

A plan that moves between one node and several gets another object, since a Deployment cannot become a LeaderWorkerSet.
The pods of the old object serve until the pods of the new object are ready. If no GPU is free for a new replica, old
replicas stop one by one, each only while new pods wait for GPUs that old pods hold
(``energylens.decide.deployment.pods.handover``).

If only one pod or one node may mount a volume claim, new pods cannot start first: they would wait for the volume of the
old pods for ever.

If the new plan has more replicas than the old plan, the Deployment controller first scales the *old* ReplicaSet up to
the new number. As many additional replicas may be unavailable; otherwise the controller waits for pods that cannot be
placed.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.inventory.access import with_one_access
from energylens.planner.inventory.capacity import eligible, replicas_that_fit
from energylens.planner.types import ClusterSnapshot
from energylens.records import dataclass
from energylens.serving.arguments import gpus_per_pod
from energylens.serving.claims import NO_CLAIMS, Claims, one_at_a_time


@dataclass(frozen=True)
class Strategy:
    """Limits of a rolling update, in replicas, and the reason for them."""

    name: Literal["Surge", "Recreate"]
    max_surge: int
    max_unavailable: int
    message: str = ""


SURGE_ONE = Strategy("Surge", 1, 0, "a new replica starts before an old one stops")
SURGE_ALL = "the old replicas serve until the new ones are ready"


def choose_strategy(
    deployment: LLMDeployment,
    running: PlanStatus | None,
    new: PlanStatus,
    snapshot: ClusterSnapshot,
    claims: Claims = NO_CLAIMS,
) -> Strategy:
    """Return the strategy to replace the running pods by the pods of a new plan.

    Args:
        deployment: ``spec.rollout.strategy`` Surge and Recreate fix which of the two is used.
        running: The plan whose pods run; None when there are none.
        new: The plan to bring up; the same plan with other arguments counts too.
        snapshot: The cluster now.
        claims: The volume claims that the pods mount.
    """
    if running is None:
        return Strategy("Surge", 1, 0, "first rollout")
    wanted = deployment.spec.rollout.strategy
    more = max(0, new.replicas - running.replicas)
    no_larger = new.gpu_product == running.gpu_product and gpus_per_pod(new) <= gpus_per_pod(running)
    exclusive = one_at_a_time(claims)
    if exclusive is not None:
        why, by = exclusive
        # Pods of one node: a new pod may be placed on another node, after the last old pod has ended.
        return Strategy("Recreate", 0, more + 1 if by == "Pod" else max(1, new.replicas, running.replicas), why)
    slots = free_replicas(deployment, new, snapshot)
    if (new.nodes_per_replica > 1) != (running.nodes_per_replica > 1):
        if wanted == "Surge" or (wanted == "Auto" and slots >= 1):
            return Strategy("Surge", 1, 0, f"GPUs for {slots} new replicas are free; {SURGE_ALL}")
        return Strategy("Recreate", 0, 1, "too few GPUs are free; an old replica stops before a new one starts")
    if wanted != "Recreate" and slots >= new.replicas and not no_larger:
        return Strategy("Surge", new.replicas, more, f"all {new.replicas} new replicas fit beside the running ones")
    if wanted == "Surge" or (wanted == "Auto" and slots >= 1 and no_larger):
        return Strategy("Surge", 1, more, f"GPUs for {slots} new replicas are free; {SURGE_ONE.message}")
    return Strategy("Recreate", 0, more + 1, "too few GPUs are free; an old replica stops before a new one starts")


def free_replicas(deployment: LLMDeployment, plan: PlanStatus, snapshot: ClusterSnapshot) -> int:
    """Return the number of replicas of a plan that fit on GPUs that no pod requests, not even the deployment's own."""
    hardware = deployment.spec.hardware
    nodes = tuple(
        node
        for node in snapshot.nodes
        if node.product == plan.gpu_product and eligible(node, hardware.node_selector, hardware.tolerations)
    )
    free = [node.free_now for node in with_one_access(nodes, (deployment.owner,)) if node.schedulable]
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
