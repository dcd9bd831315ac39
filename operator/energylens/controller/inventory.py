"""The available GPUs for one deployment: what pods hold, and what plans of others still have to get.

A snapshot of all nodes and pods is made once per change of them, and what each plan lacks is counted again only where
its deployment or its pods changed: with thousands of deployments most passes find nothing to do here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from energylens.controller.store import Body, Key, Store
from energylens.data import load_gpus
from energylens.decide.reservations import Reservation, reservation, reserve
from energylens.planner.inventory.snapshot import snapshot_from_objects
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.serving.metadata import PLAN_SUMMARY


class Inventory:
    """Snapshots of a store."""

    def __init__(self, store: Store) -> None:
        """Read off ``store``."""
        self._store = store
        self._version: int | None = None
        self._base = ClusterSnapshot(())
        self._bound: dict[Key, int] = {}
        self._lacking: dict[Key, Reservation] = {}
        self._seen: dict[Key, tuple[Body, tuple[Mapping[str, Any], ...]]] = {}
        """The deployments and workloads that the reservations were read from; a change makes a new body."""
        self._under_way: dict[Key, Body] = {}

    def adopt(self, key: Key, plan: Body) -> None:
        """Count the plan that a deployment adopted, until its status says so."""
        self._under_way[key] = plan
        self._seen.pop(key, None)

    def settle(self, key: Key) -> None:
        """Say that the status of a deployment has its plan, or that the deployment is gone."""
        if self._under_way.pop(key, None) is not None:
            self._seen.pop(key, None)

    def with_plan(self, key: Key, body: Body) -> Body:
        """Return a deployment with the plan that it holds GPUs and power for, also where its status does not say so.

        That is the plan of the pass that is under way, else the one that its workload was made from: an operator may
        have ended between writing the two, and a plan in status may wait for approval.
        """
        plan = self._under_way.get(key) or self._running(key, body)
        return body if plan is None else {**body, "status": {**body["status"], "plan": plan}}

    def _running(self, key: Key, body: Body) -> Body | None:
        """Return the summary of the workload's plan where that is not the one in status.

        Where a plan moves between one node and several both workloads run: the one of more power counts.
        """
        known = [found for live in self._store.workloads(key).bodies if (found := _summary(live)) is not None]
        held = max(known, key=lambda found: int(found["predicted"]["powerWatts"]), default=None)
        stated = body["status"].get("plan") or {}
        return held if held is not None and held.get("hash") != stated.get("hash") else None

    @property
    def nodes(self) -> tuple[GpuNode, ...]:
        """The nodes with the GPUs that bound pods hold."""
        self._refresh()
        return self._base.nodes

    def snapshot(self, key: Key) -> ClusterSnapshot:
        """Return the nodes with all GPUs that are not for the deployment of this key, and those that its pods hold."""
        self._refresh()
        return reserve(self._base, [lacking for other, lacking in sorted(self._lacking.items()) if other != key])

    def _refresh(self) -> None:
        store = self._store
        if self._version != store.inventory_version:
            self._version = store.inventory_version
            self._base = snapshot_from_objects(store.nodes.values(), store.pods.values(), load_gpus())
            bound: dict[Key, int] = {}
            for node in self._base.nodes:
                for allocation in node.allocations:
                    namespace, _, name = allocation.owner.partition("/")
                    bound[namespace, name] = bound.get((namespace, name), 0) + allocation.gpus
            for key in {*bound, *self._bound}:
                if bound.get(key) != self._bound.get(key):
                    self._seen.pop(key, None)
            self._bound = bound
        for key in [key for key in self._lacking if key not in store.deployments]:
            del self._lacking[key]
        for key in [key for key in self._seen if key not in store.deployments]:
            del self._seen[key]
        for key, body in store.deployments.items():
            live = self._store.workloads(key).bodies
            seen = self._seen.get(key)
            if seen is not None and seen[0] is body and _same(seen[1], live):
                continue
            self._seen[key] = body, live
            wanted = reservation(self.with_plan(key, body), self._bound.get(key, 0))
            if wanted is not None:
                self._lacking[key] = wanted
            else:
                self._lacking.pop(key, None)


def _summary(live: Mapping[str, Any]) -> Body | None:
    """Return what a workload says of its plan; None where it says nothing that can be read."""
    text = (live["metadata"].get("annotations") or {}).get(PLAN_SUMMARY)
    if text is None:
        return None
    try:
        found = json.loads(text)
        # Somebody may have edited it; the operator writes it again at its next pass.
        known = isinstance(found, dict) and int(found["gpus"]) > 0 and int(found["predicted"]["powerWatts"]) >= 0
    except (ValueError, KeyError, TypeError):
        return None
    return found if known else None


def _same(before: tuple[Mapping[str, Any], ...], now: tuple[Mapping[str, Any], ...]) -> bool:
    return len(before) == len(now) and all(a is b for a, b in zip(before, now, strict=True))
