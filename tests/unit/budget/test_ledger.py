"""The ledger loses nothing over a crash and counts nothing twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.api.energybudget_status import LedgerEntry
from energylens.budget.carbon import Forecast
from energylens.budget.ledger import (
    FOLDED,
    MOST_WRITTEN,
    SMALLER,
    WAIT_SECONDS,
    Entry,
    MeasuredEnergy,
    account,
    begin,
    close,
    from_status,
    read_back,
    to_status,
    without_old,
    written,
)
from energylens.budget.periods import Span

START = datetime(2026, 11, 25, 12, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def entry(until: float = 0.0) -> Entry:
    return Entry("uid-1", "team", "llama", at(until))


def measured(start: float, end: float, watts: float = 500.0) -> MeasuredEnergy:
    return MeasuredEnergy(at(start), at(end), watts * (end - start))


def test_a_measured_span_is_counted_once() -> None:
    once = account(entry(), at(60), measured(0, 60), 400, None)
    assert (once.measured_joules, once.predicted_joules, once.until) == (30_000, 0, at(60))
    assert account(once, at(60), measured(0, 60), 400, None) == once


def test_of_a_span_that_overlaps_only_the_new_part_is_counted() -> None:
    once = account(entry(), at(60), measured(0, 60), 400, None)
    twice = account(once, at(90), measured(30, 90), 400, None)
    assert twice.measured_joules == pytest.approx(45_000)


def test_a_gap_before_a_span_is_predicted_and_marked() -> None:
    found = account(entry(), at(100), measured(40, 100), 400, None)
    assert found.predicted_joules == 40 * 400
    assert found.measured_joules == pytest.approx(60 * 500)


def test_time_without_a_measurement_waits_and_is_then_predicted() -> None:
    assert account(entry(), at(WAIT_SECONDS), None, 400, None) == entry()
    late = account(entry(), at(WAIT_SECONDS + 1), None, 400, None)
    assert late.predicted_joules == (WAIT_SECONDS + 1) * 400
    assert late.until == at(WAIT_SECONDS + 1)
    # What is measured of that time later on changes nothing.
    assert account(late, at(WAIT_SECONDS + 1), measured(0, WAIT_SECONDS + 1), 400, None) == late


def test_nothing_is_counted_ahead_of_the_clock() -> None:
    assert account(entry(), at(30), measured(0, 60), 400, None).measured_joules == pytest.approx(15_000)


def test_grams_follow_the_hour_and_uncovered_time_is_kept_apart() -> None:
    grid = Forecast((START,), (360.0,))
    found = account(entry(), at(3600), measured(0, 3600, 1000), 0, grid)
    assert found.grams == pytest.approx(360)
    assert found.ungraded_joules == 0
    later = account(found, at(7200), measured(3600, 7200, 1000), 0, grid)
    assert later.grams == pytest.approx(360)
    assert later.ungraded_joules == pytest.approx(3.6e6)


def test_a_new_period_begins_at_its_start_or_where_the_old_one_was_left() -> None:
    period = Span(at(0), at(3600))
    early, late = (Entry("a", "t", "a", at(-90), 5.0), Entry("b", "t", "b", at(90), 5.0))
    fresh = begin((early, late), period)
    assert [(e.until, e.joules) for e in fresh] == [(at(0), 0.0), (at(90), 0.0)]


cuts = st.lists(st.integers(1, 3600), min_size=1, max_size=20, unique=True).map(sorted)


def run(looks: Sequence[int], crashes: set[int], watts: float, hidden: tuple[int, int]) -> Entry:
    """Return the account after looks at these seconds; a crash loses all that is in memory after it was written."""
    found = entry()
    alive_since = 0
    for second in looks:
        if second in crashes:
            # The counters go on, but nobody has read them since: a new operator measures from its first look on.
            found = from_status(to_status(found))
            alive_since = second
        start = max(alive_since, 0)
        covered = not hidden[0] <= second <= hidden[1] and second > start
        seen = measured(start, second, watts) if covered else None
        found = account(found, at(second), seen, watts, None)
    return found


@given(cuts, st.sets(st.integers(0, 19)), st.floats(1, 5000), st.tuples(st.integers(0, 3600), st.integers(0, 3600)))
def test_crashes_and_blind_spots_lose_nothing_and_count_nothing_twice(
    looks: list[int], crashes: set[int], watts: float, hidden: tuple[int, int]
) -> None:
    # The power is constant and predicted rightly, so that every second must count once, measured or not.
    found = run(looks, {looks[i] for i in crashes if i < len(looks)}, watts, hidden)
    seconds = (found.until - START).total_seconds()
    assert found.joules == pytest.approx(watts * seconds, abs=len(looks))
    assert looks[-1] - seconds <= WAIT_SECONDS
    assert 0 <= seconds <= looks[-1]


@given(st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**6), st.integers(0, 10**9))
def test_what_is_written_is_read_back(energy: int, gap: int, milligrams: int, seconds: int) -> None:
    kept = Entry("u", "t", "n", at(seconds), float(energy), float(gap), milligrams / 1000, float(gap // 2))
    assert from_status(to_status(kept)) == kept


def test_a_time_without_a_zone_is_refused() -> None:
    dumped = to_status(entry()).model_dump() | {"accounted_until": "2026-11-25T12:00:00"}
    with pytest.raises(ValueError, match="has no time zone"):
        LedgerEntry.model_validate(dumped)


@given(st.lists(st.integers(0, 5), max_size=12), st.integers(1, 4))
def test_accounts_of_the_gone_are_bounded_and_lose_nothing(joules: list[int], looks: int) -> None:
    gone = tuple(Entry(f"u{i}", "t", f"u{i}", at(i), float(j), 1.0 if j else 0.0) for i, j in enumerate(joules))
    with mock.patch("energylens.budget.ledger.MOST_GONE", 3):
        for _ in range(looks):
            gone = without_old(gone)
        more = without_old((*gone, Entry("new", "t", "new", at(99), 7.0)))
    assert len(gone) <= 3
    assert len(more) <= 3
    assert sum(e.joules for e in gone) == sum(joules) + sum(1 for j in joules if j)
    assert sum(e.joules for e in more) == sum(e.joules for e in gone) + 7.0
    assert len({e.uid for e in more}) == len(more)


def test_a_member_that_is_gone_counts_until_that_is_seen_and_no_longer() -> None:
    kept = Entry("uid-1", "team", "llama", at(0), predicted_watts=400.0)
    gone = close(from_status(to_status(kept)), at(100), None)
    assert (gone.predicted_joules, gone.until) == (40_000, at(100))
    assert close(gone, at(1000), None).joules == 40_000
    # One that held no GPUs any more when it was last seen drew nothing since.
    assert close(entry(), at(1000), None).joules == 0


def test_a_span_behind_the_watermark_and_a_span_without_length_change_nothing() -> None:
    old = entry(100)
    assert account(old, at(120), measured(40, 90), 400, None) == old
    assert account(old, at(120), MeasuredEnergy(at(110), at(110), 0.0), 400, None) == old


def test_a_gap_of_one_second_is_predicted() -> None:
    found = account(entry(), at(10), measured(1, 10), 400, None)
    assert (found.predicted_joules, found.measured_joules) == (400, pytest.approx(9 * 500))


@pytest.mark.parametrize(("watts", "until"), [(0.0, 0), (1.0, 10)])
def test_a_member_that_is_gone_is_counted_up_to_now_where_it_drew_power(watts: float, until: float) -> None:
    found = close(replace(entry(), predicted_watts=watts), at(10), None)
    assert (found.until, found.predicted_joules) == (at(until), 10 * watts)


def test_the_oldest_accounts_of_the_gone_are_folded_into_one() -> None:
    def gone(number: int, joules: float) -> Entry:
        return Entry(f"uid-{number}", "team", f"m{number}", at(number), joules)

    with mock.patch("energylens.budget.ledger.MOST_GONE", 3):
        first, second, third, fourth = (gone(number, 10.0**number) for number in range(4))
        assert without_old([third, first, second]) == (first, second, third)
        folded = without_old([fourth, third, first, second])
        assert [(found.uid, found.until, found.joules) for found in folded] == [
            ("uid-2", at(2), 100.0),
            ("uid-3", at(3), 1000.0),
            ("others", at(1), 11.0),
        ]
        again = without_old([*folded, gone(4, 1e4)])
        assert [(found.uid, found.until, found.joules) for found in again] == [
            ("uid-4", at(4), 1e4),
            ("others", at(3), 1111.0),
        ]


def test_a_status_has_so_many_accounts_and_loses_no_energy() -> None:
    many = [Entry(f"u{i}", "team", f"m{i:03d}", at(i % 7), 10.0 + i, 3.0, 0.5, 2.0, 40.0) for i in range(1000)]
    found = written([*many, Entry(FOLDED, "", FOLDED, at(3), 5.0)])
    assert len(found) == MOST_WRITTEN
    total = sum(entry.joules for entry in many) + 5.0
    assert sum(entry.joules for entry in found) == pytest.approx(total)
    entries, since = read_back(from_status(to_status(entry)) for entry in found)
    assert since == at(0)
    assert sum(entry.joules for entry in entries.values()) == pytest.approx(total)
    # Each member that is counted on from there draws for itself.
    assert [entry.predicted_watts for entry in entries.values() if entry.uid == FOLDED] == [0.0]
    few = written(many[:MOST_WRITTEN])
    assert few == tuple(many[:MOST_WRITTEN])
    assert read_back(few) == ({entry.uid: entry for entry in few}, None)


def test_a_span_that_ends_at_the_watermark_does_not_keep_later_time_from_being_predicted() -> None:
    late = account(entry(60), at(60 + WAIT_SECONDS + 1), measured(0, 60), 400, None)
    assert (late.measured_joules, late.predicted_joules) == (0, 400 * (WAIT_SECONDS + 1))


def test_a_span_without_length_between_two_seconds_changes_nothing() -> None:
    assert account(entry(), at(20), MeasuredEnergy(at(10.5), at(10.5), 0.0), 400, None) == entry()


def test_the_account_of_the_gone_is_never_folded_with_those_of_members() -> None:
    gone = Entry(FOLDED, "zz", "zz", at(0), measured_joules=7.0)
    members = [Entry(f"uid-{n:04}", "team", f"m{n:04}", at(0)) for n in range(MOST_WRITTEN + 1)]
    kept = {each.uid: each for each in written([*members, gone])}
    assert kept[FOLDED] == gone


def test_accounts_that_are_folded_again_count_from_the_latest_of_their_watermarks() -> None:
    found, since = read_back([Entry(FOLDED, "", "", at(90)), Entry(SMALLER, "", "", at(30))])
    assert (found[FOLDED].until, since) == (at(90), at(30))


def test_a_span_within_one_second_waits_for_the_next_check() -> None:
    assert account(entry(), at(10.7), measured(10.0, 10.7), 400, None) == entry()
