"""The available GPUs for one deployment, without the GPUs of pods and of other plans that are not running yet.

All counts are cached: a node is recounted if it or one of its pods changed, the missing GPUs of a plan if its
deployment, workload or pods changed. With thousands of deployments most passes find nothing to recount.
"""

from __future__ import annotations

import json
from bisect import bisect_left, insort
from collections.abc import Hashable, Mapping
from typing import Any

from energylens.api.llmdeployment import JobStartStatus, PlanStatus
from energylens.controller.state.store import Body, Key, Store
from energylens.data import load_gpus
from energylens.decide.planned import PlannedDeployment, planned
from energylens.decide.reservations import Reservation, reservation, reserve
from energylens.planner.inventory.products import NodeLabels
from energylens.planner.inventory.snapshot import gpus_of_pod, snapshot_from_objects
from energylens.planner.search.reach import seen_within
from energylens.planner.types import ClusterSnapshot, ExcludedNode, GpuNode
from energylens.serving.metadata import CANARY, PLAN_SUMMARY, ROLE_LABEL, plan_summary


class Inventory:
    """Snapshots of a store, updated by its changes."""

    def __init__(self, store: Store) -> None:
        """Read from ``store``."""
        self._store = store
        self._names = NodeLabels(load_gpus())
        self._usable: dict[str, GpuNode] = {}
        self._excluded: dict[str, ExcludedNode] = {}
        self._order: list[str] = []
        """Names of the usable nodes."""
        self._base = ClusterSnapshot(())
        self._reserved: ClusterSnapshot | None = None
        """Snapshot for all deployments whose pods have all of their GPUs; None after a change."""
        self._host_of: dict[Key, str] = {}
        self._pods_on: dict[str, set[Key]] = {}
        self._bound: dict[Key, int] = {}
        self._lacking: dict[Key, tuple[Reservation, ...]] = {}
        self._under_way: dict[Key, Body] = {}
        self._schedules: dict[Key, Body] = {}
        self._starts: dict[Key, Body] = {}
        self._verified: dict[Key, Body] = {}
        """Replicas that verify a plan and whose objects may not exist yet."""
        self._held: dict[Key, Body | None] = {}
        """Requested plans that deployments hold and that differ from the plans in their statuses."""
        self._read: dict[Key, tuple[Body, PlannedDeployment]] = {}
        """The part of each deployment that others depend on, and its object."""
        self._seen: dict[int | None, Hashable] = {}
        self._seen_at = -1
        """Version of the nodes that this was seen of."""
        self._nodes_to_count: set[str] = set(store.nodes)
        self._pods_to_place: set[Key] = set(store.pods)
        self._keys_to_count: set[Key] = set(store.deployments)
        store.observers.append(self)

    def node_changed(self, name: str) -> None:
        """Recount a node."""
        self._nodes_to_count.add(name)

    def pod_changed(self, pod: Key) -> None:
        """Recount the previous and the current node of a pod."""
        self._pods_to_place.add(pod)

    def deployment_changed(self, key: Key) -> None:
        """Recount the missing GPUs of a deployment."""
        self._keys_to_count.add(key)
        self._held.pop(key, None)
        self._read.pop(key, None)

    def adopt(self, key: Key, plan: Body, schedule: Body | None = None) -> None:
        """Count a newly adopted plan, and the schedule that it follows, until the status contains both."""
        self._under_way[key] = plan
        if schedule is not None:
            self._schedules[key] = schedule
        self._store.deployment_changed(key)

    def start(self, key: Key, start: JobStartStatus | None, stated: JobStartStatus | None) -> None:
        """Count the planned start of a job until the status contains it: others are planned beside it.

        Args:
            key: The deployment.
            start: The planned start; None: as soon as possible, also where the status still says that budgets refuse.
            stated: The start in the status.
        """
        if start != stated:
            self._starts[key] = {} if start is None else start.model_dump(mode="json", by_alias=True, exclude_none=True)
            self._store.deployment_changed(key)

    def verify(self, key: Key, replica: PlanStatus) -> None:
        """Count the replica that verifies a plan until its workload exists."""
        self._verified[key] = json.loads(plan_summary(replica))
        self._store.deployment_changed(key)

    def settle(self, key: Key) -> None:
        """Record that the status of a deployment contains its plan, or that the deployment was deleted."""
        known = [found.pop(key, None) for found in (self._under_way, self._schedules, self._starts, self._verified)]
        if any(part is not None for part in known):
            self._store.deployment_changed(key)

    def with_plan(self, key: Key, body: Body) -> Body:
        """Return a deployment with the plan for which it holds GPUs and power, even if its status has another one.

        That is the plan of the current pass, otherwise the plan of its workload: an operator may have ended between
        writing workload and status, and a plan in status may wait for approval. A replica that verifies another plan is
        added.
        """
        if self._store.deployments.get(key) is body:
            if key not in self._held:
                self._held[key] = self._counted(key, body)
            plan = self._held[key]
        else:
            plan = self._counted(key, body)
        parts = {"plan": plan, "schedule": self._schedules.get(key), "jobStart": self._starts.get(key)}
        changed = {name: part for name, part in parts.items() if part is not None}
        return {**body, "status": {**body["status"], **changed}} if changed else body

    def _counted(self, key: Key, body: Body) -> Body | None:
        """Return the plan to count if it differs from that in status, with the replica that verifies another plan."""
        found, replica = self._under_way.get(key) or self._running(key, body), self._replica(key)
        plan = found or body["status"].get("plan")
        if replica is None or plan is None:
            return found
        figures = plan["predicted"]
        return {
            **plan,
            "gpus": int(plan["gpus"]) + int(replica["gpus"]),
            "predicted": {**figures, "powerWatts": figures["powerWatts"] + replica["predicted"]["powerWatts"]},
        }

    def _planned(self, key: Key, body: Body) -> Body:
        """Return a deployment with its plan, without the replica that verifies another plan."""
        plan = self._under_way.get(key) or self._running(key, body)
        return body if plan is None else {**body, "status": {**body["status"], "plan": plan}}

    def _replica(self, key: Key) -> Body | None:
        """Return the summary of the replica that verifies a plan; None if none does."""
        known = [found for live in self._store.canaries(key) if (found := _summary(live)) is not None]
        return self._verified.get(key) or next(iter(known), None)

    def _wanted(self, key: Key, body: Body) -> tuple[Reservation, ...]:
        """Return the GPUs that a deployment still lacks."""
        replica, bound = self._replica(key), self._bound.get(key, 0)
        verifying = sum(
            gpus_of_pod(pod)
            for pod in self._store.pods_owned(key)
            if pod["spec"]["nodeName"] and pod["metadata"]["labels"].get(ROLE_LABEL) == CANARY
        )
        found = [reservation(planned(self._planned(key, body)), bound - verifying)]
        if replica is not None:
            # The running plan was allowed when it started; approval was checked then.
            alone = {"metadata": body["metadata"], "spec": {}, "status": {"plan": replica}}
            found.append(reservation(planned(alone), verifying))
        return tuple(one for one in found if one is not None)

    def planned(self, key: Key) -> PlannedDeployment:
        """Return a deployment of the store as others see it, with the plan for which it holds GPUs and power."""
        body, known = self._store.deployments[key], self._read.get(key)
        if known is None or known[0] is not body:
            known = self._read[key] = body, planned(self.with_plan(key, body))
        return known[1]

    def _running(self, key: Key, body: Body) -> Body | None:
        """Return the summary of the workload's plan if it differs from the one in status.

        While a plan moves between one node and several, both workloads run and the one with more power counts.
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

    def seen_within(self, most: int | None) -> Hashable:
        """Return the node properties on which plans of at most ``most`` GPUs per product depend, without free GPUs."""
        self._refresh()
        if self._seen_at != self._store.nodes_version:
            self._seen_at, self._seen = self._store.nodes_version, {}
        if most not in self._seen:
            excluded = tuple((node.name, node.product, node.gpus) for node in self._base.excluded)
            self._seen[most] = seen_within(self._base.nodes, most), excluded
        return self._seen[most]

    def snapshot(self, key: Key) -> ClusterSnapshot:
        """Return the nodes with all GPUs that are not for the deployment of this key, and those that its pods hold."""
        self._refresh()
        if key in self._lacking:
            return reserve(self._base, self._reservations(but=key))
        if self._reserved is None:
            self._reserved = reserve(self._base, self._reservations())
        return self._reserved

    def _reservations(self, but: Key | None = None) -> list[Reservation]:
        return [one for key, lacking in sorted(self._lacking.items()) if key != but for one in lacking]

    def _refresh(self) -> None:
        for pod in self._pods_to_place:
            self._place(pod)
        self._pods_to_place.clear()
        if self._nodes_to_count:
            for name in self._nodes_to_count:
                self._count_node(name)
            self._nodes_to_count.clear()
            excluded = tuple(found for _, found in sorted(self._excluded.items()))
            self._base = ClusterSnapshot(tuple(self._usable[name] for name in self._order), excluded)
            self._reserved = None
        if self._keys_to_count:
            for key in self._keys_to_count:
                self._count_deployment(key)
            self._keys_to_count.clear()

    def _place(self, pod: Key) -> None:
        body = self._store.pods.get(pod)
        host = "" if body is None else body["spec"]["nodeName"]
        before = self._host_of.pop(pod, "")
        if before:
            self._pods_on[before].discard(pod)
        if host:
            self._host_of[pod] = host
            self._pods_on.setdefault(host, set()).add(pod)
        self._nodes_to_count.update(filter(None, (before, host)))

    def _count_node(self, name: str) -> None:
        old = self._usable.pop(name, None)
        self._excluded.pop(name, None)
        body = self._store.nodes.get(name)
        pods = [self._store.pods[pod] for pod in self._pods_on.get(name, ())]
        if not pods:
            self._pods_on.pop(name, None)
        found = ClusterSnapshot(())
        if body is not None:
            devices = self._store.devices.of(name)
            found = snapshot_from_objects([body], pods, self._names.gpus, devices, self._names)
        for node in found.nodes:
            self._usable[name] = node
        for left_out in found.excluded:
            self._excluded[name] = left_out
        now = self._usable.get(name)
        if old is None and now is not None:
            insort(self._order, name)
        elif old is not None and now is None:
            del self._order[bisect_left(self._order, name)]
        self._move_bound(old, now)

    def _move_bound(self, old: GpuNode | None, now: GpuNode | None) -> None:
        """Count the GPUs that pods hold on a node for their deployments."""
        for node, sign in ((old, -1), (now, 1)):
            for allocation in node.allocations if node is not None else ():
                namespace, _, name = allocation.owner.partition("/")
                key = namespace, name
                self._bound[key] = self._bound.get(key, 0) + sign * allocation.gpus
                if not self._bound[key]:
                    del self._bound[key]
                self._keys_to_count.add(key)

    def _count_deployment(self, key: Key) -> None:
        body = self._store.deployments.get(key)
        wanted = () if body is None else self._wanted(key, body)
        before = self._lacking.pop(key, ())
        if wanted:
            self._lacking[key] = wanted
        if wanted != before:
            self._reserved = None


def _summary(live: Mapping[str, Any]) -> Body | None:
    """Return the summary of its plan on a workload; None if there is no readable one."""
    text = (live["metadata"].get("annotations") or {}).get(PLAN_SUMMARY)
    if text is None:
        return None
    try:
        found = json.loads(text)
        # Another writer may have edited it; the operator rewrites it in its next pass.
        known = isinstance(found, dict) and int(found["gpus"]) > 0 and int(found["predicted"]["powerWatts"]) >= 0
    except (ValueError, KeyError, TypeError):
        return None
    return found if known else None
