"""Handover between a Deployment and a LeaderWorkerSet: the old workload serves until the new pods are ready. Pure.

A plan that moves between one node and several needs another kind of object, and no controller of Kubernetes rolls out
from one kind to another. Both objects exist for a while; the Service selects all ready pods. The old object is deleted
as soon as the new object has all replicas. If the new pods wait for GPUs of the old pods, old replicas are removed one
by one, with a pause in which the new pods can use the freed GPUs; the remaining replicas keep serving.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from energylens.api.timestamp import timestamp
from energylens.decide.deployment.observed.observation import Body, Observation, PodState
from energylens.decide.deployment.pods.deadlines import queued_for_long
from energylens.decide.deployment.pods.rollouts import EXCEEDED_QUOTA, RolloutProgress, refused_pods, rollout
from energylens.decide.deployment.pods.workloads import group_size, live_strategy, pod_spec_of, replicas_of
from energylens.records import dataclass
from energylens.serving.metadata import PREFIX
from energylens.serving.timing import DEFAULT_GRACE_PERIOD_SECONDS

SCALED_DOWN = f"{PREFIX}scaled-down-at"
"""Annotation of the old workload: time of its last reduction of replicas, RFC 3339."""
SETTLE_SECONDS = 30
"""Pause beyond the grace period, s: the scheduler retries unschedulable pods within 10 s, and then binds them."""


@dataclass(frozen=True)
class Handover:
    """Action on the old workload in this reconcile."""

    body: Body
    replicas: int
    """Number of remaining replicas; with 0, the object is deleted."""

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The old workload with fewer replicas; None if nothing is written, or if the object is deleted."""
        if self.replicas == 0 or self.replicas == replicas_of(self.body):
            return None
        metadata = self.body["metadata"]
        ours = {k: v for k, v in (metadata.get("annotations") or {}).items() if k.startswith(PREFIX)}
        return {
            "apiVersion": self.body["apiVersion"],
            "kind": self.body["kind"],
            "metadata": {
                **{k: metadata[k] for k in ("name", "namespace", "labels", "ownerReferences")},
                "annotations": ours | {SCALED_DOWN: self.at},
            },
            "spec": {**self.body["spec"], "replicas": self.replicas},
        }

    at: str = ""


def handover(observed: Observation) -> Handover | None:
    """Return the action on the workload of the other kind; None if there is none, or no new workload yet."""
    old, new = observed.outgoing, observed.workload
    if old is None or new is None:
        return None
    return Handover(old, _left(observed, old, new), timestamp(observed.now))


def _left(observed: Observation, old: Body, new: Body) -> int:
    running, state = replicas_of(old), rollout(observed)
    if observed.deployment.spec.is_stopped:
        return 0
    seen = int((new.get("status") or {}).get("observedGeneration") or 0) >= int(new["metadata"].get("generation") or 0)
    if new["kind"] == "LeaderWorkerSet" and "observedGeneration" not in (new.get("status") or {}):
        seen = True
    if seen and state.ready >= state.wanted:
        return 0
    if running <= 0:
        return running
    strategy = live_strategy(new)
    if strategy is None or strategy.max_surge > 0:
        return running
    asked = observed.deployment.spec.rollout.strategy == "Recreate"
    first = SCALED_DOWN not in (old["metadata"].get("annotations") or {})
    if asked and first:
        return running - 1
    return running - 1 if _waits_for(observed, state, old) else running


def _waits_for(observed: Observation, state: RolloutProgress, old: Body) -> bool:
    """Return whether new pods wait for resources of old pods, and no pod is stopping or starting."""
    new = [pod for pod in observed.pods if pod.revision == state.revision and not pod.finished]
    rest = [pod for pod in observed.pods if pod.revision != state.revision and not pod.finished]
    if len(rest) != replicas_of(old) * group_size(old) or any(pod.ends_by for pod in rest):
        return False
    told = (old["metadata"].get("annotations") or {}).get(SCALED_DOWN)
    grace = int(pod_spec_of(old).get("terminationGracePeriodSeconds") or DEFAULT_GRACE_PERIOD_SECONDS)
    if told and (observed.now - datetime.fromisoformat(told)).total_seconds() < grace + SETTLE_SECONDS:
        return False
    if EXCEEDED_QUOTA in refused_pods(observed) or queued_for_long(new, observed.now):
        return not _starting(new, observed)
    plan = observed.planning.plan
    nodes = {node.name for node in observed.snapshot.nodes if plan is not None and node.product == plan.gpu_product}
    in_the_way = any(pod.node in nodes for pod in rest)
    return in_the_way and any(pod.unschedulable for pod in new) and not _starting(new, observed)


def _starting(new: list[PodState], observed: Observation) -> bool:
    """Return whether all pods of a replica are bound to nodes and the replica is not ready yet."""
    size = group_size(observed.workload or {})
    groups: dict[str, list[PodState]] = {}
    for pod in new:
        groups.setdefault(pod.group or pod.name, []).append(pod)
    return any(
        sum(bool(pod.node) for pod in group) >= size and not all(pod.ready for pod in group)
        for group in groups.values()
    )
