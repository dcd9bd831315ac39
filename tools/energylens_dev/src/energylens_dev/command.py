"""`energylens dev`: a real Kubernetes control plane with GPU nodes on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from energylens_dev import devcluster
from energylens_dev.devcluster import (
    DevClusterError,
    Interrupted,
    PodStages,
    RunningCluster,
    StreamProgress,
    parse_pools,
)
from energylens_dev.devcluster.binaries import Binaries
from energylens_dev.devcluster.components import COMPONENTS, CONTROL_PLANE
from energylens_dev.devcluster.interrupts import raising

DIR = click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="State directory, one per cluster. Default: $ENERGYLENS_DEV_DIR, else ~/.local/state/energylens/dev.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")


@click.group()
def dev() -> None:
    """Run a real Kubernetes control plane with GPU nodes on this machine.

    etcd, the API server, the controller manager, the scheduler and kwok run on free ports of 127.0.0.1. Programs that
    are missing are built once from pinned Go modules; those in KUBEBUILDER_ASSETS or on PATH are used when they fit.
    """


@dev.command()
@DIR
@JSON
@click.option(
    "--fast-pods/--life-like",
    "fast_pods",
    default=None,
    help="Pods start and end at once, or take seconds. Default: the cluster's choice, at first --life-like.",
)
@click.option(
    "--nodes",
    "nodes_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML list of {product, count, gpus}. Default: the cluster's nodes, at first 2 each of 8 x H100, "
    "8 x H200, 8 x B200 and 4 x L40S.",
)
@click.option("--chart/--no-chart", default=True, help="Whether to install the operator's Helm chart.")
@click.option("--operator/--no-operator", default=True, help="Whether to run the operator on this machine.")
@click.option(
    "--operator-arg",
    "operator_arguments",
    multiple=True,
    metavar="ARG",
    help="One more argument of `energylens operator`; may be repeated. Default: the cluster's arguments.",
)
def up(
    directory: Path | None,
    as_json: bool,
    fast_pods: bool | None,
    nodes_file: Path | None,
    chart: bool,
    operator: bool,
    operator_arguments: tuple[str, ...],
) -> None:
    """Start what is missing of the cluster; when interrupted, stop what this call started."""
    if operator and not chart:
        raise click.UsageError("--no-chart needs --no-operator: the operator runs as the chart's service account")
    pods = None if fast_pods is None else PodStages.FAST if fast_pods else PodStages.LIFE_LIKE
    with _short_errors():
        cluster = devcluster.up(
            directory,
            pods=pods,
            pools=None if nodes_file is None else parse_pools(_read(nodes_file), str(nodes_file)),
            chart=chart,
            operator=operator,
            operator_arguments=operator_arguments or None,
            progress=StreamProgress(sys.stderr),
        )
    if as_json:
        click.echo(json.dumps(_as_object(cluster)))
        return
    click.echo(f"export KUBECONFIG={cluster.kubeconfig}")
    click.echo(f"kubectl:  {cluster.kubectl}")
    click.echo(f"helm:     {cluster.helm}")
    if cluster.operator_pid is not None:
        click.echo(f"operator: process {cluster.operator_pid}, metrics at {cluster.metrics_url}")


@dev.command()
@DIR
@click.option("--purge", is_flag=True, help="Also remove the cluster's data.")
def down(directory: Path | None, purge: bool) -> None:
    """Stop every process of the cluster."""
    with _short_errors():
        stopped = devcluster.down(directory, purge=purge, progress=StreamProgress(sys.stderr))
    click.echo(f"stopped {', '.join(stopped)}" if stopped else "nothing was running")


@dev.command()
@DIR
@JSON
def status(directory: Path | None, as_json: bool) -> None:
    """List the processes of the cluster; exit code 0 if all of them run, else 1."""
    with _short_errors():
        found = devcluster.status(directory)
        cluster = devcluster.running(directory) if found.all_up else None
    if as_json:
        processes = {name: found.pids.get(name) for name in found.wanted}
        known = {} if cluster is None else _as_object(cluster)
        click.echo(json.dumps({"up": found.all_up, "processes": processes, **known}))
    else:
        for name, log in found.logs.items():
            if name in found.wanted or name in found.pids:
                state = f"process {found.pids[name]}" if name in found.pids else "not running"
                click.echo(f"{name:24} {state:16} {log}")
        if cluster is not None:
            click.echo(f"export KUBECONFIG={cluster.kubeconfig}")
        elif all(name in found.pids for name in found.wanted):
            click.echo("the API server does not answer")
    raise SystemExit(0 if found.all_up else 1)


@dev.command()
@click.argument("names", nargs=-1, metavar="[PROGRAM]...")
def build(names: tuple[str, ...]) -> None:
    """Find or build programs and print their paths.

    Default: the programs that `dev up` needs; the tests also need prometheus and promtool.
    """
    wanted = list(dict.fromkeys(names)) or [component.name for component in CONTROL_PLANE]
    unknown = [name for name in wanted if name not in COMPONENTS]
    if unknown:
        raise click.UsageError(f"PROGRAM {unknown[0]!r} is unknown: allowed are {', '.join(COMPONENTS)}")
    with _short_errors(), raising():
        binaries = Binaries(StreamProgress(sys.stderr))
        found = binaries.ensure(wanted)
        if "kwok" in found:
            binaries.stages()
    for path in found.values():
        click.echo(path)


def _as_object(cluster: RunningCluster) -> dict[str, str | int | None]:
    return {
        "kubeconfig": str(cluster.kubeconfig),
        "kubectl": str(cluster.kubectl),
        "helm": str(cluster.helm),
        "operatorPid": cluster.operator_pid,
        "metricsUrl": cluster.metrics_url,
    }


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DevClusterError(f"cannot read {path}: {error}") from error


@contextmanager
def _short_errors() -> Iterator[None]:
    """Turn an error into its message and exit code 2, and an interrupt into a shell's exit code for that signal."""
    try:
        yield
    except DevClusterError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(2) from error
    except Interrupted as interrupt:
        click.echo(f"{interrupt}: processes started by this command were stopped", err=True)
        raise SystemExit(128 + interrupt.signal_number) from interrupt
