"""Writes children that differ, and backs off from writes that are refused or undone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from energylens.clock import Clock
from energylens.cluster.errors import BusyError, ClusterError, ForbiddenError, NotFoundError, RefusedError
from energylens.cluster.managers import managers_of
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import INFERENCE_POOL, RESOURCE_CLAIM_TEMPLATE, resource_of
from energylens.controller.backoff import Backoff
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.state.store import Body, Child, ChildKey, Key, Store
from energylens.decide.deployment.pods.applied import differences, holds
from energylens.decide.deployment.pods.replaced import rejected
from energylens.decide.deployment.pods.workloads import WORKLOADS
from energylens.decide.reasons import Reason
from energylens.records import dataclass
from energylens.serving.metadata import APPLIED_HASH, OWNER_LABEL

RETRY_SECONDS, MOST_RETRY_SECONDS = 1.0, 60.0
"""Longest wait, s, between attempts of a refused or failing write: a lifted policy is noticed within a minute."""
REPAIR_SECONDS, MOST_REPAIR_SECONDS = 2.0, 300.0
"""Waits, s, between repairs of a child that another writer changes each time; the first two repairs are immediate."""
CONTESTED_AFTER = 3
"""Consecutive repairs after which Degraded names the other writer."""
QUIET_SECONDS = 60.0
"""A child without foreign changes for this long, and for two pauses, is no longer contested."""
SETTLED_SECONDS = 60.0
"""A contested child that stays as written for this long counts as reliable again."""
UNNEEDED = (INFERENCE_POOL.kind,)
"""Children without which pods and Service are whole, so that earlier workloads may go."""
NEEDED_BY_OTHERS = (*WORKLOADS, RESOURCE_CLAIM_TEMPLATE.kind)
"""Children without which those written after them are not useful."""
SERVING = (*WORKLOADS, "Service")
"""Children that must be as written for requests to be answered."""


@dataclass(frozen=True)
class Written:
    """Result of the writes of one reconcile."""

    refused: str = ""
    """Why children were not written; "" if all were, or need not be."""
    reason: Reason = Reason.APPLY_REFUSED
    complete: bool = True
    """Whether all children are there that pods and Service need."""
    contested: str = ""
    """Field manager that repeatedly changes a field of a child, and the field; "" if none does."""
    unsettled: str = ""
    """Why a child that serves requests differs from its manifest, or may soon; "" if none does."""
    again_seconds: float | None = None
    """Seconds until the next reconcile; None if only a change triggers one."""


@dataclass(frozen=True)
class _Refusal:
    digest: str
    text: str
    reason: Reason


class ChildWriter:
    """Server-side apply of children."""

    def __init__(self, cluster: ClusterPort, store: Store, clock: Clock, metrics: Metrics) -> None:
        """Write through ``cluster`` the children that ``store`` lacks."""
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._retries: Backoff[ChildKey] = Backoff(RETRY_SECONDS, MOST_RETRY_SECONDS)
        self._repairs: Backoff[ChildKey] = Backoff(REPAIR_SECONDS, MOST_REPAIR_SECONDS, free_tries=1)
        self._refusals: dict[ChildKey, _Refusal] = {}
        self._contested: dict[ChildKey, str] = {}
        self._of: dict[Key, set[ChildKey]] = {}
        self._held: dict[ChildKey, str] = {}
        """Digest of the manifest that a child was last found to match."""
        self._awaiting: set[ChildKey] = set()
        """Children that another writer changed and that were not rewritten yet."""

    async def apply(self, key: Key, manifests: Sequence[Body]) -> Written:
        """Write the children that differ, in order; never raises a ClusterError.

        A workload that is not written ends it: what stands beside the pods belongs to the pods that run. So does a
        ResourceClaimTemplate, without which no pod starts.
        """
        refused: list[_Refusal] = []
        complete = True
        self._of.setdefault(key, set()).update(map(_child_key, manifests))
        for manifest in manifests:
            refusal = await self._apply_one(manifest)
            if refusal is None:
                continue
            refused.append(refusal)
            complete = complete and manifest["kind"] in UNNEEDED
            if refusal.reason is not Reason.APPLY_REFUSED or manifest["kind"] in NEEDED_BY_OTHERS:
                break
        children = [_child_key(manifest) for manifest in manifests]
        contested = [text for child in children if (text := self._contested.get(child))]
        now = self._clock.monotonic()
        waits = [self._retries.wait(child, now) for child in children if child in self._refusals]
        waits += [self._next_repair(child, now) for child in children if self._repairs.count(child)]
        return Written(
            refused="; ".join(refusal.text for refusal in refused),
            reason=refused[0].reason if refused else Reason.APPLY_REFUSED,
            complete=complete,
            contested="; ".join(contested),
            unsettled="; ".join(text for child in children if (text := self._unsettled(child, now))),
            again_seconds=min(waits, default=None),
        )

    def live(self, key: Key) -> tuple[Mapping[str, Any] | None, ...]:
        """Return the current children of a deployment; None for a child that does not exist."""
        found = (self._store.children.get(child) for child in sorted(self._of.get(key, ())))
        return tuple(None if child is None else child.body for child in found)

    def removed(self, child: ChildKey) -> None:
        """Forget the state of a child that the operator deleted.

        Its re-creation does not count as a repair, and does not wait because a change of the deleted child was refused.
        """
        self._held.pop(child, None)
        self._refusals.pop(child, None)
        self._retries.forget(child)

    def forget(self, key: Key) -> None:
        """Forget the children of a deleted deployment."""
        for child in self._of.pop(key, set()):
            self._refusals.pop(child, None)
            self._contested.pop(child, None)
            self._held.pop(child, None)
            self._awaiting.discard(child)
            self._retries.forget(child)
            self._repairs.forget(child)

    async def _apply_one(self, manifest: Body) -> _Refusal | None:
        """Write one child if it differs; return why it was not written."""
        child, digest = _child_key(manifest), manifest["metadata"]["annotations"][APPLIED_HASH]
        live, now = self._store.children.get(child), self._clock.monotonic()
        if live is not None and (live.verified == digest or holds(live.body, manifest)):
            live.verified = self._held[child] = digest
            self._written(child, now)
            return None
        known = self._refusals.get(child)
        if known is not None and known.digest == digest and self._retries.wait(child, now) > 0:
            return known
        undone = self._held.get(child) == digest
        if undone:
            self._awaiting.add(child)
            self._settle(child, now)
            if self._repairs.wait(child, now) > 0:
                return None
        try:
            if await self._is_foreign(manifest, live):
                name = f"{manifest['kind']} {manifest['metadata']['name']}"
                text = f"{name} exists and does not belong to this LLMDeployment: rename one of the two; retrying"
                return self._refuse(child, _Refusal(digest, text, Reason.APPLY_REFUSED))
            if undone:
                await self._count_repair(child, manifest, live)
            self._metrics.writes.labels(manifest["kind"]).inc()
            answer = await self._cluster.apply(manifest)
        except ClusterError as error:
            for_good = isinstance(error, RefusedError | ForbiddenError)
            reason = Reason.APPLY_REFUSED if for_good else Reason.API_SERVER_ERROR
            unserved = await self._unserved(manifest, error)
            if unserved:
                reason = Reason.APPLY_REFUSED
            hint = _of_kueue(manifest, live, str(error)) if for_good else ""
            text = f"{manifest['kind']} {manifest['metadata']['name']}: {unserved or error}{hint}; retrying"
            at_least = error.retry_after_seconds if isinstance(error, BusyError) else 0.0
            return self._refuse(child, _Refusal(digest, text, reason), at_least)
        self._store.put_child(manifest["kind"], answer, deleted=False)
        written = self._store.children.get(child)
        if written is not None and holds(written.body, manifest):
            written.verified = self._held[child] = digest
        self._written(child, now)
        return None

    async def _unserved(self, manifest: Body, error: ClusterError) -> str:
        """Return that the API server lacks the kind of a child, if that is why a write failed; "" if it is not."""
        resource = resource_of(manifest)
        try:
            if not isinstance(error, NotFoundError) or await self._cluster.serves(resource):
                return ""
        except ClusterError:
            return ""
        return f"the API server does not serve {resource.plural} of {resource.api_version}; install its definition"

    def _refuse(self, child: ChildKey, refusal: _Refusal, at_least: float = 0.0) -> _Refusal:
        known = self._refusals.get(child)
        if known is not None and known.digest != refusal.digest:
            self._retries.forget(child)
        self._refusals[child] = refusal
        self._retries.tried(child, self._clock.monotonic(), at_least=at_least)
        return refusal

    def _written(self, child: ChildKey, now: float) -> None:
        self._awaiting.discard(child)
        self._refusals.pop(child, None)
        self._retries.forget(child)
        self._settle(child, now)

    def _settle(self, child: ChildKey, now: float) -> None:
        """End a contest that is over."""
        if self._repairs.count(child) and self._repairs.quiet(child, now) >= self._repairs.pause(child, QUIET_SECONDS):
            self._repairs.forget(child)
            self._contested.pop(child, None)

    def _next_repair(self, child: ChildKey, now: float) -> float:
        """Return the seconds until the next repair is due, or until the contest or a part of it ends."""
        quiet = self._repairs.quiet(child, now)
        over = self._repairs.pause(child, QUIET_SECONDS) - quiet
        due = self._repairs.wait(child, now) if child in self._awaiting else 0.0
        if due:
            return due
        return max(1.0, min(over, SETTLED_SECONDS - quiet) if quiet < SETTLED_SECONDS else over)

    def _unsettled(self, child: ChildKey, now: float) -> str:
        if child[0] not in SERVING:
            return ""
        contested = self._contested.get(child, "")
        if child in self._awaiting:
            return contested or f"another client changed {child[0]} {child[2]}; the operator restores it within seconds"
        # A program that undid the write this often may do so again immediately.
        return contested if contested and self._repairs.quiet(child, now) < SETTLED_SECONDS else ""

    async def _count_repair(self, child: ChildKey, manifest: Body, live: Child | None) -> None:
        """Count a repair, and name the other writer after enough repairs."""
        self._repairs.tried(child, self._clock.monotonic())
        if self._repairs.count(child) < CONTESTED_AFTER:
            return
        name = f"{child[0]} {child[2]}"
        slower = f"the operator restores it at intervals that grow to {MOST_REPAIR_SECONDS:.0f} s"
        if live is None:
            self._contested[child] = f"another client deletes {name} whenever the operator creates it; {slower}"
            return
        paths = differences(live.body, manifest)
        found = await self._cluster.list_objects(resource_of(manifest), namespace=child[1], name=child[2])
        managed = found[0]["metadata"].get("managedFields") if found else None
        managers = managers_of(managed or (), paths)
        who = f"field manager {', '.join(managers)}" if managers else "another field manager"
        shown = ", ".join(".".join(path) for path in paths[:3]) or "its fields"
        self._contested[child] = f"{name}: {who} repeatedly changes {shown}; {slower}"

    async def _is_foreign(self, manifest: Body, live: Child | None) -> bool:
        """Return whether an object of another owner has the name of a child; an apply would take it over.

        That may be the child of another LLMDeployment, which the store knows.
        """
        if live is not None:
            return _belongs_to_another(live.body, manifest)
        metadata = manifest["metadata"]
        for found in await self._cluster.list_objects(
            resource_of(manifest), namespace=metadata["namespace"], name=metadata["name"]
        ):
            return _belongs_to_another(found, manifest)
        return False


def _belongs_to_another(found: Mapping[str, Any], manifest: Body) -> bool:
    (owner,) = manifest["metadata"]["ownerReferences"]
    labels = found["metadata"].get("labels") or {}
    owners = [reference.get("uid") for reference in found["metadata"].get("ownerReferences") or ()]
    return owner["uid"] not in owners and labels.get(OWNER_LABEL) != manifest["metadata"]["labels"][OWNER_LABEL]


def _of_kueue(manifest: Body, live: Child | None, text: str) -> str:
    """Return how to get a change past Kueue, if its webhooks rejected the change of a workload; else ""."""
    if live is None or not rejected(live.body, manifest) or "denied" not in text:
        return ""
    return "; the operator replaces the object once no replica is ready: set spec.suspend until the pods are gone"


def _child_key(manifest: Body) -> ChildKey:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata["namespace"], metadata["name"]
