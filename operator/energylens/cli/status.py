"""`energylens status`: a page per LLMDeployment of a live cluster."""

from __future__ import annotations

from pathlib import Path

import click

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.live import Access, namespace_options, read_cluster
from energylens.cli.status_page import as_object, page
from energylens.cli.text import dump


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@namespace_options
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def status(
    names: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    output: str,
) -> None:
    """Show what the operator plans, runs and measures: prediction beside measurement, conditions and budget.

    Without a NAME: every LLMDeployment of the namespace.
    """
    with one_line_errors(InputError):
        deployments = read_deployments(Access(kubeconfig, context, namespace, all_namespaces), names)
    if output != "table":
        click.echo(dump([as_object(deployment) for deployment in deployments], output), nl=False)
    else:
        click.echo("\n\n".join(page(deployment) for deployment in deployments))


def read_deployments(access: Access, names: tuple[str, ...]) -> list[LLMDeployment]:
    """Return the LLMDeployments of a cluster, by namespace and name; one that cannot be read is told and left out.

    Raises:
        InputError: The cluster cannot be read, there is none, or none of a name.
    """
    from energylens.cluster.resources import LLM_DEPLOYMENT

    found = read_cluster(access, (LLM_DEPLOYMENT,))
    where = "the cluster" if access.all_namespaces else f"namespace {found.namespace}"
    all_of_them = []
    for body in found.objects[LLM_DEPLOYMENT.kind]:
        try:
            all_of_them.append(parse_llmdeployment(body, strict=False))
        except InvalidResourceError as error:
            # One that a newer version understands must not hide the others.
            metadata = body["metadata"]
            click.echo(f"Warning: {metadata['namespace']}/{metadata['name']} is left out: {error}", err=True)
    known = [deployment.metadata.name for deployment in all_of_them]
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(f"NAME {missing[0]!r}: {where} has {', '.join(known) or 'no LLMDeployment'}")
    if not known:
        raise InputError(f"{where} has no LLMDeployment")
    return [deployment for deployment in all_of_them if not names or deployment.metadata.name in names]
