"""`energylens budget`: the energy that budgets have left, and a picture of the period's burn-down."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_clusterenergybudget, parse_energybudget, parse_llmdeployment
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.live import ClusterAccess, by_name, namespace_options, read_cluster, readable
from energylens.cli.inputs.options import OUTPUT
from energylens.cli.inputs.rates import NO_RATES, Rates, rates_options
from energylens.cli.text.budgets import budget_cost, overview, page
from energylens.cli.text.own_budget import own_budget_rows
from energylens.cli.text.tables import dump
from energylens.clock import SystemClock

Budget = EnergyBudget | ClusterEnergyBudget


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@namespace_options
@rates_options
@OUTPUT
@click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the burn-down of this period as .png or .svg: energy left, and how long it lasts at the current rate.",
)
def budget(
    names: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    rates: Rates,
    output: str,
    plot: Path | None,
) -> None:
    """Show what energy budgets have used and left, when they run out, and their members.

    Without a NAME: every EnergyBudget of the namespace, the ClusterEnergyBudgets that may be read, and the budgets in
    the specs of LLMDeployments (spec.energy.budget), of which `energylens status` has the details.
    """
    from energylens.cli.pictures.budgets import check_burn_down, write_burn_down

    with one_line_errors(InputError):
        if plot is not None:
            check_burn_down(plot)
        found, deployments = read_budgets(ClusterAccess(kubeconfig, context, namespace, all_namespaces), names)
        if plot is not None:
            write_burn_down(plot, found)
    if output != "table":
        click.echo(dump([as_object(each, rates) for each in found], output), nl=False)
    elif names:
        click.echo("\n\n".join(page(each, rates) for each in found))
    else:
        click.echo(overview(found, own_budget_rows(deployments, SystemClock().now()), rates))


def read_budgets(access: ClusterAccess, names: tuple[str, ...]) -> tuple[list[Budget], list[LLMDeployment]]:
    """Return the budgets of a cluster: ClusterEnergyBudgets first, then by namespace and name.

    Without names also the LLMDeployments with a budget of their own, if the user may read them.

    Raises:
        InputError: The cluster cannot be read, or has no budget, or none of a given name.
    """
    from energylens.cluster.resources import CLUSTER_ENERGY_BUDGET, ENERGY_BUDGET, LLM_DEPLOYMENT

    found = read_cluster(
        access,
        (ENERGY_BUDGET, LLM_DEPLOYMENT),
        (CLUSTER_ENERGY_BUDGET,),
        if_allowed=(CLUSTER_ENERGY_BUDGET, LLM_DEPLOYMENT),
    )
    budgets: list[Budget] = [
        *readable(found.objects.get(CLUSTER_ENERGY_BUDGET.kind, ()), parse_clusterenergybudget),
        *readable(found.objects[ENERGY_BUDGET.kind], parse_energybudget),
    ]
    deployments = [] if names else readable(found.objects.get(LLM_DEPLOYMENT.kind, ()), parse_llmdeployment)
    own = [d for d in deployments if d.spec.energy.budget is not None]
    if own and not budgets:
        return [], own
    return by_name(budgets, names, access, found.namespace, ENERGY_BUDGET.kind), own


def as_object(budget: Budget, rates: Rates = NO_RATES) -> dict[str, Any]:
    """Return a budget as it is in the cluster; with ``rates`` also ``cost``."""
    body = budget.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"api_version", "kind"})
    if isinstance(budget, ClusterEnergyBudget):
        body["metadata"].pop("namespace", None)
    cost = budget_cost(budget, rates)
    return {"apiVersion": budget.api_version, "kind": budget.kind, **body, **({} if cost is None else {"cost": cost})}
