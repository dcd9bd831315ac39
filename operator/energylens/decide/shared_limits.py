"""The watts available from budgets to deployments that are planned together. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime
from zoneinfo import ZoneInfo

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import InvalidResourceError
from energylens.budget.periods import period_at
from energylens.budget.usage import Growth
from energylens.decide.budgets.budget import budget_of, growth_of
from energylens.decide.budgets.counted import CountedWatts, counted_watts, summed
from energylens.decide.budgets.membership import Surroundings, counted_nodes, is_member
from energylens.decide.planned import key_of, name_of, planned
from energylens.decide.preview import World, counted_from_now, new_body
from energylens.records import dataclass


def _left(growth: Growth, spec: EnergyBudgetSpec, counted: CountedWatts, now: datetime) -> float:
    """Return the power without an end that a budget leaves beside other deployments, W."""
    left = math.inf if growth.power is None else growth.power.watts - counted.reserved(now)
    if growth.energy is not None:
        jobs = counted.energy(spec, period_at(spec.period, ZoneInfo(spec.time_zone), now), now)
        left = min(left, growth.energy.watts(jobs) - counted.steady(now))
    return left


class UnusableBudgetError(ValueError):
    """A budget that cannot be read or checked; the message names it."""


@dataclass(frozen=True)
class SharedLimit:
    """Limit that one budget sets for the deployments that it selects."""

    name: str
    watts: float
    """Power left after the commitments of other deployments."""
    members: frozenset[str]
    """``namespace/name`` of its members among the deployments that are planned together."""
    products: frozenset[str] | None
    """Products whose power counts: the products on the nodes of a ClusterEnergyBudget; None for all."""
    partly: tuple[str, ...]
    """Products among these that nodes outside the budget also have."""


def shared_limits(
    asked: Sequence[LLMDeployment], others: World, members: frozenset[str], now: datetime
) -> Iterator[SharedLimit]:
    """Yield the limits of all budgets that limit one of the members.

    Args:
        asked: The deployments that are planned together.
        others: The cluster without these deployments.
        members: ``namespace/name`` of the deployments that can be planned.
        now: The current time.

    Raises:
        UnusableBudgetError: a budget cannot be read, or its energy cannot be checked.
    """
    around = Surroundings(others.namespaces, others.snapshot.nodes)
    together = [planned(new_body(d)) for d in asked]
    for budget in others.budgets:
        name, namespace = name_of(budget), key_of(budget)[0]
        try:
            body = counted_from_now(budget, others.config_maps, now)
            spec, status = budget_of(body)
        except InvalidResourceError as error:
            raise UnusableBudgetError(f"{name}: {error}") from error
        mine = {d.owner for d in together if is_member(spec, namespace, d, around)} & members
        growth, problem = growth_of(int(body["metadata"].get("generation", 1)), spec, status, now)
        if spec.action == "Report" or not mine or (growth is None and not problem):
            continue
        if growth is None:
            raise UnusableBudgetError(f"{name}: {problem}")
        rest = [d for d in map(planned, others.deployments.values()) if is_member(spec, namespace, d, around)]
        counted = summed(filter(None, (counted_watts(spec, namespace, d, around) for d in rest)))
        left = _left(growth, spec, counted, now)
        selected = counted_nodes(spec, around)
        inside = {n.product for n in others.snapshot.nodes if selected is not None and n.name in selected}
        outside = {n.product for n in others.snapshot.nodes if selected is not None and n.name not in selected}
        yield SharedLimit(
            name=name,
            watts=max(0.0, left),
            members=frozenset(mine),
            products=None if selected is None else frozenset(inside),
            partly=tuple(sorted(inside & outside)),
        )
