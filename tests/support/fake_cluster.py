"""An API server in memory, for tests that break it: what the operator wrote, and how often, is known exactly.

Server-side apply is as faithful as our manifests need: fields that our manager applied before and no longer applies
are removed, all others stay; lists of objects with a ``name`` are merged by it, those of a status by the keys that the
custom resources name (conditions by ``type``, a ledger by ``uid``), other lists are replaced as a whole; an apply that
changes nothing makes no new resource version. Deleting an object collects what it owns. What this leaves out
(validation, defaults, admission) is tested on a real API server, in tests/controlplane.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from energylens.cluster.errors import ClusterError, ConflictError, NotFoundError, error_for
from energylens.cluster.port import Identity, Object
from energylens.cluster.resources import EVENT, LLM_DEPLOYMENT, Resource, resource_of
from energylens.cluster.undeclared import ELEMENT, Path, without

ObjectKey = tuple[str, str, str]
"""Kind, namespace ("" for cluster-scoped objects) and name."""
Copied = TypeVar("Copied")
Listener = Callable[[str, Object, bool], None]
"""Takes kind, object and whether it was deleted."""

_STATUS_KEYS = {"conditions": "type", "ledger": "uid"}
"""Keys of the lists of statuses that an apply merges."""


def clone(body: Copied) -> Copied:
    """Return a copy with dictionaries and lists of its own, in a third of the time of ``copy.deepcopy``."""
    copied: Copied = _clone(body)
    return copied


def _clone(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _clone(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_clone(part) for part in value]
    return value


@dataclass(frozen=True)
class Write:
    """One write of the operator that the server carried out."""

    verb: str
    key: ObjectKey
    changed: bool


@dataclass
class FakeCluster:
    """A :class:`~energylens.cluster.port.ClusterPort`."""

    objects: dict[ObjectKey, Object] = field(default_factory=dict)
    served: set[str] = field(default_factory=set)
    """Kinds beyond the built-in ones, such as LeaderWorkerSet."""
    withheld: dict[str, ClusterError] = field(default_factory=dict)
    """Kinds that cannot be listed, and why; NotFoundError takes them from discovery too."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """Rights that are not granted: a verb, and a plural with its subresource."""
    undeclared: Mapping[str, frozenset[Path]] = field(default_factory=dict)
    """By kind: fields of statuses that the schema of an older CustomResourceDefinition does not have."""
    writes: list[Write] = field(default_factory=list)
    """What the operator wrote; events and what users and nodes do are not in it."""
    events: list[Object] = field(default_factory=list)
    listeners: list[Listener] = field(default_factory=list)
    _applied: dict[tuple[ObjectKey, str], Object] = field(default_factory=dict)
    _version: int = 100
    _uids: int = 0

    # What the operator asks for.

    async def list_objects(
        self,
        resource: Resource,
        *,
        namespace: str | None = None,
        label_selector: str = "",
        name: str | None = None,
        field_selector: str = "",
    ) -> list[Object]:
        wanted = dict(term.split("=", 1) for term in label_selector.split(",") if term)
        fields = dict(term.split("=", 1) for term in field_selector.split(",") if term)
        return [
            clone(body)
            for (kind, space, called), body in sorted(self.objects.items())
            if kind == resource.kind
            and name in (None, called)
            and namespace in (None, space)
            and wanted.items() <= (body["metadata"].get("labels") or {}).items()
            and all(_at(body, path) == value for path, value in fields.items())
        ]

    async def list_identities(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], Identity]:
        if resource.kind in self.withheld:
            raise self.withheld[resource.kind]
        found = await self.list_objects(resource, namespace=namespace, label_selector=label_selector)
        bodies = [body["metadata"] for body in found]
        return {
            (body.get("namespace", ""), body["name"]): Identity(body["uid"], body["resourceVersion"]) for body in bodies
        }

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        return clone(self._found((resource.kind, namespace if resource.namespaced else "", name)))

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        resource = resource_of(manifest)
        if resource.group == "leaderworkerset.x-k8s.io" and resource.kind not in self.served:
            raise NotFoundError("the server could not find the requested resource")
        key = _key(manifest)
        old = self.objects.get(key)
        before = self._applied.get((key, ""), {})
        live = clone(old) if old is not None else {}
        _apply(live, before, clone(dict(manifest)))
        self._applied[key, ""] = clone(dict(manifest))
        return self._write("apply", key, live)

    async def apply_status(self, manifest: Mapping[str, Any]) -> Object:
        key = _key(manifest)
        live = clone(self._found(key))
        part = {"status": clone(dict(manifest.get("status") or {}))}
        unknown = [path for path in self.undeclared.get(key[0], ()) if without(part, [path]) != part]
        if unknown:
            raise refusal(key, unknown)
        _apply(live, self._applied.get((key, "status"), {}), part, _STATUS_KEYS)
        self._applied[key, "status"] = part
        return self._write("apply status", key, live)

    async def patch_status(self, patch: Mapping[str, Any]) -> Object:
        key = _key(patch)
        live = clone(self._found(key))
        live["status"] = _merge_patch(live.get("status"), patch["status"])
        return self._write("patch status", key, live)

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        key = _key(manifest)
        if resource is EVENT:
            self.events.append(clone(dict(manifest)))
            return clone(dict(manifest))
        if key in self.objects:
            raise ConflictError(f"{key} already exists")
        return self._write("create", key, clone(dict(manifest)))

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        key = _key(manifest)
        version = self._found(key)["metadata"]["resourceVersion"]
        if manifest["metadata"].get("resourceVersion") not in (None, version):
            raise ConflictError(f"{key} has been modified")
        return self._write("replace", key, clone(dict(manifest)))

    async def delete(self, resource: Resource, namespace: str, name: str, uid: str) -> None:
        key = (resource.kind, namespace, name)
        if key not in self.objects:
            return
        if self.objects[key]["metadata"]["uid"] != uid:
            raise ConflictError(f"{key} is another object by now")
        self.writes.append(Write("delete", key, changed=True))
        self._remove(key)

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        if resource.kind in self.withheld:
            raise self.withheld[resource.kind]
        if not await self.serves(resource):
            raise NotFoundError("the server could not find the requested resource")

    async def may(self, verb: str, resource: Resource, subresource: str = "", *, namespace: str | None = None) -> bool:
        return (verb, "/".join(filter(None, (resource.plural, subresource)))) not in self.denied

    async def serves(self, resource: Resource) -> bool:
        if isinstance(self.withheld.get(resource.kind), NotFoundError):
            return False
        return resource.group != "leaderworkerset.x-k8s.io" or resource.kind in self.served

    # What others do.

    def put(self, manifest: Mapping[str, Any]) -> Object:
        """Create an object, or replace its spec, labels and status where the manifest has them."""
        key = _key(manifest)
        live = clone(self.objects.get(key, {}))
        fresh = clone(dict(manifest))
        metadata = {**live.get("metadata", {}), **fresh.get("metadata", {})}
        return self._store(key, {**live, **fresh, "metadata": metadata})[0]

    def edit(self, kind: str, namespace: str, name: str, change: Callable[[Object], None]) -> None:
        """Change an object as another manager."""
        key = (kind, namespace, name)
        live = clone(self._found(key))
        change(live)
        self._store(key, live)

    def remove(self, kind: str, namespace: str, name: str) -> None:
        """Delete an object and everything that it owns."""
        self._remove((kind, namespace, name))

    def children(self, namespace: str = "team") -> dict[ObjectKey, Object]:
        """Return everything in a namespace that some LLMDeployment owns, pods left out."""
        return {
            key: body
            for key, body in self.objects.items()
            if key[1] == namespace
            and any(owner["kind"] == LLM_DEPLOYMENT.kind for owner in body["metadata"].get("ownerReferences") or ())
        }

    # How it is kept.

    def _found(self, key: ObjectKey) -> Object:
        try:
            return self.objects[key]
        except KeyError:
            raise NotFoundError(f"{key} not found") from None

    def _write(self, verb: str, key: ObjectKey, body: Object) -> Object:
        stored, changed = self._store(key, body)
        self.writes.append(Write(verb, key, changed))
        return stored

    def _store(self, key: ObjectKey, body: Object) -> tuple[Object, bool]:
        old = self.objects.get(key)
        metadata = body.setdefault("metadata", {})
        if old is None:
            self._uids += 1
            metadata |= {"uid": f"uid-{self._uids}", "generation": 1}
        else:
            metadata |= {name: old["metadata"][name] for name in ("uid", "resourceVersion", "generation")}
            if body == old:
                return clone(old), False
            if body.get("spec") != old.get("spec"):
                metadata["generation"] = old["metadata"]["generation"] + 1
        self._version += 1
        metadata["resourceVersion"] = str(self._version)
        self.objects[key] = clone(body)
        self._tell(key[0], body, deleted=False)
        return clone(body), True

    def _remove(self, key: ObjectKey) -> None:
        gone = self.objects.pop(key)
        for applied in [applied for applied in self._applied if applied[0] == key]:
            del self._applied[applied]
        self._version += 1
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._tell(key[0], gone, deleted=True)
        uid = gone["metadata"]["uid"]
        for owned in [
            other
            for other, body in self.objects.items()
            if any(owner.get("uid") == uid for owner in body["metadata"].get("ownerReferences") or ())
        ]:
            if owned in self.objects:
                self._remove(owned)

    def _tell(self, kind: str, body: Object, *, deleted: bool) -> None:
        for listener in self.listeners:
            listener(kind, clone(body), deleted)


def refusal(key: ObjectKey, paths: Sequence[Path]) -> ClusterError:
    """Return what a server-side apply is answered when the schema does not have these fields."""
    named = ["." + ".".join(path).replace(f".{ELEMENT}", "[0]") + ": field not declared in schema" for path in paths]
    found = named[0] if len(named) == 1 else "errors:\n  " + "\n  ".join(named)
    text = f"failed to create typed patch object ({key[1]}/{key[2]}; energylens.dev/v1alpha1, Kind={key[0]}): {found}"
    return error_for(500, f"PATCH /{key[2]}/status: 500 {text}", {})


def _at(body: Mapping[str, Any], path: str) -> Any:
    value: Any = body
    for part in path.split("."):
        value = (value or {}).get(part)
    return value


def _key(manifest: Mapping[str, Any]) -> ObjectKey:
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def _apply(live: Any, before: Any, wanted: Any, keys: Mapping[str, str] | None = None, key: str = "name") -> Any:
    """Merge ``wanted`` into ``live`` and drop what ``before`` had and ``wanted`` has not; return the result.

    Lists are merged by ``key``, and where ``keys`` are given by that of their field; lists without one are replaced.
    """
    if isinstance(wanted, dict) and isinstance(live, dict):
        old = before if isinstance(before, dict) else {}
        for name in [name for name in old if name not in wanted]:
            live.pop(name, None)
        for name, value in wanted.items():
            live[name] = _apply(live.get(name), old.get(name), value, keys, key if keys is None else keys.get(name, ""))
        return live
    if _keyed(wanted, key) and _keyed(live, key):
        old_items = {item[key]: item for item in before} if _keyed(before, key) else {}
        live_items = {item[key]: item for item in live}
        merged = {
            item[key]: _apply(live_items.get(item[key]), old_items.get(item[key]), item, keys, key) for item in wanted
        }
        kept = {name: item for name, item in live_items.items() if name not in merged and name not in old_items}
        return [*merged.values(), *kept.values()]
    return wanted


def _merge_patch(live: Any, patch: Any) -> Any:
    """Return ``live`` after a JSON merge patch (RFC 7396)."""
    if not isinstance(patch, dict):
        return clone(patch)
    merged = dict(live) if isinstance(live, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge_patch(merged.get(name), value)
    return merged


def _keyed(value: Any, key: str) -> bool:
    """Return whether a value is a list that is merged by a key."""
    items = value if isinstance(value, list) else ()
    return bool(items) and all(isinstance(item, dict) and isinstance(item.get(key), str) for item in items)
