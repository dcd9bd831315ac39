"""The course of a plan's job, by value, and whether an allowance admits the plan."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import (
    BatchJob,
    LLMDeployment,
    LLMDeploymentSpec,
    PlannedJob,
    PlanStatus,
    PredictedFigures,
)
from energylens.planner.room import QUARTER, Courses, EnergyRoom, Holder, JobRoom
from energylens.planner.search.job_room import admits, course_of_plan, courses_of, holders_text, needed_watt_hours
from energylens.planner.types import PowerAllowance

T0 = 1_772_323_200
"""2026-03-01T00:00:00Z."""
FIELDS = ("start_seconds", "start_watts", "serving_seconds", "watts", "idle_seconds", "idle_watts", "longest_seconds")


def spec(**job: Any) -> LLMDeploymentSpec:
    load = {"inputTokens": 300, "outputTokens": 400}
    part: dict[str, Any] = {"job": {"requests": 1000, "completeWithinSeconds": 7200} | job}
    if job == {"none": True}:
        part = {"requestsPerSecond": "2"}
    document = {"model": {"name": "meta-llama/Llama-3.1-8B-Instruct"}, "workload": load | part}
    asked = LLMDeployment.model_validate({"metadata": {"name": "chat", "namespace": "team-a"}, "spec": document})
    return asked.spec


def planned(**job: Any) -> PlanStatus:
    predicted = PredictedFigures(
        joules_per_output_token="1",
        joules_per_output_token_low="800m",
        joules_per_output_token_high="1200m",
        power_watts=720,
        idle_power_watts=90,
        output_tokens_per_second=1000,
        concurrency=10,
        ttft_milliseconds=100,
        itl_milliseconds=20,
    )
    figures = {
        "completion_seconds": 3700,
        "start_seconds": 100,
        "longest_seconds": 4000,
        "energy_watt_hours": 810,
    } | job
    return PlanStatus(
        hash="a",
        predictor_version="1",
        confidence="Interpolated",
        binding_constraint="None",
        gpu_product="NVIDIA-H100-80GB-HBM3",
        gpus=1,
        replicas=1,
        tensor_parallel=1,
        pipeline_parallel=1,
        expert_parallel=1,
        data_parallel=1,
        max_batch_size=64,
        predicted=predicted,
        job=None if job == {"none": True} else PlannedJob(**figures),
    )


def figures(course: Courses | None) -> dict[str, list[float]]:
    assert course is not None
    return {name: getattr(course, name).tolist() for name in FIELDS}


def course(*values: float) -> dict[str, list[float]]:
    return {name: [value] for name, value in zip(FIELDS, values, strict=True)}


def test_idle_gpus_wait_for_the_deadline_and_the_start_takes_the_rest_of_the_energy() -> None:
    # 810 Wh: 720 for an hour of requests, 85 for 3400 s of idle time, and 5 for the start.
    expected = course(100, 180, 3600, 720, 3500, 90, 4000)
    expected["start_watts"] = [(810 * 3600 - 720 * 3600 - 90 * 3500) / 100]
    assert figures(course_of_plan(planned(), spec())) == expected


def test_released_gpus_are_not_idle() -> None:
    found = figures(course_of_plan(planned(energy_watt_hours=725), spec(afterCompletion="Release")))
    assert found == course(100, 180, 3600, 720, 0, 90, 4000)


def test_a_job_without_a_start_draws_nothing_before_its_requests() -> None:
    found = figures(course_of_plan(planned(start_seconds=None), spec(afterCompletion="Release")))
    assert found == course(0, 0, 3700, 720, 0, 90, 4000)


def test_a_start_of_a_second_draws_what_the_requests_do_not() -> None:
    plan = planned(start_seconds=1, completion_seconds=3601, energy_watt_hours=721)
    assert figures(course_of_plan(plan, spec(afterCompletion="Release")))["start_watts"] == [3600.0]


def test_the_start_draws_no_negative_power() -> None:
    found = figures(course_of_plan(planned(energy_watt_hours=700), spec(afterCompletion="Release")))
    assert found["start_watts"] == [0.0]


@pytest.mark.parametrize(("end", "longest"), [(3700, 7200), (8000, 8000)])
def test_a_plan_that_does_not_say_its_slowest_end_has_the_time_of_its_deadline(end: int, longest: int) -> None:
    found = figures(course_of_plan(planned(completion_seconds=end, longest_seconds=None), spec()))
    assert found["longest_seconds"] == [longest]
    assert found["idle_seconds"] == [max(7200 - end, 0)]


def test_requests_that_end_before_the_start_take_no_time() -> None:
    found = figures(course_of_plan(planned(completion_seconds=60, longest_seconds=50), spec(afterCompletion="Release")))
    assert (found["serving_seconds"], found["longest_seconds"]) == ([0.0], [60.0])


def test_a_plan_without_a_job_has_no_course() -> None:
    assert course_of_plan(planned(none=True), spec()) is None
    assert course_of_plan(planned(), spec(none=True)) is None


def test_candidates_have_the_figures_that_their_plans_would_state() -> None:
    rows: Any = SimpleNamespace(
        completion_seconds=np.asarray([3699.2, 3700.0000001, np.inf]),
        job_start_seconds=np.asarray([99.5, 100.0, 100.0]),
        utilization_limit=np.asarray([0.9, 1.0, 0.0]),
        job_joules=np.asarray([724.01 * 3600, 725.0 * 3600, np.nan]),
        power_watts=np.asarray([719.6, 720.4, 720.0]),
        idle_power_watts=np.asarray([89.6, 90.4, 90.0]),
    )
    job = BatchJob(requests=1, complete_within_seconds=7200, after_completion="Release")
    found = courses_of(rows, job)
    for name, value in course(100, 180, 3600, 720, 0, 90, 4100).items():
        assert getattr(found, name)[0] == value[0], name
    for name, value in course(100, 180, 3600, 720, 0, 90, 3700).items():
        assert getattr(found, name)[1] == value[0], name
    assert np.isinf(found.longest_seconds[2])


def test_an_allowance_admits_a_plan_with_its_power_and_for_a_job_its_energy() -> None:
    asked, plan = spec(afterCompletion="Release"), planned(energy_watt_hours=725)
    enough, short = (
        JobRoom(T0, T0, energy=(EnergyRoom("budget", 2000, (T0 + 86_400,), (left,)),)) for left in (725.0, 724.0)
    )
    assert admits(PowerAllowance(720, "budget"), plan, asked)
    assert not admits(PowerAllowance(719, "budget"), plan, asked)
    assert admits(PowerAllowance(720, "budget", room=enough), plan, asked)
    assert not admits(PowerAllowance(719, "budget", room=enough), plan, asked)
    assert not admits(PowerAllowance(720, "budget", room=short), plan, asked)
    # A plan that does not say when its job ends counts with its power only.
    assert admits(PowerAllowance(720, "budget", room=short), planned(none=True), asked)


def test_only_jobs_that_hold_power_between_two_times_are_named() -> None:
    first = T0 // QUARTER
    room = JobRoom(T0, T0, holders=(Holder("team/a", first + 2, first + 4, 500),))
    named = ": team/a holds 500 W from 2026-03-01T00:30:00Z to 2026-03-01T01:00:00Z"
    assert holders_text(room, T0, T0 + 1800) == ""
    assert holders_text(room, T0, T0 + 1801) == named
    assert holders_text(room, T0 + 3599, T0 + 9000) == named
    assert holders_text(room, T0 + 3600, T0 + 9000) == ""
    two = JobRoom(T0, T0, holders=(*room.holders, Holder("team/b", 0, 0, 70, until_deleted=True)))
    late = ", team/b holds 70 W until the job, which is late, is deleted"
    assert holders_text(two, T0 + 1800, T0 + 3600) == named + late
    four = JobRoom(T0, T0, holders=(*two.holders, *room.holders, *room.holders))
    assert holders_text(four, T0 + 1800, T0 + 3600) == named + late + ", and 2 more"


def test_the_limit_grows_by_whole_watt_hours() -> None:
    assert needed_watt_hours(2000, [-5.0, 0.0, 0.2, 1.0, 1.0000001]).tolist() == [
        2000.0,
        2000.0,
        2001.0,
        2001.0,
        2001.0,
    ]
