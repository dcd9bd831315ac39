"""The API server of pass_cost.py: keeps objects as JSON text, and lets pods be scheduled and become ready."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from energylens.cluster.errors import NotFoundError
from energylens.cluster.port import Identity, Object
from energylens.cluster.resources import EVENT, Resource

GPU = "nvidia.com/gpu"
PRODUCT = "nvidia.com/gpu.product"
ObjectKey = tuple[str, str, str]
"""Kind, namespace and name."""


class MemoryServer:
    """A :class:`~energylens.cluster.port.ClusterPort` with one manager of fields, and nodes and pods beneath it."""

    def __init__(self) -> None:
        """Begin empty."""
        self.objects: dict[ObjectKey, str] = {}
        self.listener: Callable[[str, str, bool], None] = lambda kind, text, deleted: None
        self.calls: Counter[str] = Counter()
        self.writes: Counter[str] = Counter()
        self.spent = 0.0
        """Processor time of the server itself, s."""
        self.heard = 0.0
        """Processor time of the operator's handlers of watch events, s."""
        self._version = 0
        self._free: dict[str, int] = {}
        self._of_product: dict[str, list[str]] = {}
        self._unready: list[ObjectKey] = []

    @contextmanager
    def _serving(self, verb: str, kind: str, *, writes: bool) -> Iterator[None]:
        self.calls[f"{verb} {kind}"] += 1
        if writes:
            self.writes[f"{verb} {kind}"] += 1
        before, heard = time.process_time(), self.heard
        try:
            yield
        finally:
            # The operator's handlers are called in the middle of it.
            self.spent += time.process_time() - before - (self.heard - heard)

    def _tell(self, kind: str, text: str, *, deleted: bool) -> None:
        before = time.process_time()
        self.listener(kind, text, deleted)
        self.heard += time.process_time() - before

    async def list_objects(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        name: str | None = None,
        field_selector: str = "",
    ) -> list[Object]:
        with self._serving("list", resource.kind, writes=False):
            if name is not None and namespace is not None:
                text = self.objects.get((resource.kind, namespace, name))
                return [] if text is None else [json.loads(text)]
            return []

    async def list_identities(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], Identity]:
        raise NotImplementedError

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        with self._serving("get", resource.kind, writes=False):
            return self._read((resource.kind, namespace if resource.namespaced else "", name))

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        with self._serving("apply", manifest["kind"], writes=True):
            key = _key(manifest)
            old = self._read(key) if key in self.objects else {}
            live = json.loads(json.dumps({**manifest, **{k: old[k] for k in ("status",) if k in old}}))
            answer = self._store(key, live, old)
        if key[0] == "Deployment" and not old:
            self._unready.append(key)
        return answer

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        with self._serving("apply status of", manifest["kind"], writes=True):
            key = _key(manifest)
            old = self._read(key)
            return self._store(key, {**old, "status": json.loads(json.dumps(manifest["status"]))}, old)

    async def patch_status(self, patch: Mapping[str, Any]) -> Object:
        raise NotImplementedError

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        with self._serving("create", resource.kind, writes=True):
            if resource is EVENT:
                return dict(manifest)
            raise NotImplementedError

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        raise NotImplementedError

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        with self._serving("delete", resource.kind, writes=True):
            text = self.objects.pop((resource.kind, namespace, name))
            self._tell(resource.kind, text, deleted=True)

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        raise NotImplementedError

    async def may(self, verb: str, resource: Resource, subresource: str = "", *, namespace: str | None = None) -> bool:
        raise NotImplementedError

    async def serves(self, resource: Resource) -> bool:
        raise NotImplementedError

    def put(self, manifest: Mapping[str, Any]) -> None:
        """Create an object as a user does; of nodes those with GPUs, which are ready."""
        key, body = _key(manifest), json.loads(json.dumps(manifest))
        if key[0] == "Node":
            gpus = body["status"]["allocatable"].get(GPU)
            if gpus is None:
                return
            body["status"]["conditions"] = [{"type": "Ready", "status": "True"}]
            self._free[key[2]] = int(gpus)
            self._of_product.setdefault(body["metadata"]["labels"][PRODUCT], []).append(key[2])
        self._store(key, body, {})

    def run_pods(self) -> None:
        """Let the pods of every new Deployment run where there is room."""
        keys, self._unready = self._unready, []
        for key in keys:
            body = self._read(key)
            replicas = body["spec"]["replicas"]
            ready = sum(self._run_pod(key, f"{key[2]}-{index}", body) for index in range(replicas))
            status = {
                "observedGeneration": body["metadata"]["generation"],
                "replicas": replicas,
                "updatedReplicas": replicas,
                "readyReplicas": ready,
                "availableReplicas": ready,
            }
            self._store(key, {**body, "status": status}, body)

    def _run_pod(self, owner: ObjectKey, name: str, body: Object) -> bool:
        template = body["spec"]["template"]
        terms = template["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        products = [
            value
            for term in terms["nodeSelectorTerms"]
            for expression in term["matchExpressions"]
            if expression["key"] == PRODUCT
            for value in expression.get("values", ())
        ]
        wanted = _gpus(template["spec"])
        host = next((n for p in products for n in self._of_product[p] if self._free[n] >= wanted), "")
        if not host:
            return False
        self._free[host] -= wanted
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": owner[1],
                "labels": template["metadata"]["labels"],
                "ownerReferences": [{"kind": "ReplicaSet", "name": owner[2], "uid": body["metadata"]["uid"]}],
            },
            "spec": {**template["spec"], "nodeName": host},
            "status": {
                "phase": "Running",
                "conditions": [
                    {"type": "PodScheduled", "status": "True"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T00:00:00Z"},
                ],
            },
        }
        self._store(("Pod", owner[1], name), pod, {})
        return True

    def _read(self, key: ObjectKey) -> Object:
        try:
            found: Object = json.loads(self.objects[key])
        except KeyError:
            raise NotFoundError(f"{key} not found") from None
        return found

    def _store(self, key: ObjectKey, body: Object, old: Object) -> Object:
        before = old.get("metadata", {})
        metadata = body["metadata"]
        if old and {**body, "metadata": before} == old:
            return old
        metadata["uid"] = before.get("uid") or f"uid-{len(self.objects)}-{self._version}"
        metadata["generation"] = int(before.get("generation", 0)) + (old.get("spec") != body.get("spec"))
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        text = self.objects[key] = json.dumps(body)
        self._tell(key[0], text, deleted=False)
        return json.loads(text)


def _gpus(spec: Mapping[str, Any]) -> int:
    return sum(int(c.get("resources", {}).get("limits", {}).get(GPU, 0)) for c in spec["containers"])


def _key(manifest: Mapping[str, Any]) -> ObjectKey:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]
