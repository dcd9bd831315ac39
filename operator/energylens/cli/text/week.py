"""A schedule over the week as text: replicas by hour, and the energy beside that of the best constant plan. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from energylens.api.llmdeployment import WEEKDAYS, LLMDeployment, PlanStatus, ScheduleStatus, Weekday, WorkloadSpec
from energylens.api.words import counted
from energylens.cli.text.tables import columns
from energylens.data import load_gpus
from energylens.planner.search import describe
from energylens.planner.search.week_load import WeekLoad
from energylens.planner.week.planning import WeekPlan

WEEK_HEADER = ("DAYS", "FROM", "REQUESTS/S", "REPLICAS", "WATTS")


def week_lines(deployment: LLMDeployment, plan: PlanStatus, schedule: ScheduleStatus) -> list[str]:
    """Return the energy and savings of a week, the energy of replica starts, and the replicas of every hour."""
    profile = deployment.spec.workload.profile
    zone = "UTC" if profile is None else profile.time_zone
    return [
        f"  week        {week_text(schedule)}",
        f"  now         {_now(schedule)}",
        f"  starts      {counted(schedule.starts, 'start')} of a replica in a week, {schedule.start_seconds} s and "
        f"{schedule.start_joules / 1000.0:.3g} kJ each",
        *_released(plan, schedule),
        "",
        f"Replicas over the week ({zone}):",
        *columns([WEEK_HEADER, *week_rows(schedule)]),
    ]


def week_rows(schedule: ScheduleStatus) -> list[tuple[str, ...]]:
    """Return a row for each change of replicas or load; the same change on several days is one row."""
    days: dict[tuple[int, str, int, int], list[Weekday]] = {}
    for entry in schedule.hours:
        key = entry.hour, entry.requests_per_second, entry.replicas, entry.power_watts
        days.setdefault(key, []).append(entry.day)
    return [
        (_days(found), f"{hour:02d}:00", rate, str(replicas), str(watts))
        for (hour, rate, replicas, watts), found in days.items()
    ]


def peak_notes(deployments: Iterable[LLMDeployment]) -> list[str]:
    """Return a note for each deployment with a profile, for commands that plan its highest rate alone."""
    return [
        f"{deployment.metadata.namespace}/{deployment.metadata.name} has a profile, and is planned for "
        f"{peak_of(deployment.spec.workload)}"
        for deployment in deployments
        if deployment.spec.workload.profile is not None
    ]


def peak_of(workload: WorkloadSpec) -> str:
    """Return the highest rate of a profile in words, or where its hours are; the workload has a profile."""
    profile = workload.profile
    assert profile is not None
    if profile.hours is None and profile.hours_config_map_ref is not None:
        return f"the highest rate of ConfigMap {profile.hours_config_map_ref.name}"
    if profile.hours is None and profile.learned is not None:
        return "the highest learned rate"
    return f"the highest rate: {WeekLoad.of(workload).peak_text}"


def other_lines(found: WeekPlan) -> list[str]:
    """Return the best week of every other GPU product beside the plan."""
    if not found.others:
        return []
    rows = [("ENERGY OF THE WEEK", "", "LAYOUT WITH THE MOST REPLICAS")]
    rows += [
        (
            describe.kilowatt_hours(other.joules),
            f"{100.0 * (other.joules / found.joules - 1.0):+.0f} %",
            other.text,
        )
        for other in found.others
    ]
    return ["", "Best week of each other GPU product:", *columns(rows)]


def week_text(schedule: ScheduleStatus) -> str:
    """Return the energy of a week beside that of the best constant plan."""
    mine = describe.kilowatt_hours(3600.0 * schedule.week_watt_hours)
    if schedule.constant_watt_hours is None:
        return f"{mine}; no constant number of replicas holds every hour"
    saved = 100.0 * (1.0 - schedule.week_watt_hours / max(1, schedule.constant_watt_hours))
    constant = describe.kilowatt_hours(3600.0 * schedule.constant_watt_hours)
    return f"{mine}, {saved:.1f} % less than the best constant plan: {constant} with {schedule.constant_plan}"


def _now(schedule: ScheduleStatus) -> str:
    now = counted(schedule.replicas, "replica")
    if schedule.next_change_time is None:
        return f"{now}, all week"
    return f"{now}; {schedule.next_replicas} from {schedule.next_change_time} on"


def _released(plan: PlanStatus, schedule: ScheduleStatus) -> list[str]:
    if not schedule.released_gpu_hours:
        return []
    gpu = load_gpus().get(plan.gpu_product)
    if gpu is None:
        return []
    idle = describe.kilowatt_hours(3600.0 * schedule.released_gpu_hours * gpu.idle_watts)
    return [
        f"  released    {schedule.released_gpu_hours} GPU hours a week for others; GPUs that nobody uses then draw "
        f"{idle}, not counted"
    ]


def _days(days: Sequence[Weekday]) -> str:
    """Return days in short: consecutive ones as ``Mon-Fri``."""
    runs: list[list[int]] = []
    for index in sorted(WEEKDAYS.index(day) for day in days):
        if runs and runs[-1][-1] == index - 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    joined = [
        WEEKDAYS[run[0]] if len(run) == 1 else f"{WEEKDAYS[run[0]]}{'-' if len(run) > 2 else ', '}{WEEKDAYS[run[-1]]}"
        for run in runs
    ]
    return ", ".join(joined)
