"""`energylens power-caps`: the agent that sets the power limits of one node's GPUs; the chart's optional DaemonSet."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from energylens.cli.errors import BAD_INPUT
from energylens.cluster.client import KubeClient
from energylens.cluster.connecting import connect
from energylens.cluster.errors import ClusterError
from energylens.cluster.kubeconfig import UnusableConfigError
from energylens.cluster.resources import POD
from energylens.powercap.agent import Agent
from energylens.powercap.caps import POWER_LIMIT_ANNOTATION
from energylens.powercap.devices import Devices, DevicesUnavailableError
from energylens.powercap.processes import pod_of_process
from energylens.powercap.record import Record, RecordError

MANAGED = "app.kubernetes.io/managed-by=energylens"
log = logging.getLogger("energylens")


@click.command("power-caps")
@click.option("--node", required=True, help="Name of the node that the agent runs on.")
@click.option(
    "--record",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/run/energylens/power-caps.json"),
    show_default=True,
    help="File on the node with the GPUs whose limit was changed, so that a crash leaves none behind.",
)
@click.option(
    "--interval", type=click.FloatRange(min=0.1), default=15.0, show_default=True, help="Seconds between two checks."
)
@click.option(
    "--kubeconfig",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Kubeconfig. Default: the service account of the pod.",
)
def power_caps(node: str, record: Path, interval: float, kubeconfig: Path | None) -> None:
    """Set GPU power limits by the annotation of the pods on this node, and restore them at the end.

    Needs root with CAP_SYS_ADMIN and the host's process ids. Do not run it beside another agent that sets power limits.
    """
    logging.basicConfig(stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    try:
        asyncio.run(_run(node, record, interval, kubeconfig))
    except (UnusableConfigError, DevicesUnavailableError, RecordError) as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(BAD_INPUT if isinstance(error, UnusableConfigError) else 1) from error


async def _run(node: str, record: Path, interval: float, kubeconfig: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with await connect(kubeconfig) as cluster:
        with Devices(pod_of_process) as devices:
            await Agent(devices, lambda: caps_of(cluster, node), Record(record)).run(interval, stop)


async def caps_of(cluster: KubeClient, node: str) -> Mapping[str, str] | None:
    """Return the power caps of a node's pods by pod UID; None if the API server does not answer."""
    try:
        pods = await cluster.list_objects(POD, label_selector=MANAGED, field_selector=f"spec.nodeName={node}")
    except ClusterError as error:
        log.warning("%s; limits stay as they are", error)
        return None
    found = {}
    for pod in pods:
        cap = (pod["metadata"].get("annotations") or {}).get(POWER_LIMIT_ANNOTATION)
        if cap is not None and (pod.get("status") or {}).get("phase") not in ("Succeeded", "Failed"):
            found[pod["metadata"]["uid"]] = str(cap)
    return found
