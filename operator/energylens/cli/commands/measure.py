"""`energylens measure`: energy per token on this machine, from NVML and an engine's metrics."""

from __future__ import annotations

import asyncio

import click

from energylens.cli.errors import InputError, one_line_errors
from energylens.cli.inputs.local_window import WindowRequest, observe
from energylens.cli.text.tables import columns, dump
from energylens.clock import Clock, SystemClock
from energylens.measure.engines import EngineScraper
from energylens.measure.latencies import QUANTILES
from energylens.measure.nvml import NvmlSource, NvmlUnavailableError
from energylens.measure.scrape import HttpScraper
from energylens.measure.source import EnergySource
from energylens.measure.types import WindowMeasurement

MIN_SECONDS = 5.0
"""Shortest window, s. On A100 and H100 the sensor covers about a quarter of the time (arXiv 2312.02741), so that
shorter windows say little."""


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=MIN_SECONDS, max=86_400),
    default=60.0,
    show_default=True,
    help="Length of the window.",
)
@click.option(
    "--gpu", "gpus", multiple=True, metavar="INDEX|UUID", help="GPU to measure; may be repeated. Default: all GPUs."
)
@click.option(
    "--engine",
    "engines",
    multiple=True,
    metavar="URL",
    help="Metrics of a vLLM or SGLang server, such as http://127.0.0.1:8000/metrics. May be repeated. "
    "Default: energy and power only.",
)
@click.option("-o", "--output", type=click.Choice(["json", "yaml"]), help="Output for programs. Default: a table.")
def measure(seconds: float, gpus: tuple[str, ...], engines: tuple[str, ...], output: str | None) -> None:
    """Measure GPU energy per generated token on this machine, without Kubernetes.

    Reads NVML's energy counters, which needs no privilege, and with --engine the server's own counters, over one
    window. The GPUs should serve nothing but these engines: NVML does not attribute energy to processes.
    """
    clock = SystemClock()
    with one_line_errors(NvmlUnavailableError, InputError), NvmlSource(clock) as source:
        found = asyncio.run(_measure(WindowRequest(seconds, gpus, engines), source, clock))
    click.echo(dump([document(found)], output) if output else report(found), nl=output is None)


async def _measure(request: WindowRequest, source: EnergySource, clock: Clock) -> WindowMeasurement:
    async with HttpScraper(clock) as http:
        return await observe(request, source, EngineScraper(http), clock)


def document(found: WindowMeasurement) -> dict[str, object]:
    """Return a window's figures by name, with units in the names; None for a figure that was not measured."""
    latency = {
        f"{name}{percentile}Milliseconds": getattr(found.latency_by_percentile[percentile], f"{name}_ms")
        for name in ("ttft", "itl", "tpot")
        for percentile in QUANTILES
        if percentile in found.latency_by_percentile
    }
    return {
        "reason": found.reason,
        "message": found.message,
        "energyJoules": found.energy_joules,
        "energyBoundJoules": found.error_bound_joules,
        "powerWatts": found.power_watts,
        "idlePowerWatts": found.idle_power_watts,
        "outputTokens": found.output_tokens,
        "promptTokens": found.prompt_tokens,
        "prefixCacheHitShare": found.prefix_cache_hits,
        "draftTokensPerStep": found.draft_tokens,
        "draftAcceptanceShare": found.acceptance,
        "outputTokensPerSecond": found.output_tokens_per_second,
        "requestsPerSecond": found.requests_per_second,
        "meanRunning": found.mean_running,
        "joulesPerOutputToken": found.joules_per_output_token,
        **latency,
    }


def report(found: WindowMeasurement) -> str:
    """Return a window's figures as a table, and why some are missing."""
    rows = [
        (name, "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value))
        for name, value in document(found).items()
        if name not in ("reason", "message")
    ]
    return "\n".join([*columns(rows), f"  {found.reason}: {found.message}"])
