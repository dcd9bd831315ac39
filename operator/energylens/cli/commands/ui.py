"""`energylens ui`: the other commands' pages in a browser, read-only and made from the cluster at each request."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.live import ClusterAccess, cluster_options
from energylens.cli.inputs.options import INVENTORY_HELP
from energylens.cli.inputs.prometheus_options import PrometheusWindow, prometheus_options
from energylens.cli.inputs.rates import Rates, rates_options
from energylens.clock import SystemClock

DEFAULT_PORT = 8765


@click.command()
@click.option("--inventory", type=click.Path(path_type=Path), metavar="FILE", help=INVENTORY_HELP)
@cluster_options
@click.option("-n", "--namespace", metavar="NAME", help="Show only this namespace. Default: all namespaces.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port on 127.0.0.1; 0: any free port.",
)
@prometheus_options("A Prometheus that scrapes engines and dcgm-exporter, for the audit.")
@rates_options
def ui(
    inventory: Path | None,
    kubeconfig: Path | None,
    context: str | None,
    namespace: str | None,
    port: int,
    prometheus: PrometheusWindow,
    rates: Rates,
) -> None:
    """Show deployments, plans, the fleet, budgets, drift and an audit in a browser.

    Each request reads the cluster with your rights; nothing is written. The server listens on 127.0.0.1, where every
    user of this machine can read the pages while the server runs. Ctrl-C ends the server.
    """
    from energylens.cli.pictures.charts import check_matplotlib
    from energylens.cli.site.clusters import FileCluster, LiveCluster
    from energylens.cli.site.server import SiteServer
    from energylens.cli.site.site import Cluster, Site

    with one_line_errors(InputError):
        check_matplotlib("ui")
        cluster: Cluster
        if inventory is not None:
            if kubeconfig is not None or context is not None or namespace is not None or prometheus.access is not None:
                raise InputError("--inventory describes the cluster; the other options read another: give one")
            cluster = FileCluster(inventory)
        else:
            cluster = LiveCluster(
                ClusterAccess(kubeconfig, context, namespace, namespace is None), prometheus.access, prometheus.seconds
            )
        # A cluster that cannot be read is reported before a browser is opened.
        cluster.deployments()
        try:
            server = SiteServer(Site(cluster, rates, SystemClock()), port)
        except OSError as error:
            raise InputError(f"--port {port}: {error.strerror or error}") from error
    click.echo(f"{server.url} shows {cluster.text}; Ctrl-C ends it", err=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
