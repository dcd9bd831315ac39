"""Command line of the replay exporter: ``python -m energylens_dev.replay --kubeconfig FILE``."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import get_args

import click
from aiohttp import web

from energylens.clock import SystemClock
from energylens_dev.replay.cluster import ClusterError, KubernetesCluster
from energylens_dev.replay.exposition import Generation, LabelStyle
from energylens_dev.replay.faults import fault_named
from energylens_dev.replay.server import Options, Replay, application


def _known(context: click.Context, option: click.Parameter, names: tuple[str, ...]) -> tuple[str, ...]:
    try:
        for name in names:
            fault_named(name)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error
    return names


_POSITIVE = click.FloatRange(min=0, min_open=True)


@click.command()
@click.option("--kubeconfig", required=True, type=click.Path(exists=True, dir_okay=False))
@click.option("--port", default=0, type=click.IntRange(0, 65535), help="On 127.0.0.1; 0 takes a free one.")
@click.option("--generation", default="new", type=click.Choice(get_args(Generation)), help="Of metric names: mJ or J.")
@click.option("--labels", default="plain", type=click.Choice(get_args(LabelStyle)), help="How pods are named.")
@click.option("--collect-interval", default=1.0, type=_POSITIVE, help="Seconds between new values.")
@click.option("--speed", default=1.0, type=_POSITIVE, help="Time runs so many times faster; watts become as wrong.")
@click.option("--refresh", default=2.0, type=_POSITIVE, help="Seconds between looks at the cluster.")
@click.option(
    "--fault",
    multiple=True,
    callback=_known,
    help="Break the exporter or the engines; NAME@PART only for pods with PART in their name.",
)
def main(
    kubeconfig: str,
    port: int,
    generation: Generation,
    labels: LabelStyle,
    collect_interval: float,
    speed: float,
    refresh: float,
    fault: tuple[str, ...],
) -> None:
    """Serve metrics of measured runs for the serving pods of a cluster; prints one JSON line when it listens."""
    replay = Replay(SystemClock(), Options(generation, labels, collect_interval, speed))
    replay.set_faults(fault)
    app = application(replay, KubernetesCluster(kubeconfig).snapshot, refresh)
    try:
        asyncio.run(_serve(app, port))
    except (ClusterError, OSError) as error:
        raise click.ClickException(str(error)) from error


async def _serve(app: web.Application, port: int) -> None:
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        address = runner.addresses[0]
        click.echo(json.dumps({"url": f"http://{address[0]}:{address[1]}"}))
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        with contextlib.suppress(asyncio.CancelledError):
            await stop.wait()
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    main()
