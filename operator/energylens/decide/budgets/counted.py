"""Power of deployments that counts against a budget: now, and reserved in each hour of the week. Pure.

Replicas that follow the hours of a week reserve the power of each hour, every other plan its power in all hours. Hours
are counted in quarters, since time zones differ from UTC by quarters of an hour, and since replicas start early.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.decide.budgets.membership import Surroundings, is_member, share
from energylens.decide.planned import HOURS, PlannedDeployment, WeekWatts
from energylens.records import dataclass

QUARTERS = 4 * HOURS
"""Quarters of an hour in a week."""
_QUARTER = timedelta(minutes=15)
_YEAR = tuple(timedelta(weeks=week) for week in range(53))
"""Time zones change their clocks a week apart or more, such as Europe and America in October and November."""
Slots = npt.NDArray[np.float64]
"""Power of each quarter of an hour, from Monday 0:00 on, W, shape (672,)."""


@dataclass(frozen=True)
class CountedWatts:
    """Power that counts against a budget, W."""

    committed: float
    """By plans as they are now."""
    constant: float
    """Reserved in every hour, so that no other plan may use it."""
    weeks: Mapping[str, Slots] = field(default_factory=dict)
    """Reserved by the hour, by the time zone of the hours."""

    def reserved(self, now: datetime) -> float:
        """Return the most that is reserved in any hour, W."""
        return self.constant + (float(self._hourly("UTC", now).max()) if self.weeks else 0.0)

    def by_slot(self, zone: str, now: datetime) -> Slots:
        """Return the power reserved in each quarter of an hour of a time zone's week, W.

        Zones change their clocks at different times: the result is the most that coincides in any week of a year, so
        that no plan depends on the date.
        """
        return self.constant + self._hourly(zone, now)

    def _hourly(self, zone: str, now: datetime) -> Slots:
        here, others = ZoneInfo(zone), [ZoneInfo(other) for other in self.weeks]
        moments = [now + later for later in _YEAR]
        shifts = {tuple(_offset(here, moment) - _offset(other, moment) for other in others) for moment in moments}
        most = np.zeros(QUARTERS)
        for shift in shifts:
            rolled = (np.roll(slots, ahead) for slots, ahead in zip(self.weeks.values(), shift, strict=True))
            most = np.maximum(most, sum(rolled, np.zeros(QUARTERS)))
        return most


NO_WATTS = CountedWatts(0.0, 0.0)


def summed(found: Iterable[CountedWatts]) -> CountedWatts:
    """Return the power of several deployments together."""
    committed, constant = 0.0, 0.0
    weeks: dict[str, Slots] = {}
    for each in found:
        committed, constant = committed + each.committed, constant + each.constant
        for zone, slots in each.weeks.items():
            weeks[zone] = weeks[zone] + slots if zone in weeks else slots
    return CountedWatts(committed, constant, weeks)


def counted_watts(
    spec: EnergyBudgetSpec, namespace: str, deployment: PlannedDeployment, around: Surroundings
) -> CountedWatts | None:
    """Return the power of a deployment that counts against a budget; None if it is no member.

    Args:
        spec: The budget's.
        namespace: The budget's; "" for a ClusterEnergyBudget.
        deployment: With the plan that it adopted.
        around: Namespaces and nodes.
    """
    if not is_member(spec, namespace, deployment, around):
        return None
    part, committed, week = share(spec, deployment, around), deployment.committed_watts, deployment.reserved_week
    if week is None:
        return CountedWatts(committed * part, deployment.reserved_watts * part)
    return CountedWatts(committed * part, 0.0, {week.time_zone: part * slots_of(week)})


def slots_of(week: WeekWatts) -> Slots:
    """Return the power of a week by quarters of an hour; a quarter in which replicas start for the next has theirs."""
    slots = np.repeat(np.asarray(week.watts, dtype=np.float64), 4)
    found = slots
    for ahead in range(1, quarters_ahead(week.lead_seconds) + 1):
        found = np.maximum(found, np.roll(slots, -ahead))
    return found


def quarters_ahead(lead_seconds: float) -> int:
    """Return the quarters of an hour before an hour in which its replicas start."""
    return min(QUARTERS - 1, -int(-lead_seconds // _QUARTER.total_seconds()))


def _offset(zone: ZoneInfo, moment: datetime) -> int:
    """Return the quarters by which the clock of a time zone is ahead of UTC."""
    offset = moment.astimezone(zone).utcoffset() or timedelta(0)
    return round(offset / _QUARTER)
