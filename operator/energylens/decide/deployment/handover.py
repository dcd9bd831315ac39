"""From a Deployment to a LeaderWorkerSet and back: the old workload serves until the new one's pods are ready. Pure.

A plan that moves between one node and several needs another kind of object, and no controller of Kubernetes rolls one
kind over into another. Both objects exist for a while; the Service selects all ready pods. The old object is deleted as
soon as the new one has all replicas. If the new pods wait for GPUs of the old ones, old replicas are removed one by
one, each time only after the freed GPUs had time to be used; the rest keeps serving.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from energylens.api.timestamp import timestamp
from energylens.decide.deployment.observation import Body, Observation, PodState
from energylens.decide.deployment.rollouts import (
    EXCEEDED_QUOTA,
    RolloutProgress,
    group_size,
    live_strategy,
    pod_spec_of,
    queued_for_long,
    refused_pods,
    replicas_of,
    rollout,
)
from energylens.serving.metadata import PREFIX
from energylens.serving.timing import DEFAULT_GRACE_PERIOD_SECONDS

SCALED_DOWN = f"{PREFIX}scaled-down-at"
"""Annotation of the old workload: when its replicas were last made fewer, RFC 3339."""
SETTLE_SECONDS = 30
"""Beyond the grace period: the scheduler tries pods that did not fit again within 10 s, then they are bound."""


@dataclass(frozen=True)
class Handover:
    """Fate of the old workload in this pass."""

    body: Body
    replicas: int
    """Number of replicas that remain; 0 means that the object is deleted."""

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The old workload with fewer replicas; None where nothing is written, or the object goes."""
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
    """Return what becomes of the workload of the other kind; None where there is none, or no new one yet."""
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
    """Return whether new pods wait for what old ones hold, and nothing is under way that may change it."""
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
    """Return whether a whole replica has its nodes and is not ready yet."""
    size = group_size(observed.workload or {})
    groups: dict[str, list[PodState]] = {}
    for pod in new:
        groups.setdefault(pod.group or pod.name, []).append(pod)
    return any(
        sum(bool(pod.node) for pod in group) >= size and not all(pod.ready for pod in group)
        for group in groups.values()
    )
