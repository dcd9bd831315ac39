"""The watched objects of dynamic resource allocation, found by the node whose GPUs they are about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import field
from typing import Any

from energylens.decide.trimmed import shared, trim_claim, trim_class, trim_slice, trim_taint_rule
from energylens.planner.inventory.devices import allocated_by, node_of_slice, pool_of_slice
from energylens.planner.inventory.snapshot import DeviceObjects
from energylens.records import dataclass

Body = dict[str, Any]
Key = tuple[str, str]
"""Namespace ("" for cluster-scoped objects) and name."""
SLICE, CLAIM, CLASS, TAINT_RULE = "ResourceSlice", "ResourceClaim", "DeviceClass", "DeviceTaintRule"
_TRIM: Mapping[str, Callable[[Mapping[str, Any]], Body]] = {
    SLICE: trim_slice,
    CLAIM: trim_claim,
    CLASS: trim_class,
    TAINT_RULE: trim_taint_rule,
}


@dataclass
class DeviceStore:
    """ResourceSlices, ResourceClaims, DeviceClasses and DeviceTaintRules."""

    bodies: dict[str, dict[Key, Body]] = field(default_factory=lambda: {kind: {} for kind in _TRIM})
    """Trimmed objects by kind."""
    _slices_of: dict[str, set[Key]] = field(default_factory=dict)
    """Slices by node."""
    _claims_on: dict[str, set[Key]] = field(default_factory=dict)
    """Claims by the pools of their devices."""
    _nodes_of: dict[str, dict[Key, str]] = field(default_factory=dict)
    """Nodes by pool, with the slice that says so."""

    def put(self, kind: str, key: Key, body: Mapping[str, Any] | None) -> frozenset[str]:
        """Take an object, or None for one that was deleted; return the nodes whose GPUs may differ now."""
        known = self.bodies[kind]
        new = None if body is None else shared(_TRIM[kind](body))
        old = known.get(key)
        if new == old:
            return frozenset()
        if new is None:
            del known[key]
        else:
            known[key] = new
        if kind in (CLASS, TAINT_RULE):
            return frozenset(node for node, slices in self._slices_of.items() if slices)
        index = self._index_slice if kind == SLICE else self._index_claim
        return frozenset((*index(key, old, is_there=False), *index(key, new, is_there=True)))

    def of(self, node: str) -> DeviceObjects:
        """Return the objects about the GPUs of one node."""
        slices = [self.bodies[SLICE][key] for key in sorted(self._slices_of.get(node, ()))]
        if not slices:
            return DeviceObjects()
        pools = {pool_of_slice(body) for body in slices}
        claims = sorted({key for pool in pools for key in self._claims_on.get(pool, ())})
        return DeviceObjects(
            slices,
            [self.bodies[CLAIM][key] for key in claims],
            [body for _, body in sorted(self.bodies[CLASS].items())],
            [body for _, body in sorted(self.bodies[TAINT_RULE].items())],
        )

    def _index_slice(self, key: Key, body: Body | None, *, is_there: bool) -> Iterable[str]:
        node = "" if body is None else node_of_slice(body)
        if body is None or not node:
            return ()
        _note(self._slices_of, node, key, is_there=is_there)
        nodes = self._nodes_of.setdefault(pool_of_slice(body), {})
        if is_there:
            nodes[key] = node
        else:
            nodes.pop(key, None)
        return (node,)

    def _index_claim(self, key: Key, body: Body | None, *, is_there: bool) -> Iterable[str]:
        allocated = None if body is None else allocated_by(body)
        pools = set() if allocated is None else {pool for pool, _ in allocated.devices}
        for pool in pools:
            _note(self._claims_on, pool, key, is_there=is_there)
        return [node for pool in pools for node in self._nodes_of.get(pool, {}).values()]


def _note(index: dict[str, set[Key]], name: str, key: Key, *, is_there: bool) -> None:
    keys = index.setdefault(name, set())
    if is_there:
        keys.add(key)
    else:
        keys.discard(key)
    if not keys:
        del index[name]
