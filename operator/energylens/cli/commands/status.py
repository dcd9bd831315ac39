"""`energylens status`: a page per LLMDeployment of a live cluster."""

from __future__ import annotations

from pathlib import Path

import click

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_llmdeployment
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.live import ClusterAccess, by_name, namespace_options, read_cluster, readable
from energylens.cli.inputs.rates import Rates, rates_options
from energylens.cli.text.status import as_object, page
from energylens.cli.text.tables import dump


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@namespace_options
@rates_options
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def status(
    names: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    rates: Rates,
    output: str,
) -> None:
    """Show what the operator plans, runs and measures: prediction beside measurement, conditions and budget.

    Without a NAME: every LLMDeployment of the namespace.
    """
    with one_line_errors(InputError):
        deployments = read_deployments(ClusterAccess(kubeconfig, context, namespace, all_namespaces), names)
    if output != "table":
        click.echo(dump([as_object(deployment, rates) for deployment in deployments], output), nl=False)
    else:
        click.echo("\n\n".join(page(deployment, rates) for deployment in deployments))


def read_deployments(access: ClusterAccess, names: tuple[str, ...]) -> list[LLMDeployment]:
    """Return the LLMDeployments of a cluster, by namespace and name; one that cannot be read is reported and left out.

    Raises:
        InputError: The cluster cannot be read, or has no LLMDeployment, or none of a given name.
    """
    from energylens.cluster.resources import LLM_DEPLOYMENT

    found = read_cluster(access, (LLM_DEPLOYMENT,))
    return by_name(
        readable(found.objects[LLM_DEPLOYMENT.kind], parse_llmdeployment),
        names,
        access,
        found.namespace,
        LLM_DEPLOYMENT.kind,
    )
