"""Checks of a budget's status after a start. Pure.

No other object remembers the ledger. An impossible value never makes a budget larger: an account that cannot be read is
counted again from the start of the period with the predicted power, like unmeasured time, and a ledger with less energy
than the status reports as used is filled up.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import ValidationError

from energylens.api.energybudget_status import EnergyBudgetStatus, LedgerEntry
from energylens.api.parse import InvalidResourceError
from energylens.api.timestamp import moment_of, timestamp
from energylens.budget.ledger import FOLDED
from energylens.budget.periods import period_at
from energylens.decide.budgets.budget import budget_of
from energylens.decide.planned import Body
from energylens.decide.reasons import BudgetConditionType
from energylens.decide.stated import MOST_JOULES, Checked, corrected, is_amount, time_problem, with_own_conditions

MOST_WATTS = 10**9
_AMOUNTS = ("measuredJoules", "predictedJoules", "milligrams", "ungradedJoules", "predictedWatts")
_ORDER = [kind.value for kind in BudgetConditionType]


def own_part(status: Body) -> dict[str, Any]:
    """Return a status without conditions of other types, which other controllers may add, in the order of ours."""
    return with_own_conditions(status, _ORDER)


def checked_budget_status(body: Body, now: datetime) -> Checked:
    """Return the plausible parts of the status of a budget of either kind.

    Args:
        body: The object of the API server.
        now: The current time.
    """
    stated = own_part(body.get("status") or {})
    if not stated:
        return {}, ()
    whole = {**body, "status": stated}
    try:
        spec, status = budget_of(whole)
    except InvalidResourceError:
        # Nothing is counted while the spec is unreadable, so the status stays unchanged.
        return stated, ()
    period = period_at(spec.period, ZoneInfo(spec.time_zone), now)
    ledger, left_out = _ledger(stated.get("ledger"), period.start, now)
    changes: dict[str, Any] = {"ledger": ledger}
    start = moment_of(status.period_start)
    counted_in_it = any(datetime.fromisoformat(entry.accounted_until) > period.start for entry in ledger)
    if ledger and counted_in_it and start is not None and start != period.start and not _was_edited(body, status):
        left_out.append(f"status.periodStart: {status.period_start}, and the ledger is of {period.start.isoformat()}")
        changes["period_start"] = timestamp(period.start)
        start = period.start
    if start == period.start:
        missing = _missing_joules(status, ledger)
        if missing:
            left_out.append(f"status.ledger: {missing / 3600:.0f} Wh less than the status says were used")
            changes["ledger"] = _with_others(ledger, missing, now)
    for name, most in (("committed_power_watts", MOST_WATTS), ("excess_power_watts", MOST_WATTS)):
        value = getattr(status, name)
        if value is not None and not 0 <= value <= most:
            left_out.append(f"status.{EnergyBudgetStatus.model_fields[name].alias}: {value}")
            changes[name] = None
    if why := time_problem(status.shed_time, now):
        left_out.append(f"status.shedTime: {why}")
        changes["shed_time"] = None
    members = tuple(
        member.model_copy(update={"allowed_power_watts": None, "former_power_watts": None})
        if any(
            not 0 <= watts <= MOST_WATTS for watts in (member.allowed_power_watts or 0, member.former_power_watts or 0)
        )
        else member
        for member in status.members
    )
    if members != status.members:
        left_out.append("status.members: power that no deployment can draw")
        changes["members"] = members
    return corrected(stated, status, changes, left_out)


def _was_edited(body: Body, status: EnergyBudgetStatus) -> bool:
    """Return whether the spec, and perhaps its period, changed since the status was written."""
    return bool(status.observed_generation != body["metadata"].get("generation", 1))


def _ledger(stated: Any, start: datetime, now: datetime) -> tuple[tuple[LedgerEntry, ...], list[str]]:
    """Return the accounts, with impossible accounts counted again, and one line for each of these."""
    found, left_out = [], []
    for raw in stated if isinstance(stated, list) else ():
        uid = raw.get("uid") if isinstance(raw, Mapping) else None
        if not isinstance(uid, str) or not uid:
            left_out.append("status.ledger: an account without a uid")
            continue
        amounts = {name: raw.get(name, 0) for name in _AMOUNTS}
        wrong = [name for name, value in amounts.items() if not is_amount(value)]
        until = raw.get("accountedUntil")
        if not isinstance(until, str) or time_problem(until, now):
            wrong.append("accountedUntil")
        if not wrong:
            try:
                found.append(LedgerEntry.model_validate(dict(raw)))
                continue
            except ValidationError:
                wrong.append("an unknown field")
        left_out.append(f"status.ledger[{uid}]: {', '.join(wrong)}")
        sane = {name: 0 if name in wrong else value for name, value in amounts.items()}
        # An account with known energy continues from now; otherwise its time is predicted.
        known = not any(name in wrong for name in ("measuredJoules", "predictedJoules"))
        since = until if "accountedUntil" not in wrong and known else timestamp(now if known else start)
        names = {name: str(raw.get(name) or "") for name in ("namespace", "name")}
        found.append(LedgerEntry.model_validate({"uid": uid, **names, **sane, "accountedUntil": since}))
    return tuple(found), left_out


def _missing_joules(status: EnergyBudgetStatus, ledger: tuple[LedgerEntry, ...]) -> int:
    """Return the used energy that a ledger lacks, J; 0 if the ledger is complete, up to rounding."""
    counted = sum(entry.measured_joules + entry.predicted_joules for entry in ledger)
    points = [point.used_watt_hours for point in status.history[-1:]]
    members = [member.used_watt_hours or 0 for member in status.members]
    # Each figure is rounded by half a watt-hour.
    used = max(status.used_watt_hours or 0, *points, sum(members) - len(members) / 2, 0)
    missing = 3600.0 * (used - 1) - counted
    return round(missing) if 0 < missing <= MOST_JOULES else 0


def _with_others(ledger: tuple[LedgerEntry, ...], joules: int, now: datetime) -> tuple[LedgerEntry, ...]:
    old = next((entry for entry in ledger if entry.uid == FOLDED), None)
    before = old or LedgerEntry(uid=FOLDED, namespace="", name=FOLDED, accounted_until=timestamp(now))
    folded = before.model_copy(
        update={
            "predicted_joules": before.predicted_joules + joules,
            "ungraded_joules": before.ungraded_joules + joules,
        }
    )
    return (*(entry for entry in ledger if entry.uid != FOLDED), folded)
