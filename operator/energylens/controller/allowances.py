"""What budgets leave one deployment, given the plans that all others hold."""

from __future__ import annotations

from collections.abc import Mapping

from energylens.clock import Clock
from energylens.controller.inventory import Inventory
from energylens.controller.store import Body, Key, Store
from energylens.decide.budgets import allowance as budgets
from energylens.decide.budgets.membership import Surroundings
from energylens.decide.deployment.observation import Allowed


class Allowances:
    """Reads budgets off a store, each once per change."""

    def __init__(self, store: Store, inventory: Inventory, clock: Clock) -> None:
        """Count the plans that ``inventory`` knows to be adopted."""
        self._store = store
        self._inventory = inventory
        self._clock = clock
        self._read: dict[Key, tuple[Body, budgets.Budget]] = {}
        self._around = Surroundings(store.namespaces)
        self.unserved: Mapping[str, str] = {}
        """Why budgets of a kind cannot be seen, by kind."""

    def of(self, body: Body) -> Allowed:
        """Return what a deployment may draw."""
        namespace = body["metadata"]["namespace"]
        capping = [self._budget(key, found) for key, found in self._store.budgets.items() if key[0] in ("", namespace)]
        everywhere = any(not budget.namespace for budget in capping)
        members = [
            self._inventory.with_plan(key, other)
            for key, other in self._store.deployments.items()
            if everywhere or (capping and key[0] == namespace)
        ]
        around = self.surroundings() if everywhere else None
        return budgets.allowance(body, capping, members, self._clock.now(), around, self.unserved)

    def surroundings(self) -> Surroundings:
        """Return the namespaces and nodes that membership in budgets depends on."""
        nodes = self._inventory.nodes
        if self._around.nodes is not nodes:
            self._around = Surroundings(self._store.namespaces, nodes)
        return self._around

    def deployments(self) -> dict[Key, Body]:
        """Return all LLMDeployments, with the plans that they adopted."""
        return {key: self._inventory.with_plan(key, body) for key, body in self._store.deployments.items()}

    def _budget(self, key: Key, body: Body) -> budgets.Budget:
        """Return a budget as it was read; the store makes a new body for each change."""
        known = self._read.get(key)
        if known is None or known[0] is not body:
            if len(self._read) > len(self._store.budgets):
                self._read = {kept: read for kept, read in self._read.items() if kept in self._store.budgets}
            known = self._read[key] = body, budgets.read_budget(body)
        return known[1]
