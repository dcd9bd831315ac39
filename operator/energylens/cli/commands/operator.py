"""`energylens operator`: run the operator, in a cluster or on this machine."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

from energylens.controller.memory import keep_little
from energylens.controller.options import Options
from energylens.controller.runner import NAMESPACE_VARIABLE, EndedError, StartError, known_namespaces, run
from energylens.controller.settings import SettingsError, read_settings

DEFAULT_LEASE_NAMESPACE = "energylens-system"
SWITCH_SECONDS = 0.001
"""For how long the planning thread keeps the interpreter while the event loop waits for it; 5 ms by default. Beside
searches, the slowest percent of round trips to another process took 6 instead of 9 to 12 ms, the searches as long."""


@click.command()
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Kubeconfig of the operator's service account. Default: the service account of the pod.",
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), default=8080, show_default=True)
@click.option(
    "--metrics-host",
    default=None,
    help="Address of the metrics server. Default: all addresses in a pod, 127.0.0.1 with --kubeconfig.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    help="Watch only this namespace, pods included: GPUs held by pods of other namespaces count as free. May be "
    "repeated.",
)
@click.option(
    "--lease-namespace",
    default=lambda: os.environ.get(NAMESPACE_VARIABLE, DEFAULT_LEASE_NAMESPACE),
    help=f"Namespace of the leader lease. Default: {NAMESPACE_VARIABLE}, else {DEFAULT_LEASE_NAMESPACE}.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML file with the operator's settings.",
)
@click.option("--verbose", is_flag=True, help="Also log messages of libraries.")
def operator(
    kubeconfig: Path | None,
    metrics_port: int,
    metrics_host: str | None,
    namespaces: tuple[str, ...],
    lease_namespace: str,
    config: Path | None,
    verbose: bool,
) -> None:
    """Watch LLMDeployments, plan, serve and measure them."""
    logging.basicConfig(
        stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.WARNING
    )
    logging.getLogger("energylens").setLevel(logging.INFO)
    if verbose:
        logging.getLogger().setLevel(logging.INFO)
    try:
        settings = read_settings(config)
    except SettingsError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
    host = metrics_host or ("127.0.0.1" if kubeconfig is not None else "")
    options = Options(
        kubeconfig=kubeconfig,
        metrics_port=metrics_port,
        metrics_host=host,
        namespaces=known_namespaces(namespaces),
        lease_namespace=lease_namespace,
        settings=settings,
    )
    keep_little()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        asyncio.run(run(options))
    except EndedError as error:
        raise SystemExit(1) from error
    except StartError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
