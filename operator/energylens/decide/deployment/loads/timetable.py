"""The replicas of a schedule at a given moment, and their next change. Pure: the moment is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from energylens.api.llmdeployment import WEEKDAYS, ScheduledReplicas
from energylens.planner.search.week_load import HOURS, WeekLoad
from energylens.records import dataclass

LOOK_AHEAD = timedelta(hours=HOURS + 25)
"""Time without a change, a week including clock changes, after which a schedule never changes."""


@dataclass(frozen=True)
class Timetable:
    """The replicas of every hour, started early by the start-up time."""

    load: WeekLoad
    """The week in its time zone; its rates come from the spec, which may be newer than the entries."""
    entries: Sequence[ScheduledReplicas]
    """Changes of the replicas, from Monday 0:00 on; at least one."""
    lead: timedelta

    def entry_at(self, moment: datetime) -> int:
        """Return the index of the entry to follow at a moment.

        This is the entry of the hour or, among the entries that begin within the lead, the entry with the most
        replicas if it has more.
        """
        ahead = []
        for hour in self.load.hours_from(moment):
            if hour > moment + self.lead:
                break
            ahead.append(self._entry_of(self.load.hour_at(hour)))
        return max(ahead, key=lambda index: self.entries[index].replicas)

    def next_entry(self, moment: datetime) -> datetime | None:
        """Return the next moment at which another entry applies; None if there is none."""
        now = self.entry_at(moment)
        return next((time for time in self._moments(moment) if self.entry_at(time) != now), None)

    def next_look(self, moment: datetime) -> datetime | None:
        """Return the next moment at which another entry applies, or at which the hour of an entry begins."""
        on_time = replace(self, lead=timedelta(0))
        found = [time for time in (self.next_entry(moment), on_time.next_entry(moment)) if time is not None]
        return min(found, default=None)

    def next_change(self, moment: datetime) -> tuple[datetime, int] | None:
        """Return the next moment at which the number of replicas changes, and the new number.

        None if it never changes.
        """
        now = self.entries[self.entry_at(moment)].replicas
        for time in self._moments(moment):
            replicas = self.entries[self.entry_at(time)].replicas
            if replicas != now:
                return time, replicas
        return None

    def _moments(self, moment: datetime) -> Iterator[datetime]:
        """Yield the later moments at which the entry can change, in order: the hours, and the hours less the lead.

        The moments are whole seconds, as times in the status.
        """
        if len(self.entries) == 1:
            return
        found: set[datetime] = set()
        for hour in self.load.hours_from(moment):
            if hour > moment + LOOK_AHEAD + self.lead:
                break
            found |= {hour.astimezone(UTC), (hour - self.lead).astimezone(UTC)}
        yield from sorted(time for time in found if time > moment)

    def _entry_of(self, hour: int) -> int:
        starts = [24 * WEEKDAYS.index(entry.day) + entry.hour for entry in self.entries]
        found = [index for index, start in enumerate(starts) if start <= hour]
        return found[-1] if found else len(starts) - 1
