"""Power of deployments that counts against a budget: now, and in the busiest hour. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from energylens.api.energybudget import EnergyBudgetSpec
from energylens.decide.budgets.membership import Surroundings, is_member, share
from energylens.decide.planned import PlannedDeployment


class CountedWatts(NamedTuple):
    """Power that counts against a budget, W."""

    committed: float
    """Committed by the current plans."""
    reserved: float
    """Not available to other plans: the power of the busiest hour if replicas follow the hours of the week."""


def summed(found: Iterable[CountedWatts]) -> CountedWatts:
    """Return the power of several deployments together."""
    every = list(found)
    return CountedWatts(sum(each.committed for each in every), sum(each.reserved for each in every))


def counted_watts(
    spec: EnergyBudgetSpec, namespace: str, deployment: PlannedDeployment, around: Surroundings
) -> CountedWatts | None:
    """Return the power of a deployment that counts against a budget; None if it is no member.

    Args:
        spec: Spec of the budget.
        namespace: Namespace of the budget; "" for a ClusterEnergyBudget.
        deployment: The LLMDeployment, with its adopted plan.
        around: Namespaces and nodes.
    """
    if not is_member(spec, namespace, deployment, around):
        return None
    part = share(spec, deployment, around)
    return CountedWatts(deployment.committed_watts * part, deployment.reserved_watts * part)
