"""Objects that are read only on demand instead of watched: volume claims, and events about pods that do not start."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.timestamp import timestamp
from energylens.cluster.errors import ForbiddenError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import EVENT, OLDER_WORKLOAD, PERSISTENT_VOLUME_CLAIM, WORKLOAD
from energylens.decide.deployment.observed.observation import Body, PodState
from energylens.decide.deployment.pods.workloads import group_size, workload_revision
from energylens.serving.claims import NO_CLAIMS, Claims, access_modes, claim_fields

SLOW_START = timedelta(seconds=30)
"""Seconds after which a bound pod without a container waits for more than its sandbox, most often for a volume."""
REPEATED = timedelta(minutes=20)
"""Longest interval, s, at which a StatefulSet's controller retries and reports it (client-go's default rate limiter).
"""
KUEUE_JOB = "kueue.x-k8s.io/job-uid"
"""Label of Kueue's Workloads: uid of the pod, or of the LeaderWorkerSet, that they are about."""
NOT_FOR_QUOTA = ("Inadmissible", "Misconfigured", "Suspended", "AdmissionGated")
"""Reasons of Kueue's condition QuotaReserved that no quota ends (``apis/kueue/v1beta2/workload_types.go``)."""
_MOST = 3
"""Most pods whose events are read in one pass."""


async def read_claims(cluster: ClusterPort, deployment: LLMDeployment) -> Claims:
    """Return the access modes of the volume claims that a deployment's pods mount.

    Raises:
        ClusterError: They cannot be read for a reason that may pass.
    """
    modes: dict[str, tuple[str, ...]] = {}
    for name in sorted(claim_fields(deployment)):
        try:
            found = await cluster.get(PERSISTENT_VOLUME_CLAIM, deployment.metadata.namespace, name)
        except NotFoundError:
            # The scheduler reports this for the pods.
            continue
        except ForbiddenError as error:
            return Claims(modes, f"whether claim {name} may be shared is not known: {error}")
        modes[name] = access_modes(found)
    return Claims(modes) if modes else NO_CLAIMS


def lacks_pods(workload: Body | None, pods: Iterable[PodState]) -> bool:
    """Return whether a LeaderWorkerSet has too few pods; its events say why, its status does not."""
    if workload is None or workload["kind"] != "LeaderWorkerSet":
        return False
    revision = workload_revision(workload)
    there = sum(pod.revision == revision and not pod.finished for pod in pods)
    return there < int(workload["spec"].get("replicas") or 0) * group_size(workload)


def slow_pods(pods: Iterable[PodState], now: datetime) -> list[str]:
    """Return the names of pods that have a node but no container after some time."""
    waiting = [pod for pod in pods if pod.creating and pod.created]
    return [pod.name for pod in waiting if now - datetime.fromisoformat(pod.created) > SLOW_START]


async def why_no_pods(cluster: ClusterPort, workload: Body, now: datetime) -> tuple[str, str]:
    """Return why the StatefulSets of a LeaderWorkerSet cannot create pods, and why their events cannot be read.

    Either is "" where it is not so.

    Raises:
        ClusterError: They cannot be read for a reason that may pass.
    """
    metadata = workload["metadata"]
    name = metadata["name"]
    since = max(metadata.get("creationTimestamp", ""), timestamp(now - REPEATED))
    fields = "reason=FailedCreate,regarding.kind=StatefulSet"
    try:
        found = await cluster.list_objects(EVENT, namespace=metadata["namespace"], field_selector=fields)
    except ForbiddenError as error:
        return "", f"pods are missing, and events, which may say why, cannot be read: {error}"
    # The StatefulSets of the leaders, and of each group's followers.
    about = [
        event
        for event in found
        if _is_of(name, (event.get("regarding") or {}).get("name", "")) and _told_at(event) >= since
    ]
    return (f"FailedCreate: {_last(about)}" if about else ""), ""


async def why_slow(cluster: ClusterPort, namespace: str, names: Iterable[str]) -> dict[str, str]:
    """Return the last warning about each of some pods, such as a volume that cannot be mounted.

    Raises:
        ClusterError: They cannot be read for a reason that may pass.
    """
    told = {}
    for name in list(names)[:_MOST]:
        fields = f"type=Warning,regarding.kind=Pod,regarding.name={name}"
        try:
            found = await cluster.list_objects(EVENT, namespace=namespace, field_selector=fields)
        except ForbiddenError:
            return {}
        # It was scheduled since.
        found = [event for event in found if event.get("reason") != "FailedScheduling"]
        if found:
            last = max(found, key=_told_at)
            told[name] = f"{last.get('reason', '')}: {last.get('note', '')}"
    return told


async def why_queued(cluster: ClusterPort, namespace: str, uids: Iterable[str]) -> tuple[str, bool]:
    """Return what Kueue says about pods that it does not admit, and whether they may wait for quota of older pods.

    They do not where Kueue says that it cannot admit them at all, as with a queue that is stopped or does not exist
    (:data:`NOT_FOR_QUOTA`), or has reserved quota for them and waits for something else, as a new node. The text is ""
    without Kueue, without the right to read its Workloads, and while it has said nothing.

    Args:
        cluster: Where to ask.
        namespace: Of the pods.
        uids: Of the pods, or of their LeaderWorkerSet.

    Raises:
        ClusterError: The Workloads cannot be read for a reason that may pass.
    """
    elsewhere, said = False, ""
    for uid in list(uids)[:_MOST]:
        try:
            found = await _kueue_workloads(cluster, namespace, uid)
        except (ForbiddenError, NotFoundError):
            return "", True
        for workload in found:
            for condition in (workload.get("status") or {}).get("conditions") or ():
                if condition["type"] != "QuotaReserved":
                    continue
                reserved = condition["status"] == "True"
                text = "" if reserved else str(condition.get("message") or "")
                if not reserved and condition.get("reason") not in NOT_FOR_QUOTA:
                    return text, True
                elsewhere, said = True, said or text
    return said, not elsewhere


async def _kueue_workloads(cluster: ClusterPort, namespace: str, uid: str) -> Sequence[Body]:
    """Return Kueue's Workloads about a pod or a LeaderWorkerSet, in the version that the cluster serves.

    Raises:
        NotFoundError: The cluster serves neither version.
        ClusterError: They cannot be read for another reason.
    """
    selector = f"{KUEUE_JOB}={uid}"
    try:
        return await cluster.list_objects(WORKLOAD, namespace=namespace, label_selector=selector)
    except NotFoundError:
        return await cluster.list_objects(OLDER_WORKLOAD, namespace=namespace, label_selector=selector)


def _is_of(workload: str, stateful_set: str) -> bool:
    return stateful_set == workload or (
        stateful_set.startswith(f"{workload}-") and stateful_set[len(workload) + 1 :].isdigit()
    )


def _last(events: Iterable[Mapping[str, Any]]) -> str:
    return str(max(events, key=_told_at).get("note", ""))


def _told_at(event: Mapping[str, Any]) -> str:
    """Return when an event last occurred, as RFC 3339 text to the second, which compares as text."""
    series = event.get("series") or {}
    time = series.get("lastObservedTime") or event.get("deprecatedLastTimestamp") or event.get("eventTime") or ""
    return f"{time[:19]}Z" if time else ""
