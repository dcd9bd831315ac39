"""`energylens status`: a page per LLMDeployment of a live cluster."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_llmdeployment
from energylens.audit.hosts import HostPower
from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.live import ClusterAccess, by_name, namespace_options, read_cluster, readable
from energylens.cli.inputs.prometheus_options import PrometheusWindow, prometheus_options
from energylens.cli.inputs.rates import Rates, rates_options
from energylens.cli.text.hosts import host_objects
from energylens.cli.text.status import as_object, page
from energylens.cli.text.tables import dump
from energylens.measure.prometheus_http import Access


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@namespace_options
@rates_options
@prometheus_options("A Prometheus that scrapes dcgm-exporter and meters of the hosts: also shows the hosts' power.")
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def status(
    names: tuple[str, ...],
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    all_namespaces: bool,
    rates: Rates,
    prometheus: PrometheusWindow,
    output: str,
) -> None:
    """Show what the operator plans, runs and measures: prediction beside measurement, conditions and budget.

    Without a NAME: every LLMDeployment of the namespace.
    """
    access = ClusterAccess(kubeconfig, context, namespace, all_namespaces)
    with one_line_errors(InputError):
        deployments = read_deployments(access, names)
        hosts = {} if prometheus.access is None else _hosts(deployments, access, prometheus.access, prometheus.seconds)
    if output != "table":
        found = [as_object(each, rates) | host_objects(hosts.get(_key(each), ())) for each in deployments]
        click.echo(dump(found, output), nl=False)
    else:
        click.echo("\n\n".join(page(each, rates, hosts.get(_key(each), ())) for each in deployments))


def _key(deployment: LLMDeployment) -> tuple[str, str]:
    return deployment.metadata.namespace, deployment.metadata.name


def _hosts(
    deployments: Sequence[LLMDeployment], access: ClusterAccess, prometheus: Access, seconds: float
) -> dict[tuple[str, str], list[HostPower]]:
    """Return the hosts of each deployment's pods; a warning for each meter that names no node.

    Raises:
        InputError: Nodes, pods or the Prometheus cannot be read, or no meter of a host is in it.
    """
    from energylens.cli.inputs.hosts import hosts_by_deployment

    found, unknown = hosts_by_deployment(access, prometheus, seconds)
    for text in unknown:
        click.echo(f"Warning: {text}", err=True)
    return {key: found.get(key, []) for key in map(_key, deployments)}


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
