"""The energy ledger: for each member its energy in this period, and the moment up to which it is counted.

That moment is the watermark: the figures contain the energy before it and no energy after it. Figures and watermark are
written together, so that counting after a crash resumes where the last write ended. Time without a measurement is
counted with the predicted power and marked as such; a later measurement of the same time changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime

from energylens.api.energybudget_status import LedgerEntry
from energylens.api.timestamp import timestamp
from energylens.budget.carbon import Forecast
from energylens.budget.periods import Span
from energylens.records import dataclass

WAIT_SECONDS = 300.0
"""Longest delay of a measurement, s; older time without a measurement is counted with the predicted power."""
MOST_GONE = 256
"""Most accounts of deleted members; each takes about 300 bytes of an object that may have 1.5 MB."""
FOLDED = "others"
"""Identity of the account into which the oldest of these accounts are merged."""
MOST_WRITTEN = 256
"""Most accounts of one status; each takes about 650 bytes, more than half of them in managedFields."""
SMALLER = "members"
"""Identity of the account into which the accounts of further members are merged when they are written."""


@dataclass(frozen=True)
class MeasuredEnergy:
    """Energy measured over a span that may begin before the watermark."""

    start: datetime
    end: datetime
    joules: float


@dataclass(frozen=True, slots=True)
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
    """Predicted power at the last check, which counts for the time since then if the member is gone at the next check.
    """

    @property
    def joules(self) -> float:
        """Measured and predicted energy, J."""
        return self.measured_joules + self.predicted_joules


def account(
    entry: Entry, now: datetime, measured: MeasuredEnergy | None, predicted_watts: float, forecast: Forecast | None
) -> Entry:
    """Return an entry with the time since its watermark counted, as far as possible.

    Args:
        entry: The account.
        now: The current time.
        measured: Energy of a span that may begin before the watermark; the part before it is already counted.
        predicted_watts: Predicted power of the member's pods, for time without measurement.
        forecast: Carbon intensity; None without a carbon limit or forecast.

    If a measured span begins after the watermark, the gap is predicted. Without a measured span, time is predicted once
    it is older than ``WAIT_SECONDS``.
    """
    if measured is not None:
        end = _whole(min(measured.end, now))
        start = max(measured.start, entry.until)
        if end > start:
            entry = _predict(entry, start, predicted_watts, forecast)
            share = (end - entry.until) / (measured.end - measured.start)
            return _count(entry, end, measured.joules * share, forecast, is_measured=True)
    if (now - entry.until).total_seconds() > WAIT_SECONDS:
        return _predict(entry, now, predicted_watts, forecast)
    return entry


def close(entry: Entry, now: datetime, forecast: Forecast | None) -> Entry:
    """Return the account of a deleted member, with the energy since it was last seen predicted once.

    If the operator was down meanwhile, the time of deletion is unknown and the energy counts up to now.
    """
    if entry.predicted_watts > 0:
        return replace(_predict(entry, now, entry.predicted_watts, forecast), predicted_watts=0.0)
    return account(entry, now, None, 0.0, forecast)


def _predict(entry: Entry, end: datetime, watts: float, forecast: Forecast | None) -> Entry:
    # Rounded up to the next whole second, so that the measured part begins where the predicted part ends.
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
    """Return the accounts of a new period, without energy, counted from its start or from where the old one ended."""
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
    """Return the accounts of deleted members, few enough for one object.

    Accounts without energy in this period are left out, and the oldest beyond ``MOST_GONE`` are merged, since thousands
    of deployments may come and go in a month.
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
    """Return the accounts as a status has them, by name; those beyond ``MOST_WRITTEN`` are merged into one.

    The merged account has the earliest watermark of its members, so that no time is lost when a later operator resumes
    from there, and a power of 0, since its members have their own.
    """
    known = sorted(entries, key=lambda e: (e.uid != FOLDED, e.namespace, e.name, e.uid))
    if len(known) > MOST_WRITTEN:
        rest = known[MOST_WRITTEN - 1 :]
        known = [*known[: MOST_WRITTEN - 1], _together(SMALLER, rest, min(entry.until for entry in rest))]
    return tuple(sorted(known, key=lambda e: (e.namespace, e.name, e.uid)))


def read_back(entries: Iterable[Entry]) -> tuple[dict[str, Entry], datetime | None]:
    """Return the accounts of a status by uid, and the time from which members without their own account are counted.

    That time is None if every member has an account; a member without one is then new.
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
    """Return an account in the form of the status."""
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
    """Return an account from its form in the status."""
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
