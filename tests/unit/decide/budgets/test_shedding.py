"""What shedding does with members that have answered, that draw too much, and that may have their power back."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.budgets.test_figures import SHED, capped, conditions, replaced
from tests.unit.decide.budgets.test_status import START, look, member, verdicts

from energylens.api.energybudget import EnergyBudgetStatus
from energylens.budget.course import Course
from energylens.budget.job_start import Phase
from energylens.decide.budgets.jobs import CountedJob
from energylens.decide.budgets.status import CountedMember, decide, status_of_budget
from energylens.decide.reasons import BudgetReason

LONG_AGO, JUST_NOW = "2026-11-25T01:00:00Z", "2026-11-25T11:59:50Z"


def caps(status: EnergyBudgetStatus) -> dict[str, int | None]:
    return {each.name: each.allowed_power_watts for each in status.members}


@pytest.mark.parametrize(("answered", "others"), [(None, None), (500.0, 300), (500.9, 300), (501.0, None)])
def test_a_plan_made_under_its_cap_cannot_draw_less_so_that_others_shed(
    answered: float | None, others: int | None
) -> None:
    before = EnergyBudgetStatus(members=(capped(watts=500, former=700),), shed_time=JUST_NOW)
    other = member("other", 400.0, least_watts=200.0, levels_watts=(200.0,))
    found = decide(look(member(answered_watts=answered), other, before=before, spec=SHED))
    assert caps(found.status) == {"llama": 500, "other": others}
    assert found.is_unsettled


@pytest.mark.parametrize(("excess", "cap"), [(0.0, None), (200.0, 450)])
def test_power_measured_above_the_plans_is_shed_like_that_of_plans(excess: float, cap: int | None) -> None:
    one = member(watts=900.0, levels_watts=(450.0,), excess_watts=excess)
    assert caps(status_of_budget(look(one, spec=SHED))) == {"llama": cap}


def test_a_limit_below_the_measured_excess_allows_nothing() -> None:
    one = member(watts=900.0, levels_watts=(450.0,), excess_watts=1500.0)
    shedding = conditions(status_of_budget(look(one, spec=SHED)))["Shedding"]
    assert shedding.message.endswith("; 450 W are still missing, but every member is at its floor")


@pytest.mark.parametrize(
    ("limit", "hours", "excess", "cap"),
    [
        # 1000 W on average: 10 % of these stay free, and 350 W more are asked for.
        (24000, 12.0, 0.0, None),
        (24000, 12.0, 300.0, 350),
        # 2400 W would last until the evening, and 100 W on every day after this one.
        (2400, 23.0, 0.0, 350),
    ],
)
def test_power_is_restored_only_as_far_as_it_lasts_beyond_the_period(
    limit: int, hours: float, excess: float, cap: int | None
) -> None:
    before = EnergyBudgetStatus(members=(capped(watts=350, former=700),), shed_time=LONG_AGO)
    one = member(watts=350.0, least_watts=350.0, whole_watts=700.0, levels_watts=(), excess_watts=excess)
    spec = {"energyWattHours": limit, "period": "Day", "action": "Shed"}
    found = status_of_budget(look(one, before=before, spec=spec, hours=hours, used=0.0))
    assert caps(found) == {"llama": cap}


def test_a_check_without_energy_figures_sheds_nothing_and_keeps_the_caps() -> None:
    before = EnergyBudgetStatus(members=(capped(),), shed_time=LONG_AGO)
    unchecked: tuple[dict[str, Any], ...] = ({"used": None}, {"problem": (BudgetReason.METRICS_MISSING, "dark")})
    for changes in unchecked:
        found = status_of_budget(replaced(look(before=before, spec=SHED), **changes))
        assert (caps(found), found.shed_time) == ({"llama": 500}, LONG_AGO)
        assert verdicts(found)["Shedding"] == ("True", "PowerTaken")


def a_job(name: str, watts: float, hours: int, *, gone: int = 0) -> CountedMember:
    """Return a job that runs since ``gone`` hours and takes ``hours`` in all."""
    course = Course((Phase(0, 0.0), Phase(3600 * hours, watts), Phase(0, 0.0)), 3600 * hours)
    now = START + timedelta(hours=12)
    begin = now - timedelta(hours=gone)
    job = CountedJob(f"chat/{name}", course, course, begin, True, 1.0, watts, watts, counted_until=now)
    return member(name, watts, least_watts=watts / 2, levels_watts=(watts / 4,), priority=-1, job=job)


DAY = {"energyWattHours": 24_000, "period": "Day", "action": "Shed"}


def test_a_job_whose_energy_is_there_sheds_nothing_for_its_power() -> None:
    # 12 kWh are left of the day: 6 kWh for the job, and 500 W for the others.
    found = status_of_budget(look(a_job("job", 2000.0, 3), member("chat", 400.0), spec=DAY, used=12_000.0))
    assert (caps(found), found.allowed_power_watts) == ({"job": None, "chat": None}, 2500)
    assert verdicts(found)["Shedding"] == ("False", "NothingTaken")
    # What the others draw too much, they shed, whatever the priority of the job.
    found = status_of_budget(
        look(a_job("job", 2000.0, 3), member("chat", 600.0, levels_watts=(300.0,)), spec=DAY, used=12_000.0)
    )
    assert caps(found) == {"job": None, "chat": 300}
    # Three quarters of it are over.
    found = status_of_budget(look(a_job("job", 2000.0, 4, gone=3), member("chat", 800.0), spec=DAY, used=12_000.0))
    assert found.allowed_power_watts == 2833
    assert verdicts(found)["Shedding"] == ("False", "NothingTaken")


def test_a_job_for_which_there_is_no_energy_sheds_like_any_load() -> None:
    found = status_of_budget(look(a_job("job", 2000.0, 7), spec=DAY, used=12_000.0))
    assert (caps(found), found.allowed_power_watts) == ({"job": 1000}, 1000)
    # A job that should have ended has no end that could be counted on.
    late = status_of_budget(look(a_job("job", 2000.0, 3, gone=3), spec=DAY, used=12_000.0))
    assert caps(late) == {"job": 1000}


def test_a_job_sheds_for_a_limit_of_power() -> None:
    found = status_of_budget(look(a_job("job", 2000.0, 3), spec={**DAY, "powerWatts": 1500}, used=12_000.0))
    assert caps(found) == {"job": 1500}


@pytest.mark.parametrize(
    ("hours", "rest", "reason", "forecast"),
    [
        # By the rate of now, 12 kWh last for six hours; the job takes 6 kWh and ends.
        (3, 0.0, "Within", "lasts"),
        (3, 499.0, "Within", "lasts"),
        (3, 600.0, "RunsOut", "used up 2026-11-25T22:00:00Z"),
        (7, 0.0, "RunsOut", "used up 2026-11-25T18:00:00Z"),
        (6, 0.0, "RunsOut", "used up 2026-11-25T18:00:00Z"),
    ],
)
def test_the_forecast_knows_that_jobs_end(hours: int, rest: float, reason: str, forecast: str) -> None:
    job = replace(a_job("job", 2000.0, hours), measured_watts=2000.0)
    members = [job, member("chat", rest, measured_watts=rest)] if rest else [job]
    found = status_of_budget(look(*members, spec={**DAY, "action": "Report"}, used=12_000.0))
    assert (conditions(found)["WithinEnergyBudget"].reason, found.forecast) == (reason, forecast)
