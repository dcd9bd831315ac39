"""A budget's status that somebody edits never lifts the limit: what was used stays used."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.faults.test_budgets import HIGH, LOW, as_predicted, budget, two
from tests.support.world import NAMESPACE, World

from energylens.api.energybudget_status import EnergyBudgetStatus, LedgerEntry

Object = dict[str, Any]
KEY = ("EnergyBudget", NAMESPACE, "cap")
LIMIT_WATT_HOURS = 10**6


def of(world: World) -> Object:
    found: Object = world.cluster.objects[KEY]["status"]
    return found


async def counted() -> tuple[World, int]:
    """Return a world whose budget has an hour in its ledger, and the watt-hours that were used."""
    world = World()
    await two(world)
    as_predicted(world)
    world.cluster.put(budget(energyWattHours=LIMIT_WATT_HOURS, period="Day", action="Deny"))
    for _ in range(12):
        await world.look(LOW, HIGH, seconds=300.0)
    used = of(world)["usedWattHours"]
    assert used > 100
    return world, used


def entries(status: Object, **changes: Any) -> None:
    for entry in status["ledger"]:
        entry.update(changes)


EDITS: dict[str, Callable[[Object], None]] = {
    "no ledger": lambda status: status.pop("ledger"),
    "an empty ledger": lambda status: status.update(ledger=[]),
    "a ledger of nothing": lambda status: entries(status, measuredJoules=0, predictedJoules=0),
    "negative joules": lambda status: entries(status, measuredJoules=-(10**9)),
    "joules that are no number": lambda status: entries(status, measuredJoules="NaN", predictedJoules=[1]),
    "counted up to a time to come": lambda status: entries(status, accountedUntil="2126-03-01T00:00:00Z"),
    "counted up to no time": lambda status: entries(status, accountedUntil="soon"),
    "a period long ago": lambda status: status.update(periodStart="2020-01-01T00:00:00Z"),
    "a period to come": lambda status: status.update(periodStart="2126-01-01T00:00:00Z"),
    "nothing used": lambda status: status.update(usedWattHours=0, remainingWattHours=10**9, history=[]),
    "negative use": lambda status: status.update(usedWattHours=-(10**9), allowedPowerWatts=10**9),
    "no status": lambda status: status.clear(),
}


@pytest.mark.parametrize("name", EDITS)
async def test_while_the_operator_runs_an_edit_changes_nothing_and_is_undone(name: str) -> None:
    world, used = await counted()
    world.cluster.edit(*KEY, lambda body: EDITS[name](body["status"]))
    await world.look(LOW, HIGH)
    assert of(world)["usedWattHours"] == used
    assert len(of(world)["ledger"]) == 2
    assert datetime.fromisoformat(of(world)["periodStart"]) <= world.clock.now()


@pytest.mark.parametrize("name", [name for name in EDITS if name != "no status"])
async def test_after_a_restart_an_edit_does_not_lower_what_was_used(name: str) -> None:
    world, used = await counted()
    world.cluster.edit(*KEY, lambda body: EDITS[name](body["status"]))
    world.start()
    await world.look(LOW, HIGH)
    # Up to a watt-hour of rounding.
    assert used - 2 <= of(world)["usedWattHours"] <= 3 * used
    assert of(world)["remainingWattHours"] == LIMIT_WATT_HOURS - of(world)["usedWattHours"]


async def test_a_status_that_nobody_edited_is_gone_on_from() -> None:
    world, used = await counted()
    before = of(world)
    world.start()
    await world.look(LOW, HIGH)
    assert of(world)["ledger"] == before["ledger"]
    assert of(world)["usedWattHours"] == used


JUNK = st.one_of(st.none(), st.integers(-(10**20), 10**20), st.text(max_size=8), st.lists(st.integers(), max_size=2))
FIELDS = sorted(str(field.alias) for field in EnergyBudgetStatus.model_fields.values())
ENTRY_FIELDS = sorted(str(field.alias) for field in LedgerEntry.model_fields.values())


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], derandomize=True
)
@given(field=st.sampled_from(FIELDS), inner=st.sampled_from(ENTRY_FIELDS), value=JUNK, restart=st.booleans())
# An API server in memory that could not merge such names took a defect of its own for one of the operator.
@example(field="conditions", inner="name", value=[0], restart=False)
@example(field="conditions", inner="name", value=[0], restart=True)
async def test_no_mutation_stops_a_budget(
    caplog: pytest.LogCaptureFixture, field: str, inner: str, value: Any, restart: bool
) -> None:
    world, _ = await counted()
    caplog.clear()
    world.cluster.edit(*KEY, lambda body: body["status"].update({field: value}))
    if isinstance(of(world).get("ledger"), list):
        world.cluster.edit(
            *KEY,
            lambda body: [e.update({inner: value}) for e in body["status"]["ledger"] if isinstance(e, dict)],  # type: ignore[arg-type]
        )
    if restart:
        world.start()
    await world.look(LOW, HIGH)
    await world.look(LOW, HIGH, seconds=60.0)
    (ready,) = [c for c in of(world)["conditions"] if c["type"] == "Ready"]
    assert ready["status"] == "True", ready
    assert of(world)["usedWattHours"] >= 0
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []
