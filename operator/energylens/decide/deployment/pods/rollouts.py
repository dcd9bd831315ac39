"""Progress of the pods of the wanted plan, and the causes of delays. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from energylens.api.words import counted
from energylens.decide.deployment.observed.observation import Body, Observation, PodState, plan_label
from energylens.decide.deployment.pods.workloads import group_size, live_strategy, replicas_of, workload_revision
from energylens.decide.reasons import Reason
from energylens.records import dataclass
from energylens.serving.claims import one_at_a_time
from energylens.serving.metadata import PLAN_LABEL

RECENT = timedelta(minutes=10)
"""Age above which failed pods are no evidence about starting pods; Kubernetes keeps thousands of failed pods."""
OVERDUE = timedelta(seconds=60)
"""Time after the grace period after which a pod counts as stuck: the kubelet kills its containers and deletes it."""
EXCEEDED_QUOTA = "exceeded quota"
"""Text of the API server's rejection of a pod beyond a quota (``plugin/pkg/admission/resourcequota``), for which fewer
other pods would make room."""


@dataclass(frozen=True)
class RolloutProgress:
    """Progress of the pods of the wanted plan."""

    exists: bool
    current: bool
    """Whether the workload's controller has seen the wanted revision and only pods of it are left."""
    ready: int
    updated: int
    wanted: int
    running_hash: str
    strategy: str
    revision: str = ""
    """Revision of the pods that the workload creates."""
    pending: str = ""
    """Why the rollout is not current; "" if it is."""


@dataclass(frozen=True)
class Trouble:
    """Reason why pods do not become ready."""

    reason: Reason
    text: str

    @property
    def needs_a_person(self) -> bool:
        """Whether the trouble lasts although pods start and GPUs become free."""
        return self.reason not in (Reason.UNSCHEDULABLE, Reason.QUEUED)


def rollout(observed: Observation) -> RolloutProgress:
    """Return the state of the workload, counted by the pods that it makes now; of both roles if the plan has roles."""
    main = main_rollout(observed)
    prefill = prefill_rollout(observed)
    if not main.exists or (prefill is None and observed.prefill is None):
        return main
    if prefill is None:
        left = "the prefill replicas of the previous plan are not gone yet"
        return replace(main, current=False, pending=main.pending or left)
    pending = main.pending or (f"prefill: {prefill.pending}" if prefill.pending else "")
    return replace(
        main,
        current=not pending,
        # Prefill replicas alone answer no request.
        ready=main.ready + prefill.ready if main.ready else 0,
        updated=main.updated + prefill.updated,
        wanted=main.wanted + prefill.wanted,
        pending=pending,
    )


def main_rollout(observed: Observation) -> RolloutProgress:
    """Return the state of the workload of the plan, which is that of the decode pods if the plan has roles."""
    return _progress(observed.workload, observed.pods, observed.outgoing)


def prefill_rollout(observed: Observation) -> RolloutProgress | None:
    """Return the state of the prefill pods of the plan whose pods run; None if that plan has none."""
    running, planned = plan_label(observed.workload), observed.planning.plan
    known = next((p for p in (planned, observed.standing) if p is not None and p.hash == running), None)
    made = bool(running) and plan_label(observed.prefill) == running
    if known is None and not made:
        return None
    if known is not None and known.prefill is None:
        return None
    found = _progress(observed.prefill, observed.prefill_pods, None)
    # Replicas are 0 while decode pods are being replaced.
    wanted = found.wanted
    if known is not None and known.prefill is not None and not observed.deployment.spec.is_stopped:
        wanted = known.prefill.replicas
    pending = found.pending
    if not found.exists or found.running_hash != running:
        stops = any(not pod.finished for pod in observed.prefill_pods)
        pending = "the prefill pods of the previous plan stop first" if stops else "its Deployment is not made yet"
    elif found.wanted < wanted:
        pending = "replicas start when every decode pod can read their KV cache"
    return replace(found, current=not pending, pending=pending, wanted=wanted)


def by_role(observed: Observation) -> str:
    """Return how many replicas of each role are ready; "" where the plan has no roles."""
    prefill, main = prefill_rollout(observed), main_rollout(observed)
    if prefill is None:
        return ""
    return f" (decode {main.ready} of {main.wanted}, prefill {prefill.ready} of {prefill.wanted})"


def prefill_view(observed: Observation) -> Observation:
    """Return what is observed with the prefill pods in place of the others."""
    return replace(observed, workload=observed.prefill, pods=observed.prefill_pods, outgoing=None, refused_pods="")


def _progress(live: Body | None, pods: Sequence[PodState], outgoing: Body | None) -> RolloutProgress:
    if live is None:
        return RolloutProgress(False, False, 0, 0, 0, "", "")
    running_hash = (live["metadata"].get("labels") or {}).get(PLAN_LABEL, "")
    revision, groups = workload_revision(live), live["kind"] == "LeaderWorkerSet"
    status, wanted = live.get("status") or {}, replicas_of(live)
    updated, existing = int(status.get("updatedReplicas") or 0), int(status.get("replicas") or 0)
    own = [pod for pod in pods if pod.revision == revision]
    ready = sum(pod.ready for pod in own)
    if groups:
        # The controller counts terminating leaders as ready.
        ready = min(int(status.get("readyReplicas") or 0), _whole_groups(own, group_size(live)))
    seen = int(status.get("observedGeneration") or 0) >= int(live["metadata"].get("generation") or 0)
    if groups and "observedGeneration" not in status:
        # Not every release of LeaderWorkerSet v1 reports this field; its pods show the same a little later.
        seen = bool(own) and all(pod.revision == revision for pod in pods if pod.group)
    pending = ""
    if not seen:
        pending = f"the controller of the {live['kind']} has not acted on its last change yet"
    elif updated < wanted:
        pending = f"{updated} of {wanted} replicas are of the newest revision"
    elif existing != updated:
        left = abs(existing - updated)
        pending = f"{counted(left, 'replica')} of the previous revision {'is' if left == 1 else 'are'} not gone yet"
    elif outgoing is not None:
        pending = f"the {outgoing['kind']} of the previous plan still exists"
    strategy = live_strategy(live)
    return RolloutProgress(
        exists=True,
        current=not pending,
        ready=min(ready, wanted),
        updated=updated if seen else 0,
        wanted=wanted,
        running_hash=running_hash,
        strategy=strategy.name if strategy is not None else "Recreate",
        revision=revision,
        pending=pending,
    )


def _whole_groups(pods: Iterable[PodState], size: int) -> int:
    groups: dict[str, list[PodState]] = {}
    for pod in pods:
        groups.setdefault(pod.group or pod.name, []).append(pod)
    return sum(sum(pod.ready for pod in group) >= size for group in groups.values())


def trouble(observed: Observation, state: RolloutProgress) -> Trouble | None:
    """Return the worst trouble that keeps the pods of a workload from becoming ready; None if none is known."""
    found = _trouble(observed, state.revision)
    if found is None and observed.prefill is not None:
        found = _trouble(prefill_view(observed), workload_revision(observed.prefill))
    return found


def _trouble(observed: Observation, revision: str) -> Trouble | None:
    refused = refused_pods(observed)
    if refused:
        return Trouble(Reason.PODS_REFUSED, f"pods cannot be created: {refused}")
    own = [pod for pod in observed.pods if pod.revision == revision] or list(observed.pods)
    failed = [pod for pod in own if pod.failed and (not pod.created or observed.now - _time(pod.created) < RECENT)]
    if failed:
        return Trouble(Reason.PODS_FAILING, _failed(failed))
    alive = [pod for pod in own if not pod.finished and not pod.ends_by]
    for pod in alive:
        if pod.failing:
            return Trouble(Reason.PODS_FAILING, f"{pod.name}: {pod.waiting}")
    stuck = overdue(observed)
    if stuck:
        return Trouble(Reason.PODS_FAILING, stuck)
    shared = _on_too_many_nodes(observed, alive)
    if shared:
        return Trouble(Reason.PODS_FAILING, shared)
    for pod in alive:
        if pod.queued:
            return Trouble(Reason.QUEUED, f"{pod.name} waits for {pod.queued}")
    for pod in alive:
        if pod.unschedulable:
            return Trouble(Reason.UNSCHEDULABLE, f"{pod.name} waits for a node: {pod.unschedulable}")
    return None


def overdue(observed: Observation) -> str:
    """Return the message about a pod that should have ended and still holds its GPUs; "" if there is none."""
    for pod in (*observed.pods, *observed.prefill_pods):
        if pod.ends_by and observed.now - _time(pod.ends_by) > OVERDUE:
            where = f"; its node {pod.node} may be gone" if pod.node else ""
            return f"{pod.name} was to end by {pod.ends_by} and is still there{where}"
    return ""


def refused_pods(observed: Observation) -> str:
    """Return why the API server rejects the pods of the workload; "" if it does not."""
    status = (observed.workload or {}).get("status") or {}
    # If all pods of the newest revision exist, those that are rejected are of an earlier template.
    complete = main_rollout(observed).updated >= replicas_of(observed.workload or {}) > 0
    for condition in () if complete else status.get("conditions") or ():
        failed = condition["type"] == "ReplicaFailure" and condition.get("status") == "True"
        if failed and condition.get("reason") != "FailedDelete":
            return ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
    return observed.refused_pods


def looks_again(observed: Observation) -> bool:
    """Return whether the state of a running rollout may change by time alone, which no watch reports."""
    state = rollout(observed)
    pods = (*observed.pods, *observed.prefill_pods)
    if any(pod.ends_by for pod in pods):
        return True
    if not state.exists or (state.current and state.ready >= state.wanted):
        return False
    if any(pod.queued or pod.admitted_since for pod in pods):
        return True
    groups = (observed.workload or {}).get("kind") == "LeaderWorkerSet"
    return groups or observed.outgoing is not None or any(pod.creating for pod in pods)


def _failed(pods: Sequence[PodState]) -> str:
    """Return how pods failed on the node with most failures."""
    by_node: dict[str, list[PodState]] = {}
    for pod in pods:
        by_node.setdefault(pod.node, []).append(pod)
    node, found = max(by_node.items(), key=lambda one: len(one[1]))
    last = max(found, key=lambda pod: (pod.created, pod.name))
    count = counted(len(found), "pod")
    return f"{count} failed{f' on node {node}' if node else ''}: {last.name}: {last.failed}"


def _on_too_many_nodes(observed: Observation, alive: Iterable[PodState]) -> str:
    exclusive = one_at_a_time(observed.claims)
    if exclusive is None or exclusive[1] != "Node":
        return ""
    nodes = sorted({pod.node for pod in alive if pod.node})
    return f"{exclusive[0].partition(', so that')[0]}, and the pods are on {', '.join(nodes)}" if nodes[1:] else ""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
