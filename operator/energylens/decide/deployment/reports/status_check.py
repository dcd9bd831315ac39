"""The plausible parts of a status. Pure.

A status is the operator's memory, and others may edit it, so every part that is read back is validated like input.
Impossible parts are discarded, and restored from the cluster or by planning again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from datetime import MAXYEAR, datetime, timedelta
from typing import Any, get_args

from energylens.api.base import Condition
from energylens.api.llmdeployment import (
    WEEKDAYS,
    ActiveRevision,
    JobStartStatus,
    LearnedLoadStatus,
    LLMDeploymentStatus,
    LoadStatus,
    Measured,
    PlanStatus,
    PreviousRevision,
    RollbackStatus,
    ScheduleStatus,
    VerificationStatus,
)
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.api.quantity import parse_quantity
from energylens.api.timestamp import timestamp
from energylens.api.words import counted
from energylens.data import load_gpus
from energylens.decide.deployment.loads.load import LOWEST_STEP, STEP
from energylens.decide.deployment.reports.unreadable import SMALLEST_SPEC
from energylens.decide.deployment.trials.verification import WINDOWS
from energylens.decide.planned import Body
from energylens.decide.reasons import ConditionType, Reason
from energylens.decide.stated import (
    CLOCK_SKEW,
    FUTURE,
    Checked,
    corrected,
    is_amount,
    time_problem,
    with_own_conditions,
)
from energylens.measure.types import EnergyReason
from energylens.planner.search.identity import action_hash

MOST = 10**12
"""Largest count, power, rate or latency of a plan; larger values would overflow the computations."""
MOST_START_SECONDS_STATED = 86_400
"""The longest start that a spec may state."""
MOST_TOKENS = 10_000_000
"""The longest prompt of a spec."""
HIGHEST_STEP = math.ceil(math.log(MOST_TOKENS, STEP))
"""Steps from one token to the longest prompt."""
MOST_LOAD_RATIO = 1e4
"""Largest ratio of a followed load to the declared load, or of the declared load to a followed load."""

_ORDER = [kind.value for kind in ConditionType]
_REASONS = frozenset((*(reason.value for reason in Reason), *get_args(EnergyReason)))


def own_part(status: Body) -> dict[str, Any]:
    """Return a status without conditions of other types, which other controllers may add, in the order of ours."""
    return with_own_conditions(status, _ORDER)


def sane_account(status: Body, now: datetime) -> dict[str, Any] | None:
    """Return ``status.energyAccount`` without impossible values; None if nothing was counted.

    An edit cannot lower the used energy: it is at least the energy measured in the period, and time without readable
    energy is predicted from the start of the period.
    """
    raw, measured = status.get("energyAccount"), status.get("measured")
    known = measured.get("energyWattHoursThisPeriod") if isinstance(measured, Mapping) else None
    least = 3600 * (known - 1) if is_amount(known) and known else 0
    if raw is None and not least:
        return None
    stated = raw if isinstance(raw, Mapping) else {}
    found = dict(stated)
    stamp = timestamp(now)
    for name in ("periodStart", "resetTime"):
        ahead = timedelta.max if name == "resetTime" else CLOCK_SKEW
        found[name] = found[name] if _is_time(found.get(name), now, ahead) else stamp
    wrong = [name for name in ("measuredJoules", "predictedJoules") if not is_amount(found.get(name, 0))]
    found |= dict.fromkeys(wrong, 0)
    if not is_amount(found.get("predictedWatts", 0)):
        found["predictedWatts"] = 0
    if wrong or not _is_time(found.get("accountedUntil"), now, CLOCK_SKEW):
        found["accountedUntil"] = found["periodStart"] if wrong else stamp
    if "notMeasuredSince" in found and not _is_time(found["notMeasuredSince"], now, CLOCK_SKEW):
        found["notMeasuredSince"] = stamp
    if found.get("measuredJoules", 0) < least:
        found["measuredJoules"] = least
    return found


def _is_time(value: Any, now: datetime, ahead: timedelta) -> bool:
    if not isinstance(value, str):
        return False
    why = time_problem(value, now)
    return not why or (ahead == timedelta.max and why.endswith(FUTURE))


def checked_status(body: Body, now: datetime) -> Checked:
    """Return the plausible parts of an LLMDeployment's status.

    Args:
        body: The object of the API server.
        now: The current time.
    """
    stated = own_part(body.get("status") or {})
    left_out: list[str] = []
    account = sane_account(stated, now)
    if account is not None and account != stated.get("energyAccount"):
        left_out.append("status.energyAccount: less than was measured, or an impossible value")
        stated = {**stated, "energyAccount": account}
    try:
        found = parse_llmdeployment(
            {**body, "spec": SMALLEST_SPEC, "status": stated}, strict=False, on_ignored=left_out.append
        )
    except InvalidResourceError as error:
        return {}, (str(error),)
    status = found.status
    changes: dict[str, Any] = {}
    for name, why in _untrue(status, found.metadata.generation, now):
        left_out.append(f"status.{LLMDeploymentStatus.model_fields[name].alias}: {why}")
        changes[name] = None
    conditions = tuple(_condition(condition, now) for condition in status.conditions if condition.reason in _REASONS)
    if conditions != status.conditions:
        left_out.append("status.conditions: a reason or a time that the operator does not write")
        changes["conditions"] = conditions
    return corrected(stated, status, changes, left_out)


def _untrue(status: LLMDeploymentStatus, generation: int, now: datetime) -> Iterator[tuple[str, str]]:
    """Yield the impossible fields, and why they are impossible."""
    if status.observed_generation is not None and not 0 <= status.observed_generation <= generation:
        yield "observed_generation", f"{status.observed_generation}, and metadata.generation is {generation}"
    for name, why in (
        ("plan", "" if status.plan is None else _plan_problem(status.plan)),
        ("plan_adoption_time", time_problem(status.plan_adoption_time, now)),
        ("schedule", "" if status.schedule is None else _schedule_problem(status.schedule, now)),
        ("job_start", "" if status.job_start is None else _job_start_problem(status.job_start)),
        ("learned_load", "" if status.learned_load is None else _learned_problem(status.learned_load, now)),
        ("load", "" if status.load is None else _load_problem(status.load, now)),
        ("rollback", "" if status.rollback is None else _rollback_problem(status.rollback)),
        ("verification", "" if status.verification is None else _verification_problem(status.verification, now)),
        ("measured", "" if status.measured is None else _measured_problem(status.measured, now)),
    ):
        if why:
            yield name, why
    for field, revision in (
        ("active_revision", status.active_revision),
        ("previous_revision", status.previous_revision),
    ):
        if revision is not None and (why := _revision_problem(revision, now)):
            yield field, why
    if status.prediction is not None and status.prediction.samples > MOST:
        yield "prediction", f"{status.prediction.samples} samples"


def _plan_problem(plan: PlanStatus) -> str:
    """Return why the operator cannot have written a plan; "" if it can have."""
    if plan.hash != action_hash(plan):
        return f"hash {plan.hash!r} is not that of the plan"
    per_replica = plan.tensor_parallel * plan.pipeline_parallel * plan.data_parallel
    if plan.gpus != per_replica * plan.replicas:
        return f"{counted(plan.gpus, 'GPU')}, and {counted(plan.replicas, 'replica')} of {counted(per_replica, 'GPU')}"
    if plan.gpu_product not in load_gpus():
        return f"GPU product {plan.gpu_product!r} is not known"
    figures = {**plan.model_dump(include={"gpus", "max_batch_size"}), **plan.predicted.model_dump()}
    for name, value in figures.items():
        if value is None:
            # Plans of earlier releases have no TPOT, nor an end-to-end latency.
            continue
        number = float(parse_quantity(value)) if isinstance(value, str) else value
        if not 0 <= number <= MOST:
            return f"{name}={value}"
    return ""


def _load_problem(load: LoadStatus, now: datetime) -> str:
    declared, rate = (
        float(parse_quantity(value)) for value in (load.declared_requests_per_second, load.requests_per_second)
    )
    if declared <= 0 or not 1 / MOST_LOAD_RATIO <= rate / declared <= MOST_LOAD_RATIO:
        return f"{load.requests_per_second} of {load.declared_requests_per_second} requests per second"
    highest = load.highest_below_requests_per_second
    if highest is not None and float(parse_quantity(highest)) < 0:
        return f"{highest} requests per second"
    times = [load.change_time, load.window_end, load.below_since]
    for length in (load.input_tokens, load.output_tokens):
        if length is None:
            continue
        if not 1 <= length.declared_tokens <= MOST_TOKENS or not LOWEST_STEP <= length.steps <= HIGHEST_STEP:
            return f"{length.declared_tokens} tokens and {length.steps} steps"
        if not 0 <= (length.highest_below_tokens or 0) <= MOST_TOKENS:
            return f"highestBelowTokens {length.highest_below_tokens}"
        times += [length.change_time, length.below_since]
    return next((why for time in times if (why := time_problem(time, now))), "")


def _learned_problem(learned: LearnedLoadStatus, now: datetime) -> str:
    if parse_quantity(learned.declared_requests_per_second) <= 0:
        return f"{learned.declared_requests_per_second} requests per second"
    wrong = (rate for rate in learned.requests_per_second if not 0 <= float(parse_quantity(rate)) <= MOST)
    rate = next(wrong, None)
    return time_problem(learned.window_end, now) if rate is None else f"{rate} requests per second"


def _schedule_problem(schedule: ScheduleStatus, now: datetime) -> str:
    starts = [24 * WEEKDAYS.index(entry.day) + entry.hour for entry in schedule.hours]
    if not starts or starts != sorted(set(starts)):
        return "hours that are not in order"
    for entry in schedule.hours:
        if entry.replicas > MOST or entry.power_watts > MOST or parse_quantity(entry.requests_per_second) <= 0:
            rate = entry.requests_per_second
            return f"{entry.replicas} replicas of {entry.power_watts} W for {rate} requests per second"
    if schedule.start_seconds > MOST_START_SECONDS_STATED:
        return f"{schedule.start_seconds} seconds of a start"
    return time_problem(schedule.starting_since, now)


def _job_start_problem(start: JobStartStatus) -> str:
    times = [start.start_time, start.end_time, start.latest_start_time]
    if start.state == "Waiting" and start.reason == Reason.BUDGET_EXCEEDED and times[:2] == [None, None]:
        # Budgets have no room for any start.
        times = times[2:]
    if start.state != "Suspended" and not all(isinstance(time, str) and _is_moment(time) for time in times):
        return f"{start.state} from {start.start_time} to {start.end_time}"
    return "" if 0 <= (start.start_seconds or 0) <= MOST_START_SECONDS_STATED else f"{start.start_seconds} s"


def _is_moment(text: str) -> bool:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return False
    # Some time is added to it.
    return moment.tzinfo is not None and 1 < moment.year < MAXYEAR


def _rollback_problem(rollback: RollbackStatus) -> str:
    good, trial = rollback.last_good_plan, rollback.trial
    if good is not None and (why := _plan_problem(good.plan)):
        return f"lastGoodPlan: {why}"
    if good is not None and float(parse_quantity(good.joules_per_output_token)) < 0:
        return f"lastGoodPlan: {good.joules_per_output_token} J"
    windows = () if trial is None else (trial.bad_windows, trial.good_windows)
    return "" if all(0 <= count <= MOST for count in windows) else f"trial: {max(windows)} windows"


def _verification_problem(found: VerificationStatus, now: datetime) -> str:
    if found.plan is not None and (why := _plan_problem(found.plan)):
        return f"plan: {why}"
    if found.plan is not None and (found.start_time is None or found.inputs is None):
        return "plan: without the time and the inputs of its start"
    for count in (found.good_windows, found.bad_windows):
        if not 0 <= count < WINDOWS or (count and found.plan is None):
            return f"{count} windows"
    times = [found.start_time, found.ready_time, found.window_end, *(known.time for known in found.given_up)]
    times += [found.followed.time] if found.followed is not None else []
    return next((why for time in times if (why := time_problem(time, now))), "")


def _revision_problem(revision: ActiveRevision | PreviousRevision, now: datetime) -> str:
    energies = (revision.joules_per_output_token, revision.measured_joules_per_output_token)
    for energy in energies:
        if energy is not None and not 0 <= float(parse_quantity(energy)) <= MOST:
            return f"{energy} J"
    loads = (revision.output_tokens_per_second, revision.measured_output_tokens_per_second)
    if any(load is not None and not 0 <= load <= MOST for load in loads):
        return f"{max(load for load in loads if load is not None)} tokens per second"
    if isinstance(revision, PreviousRevision):
        return time_problem(revision.replaced_time, now)
    return f"{revision.power_watts} W" if revision.power_watts is not None and revision.power_watts > MOST else ""


def _measured_problem(measured: Measured, now: datetime) -> str:
    # A window that was never complete has no times.
    times = [time for time in (measured.window_start, measured.window_end) if time]
    return next((why for time in times if (why := time_problem(time, now))), "")


def _condition(condition: Condition, now: datetime) -> Condition:
    """Return a condition, with the current time in place of an impossible one."""
    if not condition.last_transition_time or not time_problem(condition.last_transition_time, now):
        return condition
    return condition.model_copy(update={"last_transition_time": ""})
