"""The power of a job over its time, against adding up every second."""

from __future__ import annotations

import random

import pytest

from energylens.budget.course import Course, JobFigures, course_of
from energylens.budget.job_start import Phase


def second_by_second(course: Course, since: int, until: int) -> float:
    watts = [phase.watts for phase in course.phases for _ in range(phase.seconds)]
    return sum(watts[max(0, since) : max(0, until)]) / 3600.0


@pytest.mark.parametrize("seed", range(20))
def test_the_energy_between_two_times_is_that_of_each_second(seed: int) -> None:
    draw = random.Random(seed)
    phases = tuple(Phase(draw.choice([0, draw.randint(1, 300)]), draw.uniform(0, 900)) for _ in range(3))
    course = Course(phases, draw.randint(0, 900))  # type: ignore[arg-type]
    for _ in range(20):
        since, until = sorted(draw.randint(-200, 1200) for _ in range(2))
        assert course.watt_hours(since, until) == pytest.approx(second_by_second(course, since, until))


def figures(**changes: object) -> JobFigures:
    known: dict[str, object] = {
        "within_seconds": 7200, "idles": False, "completion_seconds": 4000, "start_seconds": 400,
        "longest_seconds": 5200, "energy_watt_hours": 1020, "watts": 1000.0, "idle_watts": 200.0,
    }  # fmt: skip
    return JobFigures(**(known | changes))  # type: ignore[arg-type]


def test_the_start_has_what_the_requests_do_not_take() -> None:
    course = course_of(figures())
    assert course.phases == (Phase(400, 180.0), Phase(3600, 1000.0), Phase(0, 200.0))
    assert (course.end_seconds, course.seconds, course.longest_seconds) == (4000, 4000, 5200)
    assert (course.reserved_seconds, course.busy_watts, course.idle_watts) == (5200, 1000.0, 0.0)
    assert course.watt_hours(0, 10_000) == pytest.approx(1020.0)


def test_gpus_that_idle_are_reserved_until_the_deadline() -> None:
    course = course_of(figures(idles=True, energy_watt_hours=1020 + 178))
    assert course.phases[2] == Phase(3200, 200.0)
    assert (course.seconds, course.reserved_seconds, course.idle_watts) == (7200, 7200, 200.0)
    assert course.watt_hours(0, 7200) == pytest.approx(1198.0)


def test_a_measured_start_moves_the_rest_and_shortens_the_idle_time() -> None:
    course = course_of(figures(idles=True, energy_watt_hours=1198), 1000)
    assert [phase.seconds for phase in course.phases] == [1000, 3600, 2600]
    assert course.longest_seconds == 1000 + 4800
    slow = course_of(figures(idles=True, energy_watt_hours=1198), 5000)
    assert slow.phases[2].seconds == 0
    assert slow.reserved_seconds == 5000 + 4800


def test_a_plan_of_an_older_release_keeps_the_whole_time() -> None:
    old = figures(longest_seconds=None, start_seconds=0, energy_watt_hours=1111)
    assert course_of(old).longest_seconds == 7200
    assert course_of(old).phases[0] == Phase(0, 0.0)


def test_a_job_is_never_shorter_when_it_is_slow() -> None:
    assert course_of(figures(longest_seconds=3000)).longest_seconds == 4000


def test_rounded_figures_give_no_negative_power() -> None:
    assert course_of(figures(energy_watt_hours=900)).phases[0].watts == 0.0
