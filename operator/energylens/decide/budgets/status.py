"""The status of a budget: used and remaining energy, forecast, shedding by member, and conditions. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np

from energylens.api.base import Condition
from energylens.api.energybudget import (
    BudgetMember,
    EnergyBudgetSpec,
    EnergyBudgetStatus,
    UsagePoint,
)
from energylens.api.timestamp import timestamp
from energylens.api.words import counted
from energylens.budget.ledger import Entry, to_status, written
from energylens.budget.periods import Span
from energylens.budget.shed import Cap, Share, Shed, shed
from energylens.budget.usage import (
    NO_JOBS,
    JobEnergy,
    PowerAllowed,
    Usage,
    burn_rate_watts,
    exhaustion,
    growth,
    power_allowed,
)
from energylens.budget.verdict import Figures, exceeded
from energylens.decide.budgets.budget import CLOSED
from energylens.decide.budgets.counted import CountedWatts
from energylens.decide.budgets.jobs import CountedJob, seconds_of
from energylens.decide.deployment.reports.condition import keep_transition_times
from energylens.decide.planned import Key
from energylens.decide.reasons import BudgetConditionType, BudgetReason
from energylens.records import dataclass

MAX_MEMBERS = 256
HISTORY_POINTS = 96
"""Points of the burn-down; for a period of a day, one point per 15 minutes."""
_MESSAGE_LENGTH = 1000
_NAMED = 3


@dataclass(frozen=True)
class CountedMember:
    """One member of a budget, with the power that counts against the budget."""

    key: Key
    uid: str
    priority: int
    committed_watts: float
    least_watts: float
    levels_watts: tuple[float, ...]
    """Predicted power with each smaller number of replicas that shedding may leave."""
    is_priced: bool
    """Whether the levels are known, or will never be known."""
    answered_watts: float | None
    """Power from this budget that its plan was made for, W; None if another budget, or none, binds the plan."""
    whole_watts: float | None
    """Predicted power including the replicas that this budget removed, W; None if it removed none."""
    measured_watts: float | None
    excess_watts: float
    """Measured minus committed power, W; negative if the member draws less."""
    draws: bool
    """Whether the member's pods hold GPUs that count."""
    is_silent: bool
    """Whether the member draws power and was not measured for too long."""
    job: CountedJob | None = None
    """Its batch job, which ends; None for any other load."""


@dataclass(frozen=True)
class Look:
    """The inputs of a budget's status at one check."""

    spec: EnergyBudgetSpec
    generation: int
    before: EnergyBudgetStatus
    members: Sequence[CountedMember]
    entries: Sequence[Entry]
    period: Span
    now: datetime
    used: Usage | None
    """Energy figures; None if the forecast does not cover the current time."""
    points: Sequence[tuple[datetime, float]]
    """Watt-hours used since the period began, over the last hour, oldest first."""
    problem: tuple[BudgetReason, str] | None
    """Why the budget cannot be checked."""


@dataclass(frozen=True)
class Decided:
    """A budget's status, and whether the budget must be checked again soon."""

    status: EnergyBudgetStatus
    is_unsettled: bool
    """Whether power was just taken, or members have not reacted yet."""


def status_of_budget(look: Look) -> EnergyBudgetStatus:
    """Return the status of a budget whose spec can be read."""
    return decide(look).status


def decide(look: Look) -> Decided:
    """Return the status of a budget whose spec can be read, and whether members have yet to react to shedding."""
    spec, before, now, used = look.spec, look.before, look.now, look.used
    committed = sum(member.committed_watts for member in look.members)
    drawing = [member for member in look.members if member.draws]
    known = [member.measured_watts for member in drawing if member.measured_watts is not None]
    measured = sum(known) if len(known) == len(drawing) else None
    jobs = _job_energy(look)
    allowed = power_allowed(spec, used, look.period, now, jobs) if used is not None else None
    problem = look.problem or _silence(look)
    excess = max(0.0, sum(member.excess_watts for member in look.members))
    found = _shed(look, allowed, jobs, excess, checked=problem is None)
    burn = burn_rate_watts(look.points, committed if measured is None else measured)
    energy = used is not None and used.allowed_watt_hours is not None
    gone = _exhaustion(look, used, burn) if used is not None else None
    status = EnergyBudgetStatus(
        observed_generation=look.generation,
        committed_power_watts=round(committed),
        measured_power_watts=None if measured is None else round(measured),
        excess_power_watts=round(excess),
        allowed_power_watts=None if allowed is None else int(allowed.watts),
        binding_limit=None if allowed is None else allowed.limit,
        period_start=timestamp(look.period.start),
        reset_time=timestamp(look.period.end),
        used_watt_hours=round(used.used_watt_hours) if used is not None else before.used_watt_hours,
        predicted_watt_hours=round(used.predicted_watt_hours) if used is not None else before.predicted_watt_hours,
        remaining_watt_hours=_whole(used.remaining_watt_hours if used is not None else None),
        energy_limit=(used.limit or None) if used is not None else None,
        used_grams=None if used is None else _whole(used.used_grams),
        used_percent=_percent(spec, used, committed),
        burn_rate_watts=round(burn),
        burn_rate_percent=_burn_percent(look, burn),
        exhaustion_time=None if gone is None else timestamp(gone),
        used=_used(spec, used, committed),
        remaining=_remaining(spec, used, committed),
        forecast=_forecast(gone, now) if energy else None,
        member_count=len(look.members),
        members=_members(look, found.caps),
        shed_time=timestamp(now) if found.took else before.shed_time,
        ledger=tuple(map(to_status, written(look.entries))),
        history=_history(look),
    )
    conditions = (
        _condition(look, BudgetConditionType.READY, *_ready(spec, problem)),
        _condition(look, BudgetConditionType.WITHIN_ENERGY_BUDGET, *_within(look, committed, measured, gone, problem)),
        _condition(look, BudgetConditionType.SHEDDING, *_shedding(spec, found)),
    )
    status = status.model_copy(update={"conditions": keep_transition_times(conditions, before.conditions, now)})
    return Decided(status, found.waits)


def unreadable_status(before: EnergyBudgetStatus, generation: int, message: str, now: datetime) -> EnergyBudgetStatus:
    """Return the status of a budget whose spec cannot be read, with the counted energy unchanged."""
    condition = Condition(
        type=BudgetConditionType.READY.value,
        status="False",
        reason=BudgetReason.INVALID_SPEC.value,
        message=f"{message}; until it is corrected, no plan may draw more than the running one"[:_MESSAGE_LENGTH],
        observed_generation=generation,
    )
    others = tuple(c for c in before.conditions if c.type != condition.type)
    conditions = (*keep_transition_times([condition], before.conditions, now), *others)
    return before.model_copy(update={"observed_generation": generation, "conditions": conditions})


def _silence(look: Look) -> tuple[BudgetReason, str] | None:
    silent = ["/".join(member.key) for member in look.members if member.is_silent]
    if not silent:
        return None
    more = f" and {len(silent) - _NAMED} more" if len(silent) > _NAMED else ""
    text = f"nothing is measured of {', '.join(silent[:_NAMED])}{more}; they count with their predicted power"
    return BudgetReason.METRICS_MISSING, text


def _job_energy(look: Look) -> JobEnergy:
    """Return the energy that the jobs of the members will take in each period; none if there is not enough for them.

    Then jobs are treated as any load: with less power they take less energy in this period.
    """
    jobs = tuple(member.job for member in look.members if member.job is not None)
    found = CountedWatts(0.0, 0.0, jobs=jobs).energy(look.spec, look.period, look.now)
    left = None if look.used is None else look.used.remaining_watt_hours
    return found if left is None or found.present <= left else NO_JOBS


def _exhaustion(look: Look, used: Usage, burn: float) -> datetime | None:
    """Return when the energy will be used up; jobs burn theirs until they end."""
    jobs = [m.job for m in look.members if m.job is not None and not m.job.is_late(look.now)]
    running = sum(job.committed_watts for job in jobs)
    rest = max(0.0, burn - running)
    if not jobs or used.remaining_watt_hours is None:
        return exhaustion(used, look.period, look.now, burn)
    # Minutes suffice for a forecast.
    seconds = seconds_of(look.now) + np.append(
        np.arange(0.0, (look.period.end - look.now).total_seconds(), 60.0), (look.period.end - look.now).total_seconds()
    )
    taken = np.sum([job.watt_hours(look.now, seconds) for job in jobs], axis=0)
    spent = taken + rest * (seconds - seconds[0]) / 3600.0
    over = np.flatnonzero(spent >= used.remaining_watt_hours)
    if not over.size or (over[0] == seconds.size - 1 and spent[-1] <= used.remaining_watt_hours):
        return None
    return look.now + timedelta(seconds=float(seconds[over[0]] - seconds[0]))


def _shed(look: Look, allowed: PowerAllowed | None, jobs: JobEnergy, excess: float, *, checked: bool) -> Shed:
    """Return the caps from now on; a budget that cannot be checked changes no cap.

    A job with less power takes longer, and hardly less energy: if energy is short, the other members shed power.
    """
    caps = {
        (m.namespace, m.name): Cap(float(m.allowed_power_watts), float(m.former_power_watts or m.allowed_power_watts))
        for m in look.before.members
        if m.allowed_power_watts is not None
    }
    members = {member.key for member in look.members}
    kept = {key: cap for key, cap in caps.items() if key in members}
    if look.spec.action != "Shed" or allowed is None:
        return Shed({} if look.spec.action != "Shed" else kept, False, 0.0)
    if not checked:
        return Shed(kept, False, 0.0)
    spares = allowed.limit != "spec.powerWatts" and jobs != NO_JOBS
    keeps = {m.key for m in look.members if spares and m.job is not None and not m.job.is_late(look.now)}
    shares = [
        Share(
            m.key,
            m.priority,
            m.committed_watts,
            m.committed_watts if m.key in keeps else m.least_watts,
            () if m.key in keeps else m.levels_watts,
            m.is_priced or m.key in keeps,
            m.key in kept and m.answered_watts is not None and abs(m.answered_watts - kept[m.key].watts) < 1,
            kept[m.key].watts if m.key in kept else None,
            kept[m.key].former_watts if m.key in kept else None,
            m.whole_watts,
        )
        for m in look.members
    ]
    since = look.before.shed_time
    return shed(
        shares,
        max(0.0, allowed.watts - excess),
        growth_watts=max(0.0, _growth_watts(look, jobs) - excess),
        hysteresis_percent=look.spec.shed.hysteresis_percent,
        seconds_since=None if since is None else (look.now - datetime.fromisoformat(since)).total_seconds(),
        cooldown_seconds=float(look.spec.shed.cooldown_seconds),
    )


def _growth_watts(look: Look, jobs: JobEnergy) -> float:
    """Return the power up to which power may be given back, W: the jobs draw theirs beside what energy leaves."""
    if look.used is None:
        return math.inf
    found = growth(look.spec, look.used, look.period, look.now)
    power = math.inf if found.power is None else found.power.watts
    return power if found.energy is None else min(power, found.energy.watts(jobs) + jobs.watts)


def _ready(spec: EnergyBudgetSpec, problem: tuple[BudgetReason, str] | None) -> tuple[str, BudgetReason, str]:
    if problem is None:
        return "True", BudgetReason.CHECKED, ""
    return "False", problem[0], problem[1] + ("" if spec.action == "Report" else CLOSED)


def _within(
    look: Look,
    committed: float,
    measured: float | None,
    gone: datetime | None,
    problem: tuple[BudgetReason, str] | None,
) -> tuple[str, BudgetReason, str]:
    used = look.used
    figures = Figures(
        round(committed),
        None if measured is None else round(measured),
        None if used is None else round(used.used_watt_hours),
        None if used is None else _whole(used.remaining_watt_hours),
        used.limit if used is not None else None,
    )
    over = exceeded(look.spec, figures)
    if over:
        return "False", BudgetReason.EXCEEDED, "; ".join(over)
    if look.used is None and problem is not None:
        return "Unknown", problem[0], problem[1]
    if gone is not None:
        return "True", BudgetReason.RUNS_OUT, f"at the current rate the energy is used up by {timestamp(gone)}"
    return "True", BudgetReason.WITHIN, ""


def _shedding(spec: EnergyBudgetSpec, found: Shed) -> tuple[str, BudgetReason, str]:
    if not found.caps:
        return "False", BudgetReason.NOTHING_TAKEN, ""
    taken = sum(max(0.0, cap.former_watts - cap.watts) for cap in found.caps.values())
    text = f"{taken:.0f} W are taken from {counted(len(found.caps), 'member')}, lowest spec.energy.priority first"
    if found.missing_watts:
        short = f"{text}; {found.missing_watts:.0f} W are still missing, but every member is at its floor"
        return "True", BudgetReason.AT_THE_FLOOR, short
    return "True", BudgetReason.TAKING, text


def _condition(look: Look, kind: BudgetConditionType, status: str, reason: BudgetReason, message: str) -> Condition:
    return Condition(
        type=kind.value,
        status=status,
        reason=reason.value,
        message=message[:_MESSAGE_LENGTH],
        observed_generation=look.generation,
    )


def _members(look: Look, caps: Mapping[Key, Cap]) -> tuple[BudgetMember, ...]:
    used = {entry.uid: entry.joules / 3600.0 for entry in look.entries}
    found = []
    for member in look.members:
        cap = caps.get(member.key)
        found.append(
            BudgetMember(
                name=member.key[1],
                namespace=member.key[0],
                priority=member.priority,
                committed_power_watts=round(member.committed_watts),
                measured_power_watts=_whole(member.measured_watts),
                used_watt_hours=_whole(used.get(member.uid)),
                allowed_power_watts=None if cap is None else int(cap.watts),
                former_power_watts=None if cap is None else round(cap.former_watts),
            )
        )
    found.sort(key=lambda m: (m.allowed_power_watts is None, -m.committed_power_watts, m.namespace, m.name))
    # No other object remembers the power that was taken.
    taken = sum(m.allowed_power_watts is not None for m in found)
    return tuple(found[: max(MAX_MEMBERS, taken)])


def _history(look: Look) -> tuple[UsagePoint, ...]:
    """Return the burn-down, with the current point if the last point is old enough."""
    start = timestamp(look.period.start)
    kept = look.before.history if look.before.period_start == start else ()
    if look.used is None:
        return kept
    step = (look.period.end - look.period.start) / HISTORY_POINTS
    if kept and look.now - datetime.fromisoformat(kept[-1].time) < step:
        return kept
    return (*kept, UsagePoint(time=timestamp(look.now), used_watt_hours=round(look.used.used_watt_hours)))


def _percent(spec: EnergyBudgetSpec, used: Usage | None, committed: float) -> int | None:
    if used is not None and used.allowed_watt_hours:
        return round(100 * used.used_watt_hours / used.allowed_watt_hours)
    if spec.energy_watt_hours is None and spec.carbon is None and spec.power_watts:
        return round(100 * committed / spec.power_watts)
    return None


def _burn_percent(look: Look, burn: float) -> int | None:
    """Return the burn rate relative to the rate at which the remaining energy lasts until the reset, %."""
    left = look.used.remaining_watt_hours if look.used is not None else None
    hours = look.period.hours_left(look.now)
    if not left or not hours:
        return None
    return round(100 * burn / (left / hours))


def _forecast(gone: datetime | None, now: datetime) -> str:
    if gone is None:
        return "lasts"
    return f"used up {timestamp(gone)}" if gone > now else "used up"


def _used(spec: EnergyBudgetSpec, used: Usage | None, committed: float) -> str | None:
    percent = _percent(spec, used, committed)
    share = "" if percent is None else f" ({percent} %)"
    if used is not None and used.allowed_watt_hours is not None:
        return f"{used.used_watt_hours:.0f}/{used.allowed_watt_hours:.0f} Wh{share}"
    return None if spec.power_watts is None else f"{committed:.0f}/{spec.power_watts} W{share}"


def _remaining(spec: EnergyBudgetSpec, used: Usage | None, committed: float) -> str | None:
    if used is not None and used.remaining_watt_hours is not None:
        return f"{used.remaining_watt_hours:.0f} Wh"
    return None if spec.power_watts is None else f"{max(0.0, spec.power_watts - committed):.0f} W"


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
