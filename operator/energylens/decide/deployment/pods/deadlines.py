"""Deadlines of rollouts, without the time that pods wait in queues for quota. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.decide.deployment.observed.observation import Body, Observation, PodState
from energylens.decide.deployment.pods.rollouts import RolloutProgress
from energylens.decide.deployment.pods.workloads import spec_of, workload_revision
from energylens.decide.reasons import ConditionType, Reason
from energylens.serving.metadata import PLAN_LABEL
from energylens.serving.timing import PROGRESS_DEADLINE_SECONDS, progress_deadline_seconds, startup_seconds

QUEUE_PATIENCE = timedelta(seconds=60)
"""Kueue admits a pod within seconds if its queue has quota."""


def late(observed: Observation, state: RolloutProgress) -> str:
    """Return why a rollout missed its deadline; "" if it did not."""
    live = observed.workload
    if live is None or (state.current and state.ready >= state.wanted):
        return ""
    if waits_in_queue(live, observed.pods, observed.now):
        return ""
    if live["kind"] == "LeaderWorkerSet":
        return _late_group(observed, state)
    queued = observed.prefill is not None and waits_in_queue(observed.prefill, observed.prefill_pods, observed.now)
    told = deadline_exceeded(live) or deadline_exceeded(None if queued else observed.prefill)
    return told + _shorter_than_the_start(observed) if told else ""


def waits_in_queue(live: Body, pods: Iterable[PodState], now: datetime) -> bool:
    """Return whether a queue holds pods of a workload back, or did less than a progress deadline ago.

    The controllers of workloads know no queues: for them, a pod that waits for quota makes no progress.
    """
    own = [pod for pod in pods if pod.revision == workload_revision(live) and not pod.finished]
    if any(pod.queued for pod in own):
        return True
    limit = int(spec_of(live).get("progressDeadlineSeconds") or PROGRESS_DEADLINE_SECONDS)
    admitted = [_time(pod.admitted_since) for pod in own if pod.admitted_since]
    return bool(admitted) and (now - max(admitted)).total_seconds() <= limit


def queued_for_long(pods: Iterable[PodState], now: datetime) -> bool:
    """Return whether a pod has waited for quota for so long that older pods may use the quota."""
    return any(pod.waits_for_quota and pod.created and now - _time(pod.created) > QUEUE_PATIENCE for pod in pods)


def deadline_exceeded(workload: Body | None) -> str:
    """Return why a rollout missed its deadline, in the words of the Deployment's controller; "" if it did not."""
    conditions = ((workload or {}).get("status") or {}).get("conditions") or ()
    for condition in conditions:
        if condition["type"] == "Progressing" and condition.get("reason") == "ProgressDeadlineExceeded":
            return str(condition.get("message") or "the progress deadline has passed")
    return ""


def _shorter_than_the_start(observed: Observation) -> str:
    asked, model = observed.deployment.spec.rollout.progress_deadline_seconds, observed.planning.model
    if asked is None or model is None or asked >= (most := startup_seconds(model)):
        return ""
    return f"; spec.rollout.progressDeadlineSeconds={asked} is less than the {most} s that the model may take to start"


def _late_group(observed: Observation, state: RolloutProgress) -> str:
    """Return why a LeaderWorkerSet missed the deadline, which its controller does not have."""
    deployment, model = observed.deployment, observed.planning.model
    before = {c.type: c for c in deployment.status.conditions}.get(ConditionType.PROGRESSING)
    active = deployment.status.active_revision
    if before is None or model is None or active is None or active.plan_hash != state.running_hash:
        return ""
    since = [pod.ready_since for pod in observed.pods if pod.revision == state.revision and pod.ready_since]
    passed = before.reason == Reason.PROGRESS_DEADLINE_EXCEEDED
    if before.status != "True" and not passed:
        return ""
    begin = max(map(_time, filter(None, (*since, before.last_transition_time, deployment.status.plan_adoption_time))))
    limit = progress_deadline_seconds(deployment.spec.rollout.progress_deadline_seconds, startup_seconds(model))
    still = passed and begin <= _time(before.last_transition_time)
    if not still and (observed.now - begin).total_seconds() <= limit:
        return ""
    return f"no replica became ready for {limit} s" + _shorter_than_the_start(observed)


def late_rollout(
    deployment: LLMDeployment,
    plan: PlanStatus | None,
    workload: Body | None,
    pods: Iterable[PodState] = (),
    now: datetime | None = None,
) -> str:
    """Return why the rollout of a plan missed its deadline; "" if it did not, or the workload has another plan.

    Args:
        deployment: The LLMDeployment, with its last status.
        plan: The plan in the status.
        workload: The workload that runs the pods.
        pods: The pods, if they are known: time in a queue does not count.
        now: The current time, with ``pods``.
    """
    live = workload or {}
    if workload is not None and now is not None and waits_in_queue(workload, pods, now):
        return ""
    running = (live.get("metadata", {}).get("labels") or {}).get(PLAN_LABEL)
    if plan is None or running != plan.hash:
        return ""
    if live.get("kind") != "LeaderWorkerSet":
        return deadline_exceeded(workload)
    known = {c.type: c for c in deployment.status.conditions}.get(ConditionType.PROGRESSING)
    active = deployment.status.active_revision
    same = known is not None and active is not None and active.plan_hash == plan.hash
    return known.message if same and known is not None and known.reason == Reason.PROGRESS_DEADLINE_EXCEEDED else ""


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
