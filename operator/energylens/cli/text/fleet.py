"""A fleet's joint plan as text and as an object. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from energylens.api.llmdeployment import PlannedJob
from energylens.api.words import counted
from energylens.cli.inputs.fleet_solve import FleetResult
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.text.job import job_cost_lines, job_cost_object
from energylens.cli.text.money import basis, cost_lines, cost_object, month_cells, month_heads
from energylens.cli.text.tables import columns
from energylens.planner.fleet.joint import BrokenObjective
from energylens.planner.fleet.members import FleetMember
from energylens.planner.fleet.planning import MARGINAL, FleetPlan
from energylens.planner.search import describe
from energylens.planner.search.frontier import alternative, planned_job
from energylens.records import dataclass

HOURS_PER_DAY = 24


@dataclass(frozen=True)
class ChosenMember:
    """One deployment's part of the plan."""

    deployment: FleetMember
    row: int
    relaxed: tuple[BrokenObjective, ...]

    @property
    def team(self) -> str:
        """Namespace of the deployment."""
        return self.deployment.name.partition("/")[0]

    @property
    def product(self) -> str:
        """GPU product."""
        rows = self.deployment.solution.rows
        return rows.products[int(rows.product[self.row])]

    @property
    def gpus(self) -> int:
        """GPUs over all replicas."""
        return int(self.deployment.solution.rows.gpus[self.row])

    @property
    def watts(self) -> float:
        """Mean power."""
        return float(self.deployment.solution.rows.power_watts[self.row])

    @property
    def job(self) -> PlannedJob | None:
        """The batch job that the deployment serves; None for a steady load."""
        return planned_job(self.deployment.solution.rows, self.row)

    @property
    def text(self) -> str:
        """Short description of the candidate."""
        return describe.candidate(self.deployment.solution.rows, self.row)


def chosen(found: FleetResult) -> list[ChosenMember]:
    """Return the parts of the plan by name; empty without one."""
    plan = found.plan
    if plan is None:
        return []
    parts = (ChosenMember(d, plan.rows[d.name], plan.relaxed.get(d.name, ())) for d in found.deployments)
    return sorted(parts, key=lambda part: part.deployment.name)


@dataclass(frozen=True)
class FleetEnergy:
    """The energy of some parts of the plan: of steady loads by the day, and of jobs once."""

    steady_watts: float
    steady_gpus: int
    job_watt_hours: float
    jobs: int

    @classmethod
    def of(cls, parts: Iterable[ChosenMember]) -> Self:
        """Return the energy of some parts."""
        jobs, watts, gpus, watt_hours = 0, 0.0, 0, 0.0
        for part in parts:
            job = part.job
            if job is None:
                watts, gpus = watts + part.watts, gpus + part.gpus
            else:
                jobs, watt_hours = jobs + 1, watt_hours + job.energy_watt_hours
        return cls(watts, gpus, watt_hours, jobs)

    @property
    def amounts(self) -> list[tuple[str, str]]:
        """Energy in words and what it is for: a day of the steady loads, then the jobs, each if there are any."""
        per_day = [(f"{HOURS_PER_DAY * self.steady_watts / 1000:.0f} kWh", "per day")]
        jobs = [(f"{self.job_watt_hours / 1000:.3g} kWh", f"for {counted(self.jobs, 'job')}")]
        return [*(per_day if self.steady_gpus else []), *(jobs if self.jobs else [])]


def fleet_cost_lines(rates: Rates, parts: Sequence[ChosenMember], label: str = "cost") -> list[str]:
    """Return the cost of a month of the steady loads, and of the jobs; no lines without prices."""
    found = FleetEnergy.of(parts)
    if not rates.is_stated:
        return []
    steady = cost_lines(rates, found.steady_watts, found.steady_gpus, label=label) if found.steady_gpus else []
    jobs = [job_cost_lines(rates, part.job, part.gpus, of=part.deployment.name) for part in parts if part.job]
    return [*steady, *(line for lines in jobs for line in lines)]


def teams(parts: list[ChosenMember]) -> dict[str, list[ChosenMember]]:
    """Return the parts by namespace, the one that draws most first."""
    found: dict[str, list[ChosenMember]] = {}
    for part in parts:
        found.setdefault(part.team, []).append(part)
    return dict(sorted(found.items(), key=lambda item: (-sum(p.watts for p in item[1]), item[0])))


def gpus_used(parts: list[ChosenMember]) -> Mapping[str, int]:
    """Return the GPUs that the plan takes of each product."""
    used: Counter[str] = Counter()
    for part in parts:
        used[part.product] += part.gpus
    return used


def report(found: FleetResult, rates: Rates = NO_RATES) -> str:
    """Return everything as text."""
    parts = chosen(found)
    lines = [headline(found), *(f"  {text}" for text in why_missing(found))]
    if parts and found.plan is not None:
        lines += [*fleet_cost_lines(rates, parts), *basis(rates)]
        lines += ["", *columns(_team_rows(found.plan, parts, rates))]
        lines += ["", *columns(_deployment_rows(parts))]
        used = gpus_used(parts)
        rows = [(product, str(used[product]), str(free)) for product, free in sorted(found.free_gpus.items())]
        lines += ["", *columns([("GPU", "USED", "FREE BEFORE"), *rows])]
        if found.limits:
            lines += ["", *columns(_limit_rows(found)), *(f"  {text}" for text in whole_products(found))]
    if found.prices:
        lines += ["", "  What each objective costs the fleet:", *columns(price_rows(found))]
    return "\n".join(lines)


def headline(found: FleetResult) -> str:
    """Return the plan in one line."""
    count = len(found.deployments) + len(found.unplaced) + len(found.stopped)
    without = f", {len(found.unplaced)} without a plan" if found.unplaced else ""
    stopped = f", {len(found.stopped)} stopped" if found.stopped else ""
    start = f"Fleet of {counted(count, 'deployment')}{without}{stopped}"
    if len(found.stopped) == count:
        return f"{start}: 0 W on 0 GPUs"
    if found.plan is None:
        return f"{start}: no joint plan"
    parts = chosen(found)
    watts, gpus = found.plan.power_watts, sum(part.gpus for part in parts)
    loose = f"only with {len(found.plan.relaxed)} of them relaxed: " if found.missing is not None else ""
    energy = [" ".join(amount) for amount in FleetEnergy.of(parts).amounts]
    return ", ".join([f"{start}: {loose}{watts:.0f} W on {counted(gpus, 'GPU')}", *energy])


def why_missing(found: FleetResult) -> Iterator[str]:
    """Yield why not everything holds, the constraints to relax, and which deployments are stopped, a line each."""
    for name, why in sorted(found.stopped.items()):
        yield f"{name} runs no pods: {why}"
    for name, why in sorted(found.unplaced.items()):
        yield f"{name} has no plan: {why}"
    missing = found.missing
    if missing is None:
        return
    for limit, watts in missing.extra_watts.items():
        yield f"would work: {limit} higher by {watts:.0f} W"
    if missing.extra_gpus:
        yield f"would work: {', '.join(missing.extra_gpus)} more"
    if missing.relaxed is not None:
        yield f"would work, and is shown: objectives relaxed by a factor of {missing.factor:g} at most, namely"
        for name, objectives in sorted(missing.relaxed.relaxed.items()):
            for one in objectives:
                yield f"  {name}: {one.field}={one.needed} instead of {one.value}"
    elif not missing.extra_watts and not missing.extra_gpus:
        yield "no single kind of change is enough: watts, GPUs and objectives have to be relaxed together"


def whole_products(found: FleetResult) -> Iterator[str]:
    """Yield of which limits the use is an upper bound, a line each."""
    for name, products in sorted(found.whole_products.items()):
        yield (
            f"{name} selects only some nodes with {', '.join(products)}: power on all of them counts, "
            "since a plan does not say on which node a pod runs"
        )


def price_rows(found: FleetResult) -> list[tuple[str, ...]]:
    """Return the heading and rows of the table of what each objective costs."""
    percent = round(100 * MARGINAL - 100)
    header = ("DEPLOYMENT", "OBJECTIVE", "NOW", f"W SAVED AT +{percent} %", "W SAVED WITHOUT IT", "WOULD NEED")
    rows = [
        (p.deployment, p.field, p.value, f"{max(0.0, p.marginal_watts):.0f}", f"{p.watts:.0f}", p.needed or "-")
        for p in found.prices
    ]
    return [header, *rows]


def _team_rows(plan: FleetPlan, parts: list[ChosenMember], rates: Rates) -> list[tuple[str, ...]]:
    heads = month_heads(rates)
    rows: list[tuple[str, ...]] = [("TEAM", "DEPLOYMENTS", "GPUS", "WATTS", "SHARE", *heads)]
    for team, mine in teams(parts).items():
        watts = sum(part.watts for part in mine)
        share = f"{100 * watts / plan.power_watts:.0f} %"
        gpus = str(sum(part.gpus for part in mine))
        costs = month_cells(rates, FleetEnergy.of(mine).steady_watts)
        rows.append((team, str(len(mine)), gpus, f"{watts:.0f}", share, *costs))
    return rows


def _deployment_rows(parts: list[ChosenMember]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("DEPLOYMENT", "PLAN", "GPUS", "WATTS", "J/TOKEN", "TTFT MS", "ITL MS", "TPOT MS", "E2E MS")
    ]
    for part in parts:
        joules = f"{part.deployment.solution.rows.joules_per_output_token[part.row]:.3g}"
        figures = (str(part.gpus), f"{part.watts:.0f}", joules, *latency_cells(part))
        rows.append((part.deployment.name, part.text, *figures))
    return rows


def latency_cells(part: ChosenMember) -> tuple[str, ...]:
    """Return TTFT, ITL, TPOT and E2E as cells; ``-`` where nobody waits, as for the single requests of a job."""
    found, i, waits = part.deployment.solution.rows, part.row, part.job is None
    return tuple(
        str(describe.up(float(values[i]))) if waits or decodes else "-"
        for values, decodes in (
            (found.ttft_ms, False),
            (found.itl_ms, True),
            (found.tpot_ms, True),
            (found.end_to_end_ms, False),
        )
    )


def _limit_rows(found: FleetResult) -> list[tuple[str, ...]]:
    assert found.plan is not None
    costs = {cost.limit: cost for cost in found.limit_costs}
    rows: list[tuple[str, ...]] = [("POWER LIMIT", "WATTS", "USED", "LEFT", "COSTS W")]
    for limit in found.limits:
        used = found.plan.watts_of[limit.name]
        cost = costs.get(limit.name)
        price = f"{cost.energy_watts:.0f}" if cost is not None else "0"
        rows.append((limit.name, f"{limit.watts:.0f}", f"{used:.0f}", f"{limit.watts - used:.0f}", price))
    return rows


def as_object(found: FleetResult, rates: Rates = NO_RATES) -> dict[str, Any]:
    """Return everything for programs."""
    parts, missing = chosen(found), found.missing
    energy = FleetEnergy.of(parts)
    whole: dict[str, Any] = {"feasible": found.holds}
    if found.plan is not None:
        whole |= {
            "powerWatts": round(found.plan.power_watts),
            "energyWattHoursPerDay": round(HOURS_PER_DAY * energy.steady_watts),
            **({"jobEnergyWattHours": round(energy.job_watt_hours)} if energy.jobs else {}),
            "gpus": sum(part.gpus for part in parts),
            "teams": [
                {
                    "namespace": team,
                    "deployments": len(mine),
                    "gpus": sum(part.gpus for part in mine),
                    "powerWatts": round(sum(part.watts for part in mine)),
                }
                for team, mine in teams(parts).items()
            ],
            "deployments": [_part_object(part, rates) for part in parts],
        }
        cost = cost_object(rates, energy.steady_watts, energy.steady_gpus)
        if cost is not None:
            whole["cost"] = cost | ({"jobs": rates.of(energy.job_watt_hours / 1000.0)} if energy.jobs else {})
    if found.alone_watts is not None:
        whole["powerWattsEachAlone"] = round(found.alone_watts)
    whole["gpusFree"] = dict(sorted(found.free_gpus.items()))
    whole["limits"] = [_limit_object(found, limit.name, limit.watts) for limit in found.limits]
    whole["objectives"] = [
        {
            "deployment": price.deployment,
            "field": price.field,
            "value": price.value,
            "powerWattsSavedAtTenPercentMore": round(max(0.0, price.marginal_watts)),
            "powerWattsSavedWithout": round(price.watts),
            **({} if price.needed is None else {"neededValue": price.needed}),
        }
        for price in found.prices
    ]
    whole["latencyFrontier"] = [
        {"objectivesPercent": round(100 * factor), **({} if watts is None else {"powerWatts": round(watts)})}
        for factor, watts in found.frontier
    ]
    if found.stopped:
        whole["stopped"] = [{"deployment": name, "message": why} for name, why in sorted(found.stopped.items())]
    whole["unplaced"] = [{"deployment": name, "message": why} for name, why in sorted(found.unplaced.items())]
    if missing is not None:
        whole["wouldWork"] = {
            "extraWatts": {name: round(watts) for name, watts in missing.extra_watts.items()},
            "extraGPUs": list(missing.extra_gpus),
        }
    return whole


def _limit_object(found: FleetResult, name: str, watts: float) -> dict[str, Any]:
    one: dict[str, Any] = {"name": name, "powerWatts": round(watts)}
    if name in found.whole_products:
        one["countsAllNodesOf"] = list(found.whole_products[name])
    if found.plan is not None:
        one["usedPowerWatts"] = round(found.plan.watts_of[name])
    cost = next((cost for cost in found.limit_costs if cost.limit == name), None)
    return (
        one
        if cost is None
        else {**one, "costsPowerWatts": round(cost.energy_watts), "wouldNeedMoreWatts": round(cost.watts_more)}
    )


def _part_object(part: ChosenMember, rates: Rates) -> dict[str, Any]:
    namespace, _, name = part.deployment.name.partition("/")
    rows = part.deployment.solution.rows
    joules, job = float(rows.joules_per_output_token[part.row]), part.job
    left_out = {"reason"} if job is None else {"reason", "ttft_milliseconds", "end_to_end_milliseconds"}
    plan = alternative(rows, part.row, "").model_dump(mode="json", by_alias=True, exclude_none=True, exclude=left_out)
    found: dict[str, Any] = {"namespace": namespace, "name": name, "plan": plan}
    if job is None:
        cost = cost_object(rates, part.watts, part.gpus, joules)
    else:
        found["job"] = job.model_dump(mode="json", by_alias=True)
        cost = job_cost_object(rates, job, part.gpus, joules)
    if cost is not None:
        found["cost"] = cost
    if part.relaxed:
        found["relaxed"] = [{"field": one.field, "value": one.value, "allowed": one.needed} for one in part.relaxed]
    return found
