"""The best start of a job: in the cleanest or cheapest hours in which budgets have room for the job. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

from energylens.api.llmdeployment import JobStart
from energylens.api.timestamp import moment_of, timestamp
from energylens.budget.course import Course
from energylens.budget.job_start import StartChoice, Starts, best_start
from energylens.decide.deployment.pods.job_hours import JobHours
from energylens.decide.reasons import Reason
from energylens.planner.room import Courses
from energylens.planner.search.job_room import holders_text
from energylens.planner.types import PowerAllowance
from energylens.records import dataclass

FORECAST_WAIT = timedelta(minutes=10)
"""Longest wait for a usable forecast: a ConfigMap may be created or updated just after the LLMDeployment, as by one
``kubectl apply``, and a start cannot be undone."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class StartRoom:
    """Whether budgets have room for one job, by its start."""

    allowance: PowerAllowance
    course: Course

    def allows(self, starts: Starts) -> npt.NDArray[np.bool_]:
        """Return which starts are allowed, shape (m,), from seconds since the Unix epoch."""
        if self.course.busy_watts > self.allowance.watts:
            return np.zeros(starts.shape, dtype=bool)
        room = self.allowance.room
        return np.ones(starts.shape, dtype=bool) if room is None else room.fits_at(self._courses, starts)

    def at(self, moment: datetime) -> bool:
        """Return whether a start is allowed."""
        return bool(self.allows(np.asarray([_seconds(moment)]))[0])

    def first(self, after: datetime, until: datetime) -> datetime | None:
        """Return the first allowed start, at a quarter of an hour; None if there is none."""
        room = self.allowance.room
        if self.course.busy_watts > self.allowance.watts or until < after:
            return None
        if room is None:
            return after
        found = room.first_fit(self._courses, _seconds(after), _seconds(until))
        return None if found is None else max(after, _EPOCH + timedelta(seconds=found))

    def why_not(self, moment: datetime) -> str:
        """Return why a start is not allowed: the budget that leaves too little, and the jobs that hold its power."""
        allowance, room = self.allowance, self.allowance.room
        if room is None or self.course.busy_watts > allowance.watts:
            return f"{allowance} leaves {allowance.watts:.0f} W, and the job draws {self.course.busy_watts:.0f} W"
        start = np.asarray([_seconds(moment)])
        for each in room.energy:
            if not each.suffices(self._courses, start, room.now)[0]:
                value = "" if each.limit_watt_hours is None else f"={each.limit_watt_hours} Wh"
                return f"{each.field}{value} leaves less energy than the job takes in a period"
        end = _seconds(moment) + self.course.longest_seconds
        return f"{allowance.field} leaves too little power{holders_text(room, _seconds(moment), end)}"

    @property
    def _courses(self) -> Courses:
        start, serving, idle = self.course.phases
        figures = (
            start.seconds, start.watts, serving.seconds, serving.watts, idle.seconds, idle.watts,
            self.course.longest_seconds,
        )  # fmt: skip
        return Courses(*(np.asarray([float(figure)]) for figure in figures))


@dataclass(frozen=True)
class Found:
    """The start that was chosen."""

    begin: datetime | None
    """None: budgets have room at no start."""
    end: datetime | None
    latest: datetime
    reason: Reason
    message: str
    saving: int | None


@dataclass(frozen=True)
class _Choice:
    """The question that :func:`chosen` answers."""

    course: Course
    start: JobStart
    now: datetime
    earliest: datetime
    latest: datetime
    room: StartRoom | None

    def made(self, begin: datetime, reason: Reason, message: str, saving: int | None = None) -> Found:
        """Return a start, with the words for it."""
        # A start within the present second is due.
        begin = self.earliest if begin - self.earliest < timedelta(seconds=1) else begin
        end = begin + timedelta(seconds=self.course.end_seconds)
        when = "starts at once" if begin <= self.now else f"starts at {text_of(begin)}"
        safe = f"the last safe start is at {text_of(self.latest)}" if self.latest > self.earliest else ""
        about = f"ends at about {text_of(end)}"
        text = "; ".join(filter(None, (f"{when}: {message}", about, safe)))
        return Found(begin, end, self.latest, reason, text, saving)

    def allowed(self, begin: datetime) -> bool:
        """Return whether budgets have room for a start."""
        return self.room is None or self.room.at(begin)

    def roomy(self, begin: datetime, reason: Reason, message: str) -> Found:
        """Return a start, or the next one for which budgets have room: before it, if there is none after it."""
        if self.room is None or self.room.at(begin):
            return self.made(begin, reason, message)
        why = self.room.why_not(begin)
        later = self.room.first(begin, self.latest)
        found = later if later is not None else self.room.first(self.earliest, min(begin, self.latest))
        if found is None:
            return self.refused(why)
        return self.made(found, reason, f"{message}; at {text_of(begin)}, {why}")

    def refused(self, why: str) -> Found:
        """Return that budgets have no room for any start."""
        again = None if self.room is None else self.room.first(self.earliest, self.earliest + timedelta(days=7))
        late = "" if again is None else f"; there is room from {text_of(again)} on, which is too late for completeBy"
        text = f"does not start: {why}, at every start from {text_of(self.earliest)} to {text_of(self.latest)}{late}"
        if self.latest <= self.earliest:
            when = "" if again is None else f"; there is room from {text_of(again)} on"
            text = f"does not start: {why}{when}"
        return Found(None, None, self.latest, Reason.BUDGET_EXCEEDED, text, None)


def chosen(
    course: Course,
    start: JobStart,
    hours: JobHours,
    now: datetime,
    kept: datetime | None,
    room: StartRoom | None,
) -> Found:
    """Return the best start; without a usable forecast the planned one, or else a start after a short wait for one.

    Args:
        course: The course of the job.
        start: What the spec asks.
        hours: The values that weigh the hours.
        now: The current time.
        kept: The start that was planned before; None without one.
        room: The room of budgets; None if no budget limits the deployment.
    """
    earliest, latest = max(now, moment_of(start.not_before) or now), latest_start(start, course)
    choice = _Choice(course, start, now, earliest, latest, room)
    if latest <= earliest:
        late = f"spec.workload.job.start.completeBy={start.complete_by} leaves no choice"
        if latest < earliest:
            late += f": the last start that would surely end in time was at {text_of(latest)}"
        if choice.allowed(earliest):
            return choice.made(earliest, Reason.NO_TIME_LEFT, late)
        assert room is not None
        return choice.refused(room.why_not(earliest))
    safe = kept if kept is not None and earliest <= kept <= latest and choice.allowed(kept) else None
    reason, why = hours.reason, hours.message
    if hours.values is not None:
        first, end = hours.values.times[0], hours.values.end
        length = timedelta(seconds=sum(phase.seconds for phase in course.phases))
        # An earlier forecast showed the planned hour to be better than the hours that this one covers.
        if safe is None or first <= safe <= end - length:
            found = _best(choice, hours, kept)
            if found is not None:
                return found
        reason = Reason.FORECAST_STALE if end <= now else Reason.FORECAST_SHORT
        why = f"the {_source(start)} ended at {text_of(end)}"
        if reason is Reason.FORECAST_SHORT:
            why = (
                f"the {_source(start)} covers {text_of(first)} to {text_of(end)}, and the job of "
                f"{length.total_seconds():.0f} s fits into no part of this time from {text_of(earliest)} on that ends "
                f"by completeBy"
            )
            if safe is not None:
                why = f"the {_source(start)} covers {text_of(first)} to {text_of(end)} only"
    if safe is not None:
        return choice.made(safe, reason, f"{why}; the planned start stays")
    waits = f"waits until then for a usable {_source(start)}"
    return choice.roomy(min(latest, max(earliest, now + FORECAST_WAIT)), reason, f"{why}; {waits}")


def _best(choice: _Choice, hours: JobHours, kept: datetime | None) -> Found | None:
    """Return the best start in the hours that have a value; None if these hours cover no start."""
    course, start, earliest, latest, room = choice.course, choice.start, choice.earliest, choice.latest, choice.room
    assert hours.values is not None
    best = best_start(course.phases, earliest, latest, hours.values, kept)
    if best is None or room is None:
        return None if best is None else choice.made(best.start, *_weighed(start, best, earliest, latest))
    lengths = (course.longest_seconds, course.reserved_seconds)
    free = best_start(course.phases, earliest, latest, hours.values, kept, room.allows, lengths)
    if free is None:
        found = room.first(earliest, latest)
        why = room.why_not(best.start)
        if found is None:
            return choice.refused(why)
        return choice.made(found, Reason.FORECAST_SHORT, f"the first start with room; at {text_of(best.start)}, {why}")
    reason, text, saving = _weighed(start, free, earliest, latest)
    if free.amount > best.amount and not room.at(best.start):
        better = f"a start at {text_of(best.start)} would take {_amount(start, best.amount)}"
        text += f"; {better}, but {room.why_not(best.start)}"
    return choice.made(free.start, reason, text, saving)


def _seconds(moment: datetime) -> int:
    return int((moment - _EPOCH) // timedelta(seconds=1))


def latest_start(start: JobStart, course: Course) -> datetime:
    """Return the last start that surely ends in time."""
    by = moment_of(start.complete_by)
    assert by is not None
    return by - timedelta(seconds=course.longest_seconds)


def _weighed(
    start: JobStart, found: StartChoice, earliest: datetime, latest: datetime
) -> tuple[Reason, str, int | None]:
    """Return reason, message and saving of the best start."""
    short = latest - found.until >= timedelta(seconds=1)
    reason = Reason.BEST_KNOWN_HOURS if short else Reason.BEST_HOURS
    text, saving, at_once = _amount(start, found.amount), None, found.at_once
    if at_once is not None and found.start - earliest >= timedelta(seconds=1):
        # A start that was planned before may be a little worse.
        saving = max(0, round(100.0 * (at_once - found.amount) / abs(at_once))) if at_once else None
        less = "" if saving is None else f" ({saving} % less)"
        text += f" instead of {_amount(start, at_once)} for a start at {text_of(earliest)}{less}"
    elif at_once is not None:
        text, saving = f"{text}; no later start is clearly better", 0
    if short:
        text += f"; starts after {text_of(found.until)} are not compared, since the {_source(start)} ends"
    return reason, text, saving


def _source(start: JobStart) -> str:
    return "tariff" if start.forecast_config_map_ref is None else "forecast"


def _amount(start: JobStart, amount: float) -> str:
    """Return carbon or cost in words."""
    if start.forecast_config_map_ref is None:
        return f"energy for {amount:,.2f} in the tariff's currency"
    return f"{amount / 1000.0:,.3g} kg of CO2" if amount >= 1000.0 else f"{amount:,.3g} g of CO2"


def text_of(moment: datetime) -> str:
    """Return a time as messages have it."""
    return timestamp(moment)
