"""The operator's own metrics; docs/metrics.md has a row for each. Labels are bounded by the number of objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    disable_created_metrics,
    generate_latest,
)

from energylens.api.energybudget import EnergyBudgetStatus
from energylens.api.timestamp import moment_of
from energylens.cluster.resources import CLUSTER_ENERGY_BUDGET, ENERGY_BUDGET, LLM_DEPLOYMENT
from energylens.controller.endpoints.status_metrics import OBJECT, StatusPage
from energylens.controller.queueing.queue import QUEUES, KeyQueue
from energylens.controller.state.store import Key, Store
from energylens.decide.reasons import NO_PLAN_REASONS
from energylens.measure.scrape import FailureReason

# Without this, a third of the series would be gauges with the creation times of counters, which nobody needs.
disable_created_metrics()  # type: ignore[no-untyped-call]

QUEUE = ("queue",)
RESULTS = ("ok", "retry", "error", "event_lost")
PLAN_DECISIONS: Mapping[str, tuple[str, ...]] = {
    "adopt": ("FirstPlan", "NoLongerValid", "EnergySaving", "Shed", "ShedEnded"),
    "keep": (
        "SameLayout",
        "OtherModelOrEngine",
        "SavingTooSmall",
        "Cooldown",
        "DoesNotPayBack",
        "NothingBetter",
        "RolledBack",
        "Shed",
        "AtTheFloor",
        "MostCarried",
    ),
    "rollback": ("RolledBack",),
    "none": NO_PLAN_REASONS,
}
"""Reasons by decision."""


class Metrics:
    """All metrics. Two operators in one process share none."""

    def __init__(self, store: Store | None = None) -> None:
        """Register the metrics of the operator and of budgets; the series of LLMDeployments are read from ``store``."""
        store = store or Store()
        self._own = CollectorRegistry()
        self._statuses = StatusPage(store)

        def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> Gauge:
            return Gauge(name, text, labels, registry=self._own)

        def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> Counter:
            return Counter(name, text, labels, registry=self._own)

        self.build = Info("energylens_operator", "Version of the operator.", registry=self._own)
        self.energy = counter("energylens_energy_joules_total", "Measured GPU energy, J.", OBJECT)
        self.replans = counter("energylens_plan_decisions_total", "Decisions about plans.", ("decision", "reason"))
        self.reconciles = counter("energylens_reconciles_total", "Reconciles of LLMDeployments.", ("result",))
        self.reconcile_seconds = Histogram(
            "energylens_reconcile_duration_seconds",
            "Duration of a reconcile of an LLMDeployment.",
            registry=self._own,
        )
        self.writes = counter("energylens_writes_total", "Requests that write to the API server.", ("kind",))
        self.collect_failures = counter(
            "energylens_measurement_failures_total", "Reads of a metrics target without a result.", ("reason",)
        )
        self.undeclared_fields = gauge(
            "energylens_undeclared_status_fields",
            "Fields that the installed CustomResourceDefinition of a kind does not declare.",
            ("kind",),
        )
        self._begin_at_zero()
        self.queue_length = gauge(
            "energylens_queue_length", "LLMDeployments that wait for a reconcile or are being reconciled."
        )
        self.queue_waiting = gauge(
            "energylens_queue_waiting", "LLMDeployments that wait, those that changed and those checked again.", QUEUE
        )
        self.queue_oldest = gauge("energylens_queue_oldest_seconds", "Longest wait in a queue now, s.", QUEUE)
        self.event_age = gauge(
            "energylens_last_event_age_seconds", "Time since the most silent watch brought an event or a bookmark."
        )
        self.leading = gauge("energylens_leading", "1 while this operator holds the lease.")

        self._add_budgets()
        for memory in filter(None, (store.statuses, store.budget_statuses)):
            memory.gaps.show = lambda kind, count: self.undeclared_fields.labels(kind).set(count)

    def observe_queue(self, queue: KeyQueue) -> None:
        """Show how many LLMDeployments wait, and for how long."""
        self.queue_length.set(queue.unfinished)
        for name in QUEUES:
            self.queue_waiting.labels(name).set(queue.waiting(name))
            self.queue_oldest.labels(name).set(queue.oldest_seconds(name))

    async def page(self) -> AsyncIterator[bytes]:
        """Yield all series in parts, in the text format of Prometheus."""
        yield generate_latest(self._own)
        async for text in self._statuses.texts():
            yield text

    def _add_budgets(self) -> None:
        """Register the metrics of budgets."""

        def budget(name: str, text: str) -> Gauge:
            return Gauge(name, text, OBJECT, registry=self._own)

        self.budget_used = budget("energylens_budget_used_ratio", "Share of a budget's energy used in this period.")
        self.budget_remaining = budget("energylens_budget_remaining_watt_hours", "Energy left in this period, Wh.")
        self.budget_predicted = budget(
            "energylens_budget_predicted_ratio", "Share of the energy used that was predicted and not measured."
        )
        self.budget_burn = budget(
            "energylens_budget_burn_rate_ratio", "Burn rate of the rate at which the energy lasts until the reset."
        )
        self.budget_exhaustion = budget(
            "energylens_budget_exhaustion_timestamp_seconds", "When the energy runs out at the burn rate."
        )
        self.budget_committed = budget("energylens_budget_committed_watts", "Predicted power of the members' plans, W.")
        self.budget_allowed = budget("energylens_budget_allowed_watts", "Power that all limits of a budget allow, W.")
        self.budget_checked = budget("energylens_budget_checked", "1 while a budget can be checked, else 0.")
        self.budget_taken = budget("energylens_budget_shed_watts", "Power taken from members, W.")

    def _begin_at_zero(self) -> None:
        """Create every known series at 0, because PromQL sees no increase in a series that begins at 1."""
        for result in RESULTS:
            self.reconciles.labels(result)
        for kind in (LLM_DEPLOYMENT, ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET):
            self.undeclared_fields.labels(kind.kind)
        for reason in get_args(FailureReason):
            self.collect_failures.labels(reason)
        for decision, reasons in PLAN_DECISIONS.items():
            for reason in reasons:
                self.replans.labels(decision, reason)

    def observe_budget(self, namespace: str, name: str, status: EnergyBudgetStatus) -> None:
        """Set the series of a budget, and remove the series of figures that it lacks."""
        energy = status.energy_limit is not None and status.remaining_watt_hours is not None
        used, left = status.used_watt_hours or 0, status.remaining_watt_hours or 0
        ready = any(c.type == "Ready" and c.status == "True" for c in status.conditions)
        gone = moment_of(status.exhaustion_time)
        taken = sum(
            (m.former_power_watts or 0) - m.allowed_power_watts for m in status.members if m.allowed_power_watts
        )
        figures: dict[Gauge, float | None] = {
            self.budget_used: used / (used + left) if energy and used + left else None,
            self.budget_remaining: left if energy else None,
            self.budget_predicted: (status.predicted_watt_hours or 0) / used if used else None,
            self.budget_burn: None if status.burn_rate_percent is None else status.burn_rate_percent / 100,
            self.budget_exhaustion: None if gone is None else gone.timestamp(),
            self.budget_committed: status.committed_power_watts,
            self.budget_allowed: status.allowed_power_watts,
            self.budget_checked: float(ready),
            self.budget_taken: float(taken),
        }
        for metric, value in figures.items():
            if value is None:
                _remove(metric, (namespace, name))
            else:
                metric.labels(namespace, name).set(value)

    def forget_budget(self, namespace: str, name: str) -> None:
        """Remove the series of a deleted budget."""
        for metric in (
            self.budget_used,
            self.budget_remaining,
            self.budget_predicted,
            self.budget_burn,
            self.budget_exhaustion,
            self.budget_committed,
            self.budget_allowed,
            self.budget_checked,
            self.budget_taken,
        ):
            _remove(metric, (namespace, name))

    def forget(self, key: Key) -> None:
        """Remove the series of a deleted LLMDeployment."""
        _remove(self.energy, key)


def _remove(metric: Gauge | Counter, labels: tuple[str, ...]) -> None:
    try:
        metric.remove(*labels)
    except KeyError:
        return
