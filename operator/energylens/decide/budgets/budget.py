"""A budget of either kind, read from its object, and the power that the budget allows for growth. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.api.parse import InvalidResourceError, parse_clusterenergybudget, parse_energybudget
from energylens.api.timestamp import moment_of
from energylens.budget.ledger import SMALLER
from energylens.budget.periods import period_at
from energylens.budget.usage import Growth, PowerAllowed, Usage, growth
from energylens.decide.planned import Body, Key, key_of, name_of
from energylens.records import dataclass

CLOSED = "; meanwhile no plan may draw more than the running one"
"""End of the Ready condition's message for a budget that cannot be checked."""


def budget_of(body: Body) -> tuple[EnergyBudgetSpec, EnergyBudgetStatus]:
    """Return a budget of either kind, parsed.

    Raises:
        InvalidResourceError: the spec cannot be read.
    """
    namespaced = bool(key_of(body)[0])
    head = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget" if namespaced else "ClusterEnergyBudget",
        **body,
    }
    found = (parse_energybudget if namespaced else parse_clusterenergybudget)(head, strict=False)
    return found.spec, found.status


@dataclass(frozen=True)
class Budget:
    """A parsed budget, which is kept because parsing costs more than deciding."""

    namespace: str
    """"" for a ClusterEnergyBudget."""
    name: str
    """Name in messages."""
    generation: int
    spec: EnergyBudgetSpec | None
    status: EnergyBudgetStatus
    """The status without members and ledger, which grow with the fleet."""
    problem: str = ""
    """Why the spec cannot be read."""
    caps: Mapping[Key, int] = field(default_factory=dict)
    """Power that shedding leaves to members, W."""
    counted_until: datetime | None = None
    """Time up to which the ledger has the energy of every member that draws power; None if none does."""


def read_budget(body: Body) -> Budget:
    """Return a budget of either kind; ``problem`` is set if the spec cannot be read."""
    namespace, generation = key_of(body)[0], int(body["metadata"].get("generation", 1))
    stated = body.get("status") or {}
    without_ledger = {name: value for name, value in stated.items() if name != "ledger"}
    try:
        spec, status = budget_of({**body, "status": without_ledger})
    except InvalidResourceError as error:
        return Budget(namespace, name_of(body), generation, None, EnergyBudgetStatus(), str(error))
    caps = {(m.namespace, m.name): m.allowed_power_watts for m in status.members if m.allowed_power_watts is not None}
    counted_until = _counted_until(stated.get("ledger") or ())
    return Budget(
        namespace,
        name_of(body),
        generation,
        spec,
        status.model_copy(update={"members": ()}),
        caps=caps,
        counted_until=counted_until,
    )


def _counted_until(ledger: Iterable[Body]) -> datetime | None:
    """Return the time up to which a ledger has the energy of its members; measurements of some may be late."""
    times = []
    for entry in ledger:
        if entry.get("predictedWatts") or entry.get("uid") == SMALLER:
            # Times that an edit made unreadable are counted again.
            with suppress(KeyError, TypeError, ValueError):
                times.append(datetime.fromisoformat(entry["accountedUntil"]).astimezone(UTC))
    return min(times, default=None)


def awaits_look(budget: Budget, now: datetime) -> bool:
    """Return whether the operator has yet to count the energy of a budget: it is new, edited, or in a new period."""
    return budget.spec is not None and bool(_uncounted(budget.generation, budget.spec, budget.status, now))


def _uncounted(generation: int, spec: EnergyBudgetSpec, status: EnergyBudgetStatus, now: datetime) -> str:
    """Return what the next check of a budget will count; "" if nothing is missing, or the check found a problem."""
    seen = status.observed_generation == generation
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    if spec.energy_watt_hours is None and spec.carbon is None:
        # Committed power is known before the first measurement.
        return ""
    if not seen or ready is None:
        return "its energy is not counted yet"
    period = period_at(spec.period, ZoneInfo(spec.time_zone), now)
    if ready.status == "True" and moment_of(status.period_start) != period.start:
        return "its energy of this period is not counted yet"
    return ""


def growth_of(
    generation: int, spec: EnergyBudgetSpec, status: EnergyBudgetStatus, now: datetime
) -> tuple[Growth | None, str]:
    """Return what a budget allows for growth, and why the budget cannot be checked ("" if it can)."""
    seen = status.observed_generation == generation
    ready = next((c for c in status.conditions if c.type == "Ready"), None)
    if seen and ready is not None and ready.status != "True":
        return None, ready.message.removesuffix(CLOSED) or ready.reason
    if spec.energy_watt_hours is None and spec.carbon is None:
        watts = spec.power_watts
        return (None if watts is None else Growth(PowerAllowed(float(watts), "spec.powerWatts"))), ""
    if uncounted := _uncounted(generation, spec, status, now):
        return None, uncounted
    period = period_at(spec.period, ZoneInfo(spec.time_zone), now)
    used = float(status.used_watt_hours or 0)
    left = None if status.remaining_watt_hours is None else used + status.remaining_watt_hours
    limit = status.energy_limit or ""
    found = growth(spec, Usage(used, 0.0, None, left, limit), period, now)
    return (found if found.limits else None), ""


def concerns_members(before: EnergyBudgetStatus, status: EnergyBudgetStatus) -> bool:
    """Return whether a change of the status reconciles members: another verdict, other caps, another period."""

    def verdict(found: EnergyBudgetStatus) -> tuple[object, ...]:
        caps = tuple(
            sorted(
                (m.namespace, m.name, m.allowed_power_watts) for m in found.members if m.allowed_power_watts is not None
            )
        )
        return (
            found.observed_generation,
            found.period_start,
            tuple((c.type, c.status, c.reason) for c in found.conditions),
            caps,
        )

    return verdict(before) != verdict(status)
