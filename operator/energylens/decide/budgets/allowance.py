"""Watts available from budgets to one LLMDeployment, from the budgets and their statuses. Pure.

The status of a budget contains the counted energy and the shedding decisions. The committed power is summed here from
the current plans, so that two deployments never get the same watts. A budget that cannot be checked allows no growth
and sheds nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.api.llmdeployment import BudgetStatus
from energylens.api.timestamp import moment_of
from energylens.api.words import counted
from energylens.budget.periods import period_at
from energylens.budget.usage import PowerAllowed
from energylens.budget.verdict import Figures, exceeded
from energylens.decide.budgets.budget import Budget, awaits_look, growth_of
from energylens.decide.budgets.claim import BudgetClaim
from energylens.decide.budgets.counted import NO_WATTS, CountedWatts, counted_job, counted_watts, summed
from energylens.decide.budgets.job_allowance import job_allowance
from energylens.decide.budgets.membership import Surroundings, is_member, share
from energylens.decide.budgets.own_budget import FIELD, GENERATION, budget_spec, in_period, own_status, period_of
from energylens.decide.deployment.observed.observation import Allowed, BudgetView
from energylens.decide.planned import HOURS, PlannedDeployment
from energylens.decide.reasons import Reason
from energylens.planner.types import UNLIMITED_WATTS, PowerAllowance


def allowance(
    deployment: PlannedDeployment,
    budgets: Iterable[Budget],
    deployments: Iterable[PlannedDeployment],
    now: datetime,
    around: Surroundings | None = None,
    unserved: Mapping[str, str] | None = None,
    committed_by_others: Callable[[Budget], CountedWatts] | None = None,
) -> Allowed:
    """Return the watts that the tightest budget leaves, and the condition's verdict on all budgets.

    Commitments of others never displace a running plan: without shedding, the allowance is at least its own power.

    Args:
        deployment: The LLMDeployment.
        budgets: EnergyBudgets and ClusterEnergyBudgets, with their statuses.
        deployments: All LLMDeployments, with their adopted plans.
        now: The current time.
        around: Namespaces and nodes, for ClusterEnergyBudgets.
        unserved: Why the API server serves no budgets of a kind, by kind; ``budgets`` has their last known state.
        committed_by_others: Returns the sum of the power that ``deployments`` commit, W, if that sum is cached.
    """
    unserved = unserved or {}
    around = around or Surroundings()
    others = [d for d in deployments if d.key != deployment.key]
    claims: list[BudgetClaim] = []
    unreadable: Budget | None = None
    for budget in budgets:
        namespace, spec = budget.namespace, budget.spec
        if namespace not in ("", deployment.namespace):
            continue
        if spec is None:
            unreadable = unreadable or budget
        elif is_member(spec, namespace, deployment, around):
            taken = (
                summed(filter(None, (counted_watts(spec, namespace, d, around) for d in others)))
                if committed_by_others is None
                else committed_by_others(budget)
            )
            claim = _claim(budget, spec, deployment, taken, now, around)
            gone = unserved.get("EnergyBudget" if namespace else "ClusterEnergyBudget")
            claims.append(claim if gone is None else replace(claim, growth=None, problem=gone, awaits_look=False))
    mine = _own_claim(deployment, now)
    claims += [] if mine is None else [mine]
    found, own = _together(claims, deployment, now), float(deployment.reserved_watts)
    if unreadable is not None:
        text = f"{unreadable.name}: {unreadable.problem}; growth is not allowed"
        view, why = BudgetView("Unknown", Reason.BUDGET_UNREADABLE, text), "it cannot be read"
        return _without_growth(unreadable.name, why, view, own, found)
    return _unseen(deployment, claims, unserved, own, found) if unserved else found


def _without_growth(name: str, why: str, view: BudgetView, own: float, found: Allowed) -> Allowed:
    """Return the allowance if a budget cannot be read: no growth, while other budgets may still shed power."""
    watts = max(own, 1.0)
    if found.allowance is not None and (found.allowance.sheds or found.allowance.watts < watts):
        return replace(found, view=view)
    return Allowed(
        PowerAllowance(watts, name, because=why), view, BudgetStatus(name=name, allowed_power_watts=round(watts))
    )


def _unseen(
    deployment: PlannedDeployment,
    claims: Sequence[BudgetClaim],
    unserved: Mapping[str, str],
    own: float,
    found: Allowed,
) -> Allowed:
    """Return the allowance if the API server does not serve a kind of budget.

    The status of a deployment names the budget that limited it, even after a restart of the operator. A deployment that
    no budget limited stays unlimited, and its condition explains that no budget is known.
    """
    before = deployment.limited_by
    gone = unserved.get(before.partition(" ")[0]) if deployment.is_limited else None
    if gone is not None and before not in {claim.name for claim in claims}:
        text = f"{before}: {gone}; until it does, no plan may draw more than the running one"
        return _without_growth(before, gone, BudgetView("Unknown", Reason.BUDGET_NOT_CHECKED, text), own, found)
    if claims:
        return found
    text = "; ".join(unserved.values())
    view = BudgetView("Unknown", Reason.BUDGET_NOT_CHECKED, f"{text}; no budget is known to select this deployment")
    return replace(found, view=view)


def _claim(
    budget: Budget,
    spec: EnergyBudgetSpec,
    deployment: PlannedDeployment,
    others: CountedWatts,
    now: datetime,
    around: Surroundings,
) -> BudgetClaim:
    status = budget.status
    own_share = share(spec, deployment, around)
    allowed = budget.caps.get(deployment.key)
    cap = allowed / own_share if allowed is not None and own_share else None
    growth, problem = growth_of(budget.generation, spec, status, now)
    job, counted_until = counted_job(deployment, own_share), budget.counted_until
    return BudgetClaim(
        name=budget.name,
        spec=spec,
        status=status,
        own=float(deployment.granted_watts),
        granted=_granted(deployment),
        own_share=own_share,
        others=replace(others, jobs=tuple(replace(job, counted_until=counted_until) for job in others.jobs)),
        growth=growth,
        problem=problem,
        cap=cap if spec.action == "Shed" else None,
        period=period_at(spec.period, ZoneInfo(spec.time_zone), now),
        now=now,
        beyond=_measured_above(spec, status),
        awaits_look=awaits_look(budget, now),
        week=deployment.week,
        running=deployment.reserved_week,
        job=None if job is None else replace(job, counted_until=counted_until),
    )


def _granted(deployment: PlannedDeployment) -> float:
    """Return the power that a budget granted, W, for as long as it cannot be checked: also that of a planned start."""
    starts_later = deployment.job is not None and deployment.is_waiting
    is_in_force = deployment.job is None or deployment.job.has_begun
    return float(deployment.reserved_watts) if starts_later or is_in_force else 0.0


def _own_claim(deployment: PlannedDeployment, now: datetime) -> BudgetClaim | None:
    """Return the claim of the budget in the deployment's own spec; None without one."""
    own = deployment.budget
    if own is None:
        return None
    committed, period, spec = deployment.committed_watts, period_of(own, now), budget_spec(own)
    measured = deployment.measured_power_watts
    account = in_period(deployment.account, own, now)
    # Without pods no power is drawn, whatever the last window measured.
    status = own_status(own, account, committed, measured if committed else None)
    growth, problem = growth_of(GENERATION, spec, status, now)
    ceilings = [PowerAllowed(float(own.power_watts), "spec.powerWatts")] if own.power_watts is not None else []
    is_job = deployment.job_times is not None
    job, until = counted_job(deployment, 1.0), None if account is None else moment_of(account.accounted_until)
    if own.energy_watt_hours is not None and not is_job:
        ceilings.append(PowerAllowed(own.energy_watt_hours / period.hours, "spec.energyWattHours"))
    return BudgetClaim(
        name=FIELD,
        spec=spec,
        status=status,
        own=float(deployment.granted_watts),
        granted=_granted(deployment),
        own_share=1.0,
        others=NO_WATTS,
        growth=growth,
        problem=problem,
        cap=None,
        period=period,
        now=now,
        ceiling=min(ceilings, key=lambda c: c.watts, default=None) if own.action == "Enforce" else None,
        path=f"{FIELD}.",
        week=deployment.week,
        running=deployment.reserved_week,
        job=None if job is None else replace(job, counted_until=until),
        most_watt_hours=float(own.energy_watt_hours or math.inf) if own.action == "Enforce" else math.inf,
    )


def _measured_above(spec: EnergyBudgetSpec, status: EnergyBudgetStatus) -> float:
    """Return the power of the members above the prediction, in steps of a hundredth of the limit."""
    if spec.power_watts is None:
        return 0.0
    step = max(1.0, spec.power_watts / 100.0)
    return step * -(-(status.excess_power_watts or 0) // step)


def _together(claims: Sequence[BudgetClaim], deployment: PlannedDeployment, now: datetime) -> Allowed:
    if not claims:
        view = BudgetView("True", Reason.NO_BUDGET, "no budget selects this deployment")
        return Allowed(None, view, None)
    limiting = [claim for claim in claims if claim.limits]
    tightest = min(limiting, key=lambda claim: (claim.left, claim.name), default=None)
    allowed = None if tightest is None else _by_hour(tightest.allowance, limiting)
    if tightest is not None and deployment.job_times is not None:
        tightest, allowed = job_allowance(limiting, deployment, deployment.job_times, now)
    binding = tightest or min(claims, key=lambda claim: (-_percent(claim), claim.name))
    return Allowed(allowed, _view(claims, binding), _status(binding, allowed))


def _by_hour(allowed: PowerAllowance, claims: Sequence[BudgetClaim]) -> PowerAllowance:
    """Return the power of each hour where several hours differ; a budget that sheds or cannot be checked has one.

    The source stays the budget that leaves least in any hour.
    """
    hours = [claim.left_by_hour for claim in claims]
    if allowed.sheds or any(claim.problem for claim in claims) or not any(hours):
        return allowed
    whole = [
        [float(math.floor(claim.left + 1e-6))] * HOURS if by_hour is None else by_hour
        for claim, by_hour in zip(claims, hours, strict=True)
    ]
    least = tuple(map(min, *whole)) if len(whole) > 1 else tuple(whole[0])
    return allowed if min(least) == max(least) else replace(allowed, watts=max(least), hours=least)


def _status(binding: BudgetClaim, allowed: PowerAllowance | None) -> BudgetStatus:
    """Return the part of a deployment's status about the budget that binds it.

    For a shared budget it contains only the deployment's own share. Commitments and usage of others are in the status
    of the budget; here they would be rewritten in every member whenever one of them changes.
    """
    found = BudgetStatus(name=binding.name, action=binding.spec.action if not binding.is_own else None)
    watts = None if allowed is None or allowed.watts >= UNLIMITED_WATTS else round(allowed.watts)
    if not binding.is_own:
        return found.model_copy(update={"allowed_power_watts": watts if binding.is_held else None})
    status = binding.status
    return found.model_copy(
        update={
            "allowed_power_watts": watts,
            "used_percent": status.used_percent,
            "remaining_watt_hours": status.remaining_watt_hours,
            "reset_time": status.reset_time if status.used_watt_hours is not None else None,
        }
    )


def _percent(claim: BudgetClaim) -> float:
    return claim.status.used_percent or 0


def _view(claims: Sequence[BudgetClaim], binding: BudgetClaim) -> BudgetView:
    """Return the most severe verdict: shed power, an exceeded limit, an uncheckable budget, or energy that runs out."""
    taken = [claim for claim in claims if claim.cap is not None]
    if taken:
        claim = min(taken, key=lambda c: (c.left, c.name))
        watts = claim.allowance.watts
        text = f"{claim.name} binds: it leaves {watts:.0f} W to this deployment, by spec.energy.priority"
        return BudgetView("False", Reason.POWER_TAKEN, text)
    over = [text for claim in claims for text in _exceeded(claim)]
    if over:
        return BudgetView("False", Reason.OVER_BUDGET, "; ".join(over))
    unchecked = [f"{claim.name}: {claim.problem}" for claim in claims if claim.problem]
    if unchecked:
        closed = any(claim.problem and claim.limits for claim in claims)
        text = "; ".join(unchecked) + ("; until it is, no plan may draw more than the running one" if closed else "")
        return BudgetView("Unknown", Reason.BUDGET_NOT_CHECKED, text)
    fast = [text for claim in claims if (text := _too_fast(claim))]
    if fast:
        return BudgetView("True", Reason.RUNS_OUT, "; ".join(fast))
    text = f"{binding.name} binds" if binding.limits else f"{binding.name} only reports"
    tightest = binding.tightest
    has_job = tightest is not None and binding.job is not None and tightest.limit != "spec.powerWatts"
    if tightest is not None and (has_job or not binding.is_own):
        # The energy of a job is compared, not its power.
        text += f": {binding.value(tightest.limit)}"
    elif tightest is not None:
        limit = tightest.limit
        # The watts are the value of a power limit.
        limit = binding.field(limit) if limit == "spec.powerWatts" else binding.value(limit)
        text += f": {binding.used} W are committed of {math.floor(tightest.watts)} W ({limit})"
    others = len(claims) - 1
    return BudgetView(
        "True",
        Reason.WITHIN_BUDGET,
        text + (f"; {counted(others, 'other budget')} {'is' if others == 1 else 'are'} met, too" if others else ""),
    )


def _exceeded(claim: BudgetClaim) -> list[str]:
    """Return by how much a budget is exceeded, in the words of its own condition; empty if it is met."""
    status, is_counted = claim.status, not claim.problem
    figures = Figures(
        claim.used,
        status.measured_power_watts,
        status.used_watt_hours if is_counted else None,
        status.remaining_watt_hours if is_counted else None,
        status.energy_limit,
    )
    until = f" until {status.reset_time}" if figures.remaining_watt_hours == 0 else ""
    return [
        f"{claim.name}: {text}{until if ' Wh ' in text else ''}"
        for text in exceeded(claim.spec, figures, claim.path, by_how_much=claim.is_own)
    ]


def _too_fast(claim: BudgetClaim) -> str:
    """Return that an energy limit will not last at the committed power; "" if it will."""
    energy = None if claim.growth is None else claim.growth.energy
    if energy is None:
        return ""
    jobs, lasting = claim.all_jobs, energy.watts(claim.all_jobs)
    used = round(claim.used - jobs.watts)
    if used <= lasting:
        return ""
    closed = "" if claim.spec.action == "Report" else "; no plan may draw more"
    value = claim.value(energy.limit)
    if not claim.is_own:
        return f"{claim.name}: {value} does not last at the power that is committed{closed}"
    if jobs.watts:
        return f"{claim.name}: the energy of the job is more than {value} leaves{closed}"
    return f"{claim.name}: {used} W are committed, and {value} lasts at up to {math.floor(lasting)} W{closed}"
