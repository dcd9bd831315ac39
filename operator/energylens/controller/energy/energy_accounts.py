"""Counts the energy of deployments that limit it themselves: ``spec.energy.budget.energyWattHours``.

The account in a deployment's status is all the memory there is, as the ledger is for an EnergyBudget: figures and the
moment up to which they count are written together. They are written along with a measured window, which is written
anyhow, and at once when their meaning changes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from energylens.api.llmdeployment import DeploymentBudget, EnergyAccount
from energylens.api.timestamp import moment_of
from energylens.budget.ledger import Entry, account, begin, close
from energylens.budget.periods import Span
from energylens.clock import Clock
from energylens.controller.settings import BudgetSettings
from energylens.controller.state.store import Body, Key, Store
from energylens.decide.budgets.member_power import EnergyOf, as_measured
from energylens.decide.budgets.own_budget import account_status, entry_of, means_the_same, period_of, used_watt_hours
from energylens.decide.planned import PlannedDeployment, planned
from energylens.planner.inventory.snapshot import gpus_of_pod
from energylens.records import dataclass

log = logging.getLogger("energylens")

WINDOWS = 2
"""Windows without a measurement after which the account alone is written."""


@dataclass
class _Count:
    """State of one deployment between two checks."""

    entry: Entry
    period: Span
    measured_at: datetime
    """Time at which the deployment was last measured, or began to draw power."""
    not_measured_since: datetime | None

    def written(self) -> EnergyAccount:
        """Return the account in its written form."""
        return account_status(self.entry, self.period, self.not_measured_since)


class EnergyAccounts:
    """One account for each deployment whose budget limits energy."""

    def __init__(
        self, store: Store, energy: EnergyOf, clock: Clock, settings: BudgetSettings, enqueue: Callable[[Key], None]
    ) -> None:
        """Count for the deployments of ``store``; ``enqueue`` those whose account changes a decision."""
        self._store = store
        self._energy = energy
        self._clock = clock
        self._settings = settings
        self._enqueue = enqueue
        self._counts: dict[tuple[Key, str], _Count] = {}

    def step(self) -> None:
        """Count the energy since the last check."""
        bodies = dict(self._store.deployments)
        alive = {_identity(key, body) for key, body in bodies.items()}
        for gone in [identity for identity in self._counts if identity not in alive]:
            del self._counts[gone]
        for key, body in bodies.items():
            deployment = planned(body)
            own = deployment.budget
            if own is None or own.energy_watt_hours is None:
                self._counts.pop(_identity(key, body), None)
                continue
            try:
                count = self._look(deployment, own)
            except Exception:
                # The following deployments are counted nevertheless.
                log.exception("%s/%s: counting energy failed: internal error; retrying", *key)
                continue
            if not means_the_same(deployment.account, count.written(), own.energy_watt_hours):
                self._enqueue(key)

    def of(self, key: Key, body: Body, *, is_written: bool) -> EnergyAccount | None:
        """Return the account that a pass over a deployment uses and writes; None without an energy limit.

        Args:
            key: The deployment.
            body: As the store has it.
            is_written: The pass writes the status anyhow.
        """
        deployment = planned(body)
        own, before = deployment.budget, deployment.account
        if own is None or own.energy_watt_hours is None:
            return None
        now = self._look(deployment, own).written()
        if before is None or is_written or not means_the_same(before, now, own.energy_watt_hours):
            return now
        return now if _is_due(deployment, before, now) else before

    def _look(self, deployment: PlannedDeployment, own: DeploymentBudget) -> _Count:
        now, key = self._clock.now(), deployment.key
        period, identity = period_of(own, now), (key, deployment.uid)
        count = self._counts.get(identity)
        if count is None:
            before = deployment.account
            silent = before.not_measured_since if before is not None else None
            since = moment_of(silent)
            entry = entry_of(before, identity[1], key, period, now)
            count = self._counts[identity] = _Count(entry, period, since or now, since)
        elif period.start > count.period.start:
            (count.entry,) = begin([count.entry], period)
        count.period = period
        gpus = sum(gpus_of_pod(pod) for pod in self._store.pods_owned(key) if pod["spec"]["nodeName"])
        self._count(count, key, gpus, deployment.drawn_watts(gpus), now)
        return count

    def _count(self, count: _Count, key: Key, gpus: int, predicted_watts: float, now: datetime) -> None:
        entry = count.entry
        if gpus:
            span = self._energy(key, entry.until.timestamp(), None)
            entry = account(entry, now, as_measured(span), predicted_watts, None)
            if span is not None:
                count.measured_at = max(count.measured_at, datetime.fromtimestamp(span.end, UTC))
        else:
            entry = close(entry, now, None)
            count.measured_at = now
        count.entry = replace(entry, predicted_watts=predicted_watts)
        silent = (now - count.measured_at).total_seconds() > self._settings.unmeasured_seconds
        count.not_measured_since = count.measured_at if silent else None


def _identity(key: Key, body: Body) -> tuple[Key, str]:
    return key, str(body["metadata"].get("uid", ""))


def _is_due(deployment: PlannedDeployment, before: EnergyAccount, now: EnergyAccount) -> bool:
    """Return whether the account has waited for a measured window for too long."""
    passed = datetime.fromisoformat(now.accounted_until) - datetime.fromisoformat(before.accounted_until)
    moved = round(used_watt_hours(now)) != round(used_watt_hours(before))
    return moved and passed.total_seconds() >= WINDOWS * deployment.window_seconds
