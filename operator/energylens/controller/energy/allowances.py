"""The power that budgets leave to one deployment, given the plans of all others.

Each member's commitment is cached and recounted when the member changes: with thousands of members a pass over one of
them would otherwise visit all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

import numpy as np
import numpy.typing as npt

from energylens.clock import Clock
from energylens.controller.state.inventory import Inventory
from energylens.controller.state.store import Body, Key, Store
from energylens.decide.budgets.allowance import allowance
from energylens.decide.budgets.budget import Budget, read_budget
from energylens.decide.budgets.counted import CountedWatts, counted_watts
from energylens.decide.budgets.jobs import CountedJob
from energylens.decide.budgets.membership import Surroundings, node_selector
from energylens.decide.deployment.observed.observation import Allowed
from energylens.decide.planned import PlannedDeployment, planned
from energylens.planner.types import GpuNode
from energylens.records import dataclass

_PARTS = 2**20
"""Parts of a watt that are summed: shares of power are no whole watts, and so many members err by less than 1e-3 W."""


@dataclass(frozen=True)
class _Parts:
    """The power of one member, in parts of a watt: of integers, so that any order of changes gives the same sum."""

    committed: int
    constant: int
    weeks: Mapping[str, npt.NDArray[np.int64]]

    @classmethod
    def of(cls, watts: CountedWatts) -> _Parts:
        weeks = {zone: np.rint(slots * _PARTS).astype(np.int64) for zone, slots in watts.weeks.items()}
        return cls(round(watts.committed * _PARTS), round(watts.constant * _PARTS), weeks)

    def plus(self, other: _Parts, sign: int) -> _Parts:
        weeks = dict(self.weeks)
        for zone, slots in other.weeks.items():
            weeks[zone] = weeks.get(zone, np.zeros_like(slots)) + sign * slots
            if not weeks[zone].any():
                # Nobody follows the clock of this zone any more.
                del weeks[zone]
        return _Parts(self.committed + sign * other.committed, self.constant + sign * other.constant, weeks)


_NOTHING = _Parts(0, 0, {})


@dataclass
class _Counted:
    """Power that the members of one budget commit, by deployment."""

    budget: Budget
    namespaces: int
    nodes: Sequence[GpuNode] | None
    """The namespaces, by their version, and the nodes that membership was judged by; None where nodes do not count."""
    watts: dict[Key, _Parts] = field(default_factory=dict)
    total: _Parts = _NOTHING
    """Sum over the members."""
    jobs: dict[Key, tuple[CountedJob, ...]] = field(default_factory=dict)
    """Batch jobs of the members, whose power depends on the time."""

    def put(self, key: Key, watts: CountedWatts | None) -> None:
        """Count the power of a deployment as a member, or as none."""
        old = self.watts.pop(key, None)
        if old is not None:
            self.total = self.total.plus(old, -1)
        self.jobs.pop(key, None)
        if watts is not None and watts.jobs:
            self.jobs[key] = watts.jobs
        if watts is not None:
            self.watts[key] = _Parts.of(watts)
            self.total = self.total.plus(self.watts[key], 1)

    def without(self, key: Key) -> CountedWatts:
        """Return the power of all members but one."""
        own = self.watts.get(key)
        found = self.total if own is None else self.total.plus(own, -1)
        weeks = {zone: slots / _PARTS for zone, slots in found.weeks.items()}
        jobs = tuple(job for name, known in sorted(self.jobs.items()) if name != key for job in known)
        return CountedWatts(found.committed / _PARTS, found.constant / _PARTS, weeks, jobs)


class Allowances:
    """Reads budgets from a store, each once per change, and caches the power that their members commit."""

    def __init__(self, store: Store, inventory: Inventory, clock: Clock) -> None:
        """Count the adopted plans in ``inventory``."""
        self._store = store
        self._inventory = inventory
        self._clock = clock
        self._read: dict[Key, tuple[Body, Budget]] = {}
        self._around = Surroundings(store.namespaces)
        self._counted: dict[Key, _Counted] = {}
        self._changed: set[Key] = set()
        self.unserved: Mapping[str, str] = {}
        """Why budgets of a kind cannot be seen, by kind."""
        store.observers.append(self)

    def node_changed(self, name: str) -> None:
        """Do nothing: if nodes matter, they are compared as a whole."""

    def pod_changed(self, pod: Key) -> None:
        """Do nothing, for the same reason as for nodes."""

    def deployment_changed(self, key: Key) -> None:
        """Recount the power that a deployment commits."""
        self._changed.add(key)

    def of(self, body: Body) -> Allowed:
        """Return the power that a deployment may draw."""
        deployment = planned(body)
        namespace = deployment.namespace
        capping = {
            found: self._budget(found, b) for found, b in self._store.budgets.items() if found[0] in ("", namespace)
        }
        around = self.surroundings() if any(not name[0] for name in capping) else None
        names = {id(budget): name for name, budget in capping.items()}
        return allowance(
            deployment,
            capping.values(),
            (),
            self._clock.now(),
            around,
            self.unserved,
            committed_by_others=lambda budget: self._others(names[id(budget)], budget, deployment.key),
        )

    def _others(self, name: Key, budget: Budget, key: Key) -> CountedWatts:
        """Return the power that the members of a budget except one commit and reserve, W."""
        self._count()
        found = self._counted.get(name)
        namespaces = 0 if budget.namespace else self._store.namespaces_version
        by_nodes = budget.spec is not None and bool(node_selector(budget.spec))
        nodes = self._inventory.nodes if by_nodes else None
        same = found is not None and found.namespaces == namespaces and found.nodes is nodes
        if found is None or not same or found.budget.spec != budget.spec:
            found = self._counted[name] = _Counted(budget, namespaces, nodes)
            for other in self._store.deployments:
                self._count_one(found, other)
        return found.without(key)

    def _count(self) -> None:
        """Recount changed deployments against each budget that may cover them."""
        if not self._changed:
            return
        for gone in [name for name in self._counted if name not in self._store.budgets]:
            del self._counted[gone]
        for name, counted in self._counted.items():
            for key in self._changed:
                if name[0] in ("", key[0]):
                    self._count_one(counted, key)
        self._changed.clear()

    def _count_one(self, counted: _Counted, key: Key) -> None:
        spec, namespace = counted.budget.spec, counted.budget.namespace
        watts = None
        if key in self._store.deployments and spec is not None and namespace in ("", key[0]):
            watts = counted_watts(spec, namespace, self._inventory.planned(key), self.surroundings())
        counted.put(key, watts)

    def surroundings(self) -> Surroundings:
        """Return the namespaces and nodes that membership in budgets depends on."""
        nodes = self._inventory.nodes
        if self._around.nodes is not nodes:
            self._around = Surroundings(self._store.namespaces, nodes)
        return self._around

    def deployments(self) -> dict[Key, PlannedDeployment]:
        """Return all LLMDeployments with their adopted plans."""
        return {key: self._inventory.planned(key) for key in self._store.deployments}

    def _budget(self, key: Key, body: Body) -> Budget:
        """Return a budget as it was read; the store makes a new body for each change."""
        known = self._read.get(key)
        if known is None or known[0] is not body:
            if len(self._read) > len(self._store.budgets):
                self._read = {kept: read for kept, read in self._read.items() if kept in self._store.budgets}
            known = self._read[key] = body, read_budget(body)
        return known[1]
