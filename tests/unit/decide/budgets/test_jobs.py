"""Jobs that count against budgets: power by the quarter of an hour and energy by the period, minute by minute."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energylens.api.energybudget import EnergyBudgetSpec, Period
from energylens.api.timestamp import timestamp
from energylens.budget.periods import period_at, periods_from
from energylens.decide.budgets.allowance import allowance
from energylens.decide.budgets.budget import read_budget
from energylens.decide.budgets.counted import CountedWatts, counted_watts, summed
from energylens.decide.budgets.jobs import QUARTER_SECONDS, seconds_of
from energylens.decide.budgets.membership import Surroundings
from energylens.decide.job_plan import PlannedJob
from energylens.decide.planned import planned
from energylens.decide.reasons import Reason
from energylens.planner.room import Courses, JobRoom
from energylens.planner.types import UNLIMITED_WATTS, PowerAllowance

NOW = datetime(2026, 11, 25, 12, 7, 30, tzinfo=UTC)
MIDNIGHT = datetime(2026, 11, 26, tzinfo=UTC)
Body = dict[str, Any]


def a_job(
    name: str,
    start: datetime | None = None,
    state: str | None = "Waiting",
    *,
    watts: int = 600,
    minutes: int = 120,
    slow: int = 0,
    idles: int = 0,
    timed: bool = True,
    **status: Any,
) -> Body:
    """Return a job whose pods start in no time: ``minutes`` of requests, ``slow`` more at worst, and then idle GPUs."""
    seconds = 60 * minutes
    asked: Body = {"requests": 1, "completeWithinSeconds": seconds + 60 * max(slow, idles), "startSeconds": 0}
    asked |= {"afterCompletion": "Idle" if idles else "Release"}
    if timed:
        asked["start"] = {"completeBy": "2026-12-24T00:00:00Z", "tariffConfigMapRef": {"name": "t"}}
    energy = (watts * minutes + watts // 4 * idles) // 60
    figures = {"powerWatts": watts, "idlePowerWatts": watts // 4}
    job = {"completionSeconds": seconds, "longestSeconds": seconds + 60 * slow, "energyWattHours": energy}
    plan = {"predicted": figures, "gpus": 1, "gpuProduct": "H100", "job": job}
    begin: Body = {} if state is None else {"jobStart": {"state": state, "reason": "BestHours"}}
    if start is not None:
        begin["jobStart"]["startTime"] = timestamp(start)
    return {
        "metadata": {"name": name, "namespace": "team"},
        "spec": {"workload": {"job": asked}},
        "status": {"plan": plan, **begin, **status},
    }


def endless(name: str, watts: int) -> Body:
    plan = {"predicted": {"powerWatts": watts}, "gpus": 1, "gpuProduct": "H100"}
    return {"metadata": {"name": name, "namespace": "team"}, "spec": {}, "status": {"plan": plan}}


def cap(used: int = 0, action: str = "Deny", now: datetime = NOW, until: datetime | None = None, **spec: Any) -> Body:
    """Return a budget as its keeper left it."""
    spec = {"period": "Day", "action": action, **spec}
    period = period_at(spec["period"], ZoneInfo(spec.get("timeZone", "UTC")), now)
    status: Body = {
        "observedGeneration": 1,
        "conditions": [{"type": "Ready", "status": "True", "reason": "Checked", "message": ""}],
    }
    if (limit := spec.get("energyWattHours")) is not None:
        status |= {
            "usedWattHours": used, "remainingWattHours": max(0, limit - used), "energyLimit": "spec.energyWattHours",
            "periodStart": timestamp(period.start),
            "ledger": [{"name": "begun", "predictedWatts": 1, "accountedUntil": timestamp(until or now)}],
        }  # fmt: skip
    return {"metadata": {"name": "cap", "namespace": "team"}, "spec": spec, "status": status}


def allowed(me: Body, budgets: Sequence[Body], others: Sequence[Body], now: datetime = NOW) -> PowerAllowance:
    found = allowance(planned(me), map(read_budget, budgets), map(planned, others), now).allowance
    assert found is not None
    return found


def room(me: Body, budgets: Sequence[Body], others: Sequence[Body], now: datetime = NOW) -> JobRoom:
    found = allowed(me, budgets, others, now).room
    assert found is not None
    return found


def counted(*members: Body) -> CountedWatts:
    spec = EnergyBudgetSpec(power_watts=1)
    return summed(filter(None, (counted_watts(spec, "team", planned(member), Surroundings()) for member in members)))


def course(body: Body) -> Courses:
    job = plan_of(body)
    phases = [figure for phase in job.course.phases for figure in (phase.seconds, phase.watts)]
    return Courses(*(np.asarray([float(figure)]) for figure in (*phases, job.course.longest_seconds)))


def plan_of(body: Body) -> PlannedJob:
    job = planned(body).job
    assert job is not None
    return job


def watts_at(job: PlannedJob, moment: datetime, now: datetime = NOW) -> float:
    """Return the power that a job takes by its plan at a moment, by looking at its phases."""
    begin = job.start if job.has_begun and job.start is not None else max(job.start or now, now)
    offset = (moment - begin).total_seconds()
    for phase in job.course.phases:
        if 0 <= offset < phase.seconds:
            return phase.watts
        offset -= phase.seconds
    return 0.0


@pytest.mark.parametrize("kind", ["Hour", "Day", "Week", "Month"])
@pytest.mark.parametrize("seed", range(5))
def test_the_energy_of_each_period_is_that_of_its_minutes(seed: int, kind: Any) -> None:
    draw = random.Random(seed)
    zone = draw.choice(["UTC", "Europe/Berlin", "America/St_Johns"])
    spec = EnergyBudgetSpec(energy_watt_hours=1, period=kind, time_zone=zone)
    now = NOW.replace(second=0)
    jobs = [
        a_job(
            f"j{n}", now + timedelta(minutes=draw.randint(-100, 1000)), minutes=draw.randint(120, 900),
            idles=draw.choice([0, 77]),
        )
        for n in range(3)
    ]  # fmt: skip
    for job in jobs:
        begun = datetime.fromisoformat(job["status"]["jobStart"]["startTime"]) <= now
        job["status"]["jobStart"]["state"] = "Started" if begun else "Waiting"
    members = counted(*jobs)
    members = replace(members, jobs=tuple(replace(job, counted_until=now) for job in members.jobs))
    period = period_at(kind, ZoneInfo(zone), now)
    found = members.energy(spec, period, now)
    periods = periods_from(kind, ZoneInfo(zone), period, 50.0)
    by_period, plans = [], [plan_of(job) for job in jobs]
    for each in periods:
        since = max(each.start, now)
        minutes = round((each.end - since).total_seconds() / 60)
        moments = [since + timedelta(minutes=n) for n in range(min(minutes, 3000))]
        by_period.append(sum(watts_at(job, moment, now) for job in plans for moment in moments) / 60.0)
    assert found.present == pytest.approx(by_period[0])
    assert [energy for _, energy in found.later] == pytest.approx([energy for energy in by_period[1:] if energy])


@pytest.mark.parametrize("seed", range(12))
def test_jobs_reserve_their_power_in_the_quarters_in_which_they_run(seed: int) -> None:
    draw = random.Random(seed)
    jobs = [
        a_job(
            f"j{n}", NOW + timedelta(seconds=draw.randint(0, 40_000)), minutes=draw.randint(1, 300),
            slow=draw.choice([0, 0, 31]), idles=draw.choice([0, 45]), watts=draw.randint(100, 900),
        )
        for n in range(5)
    ]  # fmt: skip
    found, first = counted(*jobs, endless("base", 250)), int(seconds_of(NOW)) // QUARTER_SECONDS
    slots = found.at_quarters(NOW, first, 260)
    start = datetime.fromtimestamp(first * QUARTER_SECONDS, UTC)
    least = np.full(260, 250.0)
    plans = [plan_of(job) for job in jobs]
    for quarter in range(260):
        for job in plans:
            powers = [watts_at(job, start + timedelta(minutes=15 * quarter, seconds=30 * n)) for n in range(30)]
            least[quarter] += max(powers)
    assert (slots >= least - 1e-6).all()
    if all(job.course.longest_seconds == job.course.end_seconds for job in plans):
        # Beyond the rounding to quarters of an hour nothing is reserved.
        assert (slots <= np.max([np.roll(least, shift) for shift in (-1, 0, 1)], axis=0) + 1e-6).all()
    assert found.reserved(NOW) == slots.max()
    assert found.steady(NOW) == 250.0


def test_jobs_one_after_the_other_are_not_added() -> None:
    one, two = a_job("one", MIDNIGHT), a_job("two", MIDNIGHT + timedelta(minutes=120), watts=500)
    assert counted(one, two).reserved(NOW) == 600
    assert counted(one, a_job("two", MIDNIGHT + timedelta(minutes=119), watts=500)).reserved(NOW) == 1100


def test_a_job_that_is_late_counts_like_any_other_load() -> None:
    begun = a_job("late", NOW - timedelta(minutes=121), "Started")
    found = counted(begun)
    spec = EnergyBudgetSpec(energy_watt_hours=1, period="Day")
    assert (found.steady(NOW), found.reserved(NOW)) == (600, 600)
    assert found.energy(spec, period_at("Day", ZoneInfo("UTC"), NOW), NOW).present == 0
    # Half an hour more is the headroom, for which it draws its power.
    slow = counted(a_job("slow", NOW - timedelta(minutes=121), "Started", slow=31))
    assert slow.steady(NOW) == 0
    slow = replace(slow, jobs=(replace(slow.jobs[0], counted_until=NOW),))
    energy = slow.energy(spec, period_at("Day", ZoneInfo("UTC"), NOW), NOW)
    assert energy.present == pytest.approx(600 * 30 / 60)


def test_a_start_that_is_not_known_may_be_at_any_time() -> None:
    for unknown in (a_job("new", state=None), a_job("paused", state="Suspended")):
        assert counted(unknown) == CountedWatts(0.0, 600.0)


def test_a_job_that_budgets_refuse_reserves_nothing() -> None:
    refused = a_job("refused")
    refused["status"]["jobStart"]["reason"] = Reason.BUDGET_EXCEEDED
    assert counted(refused) == CountedWatts(0.0, 0.0)
    assert planned(refused).reserved_watts == 0


def test_pods_that_exist_were_not_created_in_the_future() -> None:
    # Someone edited the status, or the clock went back.
    begun = counted(a_job("begun", NOW + timedelta(days=900), "Started"))
    assert begun.reserved(NOW) == 600
    spec = EnergyBudgetSpec(energy_watt_hours=1, period="Week")
    assert begun.energy(spec, period_at("Week", ZoneInfo("UTC"), NOW), NOW).present == pytest.approx(1200.0)


def test_a_start_in_the_past_without_pods_is_due_now() -> None:
    missed = a_job("missed", NOW - timedelta(hours=1))
    quarters = counted(missed).jobs[0].quarters(NOW)
    assert quarters[0] == int(seconds_of(NOW)) // QUARTER_SECONDS


def test_a_job_is_compared_with_the_energy_that_is_left_and_not_with_the_mean_power() -> None:
    me = a_job("me", timed=False, state=None)
    # 1,200 Wh fit into a day of 1,250 Wh, whose mean power is 52 W.
    found = room(me, [cap(energyWattHours=1250)], [])
    assert found.fits_at(course(me), np.asarray([found.now])).all()
    used = room(me, [cap(100, energyWattHours=1250)], [])
    assert not used.fits_at(course(me), np.asarray([used.now])).any()
    assert allowed(me, [cap(energyWattHours=1250)], []).watts == UNLIMITED_WATTS


def test_a_job_over_midnight_takes_from_both_days() -> None:
    me, late = a_job("me", timed=False, state=None), datetime(2026, 11, 25, 23, tzinfo=UTC)
    for limit, fits in ((600, True), (599, False)):
        found = room(me, [cap(energyWattHours=limit, now=late)], [], late)
        assert found.fits_at(course(me), np.asarray([found.now])).all() == fits
    # What others reserve tomorrow counts tomorrow.
    other = a_job("other", late + timedelta(hours=5), minutes=60, watts=100)
    found = room(me, [cap(energyWattHours=600, now=late)], [other], late)
    assert not found.fits_at(course(me), np.asarray([found.now])).any()
    assert found.energy[0].left_watt_hours[:2] == (600.0, 500.0)


def test_what_a_running_job_took_and_what_it_still_takes_count_once() -> None:
    begun = a_job("begun", NOW - timedelta(minutes=60), "Started")
    # It took 600 Wh, and takes 600 more; its own room is what runs.
    mine = room(begun, [cap(600, energyWattHours=1200)], [])
    assert mine.energy[0].left_watt_hours[0] == pytest.approx(600.0)
    assert mine.fit(course(begun)).together.all()
    # Another job has what neither took nor takes.
    other = room(a_job("new", timed=False, state=None), [cap(600, energyWattHours=1700)], [begun])
    assert other.energy[0].left_watt_hours[0] == pytest.approx(500.0)
    # Ten minutes are not in the ledger yet: they count with the job.
    lagging = cap(500, energyWattHours=1700, until=NOW - timedelta(minutes=10))
    other = room(a_job("new", timed=False, state=None), [lagging], [begun])
    assert other.energy[0].left_watt_hours[0] == pytest.approx(500.0)
    # It drew more than predicted: nothing is left, and it is not stopped.
    over = room(begun, [cap(1300, energyWattHours=1200)], [])
    assert over.fit(course(begun)).together.all()


def test_loads_without_an_end_keep_what_jobs_leave() -> None:
    budget, hours = [cap(0, energyWattHours=2400)], (MIDNIGHT - NOW) / timedelta(hours=1)
    # 100 W for a day; today the job takes 1,320 Wh of 2,400 Wh.
    job = a_job("job", MIDNIGHT - timedelta(hours=3), watts=660)
    assert allowed(endless("new", 0), budget, []).watts == 100
    assert allowed(endless("new", 0), budget, [job]).watts == (2400 - 1320) // hours
    tomorrow = a_job("job", MIDNIGHT + timedelta(hours=3))
    assert allowed(endless("new", 0), budget, [tomorrow]).watts == 50


def test_a_late_start_does_not_lift_a_limit_of_power() -> None:
    job = a_job("job", MIDNIGHT)
    both = [cap(powerWatts=1000, energyWattHours=100_000)]
    assert allowed(endless("new", 0), both, [job]).watts == 400
    found = allowed(a_job("me", timed=False, state=None), both, [job])
    assert (found.watts, found.room is not None and set(found.room.watts)) == (1000, {400.0, 1000.0})


def test_a_job_of_two_budgets_must_fit_in_both() -> None:
    day, hour = cap(energyWattHours=1300), cap(energyWattHours=599, period="Hour")
    hour["metadata"] = {"name": "hour", "namespace": "team"}
    me = a_job("me", timed=False, state=None)
    found = room(me, [day, hour], [])
    assert [each.field for each in found.energy] == [
        "EnergyBudget team/cap: spec.energyWattHours", "EnergyBudget team/hour: spec.energyWattHours",
    ]  # fmt: skip
    assert not found.fit(course(me)).together.any()
    less = a_job("me", timed=False, state=None, watts=599)
    assert room(less, [day, hour], []).fit(course(less)).together.all()


def test_the_clock_changes_inside_a_job() -> None:
    # On 2026-03-29 the day of Berlin has 23 hours.
    now = datetime(2026, 3, 28, 22, tzinfo=UTC)
    me = a_job("me", timed=False, state=None, minutes=25 * 60, watts=100)
    budget = cap(energyWattHours=2300, timeZone="Europe/Berlin", now=now)
    found = room(me, [budget], [], now)
    # One hour on the 28th, 23 hours on the 29th, one on the 30th.
    assert (found.fit(course(me)).excess_watt_hours[0]).tolist() == [0.0]
    tight = cap(energyWattHours=2299, timeZone="Europe/Berlin", now=now)
    assert room(me, [tight], [], now).fit(course(me)).excess_watt_hours[0].tolist() == [1.0]


def test_a_suspended_job_that_comes_back_has_no_more_right_than_a_new_one() -> None:
    back = a_job("back", timed=False, state=None)
    assert planned(back).committed_watts == 600
    found = allowed(back, [cap(powerWatts=1000)], [endless("other", 700)])
    assert found.watts == 300
    runs = a_job("back", NOW, "Starting", timed=False)
    assert allowed(runs, [cap(powerWatts=1000)], [endless("other", 700)]).watts == 600


def test_a_job_that_an_earlier_operator_started_keeps_its_plan() -> None:
    def job(ready: int) -> Body:
        active = {"planHash": "a" * 16, "readyReplicas": ready, "powerWatts": 600}
        return a_job("old", timed=False, state=None, activeRevision=active)

    budgets, others = [cap(powerWatts=1000), cap(energyWattHours=100)], [endless("other", 700)]
    assert allowed(job(1), budgets, others).watts == 600
    assert room(job(1), budgets, others).fits_at(course(job(1)), np.asarray([int(seconds_of(NOW))])).all()
    # Its start is not known: it may take all of its energy from now on.
    assert counted(job(1)).reserved(NOW) == 600
    # The workload of a suspended job stays without pods.
    assert allowed(job(0), budgets, others).watts == 300
    assert not room(job(0), budgets, others).fits_at(course(job(0)), np.asarray([int(seconds_of(NOW))])).any()


def test_a_budget_that_cannot_be_checked_grants_what_was_granted() -> None:
    budget = cap(energyWattHours=100_000)
    budget["status"]["conditions"][0] |= {"status": "False", "message": "the exporter is gone"}
    for body, watts in (
        (a_job("waits", MIDNIGHT), 600),
        (a_job("runs", NOW, "Started"), 600),
        (a_job("new", timed=False, state=None), 1),
    ):
        found = allowed(body, [budget], [])
        assert (found.watts, found.room) == (watts, None)


@st.composite
def sequences(draw: st.DrawFn) -> tuple[int, int, Period, list[tuple[int, int, int, int, int]]]:
    """Return limits of power and energy, a period, and jobs: watts, minutes, slow, idle, and the earliest start."""
    jobs = st.tuples(
        st.integers(50, 700), st.integers(5, 600), st.sampled_from([0, 0, 45]), st.sampled_from([0, 0, 60]),
        st.integers(0, 1500),
    )  # fmt: skip
    period: Period = draw(st.sampled_from(["Hour", "Day"]))
    most = 900 if period == "Hour" else 5000
    return draw(st.integers(300, 1200)), draw(st.integers(300, most)), period, draw(st.lists(jobs, max_size=7))


@settings(max_examples=40, deadline=None)
@given(sequences())
def test_no_order_of_jobs_breaks_a_budget(drawn: tuple[int, int, Period, list[tuple[int, int, int, int, int]]]) -> None:
    power, energy, kind, jobs = drawn
    budget, now = cap(powerWatts=power, energyWattHours=energy, period=kind), NOW.replace(second=0)
    taken: list[Body] = []
    for number, (watts, minutes, slow, idles, after) in enumerate(jobs):
        asked = a_job(f"j{number}", None, None, watts=watts, minutes=minutes, slow=slow, idles=idles)
        found = allowed(asked, [budget], taken, now)
        assert found.room is not None
        if watts > found.watts:
            continue
        earliest = int(seconds_of(now + timedelta(minutes=after)))
        known = a_job(f"j{number}", now, watts=watts, minutes=minutes, slow=slow, idles=idles)
        start = found.room.first_fit(course(known), earliest)
        if start is not None:
            begin = datetime.fromtimestamp(start, UTC)
            taken.append(a_job(f"j{number}", begin, watts=watts, minutes=minutes, slow=slow, idles=idles))
    plans = [plan_of(job) for job in taken]
    for minute in range(0, 5 * 1440, 15):
        moment = now + timedelta(minutes=minute)
        assert sum(watts_at(job, moment, now) for job in plans) <= power
    for each in periods_from(kind, ZoneInfo("UTC"), period_at(kind, ZoneInfo("UTC"), now), 24.0 * 9):
        since = max(each.start, now)
        total = sum(
            job.course.watt_hours((since - job.start).total_seconds(), (each.end - job.start).total_seconds())
            for job in plans
            if job.start is not None
        )
        assert total <= energy + 1e-3
