"""The layout and the number of replicas for a load with a profile. Pure except for its cache."""

from __future__ import annotations

import math
from collections.abc import Generator, Hashable, Iterator, MutableMapping
from dataclasses import replace

from energylens.api.llmdeployment import WEEKDAYS, LLMDeployment, PlanStatus, ScheduledReplicas, ScheduleStatus
from energylens.api.quantity import decimal_text, format_milli
from energylens.api.timestamp import timestamp
from energylens.api.words import counted
from energylens.decide.deployment.loads.learned_hours import limited_to
from energylens.decide.deployment.loads.load import rate_of
from energylens.decide.deployment.loads.timetable import Timetable
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans import schedule as weekly
from energylens.decide.deployment.plans.at_replicas import Target, layout_of, plan_at, waits_for_budget
from energylens.decide.deployment.plans.case import Case, in_words
from energylens.decide.reasons import Reason
from energylens.planner import adoption, effective_allowance
from energylens.planner.search.identity import identified, is_made_from
from energylens.planner.search.week_load import HOURS, at_rate
from energylens.planner.types import Feasible, Infeasible, PlanningResult, PowerAllowance
from energylens.planner.week.planning import WeekPlan, WeekProblem, finished, plan_week_in_steps, saving_text
from energylens.predictor.model.parameters import weight_bytes
from energylens.records import dataclass

Weeks = MutableMapping[tuple[Hashable, ...], WeekPlan | Infeasible]
"""Planned weeks by their inputs."""
MOST_WEEKS = 256


@dataclass(frozen=True)
class _Week:
    """The schedule to follow, and the reason of its choice."""

    schedule: ScheduleStatus
    layout: PlanStatus
    """A plan of the schedule's layout, with any number of replicas."""
    good: bool = True
    reason: Reason = Reason.PLANNED
    message: str = ""
    decision: str = "SamePlan"
    weighed: str = ""
    result: PlanningResult | None = None
    found: WeekPlan | None = None
    note: str = ""
    """The hours that are planned for less than their learned rate."""


def scheduled(case: Case, weeks: Weeks) -> PlanChoice:
    """Return the plan of the current hour, with its schedule."""
    # Power that a budget sheds is only taken from the current hour.
    no_hours, whole = case.inputs.no_hours, case.unshed
    if no_hours is not None:
        week: _Week | PlanChoice = _without(case, no_hours.reason, no_hours.message)
    else:
        week = _standing(whole) or waits_for_budget(case) or _planned(whole, weeks)
    if isinstance(week, PlanChoice):
        return week
    now, deployment = case.inputs.now, case.inputs.deployment
    timetable = weekly.timetable_of(deployment, week.schedule)
    target = weekly.followed(timetable, week.schedule, now)
    before, current = deployment.status.schedule, deployment.status.plan
    stands = (
        current is not None
        and week.decision == "SamePlan"
        and _is_allowed(case, week.schedule, target.entry)
        and current.shed_by is None
        and current == identified(current, deployment.spec)
        and is_made_from(current, target.token)
    )
    if stands and current is not None:
        plan, shed = current, ""
    else:
        found = plan_at(_in_entry(case, week.schedule, target.entry), _target(case, week, target))
        plan, shed = found.plan, found.shed
    choice = PlanChoice(
        plan,
        case.model,
        week.good,
        week.reason,
        (week.message or f"{in_words(plan)}; {_saving(week.schedule)}") + week.note,
        adopted=bool(week.weighed),
        decision=week.decision,
        table=None if week.found is None else week.found.table,
        result=week.result,
        week=week.found,
        weighed=week.weighed,
    )
    if shed:
        choice = replace(choice, reason=Reason.SHED, message=shed, decision="Shed")
    schedule = _with_start(case, weekly.at(week.schedule, timetable, now), before, plan)
    return replace(
        choice,
        schedule=schedule,
        next_look=timetable.next_look(now),
        scaled=_scaled(current, plan, target.entry, timetable, schedule),
    )


def _standing(case: Case) -> _Week | None:
    """Return the schedule in the status if it was made from the same inputs."""
    status = case.inputs.deployment.status
    schedule, plan = status.schedule, status.plan
    if schedule is None or plan is None or case.inputs.want_table:
        return None
    if plan.serving_hash != identified(plan, case.inputs.deployment.spec).serving_hash:
        return None
    return _Week(schedule, plan) if _made_from(case, schedule, plan) else None


def _made_from(case: Case, schedule: ScheduleStatus, plan: PlanStatus) -> str:
    """Return the hash of the current inputs if a schedule was made from them, otherwise ""."""
    asked, allowance = case.inputs.deployment, _growth(case)
    free = case.hash_of(asked, None, restricted=False)
    if weekly.is_made_from(schedule, plan, free):
        return free if allowance is None or _fits(schedule, allowance) else ""
    exact = case.hash_of(asked, None)
    return exact if allowance is not None and weekly.is_made_from(schedule, plan, exact) else ""


def _fits(schedule: ScheduleStatus, allowance: PowerAllowance) -> bool:
    """Return whether every hour of a schedule keeps to the power that budgets leave."""
    return all(entry.power_watts <= _left_in(schedule, entry, allowance).watts for entry in schedule.hours)


def _left_in(schedule: ScheduleStatus, entry: ScheduledReplicas, allowance: PowerAllowance) -> PowerAllowance:
    """Return the power that budgets leave in the hours of an entry."""
    starts = [24 * WEEKDAYS.index(each.day) + each.hour for each in schedule.hours]
    index = schedule.hours.index(entry)
    hours = (starts[(index + 1) % len(starts)] - starts[index] - 1) % HOURS + 1
    return allowance.within(starts[index], hours)


def _growth(case: Case) -> PowerAllowance | None:
    """Return the power that budgets and the spec leave."""
    return effective_allowance(case.inputs.deployment.spec, case.inputs.allowance)


def _planned(case: Case, weeks: Weeks) -> _Week | PlanChoice:
    """Plan the week, and choose between the best layout and the current one."""
    deployment, current = case.inputs.deployment, case.inputs.deployment.status.plan
    result, note = _week_of(case, deployment, weeks), ""
    if isinstance(result, Infeasible):
        carried = finished(_most_carried_in_steps(case, weeks))
        if carried is None:
            return _without(case, Reason(result.reason), result.message, result)
        most = f"{decimal_text(carried[0])} requests per second"
        note = f"; no learned hour is planned for more than {most}: {result.message}"
        _, deployment, result = carried
    found, decision, weighed = result, "FirstPlan", f"first schedule: {saving_text(result)}"
    if current is not None and layout_of(current) != layout_of(result.plan):
        found, decision, weighed = _worth_it(case, deployment, current, result, weeks)
    elif current is not None:
        before = deployment.status.schedule
        same = before is not None and before.hours == weekly.schedule_of(result).hours
        decision, weighed = ("SamePlan", "") if same else ("NewSchedule", f"new schedule: {saving_text(result)}")
    inputs = case.hash_of(deployment, None, restricted=_is_restricted(case, result))
    unsealed = weekly.schedule_of(found)
    sealable = found is result
    return _Week(
        # A week for a part of the load is planned again as soon as GPUs or budgets may allow more.
        weekly.sealed(unsealed, found.plan, inputs if sealable and not note else ""),
        found.plan,
        reason=Reason.PLANNED if sealable else Reason.KEEPING_RUNNING_PLAN,
        message="" if sealable else weighed,
        decision="MostCarried" if note and decision == "SamePlan" else decision,
        weighed=weighed if sealable else "",
        result=replace(found.peak, table=found.table),
        found=found,
        note=note,
    )


Carried = tuple[str, LLMDeployment, WeekPlan]
"""A rate, the deployment whose learned hours have at most that rate, and its week."""


def _most_carried_in_steps(case: Case, weeks: Weeks) -> Generator[None, None, Carried | None]:
    """Return the week in which learned hours have at most the highest step that a plan sustains.

    None if hours are not learned, or if the declared rate has no plan: then the spec itself has none.
    """
    learned, found = case.inputs.learned, None
    if learned is None:
        return None
    low, high = 0, max(learned.steps)
    while low < high:
        step = (low + high) // 2
        limit = format_milli(rate_of(learned.declared, step))
        asked = limited_to(case.inputs.deployment, limit)
        week = yield from _week_in_steps(case, asked, weeks)
        if isinstance(week, WeekPlan):
            found, low = (limit, asked, week), step + 1
        else:
            high = step
    return found


def _is_restricted(case: Case, result: WeekPlan) -> bool:
    """Return whether budgets may have ruled out a better week."""
    allowance = _growth(case)
    return allowance is not None and result.peak.restricted


def prepared(case: Case, weeks: Weeks) -> Iterator[None]:
    """Plan the week that :func:`scheduled` asks for, in steps, and remember it; no step if nothing is to be planned.

    Other deployments can be planned between the steps. If they take GPUs or power, the week is planned again.
    """
    whole = case.unshed
    if case.inputs.no_hours is None and _standing(whole) is None and waits_for_budget(case) is None:
        week = yield from _week_in_steps(whole, case.inputs.deployment, weeks)
        if isinstance(week, Infeasible):
            yield from _most_carried_in_steps(whole, weeks)


def _week_of(case: Case, asked: LLMDeployment, weeks: Weeks) -> WeekPlan | Infeasible:
    """Return the best week at once."""
    return finished(_week_in_steps(case, asked, weeks))


def _week_in_steps(case: Case, asked: LLMDeployment, weeks: Weeks) -> Generator[None, None, WeekPlan | Infeasible]:
    """Return the best week; with the same inputs and free GPUs, the week is not planned again."""
    inputs = case.inputs
    nodes = tuple((node.name, node.free_now, node.schedulable) for node in inputs.snapshot.nodes)
    allowance = _growth(case)
    key = (asked.metadata.uid, asked.spec.model_dump_json(), case.hash_of(asked, None), nodes, allowance)
    known = weeks.get(key)
    if known is None:
        yield
        problem = WeekProblem(
            asked, case.model, inputs.snapshot, case.gpus, case.predictor, allowance, inputs.corrections
        )
        within = _within_nodes(case, problem)
        known = yield from plan_week_in_steps(within)
        if isinstance(known, Infeasible) and within is not problem:
            known = yield from plan_week_in_steps(problem)
        while len(weeks) >= MOST_WEEKS:
            weeks.pop(next(iter(weeks)))
        weeks[key] = known
    return known


def _within_nodes(case: Case, problem: WeekProblem) -> WeekProblem:
    """Return the problem restricted to replicas on one node if no other replicas can run."""
    nodes = case.inputs.snapshot.nodes
    if case.inputs.serves_lws or not nodes:
        return problem
    spec = problem.deployment.spec
    largest = max(node.allocatable for node in nodes)
    limit = min(largest, spec.hardware.max_gpus_per_replica or largest)
    hardware = spec.hardware.model_copy(update={"max_gpus_per_replica": limit})
    capped = problem.deployment.model_copy(update={"spec": spec.model_copy(update={"hardware": hardware})})
    return replace(problem, deployment=capped)


def _without(case: Case, reason: Reason, why: str, refused: Infeasible | None = None) -> _Week | PlanChoice:
    """Keep the current schedule if no week can be planned, or none meets the spec; the condition has the reason."""
    status = case.inputs.deployment.status
    kept = "; the running plan stays" if status.plan is not None else ""
    message = f"{why}{kept}"
    if status.plan is None or status.schedule is None:
        return PlanChoice(status.plan, case.model, False, reason, message, decision="Infeasible", result=refused)
    return _Week(
        status.schedule,
        status.plan,
        good=False,
        reason=reason,
        message=message,
        decision="Infeasible",
        result=refused,
    )


def _worth_it(
    case: Case, deployment: LLMDeployment, current: PlanStatus, best: WeekPlan, weeks: Weeks
) -> tuple[WeekPlan, str, str]:
    """Return the week of the best layout, or of the running layout if the saving does not repay a restart."""
    inputs = case.inputs
    # The replicas come from the schedule, or are fixed by the spec.
    asked = current.model_copy(update={"replicas": deployment.spec.planning.overrides.replicas})
    pinned = adoption.pinned_to(deployment, asked, case.gpus)
    kept = pinned if isinstance(pinned, str) else _week_of(case, pinned, weeks)
    running: PlanningResult | str = Feasible(_mean(kept), ()) if isinstance(kept, WeekPlan) else kept
    since = inputs.adopted_at
    decision = adoption.decide(
        identified(_mean(kept) if isinstance(kept, WeekPlan) else current, deployment.spec),
        Feasible(_mean(best), ()),
        running=running,
        objective=deployment.spec.energy.objective,
        replan=deployment.spec.planning.replan,
        seconds_since_adoption=None if since is None else (inputs.now - since).total_seconds(),
        cost=adoption.switch_cost(best.plan, float(weight_bytes(case.model)), case.gpus[best.plan.gpu_product]),
    )
    if decision.adopt or not isinstance(kept, WeekPlan):
        return best, decision.reason, f"{decision.message}; {saving_text(best)}"
    return kept, decision.reason, decision.message


def _mean(week: WeekPlan) -> PlanStatus:
    """Return the plan of a week with the mean figures of the week, starts included."""
    seconds = HOURS * 3600.0
    spans = zip(week.load.spans, week.replicas, strict=True)
    per_replica = week.plan.gpus // week.plan.replicas
    mean_gpus = sum(span.hours * count * per_replica for span, count in spans) / HOURS
    predicted = week.plan.predicted.model_copy(
        update={
            "joules_per_output_token": format_milli(week.joules / week.tokens),
            "power_watts": round(week.joules / seconds),
            "output_tokens_per_second": max(1, round(week.tokens / seconds)),
        }
    )
    return week.plan.model_copy(update={"predicted": predicted, "gpus": math.ceil(mean_gpus)})


def _target(case: Case, week: _Week, target: weekly.CurrentEntry) -> Target:
    entry = target.entry
    return Target(
        at_rate(case.inputs.deployment, entry.requests_per_second),
        week.layout,
        entry.replicas,
        max(each.replicas for each in week.schedule.hours),
        target.token,
        weekly.peak_watts(week.schedule),
    )


def _in_entry(case: Case, schedule: ScheduleStatus, entry: ScheduledReplicas) -> Case:
    """Return the case with the power that budgets leave in the hours of an entry."""
    allowance = case.inputs.allowance
    if allowance is None or allowance.hours is None:
        return case
    return replace(case, inputs=replace(case.inputs, allowance=_left_in(schedule, entry, allowance)), _hashes=[])


def _is_allowed(case: Case, schedule: ScheduleStatus, entry: ScheduledReplicas) -> bool:
    """Return whether budgets allow the power of an entry in its hours."""
    allowance = _growth(case)
    return allowance is None or entry.power_watts <= _left_in(schedule, entry, allowance).watts


def _with_start(
    case: Case, schedule: ScheduleStatus, before: ScheduleStatus | None, plan: PlanStatus
) -> ScheduleStatus:
    """Return a schedule with the start-up time and the time since which replicas start."""
    current, scaling = case.inputs.deployment.status.plan, case.inputs.deployment.spec.scaling
    same = current is not None and before is not None and layout_of(current) == layout_of(plan)
    update: dict[str, object] = {}
    if same and before is not None:
        stated = scaling is not None and scaling.start_seconds is not None
        update["starting_since"] = before.starting_since
        update["start_seconds"] = schedule.start_seconds if stated else before.start_seconds
    if not same or (current is not None and plan.replicas > current.replicas):
        update["starting_since"] = timestamp(case.inputs.now)
    return schedule.model_copy(update=update)


def _scaled(
    current: PlanStatus | None,
    plan: PlanStatus,
    entry: ScheduledReplicas,
    timetable: Timetable,
    schedule: ScheduleStatus,
) -> str:
    """Return a message that the replicas of the same pods change, with both numbers; "" if they do not."""
    if current is None or current.replicas == plan.replicas or layout_of(current) != layout_of(plan):
        return ""
    return (
        f"{entry.day} {entry.hour:02d}:00 {timetable.load.zone.key}: {counted(plan.replicas, 'replica')} instead of "
        f"{current.replicas} for {decimal_text(entry.requests_per_second)} requests per second, "
        f"{plan.predicted.power_watts} W instead of {current.predicted.power_watts} W; {_saving(schedule)}"
    )


def _saving(schedule: ScheduleStatus) -> str:
    """Return the energy of the week compared with the best constant plan, from a status."""
    text = f"the week takes {schedule.week_watt_hours / 1000.0:.4g} kWh"
    if schedule.constant_watt_hours is None:
        return text
    return f"{text}, the best constant plan {schedule.constant_watt_hours / 1000.0:.4g} kWh"
