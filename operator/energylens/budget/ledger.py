"""The energy ledger: per member what was used in this period, and the moment up to which it is counted.

That moment is the watermark: energy before it is in the figures, energy after it is not. Figures and watermark are
written together, so that whatever is counted after a crash is counted from where the last write ended. Time that
nobody measured is counted with the predicted power, and marked as such; a measurement that comes later for the same
time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from energylens.api.energybudget_status import LedgerEntry
from energylens.api.timestamp import timestamp
from energylens.budget.carbon import Forecast
from energylens.budget.periods import Span

WAIT_SECONDS = 300.0
"""Longest delay of a measurement; older time without a measurement is counted with the predicted power."""
MOST_GONE = 256
"""Most accounts of deleted members; each takes some 300 bytes of an object that may have 1.5 MB."""
FOLDED = "others"
"""Identity of the account into which the oldest of these accounts are folded."""
MOST_WRITTEN = 256
"""Most accounts of one status; each takes some 650 bytes, more than half of them in managedFields."""
SMALLER = "members"
"""Identity of the account into which the accounts of members beyond these are folded where they are written."""


@dataclass(frozen=True)
class MeasuredEnergy:
    """Energy measured over a span that may begin before the watermark."""

    start: datetime
    end: datetime
    joules: float


@dataclass(frozen=True)
class Entry:
    """One member's account."""

    uid: str
    namespace: str
    name: str
    until: datetime
    """The watermark; aware, UTC, whole seconds."""
    measured_joules: float = 0.0
    predicted_joules: float = 0.0
    grams: float = 0.0
    ungraded_joules: float = 0.0
    """Part of both energies: energy of time without a carbon forecast."""
    predicted_watts: float = 0.0
    """Predicted power at the last check: counts for the time since then if the member is gone at the next check."""

    @property
    def joules(self) -> float:
        """Measured and predicted energy, J."""
        return self.measured_joules + self.predicted_joules


def account(
    entry: Entry, now: datetime, measured: MeasuredEnergy | None, predicted_watts: float, forecast: Forecast | None
) -> Entry:
    """Return an entry with the time since its watermark counted, as far as it can be.

    Args:
        entry: The account.
        now: The current time.
        measured: Energy of a span whose end may be after the watermark; what lies before it was counted already.
        predicted_watts: Power of the member's pods, for the time that is not measured.
        forecast: Carbon intensity; None where there is no carbon limit, or no forecast.

    A measured span leaves a gap behind the watermark when it begins after it: the gap is predicted. Without a measured
    span, time is predicted once it is older than ``WAIT_SECONDS``.
    """
    if measured is not None:
        end = _whole(min(measured.end, now))
        start = max(measured.start, entry.until)
        if end > start and measured.end > measured.start:
            entry = _predict(entry, start, predicted_watts, forecast)
            share = (end - entry.until) / (measured.end - measured.start)
            return _count(entry, end, measured.joules * share, forecast, is_measured=True)
    if (now - entry.until).total_seconds() > WAIT_SECONDS:
        return _predict(entry, now, predicted_watts, forecast)
    return entry


def close(entry: Entry, now: datetime, forecast: Forecast | None) -> Entry:
    """Return the account of a member that is gone: what it drew since it was last seen is predicted, once.

    When it went is not known where the operator was away meanwhile; it counts up to now then.
    """
    if entry.predicted_watts > 0:
        return replace(_predict(entry, now, entry.predicted_watts, forecast), predicted_watts=0.0)
    return account(entry, now, None, 0.0, forecast)


def _predict(entry: Entry, end: datetime, watts: float, forecast: Forecast | None) -> Entry:
    # Up to the next whole second, so that the measured part begins where the predicted one ends.
    end = _whole(end)
    seconds = (end - entry.until).total_seconds()
    return _count(entry, end, watts * seconds, forecast, is_measured=False) if seconds > 0 else entry


def _count(entry: Entry, end: datetime, joules: float, forecast: Forecast | None, *, is_measured: bool) -> Entry:
    grams = forecast.grams(joules, entry.until, end) if forecast is not None else None
    return replace(
        entry,
        until=end,
        measured_joules=entry.measured_joules + (joules if is_measured else 0.0),
        predicted_joules=entry.predicted_joules + (0.0 if is_measured else joules),
        grams=entry.grams + (grams or 0.0),
        ungraded_joules=entry.ungraded_joules + (joules if grams is None else 0.0),
    )


def begin(entries: Iterable[Entry], period: Span) -> tuple[Entry, ...]:
    """Return the accounts of a new period: nothing used, and counted from its start or from where the old one ended."""
    return tuple(
        Entry(
            entry.uid,
            entry.namespace,
            entry.name,
            max(entry.until, _whole(period.start)),
            predicted_watts=entry.predicted_watts,
        )
        for entry in entries
    )


def without_old(gone: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the accounts of members that are gone, few enough for one object.

    Those with nothing in this period are left out, and the oldest beyond ``MOST_GONE`` become one: a month may see
    thousands of deployments come and go.
    """
    used = sorted((e for e in gone if e.joules or e.predicted_watts), key=lambda e: (e.uid == FOLDED, e.until, e.uid))
    if len(used) <= MOST_GONE:
        return tuple(used)
    closed = [entry for entry in used if not entry.predicted_watts]
    old = [*closed[: len(used) - MOST_GONE + 1], *(entry for entry in closed if entry.uid == FOLDED)]
    folded = {entry.uid: entry for entry in old}
    whole = _together(FOLDED, folded.values(), max(entry.until for entry in folded.values()))
    return (*(entry for entry in used if entry.uid not in folded), whole)


def written(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Return the accounts as a status has them, by name: beyond ``MOST_WRITTEN`` the others together are one.

    That one counts up to the earliest of their watermarks, so that no time is left out when a later operator counts its
    members on from there; and it draws nothing, since each of them does.
    """
    known = sorted(entries, key=lambda e: (e.uid != FOLDED, e.namespace, e.name, e.uid))
    if len(known) > MOST_WRITTEN:
        rest = known[MOST_WRITTEN - 1 :]
        known = [*known[: MOST_WRITTEN - 1], _together(SMALLER, rest, min(entry.until for entry in rest))]
    return tuple(sorted(known, key=lambda e: (e.namespace, e.name, e.uid)))


def read_back(entries: Iterable[Entry]) -> tuple[dict[str, Entry], datetime | None]:
    """Return the accounts of a status by uid, and from when members without one of their own are to be counted.

    None where every member has one: then a member without an account is new.
    """
    found = {entry.uid: entry for entry in entries}
    smaller = found.pop(SMALLER, None)
    if smaller is None:
        return found, None
    others = [entry for entry in (found.get(FOLDED), smaller) if entry is not None]
    found[FOLDED] = _together(FOLDED, others, max(entry.until for entry in others))
    return found, smaller.until


def _together(uid: str, entries: Iterable[Entry], until: datetime) -> Entry:
    """Return one account with the energy of several."""
    parts = list(entries)
    return Entry(
        uid,
        "",
        uid,
        until,
        sum(entry.measured_joules for entry in parts),
        sum(entry.predicted_joules for entry in parts),
        sum(entry.grams for entry in parts),
        sum(entry.ungraded_joules for entry in parts),
    )


def to_status(entry: Entry) -> LedgerEntry:
    """Return an account as it is written."""
    return LedgerEntry(
        uid=entry.uid,
        namespace=entry.namespace,
        name=entry.name,
        measured_joules=round(entry.measured_joules),
        predicted_joules=round(entry.predicted_joules),
        milligrams=round(1000.0 * entry.grams),
        ungraded_joules=round(entry.ungraded_joules),
        predicted_watts=round(entry.predicted_watts),
        accounted_until=timestamp(entry.until),
    )


def from_status(written: LedgerEntry) -> Entry:
    """Return an account as it was read."""
    return Entry(
        uid=written.uid,
        namespace=written.namespace,
        name=written.name,
        until=datetime.fromisoformat(written.accounted_until).astimezone(UTC),
        measured_joules=float(written.measured_joules),
        predicted_joules=float(written.predicted_joules),
        grams=written.milligrams / 1000.0,
        ungraded_joules=float(written.ungraded_joules),
        predicted_watts=float(written.predicted_watts),
    )


def _whole(moment: datetime) -> datetime:
    return moment.replace(microsecond=0)
