"""Room for a job beside others: every quarter of an hour tried, and power and energy added up minute by minute."""

from __future__ import annotations

import random
from bisect import bisect_right

import numpy as np
import pytest

from energylens.planner.room import LOOK_AHEAD, QUARTER, Courses, EnergyRoom, Holder, JobRoom
from energylens.planner.search.job_room import holders_text, needed_watt_hours

T0 = 1_772_323_200
"""2026-03-01T00:00:00Z."""
MINUTE = 60


def courses(*jobs: tuple[int, float, int, float, int, float, int]) -> Courses:
    return Courses(*(np.asarray(column, dtype=np.float64) for column in zip(*jobs, strict=True)))


def some_job(draw: random.Random) -> tuple[int, float, int, float, int, float, int]:
    start, serving = MINUTE * draw.randint(0, 20), MINUTE * draw.randint(1, 200)
    watts = float(draw.randint(100, 900))
    idle = MINUTE * draw.choice([0, draw.randint(1, 120)])
    longest = start + serving + MINUTE * draw.choice([0, draw.randint(1, 60)])
    return start, watts / 4, serving, watts, idle, watts / 5, longest


def some_room(draw: random.Random, **changes: object) -> JobRoom:
    quarters = sorted(draw.sample(range(T0 // QUARTER - 2, T0 // QUARTER + 60), draw.randint(1, 6)))
    rooms = []
    for number in range(draw.randint(0, 2)):
        ends = sorted(draw.sample(range(T0 + 60, T0 + 86_400, 60), draw.randint(1, 4)))
        left = tuple(draw.choice([np.inf, draw.uniform(0, 1500)]) for _ in ends)
        if draw.random() < 0.5:
            # Many equal periods, of which few are looked at.
            ends = list(range(T0 + 60 * draw.randint(1, 30), T0 + 86_400, 60 * draw.choice([7, 15, 30])))
            middle, many = draw.randint(0, len(ends)), draw.uniform(0, 300)
            left = (draw.uniform(0, 300),) * middle + (many,) * (len(ends) - middle)
        rooms.append(EnergyRoom(f"budget {number}", 2000, tuple(ends), left))
    fields: dict[str, object] = {
        "now": T0,
        "earliest": T0 + MINUTE * draw.choice([0, 0, draw.randint(1, 300)]),
        "complete_by": draw.choice([None, T0 + MINUTE * draw.randint(10, 900)]),
        "quarters": tuple(quarters),
        "watts": tuple(float(draw.randint(50, 900)) for _ in quarters),
        "energy": tuple(rooms),
    }
    return JobRoom(**(fields | changes))  # type: ignore[arg-type]


def left_at(room: JobRoom, second: int) -> float:
    if not room.quarters:
        return float("inf")
    return room.watts[max(0, bisect_right(room.quarters, second // QUARTER) - 1)]


def fits(room: JobRoom, job: tuple[int, float, int, float, int, float, int], start: int) -> tuple[bool, float]:
    """Return whether there is power, and the most energy that lacks in a period, by looking at every minute."""
    begin, begin_watts, serving, watts, idle, idle_watts, longest = job
    end = start + max(longest, begin + serving + idle)
    powered = True
    for quarter in range(start // QUARTER, -(-end // QUARTER)):
        busy = quarter * QUARTER < start + longest
        needed = watts if busy else (idle_watts if idle else 0.0)
        powered &= needed <= left_at(room, quarter * QUARTER)
    worst = -float("inf")
    for each in room.energy:
        since = start
        for until, left in zip(each.ends, each.left_watt_hours, strict=True):
            if until <= since or since >= end:
                continue
            taken = 0.0
            for second in range(since, min(until, end), MINUTE):
                offset = second - start
                if offset < begin:
                    taken += begin_watts / 60
                elif offset < begin + serving:
                    taken += watts / 60
                elif offset < begin + serving + idle:
                    taken += idle_watts / 60
            worst, since = max(worst, taken - left), until
    return powered, worst


@pytest.mark.parametrize("seed", range(40))
def test_a_start_is_allowed_if_every_minute_has_power_and_energy(seed: int) -> None:
    draw = random.Random(seed)
    room, job = some_room(draw, complete_by=None), some_job(draw)
    starts = np.asarray([T0 + MINUTE * draw.randint(0, 900) for _ in range(30)], dtype=np.int64)
    found = room.fits_at(courses(job), starts)
    for start, fitting in zip(starts.tolist(), found.tolist(), strict=True):
        powered, worst = fits(room, job, start)
        assert fitting == (powered and worst <= 1e-6), start


@pytest.mark.parametrize("seed", range(40))
def test_a_plan_is_admitted_if_it_fits_at_some_quarter_of_an_hour(seed: int) -> None:
    draw = random.Random(1000 + seed)
    room, jobs = some_room(draw), [some_job(draw) for _ in range(6)]
    found = room.fit(courses(*jobs))
    for number, job in enumerate(jobs):
        starts = [room.earliest]
        if room.complete_by is not None:
            last = room.complete_by - job[-1]
            starts += range((room.earliest // QUARTER + 1) * QUARTER, last + 1, QUARTER)
        tried = [fits(room, job, start) for start in starts]
        assert found.together[number] == any(powered and worst <= 1e-6 for powered, worst in tried)
        assert (job[3] <= found.left_watts[number]) == any(powered for powered, _ in tried)
        holds = job[3] <= found.left_watts[number] and all(energy[number] for energy in found.energy)
        # The rules together say the same as the search for one start.
        assert holds == found.together[number]


def test_starts_with_equal_surroundings_are_tried_once() -> None:
    ends = tuple(range(T0 + 3600, T0 + 20 * 86_400, 3600))
    hourly = EnergyRoom("budget", 500, ends, (400.0, *(500.0 for _ in ends[1:])))
    room = JobRoom(T0, T0, T0 + 19 * 86_400, energy=(hourly,))
    job = courses((0, 0.0, 5400, 500.0, 0, 0.0, 5400))
    assert room.fit(job).together.all()
    # Four quarters of an hour in the first hours, and four in all later ones.
    assert len(room._starts(job)) <= 16
    free = JobRoom(T0, T0, T0 + 19 * 86_400, energy=(EnergyRoom("month", 500, (T0 + 30 * 86_400,), (400.0,)),))
    assert len(free._starts(job)) == 1


def test_a_missing_amount_suffices_exactly() -> None:
    room = JobRoom(T0, T0, energy=(EnergyRoom("budget", 2000, (T0 + 3600, T0 + 90_000), (100.0, 50.0)),))
    job = (0, 0.0, 7200, 120.0, 0, 0.0, 7200)
    (excess,) = room.fit(courses(job)).excess_watt_hours
    assert excess.tolist() == [70.0]
    assert needed_watt_hours(2000, excess).tolist() == [2070.0]
    more = JobRoom(T0, T0, energy=(EnergyRoom("budget", 2070, (T0 + 3600, T0 + 90_000), (170.0, 120.0)),))
    assert more.fit(courses(job)).together.all()
    less = JobRoom(T0, T0, energy=(EnergyRoom("budget", 2069, (T0 + 3600, T0 + 90_000), (169.0, 119.0)),))
    assert not less.fit(courses(job)).together.any()


def test_power_and_energy_must_be_there_at_the_same_start() -> None:
    first = T0 // QUARTER
    energy = EnergyRoom("budget", 1000, (T0 + 3600, T0 + 7200), (1000.0, 0.0))
    room = JobRoom(
        T0, T0, T0 + 7200, quarters=(first, first + 4), watts=(100.0, 900.0), energy=(energy,)
    )  # fmt: skip
    job = courses((0, 0.0, 900, 500.0, 0, 0.0, 900))
    found = room.fit(job)
    assert (found.together.any(), found.left_watts.tolist()) == (False, [900.0])
    # Where there is power, there is no energy.
    assert not found.energy[0].any()
    assert found.excess_watt_hours[0].tolist() == [125.0]


def test_a_job_that_runs_counts_from_now_on() -> None:
    job = courses((0, 0.0, 7200, 120.0, 0, 0.0, 7200))
    left = EnergyRoom("budget", 2000, (T0 + 3600, T0 + 90_000), (61.0, 121.0))
    begun = JobRoom(T0 + 1800, T0, has_begun=True, energy=(left,))
    assert begun.fit(job).together.all()
    # What was taken before does not count again: an hour and a half is left, half an hour of it in this period.
    assert begun.fit(job).excess_watt_hours[0].tolist() == [-1.0]
    assert begun.document() == ["runs"]
    assert begun.fits_at(job, np.asarray([T0])).all()


def test_the_inputs_of_a_plan_change_with_the_quarter_of_an_hour_only() -> None:
    left = EnergyRoom("budget", 2000, (T0 + 3600,), (61.0,))
    room = JobRoom(T0, T0, quarters=(1,), watts=(9.0,), energy=(left,))
    later = JobRoom(
        T0 + 899, T0 + 899, quarters=(1,), watts=(9.0,), energy=(EnergyRoom("budget", 2000, (T0 + 3600,), (79.9,)),),
        holders=(Holder("a/b", 1, 2, 3),),
    )  # fmt: skip
    assert room.document() == later.document()
    assert JobRoom(T0 + 900, T0 + 900).document() != JobRoom(T0, T0).document()
    endless = EnergyRoom("grams", None, (T0 + 3600, T0 + 7200), (61.7, float("inf")))
    assert endless.in_steps() == [61, None]


def test_the_first_start_with_room_is_found_within_a_week() -> None:
    job = courses((0, 0.0, 1800, 500.0, 0, 0.0, 1800))
    first = T0 // QUARTER
    room = JobRoom(T0, T0, quarters=(first, first + 5), watts=(100.0, 900.0))
    assert room.first_fit(job, T0) == T0 + 5 * QUARTER
    assert room.first_fit(job, T0, T0 + 5 * QUARTER - 1) is None
    assert room.first_fit(job, T0 + 6 * QUARTER + 7) == T0 + 6 * QUARTER + 7
    late = JobRoom(T0, T0, quarters=(first, first + LOOK_AHEAD // QUARTER + 1), watts=(100.0, 900.0))
    assert late.first_fit(job, T0) is None


def test_a_further_limit_of_power_holds_at_any_time() -> None:
    room = JobRoom(T0, T0, quarters=(1, 5), watts=(100.0, 900.0))
    assert room.within(300.0).watts == (100.0, 300.0)
    free = JobRoom(T0, T0).within(300.0)
    assert (free.watts, free.most_watts) == ((300.0,), 300.0)
    assert JobRoom(T0, T0).most_watts == float("inf")


def test_jobs_that_hold_the_hours_are_named() -> None:
    first = T0 // QUARTER
    holders = tuple(Holder(f"team/{name}", first + n, first + n + 2, 500) for n, name in enumerate("abc"))
    room = JobRoom(T0, T0, holders=(Holder("team/late", 0, 0, 70, until_deleted=True), *holders))
    assert holders_text(room, T0 + 900, T0 + 1800) == (
        ": team/late holds 70 W until the job, which is late, is deleted, team/a holds 500 W from 2026-03-01T00:00:00Z "
        "to 2026-03-01T00:30:00Z, and 1 more"
    )
    assert holders_text(JobRoom(T0, T0, holders=holders[:1]), T0 + 1800, T0 + 9999) == ""


def test_periods_of_equal_length_that_leave_equal_energy_stand_together() -> None:
    ends = (T0, *(T0 + n * 3600 for n in range(1, 5)), T0 + 5 * 3600, T0 + 5 * 3600 + 60)
    room = EnergyRoom("budget", 2000, ends, (5.0, 5.0, 5.0, 5.0, 5.0, 7.0, 7.0))
    first, *others = room.runs
    assert (first.end, first.count, first.left) == (T0, 1, 5.0)
    assert [(run.begin, run.seconds, run.count, run.left) for run in others] == [
        (T0, 3600, 4, 5.0),
        (T0 + 4 * 3600, 3600, 1, 7.0),
        (T0 + 5 * 3600, 60, 1, 7.0),
    ]
    assert others[0].end == T0 + 4 * 3600
    assert EnergyRoom("budget", 2000, (), ()).runs == ()


def test_power_is_reserved_until_the_gpus_are_free_or_the_last_answer_is_late() -> None:
    jobs = courses((100, 1.0, 500, 9.0, 40, 2.0, 600), (100, 1.0, 500, 9.0, 0, 2.0, 700))
    assert jobs.seconds.tolist() == [640.0, 700.0]


def test_energy_left_is_rounded_down_to_hundredths_of_the_limit() -> None:
    assert EnergyRoom("budget", 2000, (T0, T0 + 9), (61.0, 19.9)).in_steps() == [3, 0]
    assert EnergyRoom("budget", 50, (T0, T0 + 9), (7.9, 0.9)).in_steps() == [7, 0]


def test_only_periods_that_a_job_touches_count() -> None:
    hour = courses((0, 0.0, 3600, 100.0, 0, 0.0, 3600))
    room = EnergyRoom("budget", 2000, (T0 + 3600, T0 + 7200, T0 + 10_800), (0.0, 130.0, 0.0))
    # The job begins where the first period ends, and ends where the last one begins.
    assert room.excess(hour, T0 + 3600, T0).tolist() == [-30.0]
    assert room.excess(hour, T0 + 1800, T0).tolist() == [50.0]
    assert room.excess(hour, T0 + 3660, T0).tolist() == pytest.approx([100 / 60])
    assert room.suffices(hour, np.asarray([T0 + 3600, T0 + 3540, T0 + 3660]), T0).tolist() == [True, False, False]
    exact = EnergyRoom("budget", 2000, (T0 + 3600,), (100.0,))
    assert exact.suffices(hour, np.asarray([T0]), T0).tolist() == [True]
    assert JobRoom(T0, T0, energy=(exact,)).fit(hour).energy[0].tolist() == [True]


def test_the_worst_of_many_periods_is_in_the_midst_of_the_requests() -> None:
    ends = tuple(T0 + n * 3600 for n in range(1, 61))
    room = EnergyRoom("budget", 2000, ends, (1e6, *(100.0 for _ in ends[1:])))
    # The requests begin and end inside of the periods with numbers 20 and 22 from the second one on.
    job = courses((21 * 3600 + 1800, 10.0, 7200, 500.0, 9 * 3600, 20.0, 23 * 3600 + 1800))
    assert room.excess(job, T0, T0).tolist() == [400.0]
    # All requests are inside of one period, with half an hour of start before and none of idle time after.
    short = courses((30 * 3600 + 1800, 10.0, 1800, 500.0, 0, 0.0, 31 * 3600))
    assert room.excess(short, T0, T0).tolist() == [155.0]


def test_no_start_is_looked_for_after_four_weeks() -> None:
    weeks = 28 * 24 * 3600
    job = courses((0, 0.0, 900, 500.0, 0, 0.0, 900))
    first = T0 // QUARTER
    at_last = JobRoom(T0, T0, T0 + 2 * weeks, quarters=(first, first + weeks // QUARTER), watts=(100.0, 900.0))
    after = JobRoom(T0, T0, T0 + 2 * weeks, quarters=(first, first + weeks // QUARTER + 1), watts=(100.0, 900.0))
    assert at_last.first_fit(job, T0, T0 + 2 * weeks) == T0 + weeks
    assert after.first_fit(job, T0, T0 + 2 * weeks) is None
    assert (at_last.fit(job).together.tolist(), after.fit(job).together.tolist()) == ([True], [False])
    assert (at_last.fit(job).left_watts.tolist(), after.fit(job).left_watts.tolist()) == ([900.0], [100.0])


def test_the_last_start_leaves_time_for_the_slowest_end_of_the_quickest_job() -> None:
    first = T0 // QUARTER
    room = JobRoom(T0, T0, T0 + 4500, quarters=(first, first + 4), watts=(100.0, 500.0))
    in_time, late = (0, 0.0, 800, 500.0, 0, 0.0, 900), (0, 0.0, 800, 500.0, 0, 0.0, 901)
    assert room.fit(courses(in_time, late)).together.tolist() == [True, False]
    assert room.fit(courses(in_time, late)).left_watts.tolist() == [500.0, 100.0]
    endless = (0, 0.0, 800, 500.0, 0, 0.0, float("inf"))
    assert room.fit(courses(in_time, endless)).together.tolist() == [True, False]  # type: ignore[arg-type]


def test_idle_gpus_need_their_own_power_only_while_some_are_idle() -> None:
    first = T0 // QUARTER
    room = JobRoom(T0, T0, quarters=(first, first + 1, first + 3), watts=(500.0, 100.0, 900.0))
    idle, greedy = (0, 0.0, 900, 500.0, 1800, 100.0, 900), (0, 0.0, 900, 500.0, 1800, 101.0, 900)
    for job, left in ((idle, 500.0), (greedy, 499.0)):
        assert room.fit(courses(job)).left_watts.tolist() == [left]
        assert room.fits_at(courses(job), np.asarray([T0])).tolist() == [left == 500.0]
    # The reservation lasts until the slowest end; without idle time, idle power is not drawn.
    ends = courses((0, 0.0, 900, 500.0, 0, 300.0, 900))
    assert room.fit(ends).left_watts.tolist() == [500.0]
    assert room.fits_at(ends, np.asarray([T0, T0 + 900, T0 + 2700])).tolist() == [True, False, True]


def test_a_further_limit_counts_from_the_first_quarter_of_an_hour_on() -> None:
    assert JobRoom(T0 + 1800, T0 + 900).within(300.0).quarters == (T0 // QUARTER + 1,)
    assert JobRoom(T0, T0 + 900).within(300.0).quarters == (T0 // QUARTER,)


def test_after_the_last_period_energy_is_not_limited() -> None:
    hour = courses((0, 0.0, 3600, 100.0, 0, 0.0, 3600))
    room = EnergyRoom("budget", 2000, (T0 + 3600,), (50.0,))
    starts = np.asarray([T0, T0 + 1764, T0 + 1800, T0 + 3600, T0 + 7200])
    assert room.suffices(hour, starts, T0).tolist() == [False, False, True, True, True]
    almost = EnergyRoom("budget", 2000, (T0 + 3600,), (99.99,))
    assert almost.suffices(hour, np.asarray([T0]), T0).tolist() == [False]


def test_a_job_that_ends_before_the_power_changes_has_the_power_of_now() -> None:
    first = T0 // QUARTER
    room = JobRoom(T0, T0, quarters=(first, first + 50), watts=(500.0, 100.0))
    job = courses((0, 0.0, 900, 500.0, 0, 0.0, 900))
    assert room.fits_at(job, np.asarray([T0])).tolist() == [True]
    assert JobRoom(T0, T0, quarters=(first, first + 1), watts=(100.0, 900.0)).first_fit(job, T0) == T0 + QUARTER


@pytest.mark.parametrize("quarters", [9, 10])
def test_the_longest_job_decides_which_starts_are_alike(quarters: int) -> None:
    first = T0 // QUARTER
    room = JobRoom(T0, T0, T0 + 40 * QUARTER, quarters=(first, first + 8, first + 9), watts=(900.0, 100.0, 900.0))
    seconds = quarters * QUARTER
    long, short = (0, 0.0, seconds, 500.0, 0, 0.0, seconds), (0, 0.0, 900, 500.0, 0, 0.0, 900)
    assert room.fit(courses(long)).together.tolist() == [True]
    assert room.fit(courses(short, long)).together.tolist() == [True, True]


def test_starts_that_differ_in_power_or_energy_are_all_tried() -> None:
    first, job = T0 // QUARTER, courses((0, 0.0, 1800, 500.0, 0, 0.0, 1800))
    changes = tuple(first + n for n in (0, 8, 9, 16, 17))
    power = JobRoom(T0, T0, T0 + 28_800, quarters=changes, watts=(900.0, 100.0, 900.0, 100.0, 900.0))
    # The power falls for a quarter of an hour twice, with the same starts before.
    assert [(start - T0) // QUARTER for start in power._starts(job)] == [0, 6, 7, 8]
    hourly = EnergyRoom("budget", 500, tuple(T0 + n * 3600 for n in range(1, 7)), (400.0, *(500.0,) * 5))
    energy = JobRoom(T0, T0, T0 + 28_800, energy=(hourly,))
    # Some starts of an hour let the job reach the next period; the last ones let the job outlast all periods.
    assert [(start - T0) // QUARTER for start in energy._starts(job)] == [0, 2, 3, 4, 6, 7, 22, 23, 24]
