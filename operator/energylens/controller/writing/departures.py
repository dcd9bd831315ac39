"""Removal of objects: earlier workloads after a handover, replicas of other roles, and what no pods need any more."""

from __future__ import annotations

from energylens.cluster.errors import ClusterError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import INFERENCE_POOL, POD_DISRUPTION_BUDGET, RESOURCE_CLAIM_TEMPLATE, resource_of
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.state.store import Key, Store
from energylens.controller.writing.child_writer import ChildWriter
from energylens.decide.deployment.observed.observation import Body
from energylens.decide.deployment.pods.children import Children
from energylens.decide.deployment.pods.handover import Handover
from energylens.serving.metadata import OWNER_LABEL


class Departures:
    """Scales down and deletes objects that a pass no longer wants."""

    def __init__(self, cluster: ClusterPort, store: Store, writer: ChildWriter, metrics: Metrics) -> None:
        """Write through ``cluster`` about the objects of ``store``; ``writer`` forgets what is deleted."""
        self._cluster = cluster
        self._store = store
        self._writer = writer
        self._metrics = metrics

    async def let_go(self, key: Key, wanted: Children, *, all_written: bool) -> str:
        """Remove objects that are no longer wanted; return why that failed, or "".

        Args:
            key: The LLMDeployment.
            wanted: What should be.
            all_written: Every child that pods and Service need is there; else the workload of the previous plan stays.
        """
        try:
            for body in wanted.replaced:
                await self._delete(key, dict(body))
            if all_written and wanted.handover is not None:
                await self._hand_over(key, wanted.handover)
            for body in self._store.canaries(key):
                if (body["kind"], body["metadata"]["name"]) != wanted.canary:
                    await self._delete(key, body)
            prefill = self._store.prefill(key)
            if wanted.drops_prefill and prefill is not None:
                await self._delete(key, prefill)
            if wanted.unguarded:
                await self._unguard(key)
            if wanted.acting:
                await self._drop_pool(key, wanted)
            if all_written and wanted.acting:
                await self._drop_claim_templates(key, wanted)
        except _NotDoneError as error:
            return str(error)
        return ""

    async def _hand_over(self, key: Key, step: Handover) -> None:
        """Scale down or remove the Deployment where the plan now needs a LeaderWorkerSet, or the other way round."""
        manifest, kind = step.manifest, step.body["kind"]
        if manifest is None and step.replicas > 0:
            return
        if manifest is None:
            await self._delete(key, step.body)
            return
        self._metrics.writes.labels(kind).inc()
        try:
            self._store.put_child(kind, await self._cluster.apply(manifest), deleted=False)
        except ClusterError as error:
            raise _NotDoneError(step.body, error) from error

    async def _unguard(self, key: Key) -> None:
        """Delete the PodDisruptionBudget of an earlier plan with more pods; one of another owner has other labels."""
        child = self._store.children.get((POD_DISRUPTION_BUDGET.kind, *key))
        if child is not None and (child.body["metadata"].get("labels") or {}).get(OWNER_LABEL) == key[1]:
            await self._delete(key, child.body)

    async def _drop_pool(self, key: Key, wanted: Children) -> None:
        """Delete the InferencePool that the spec no longer asks for; one of another owner has other labels."""
        child = self._store.children.get((INFERENCE_POOL.kind, *key))
        if child is None or any(manifest["kind"] == INFERENCE_POOL.kind for manifest in wanted.manifests):
            return
        if (child.body["metadata"].get("labels") or {}).get(OWNER_LABEL) == key[1]:
            await self._delete(key, child.body)

    async def _drop_claim_templates(self, key: Key, wanted: Children) -> None:
        """Delete the ResourceClaimTemplates of earlier plans whose pods are gone.

        While an old pod exists, the controller of its workload may create it again.
        """
        kept = self._store.claim_templates(key)
        if not kept:
            return
        needed = {m["metadata"]["name"] for m in wanted.manifests if m["kind"] == RESOURCE_CLAIM_TEMPLATE.kind}
        for pod in self._store.pods_owned(key):
            needed |= {claim.get("resourceClaimTemplateName") for claim in pod["spec"].get("resourceClaims", ())}
        for body in kept:
            if body["metadata"]["name"] not in needed:
                await self._delete(key, body)

    async def _delete(self, key: Key, body: Body) -> None:
        kind, metadata = body["kind"], body["metadata"]
        child = kind, key[0], metadata["name"]
        self._metrics.writes.labels(kind).inc()
        try:
            await self._cluster.delete(resource_of(body), key[0], metadata["name"], metadata["uid"])
        except ClusterError as error:
            raise _NotDoneError(body, error) from error
        self._store.drop_child(*child)
        self._writer.removed(child)


class _NotDoneError(Exception):
    """A write failed; the message is for condition Degraded."""

    def __init__(self, body: Body, error: ClusterError) -> None:
        super().__init__(f"{body['kind']} {body['metadata']['name']}: {error}; retrying")
