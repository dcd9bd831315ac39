"""One load at a time on one engine: warm-up, window, and the figures of clients, engine and GPUs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from energylens.benchmark.client import ServerUnderTest
from energylens.benchmark.points import Point
from energylens.benchmark.processes import ClientFailedError, RunningLoad, running
from energylens.benchmark.record import BenchmarkedPoint
from energylens.benchmark.statistics import latencies
from energylens.cli.errors import InputError
from energylens.cli.inputs.local_window import WindowRequest, observe, select
from energylens.clock import Clock
from energylens.measure.engines import EngineScraper
from energylens.measure.scrape import HttpScraper
from energylens.measure.source import EnergySource
from energylens.measure.types import WindowMeasurement
from energylens.records import dataclass

LONGEST_WARM_UP_SECONDS = 300.0
_SETTLE_SECONDS = 1.0
_LOOK_SECONDS = 0.1


class PointFailedError(RuntimeError):
    """A point could not be measured, but others may be; the message is one sentence."""


@dataclass(frozen=True)
class Bench:
    """How points are measured: engine, GPUs and window."""

    target: ServerUnderTest
    gpus: Sequence[str]
    """Indices or UUIDs of GPUs; empty for all GPUs of this machine."""
    seconds: float
    """Length of a window; three times as long for arrivals."""
    seed: int
    source: EnergySource
    clock: Clock


def measure_point(bench: Bench, point: Point) -> BenchmarkedPoint:
    """Load an engine, wait until the load is steady, and measure a window.

    Raises:
        PointFailedError: Requests or the client failed, or the window could not be measured.
        InputError: A GPU or the engine's metrics are missing.
    """
    try:
        with running(bench.target, point, bench.seed) as load:
            _warm_up(load, point)
            request = WindowRequest(_window(bench, point), tuple(bench.gpus), (f"{bench.target.url}/metrics",))
            # Clients of other processes have no other clock in common.
            ahead = bench.clock.now().timestamp() - time.monotonic()
            window = asyncio.run(_observe(bench, request))
            load.check()
            traces = load.stop()
    except ClientFailedError as error:
        raise PointFailedError(str(error)) from error
    failed = next((trace.error for trace in traces if trace.error), None)
    if failed is not None:
        raise PointFailedError(f"requests failed: {failed}")
    if window.reason != "Measured" or window.power_watts is None or not window.output_tokens_per_second:
        raise PointFailedError(f"{window.reason}: {window.message}")
    # Both ends of a measured window are known.
    start, end = (window.window_start or 0.0) - ahead, (window.window_end or 0.0) - ahead
    seen = latencies(traces, start, end)
    ours = seen.tokens / (end - start)
    if abs(ours / window.output_tokens_per_second - 1.0) > 0.1:
        raise PointFailedError(
            f"clients got {ours:.0f} tokens per second and the engine counts {window.output_tokens_per_second:.0f}: "
            "others use the engine, or the clients are too slow"
        )
    return BenchmarkedPoint(
        point, seen, window.mean_running, window.power_watts, window.output_tokens_per_second, end - start
    )


def _window(bench: Bench, point: Point) -> float:
    return bench.seconds * (1.0 if point.kind == "closed" else 3.0)


def _warm_up(load: RunningLoad, point: Point) -> None:
    """Wait until every closed loop has ended its first request, or as many arrivals have ended as are in flight."""
    begun = time.monotonic()
    wanted = int(point.level) if point.kind == "closed" else max(int(3 * point.level), 10)
    while load.ended < wanted:
        load.check()
        if time.monotonic() - begun > LONGEST_WARM_UP_SECONDS:
            raise PointFailedError(
                f"{load.ended} of {wanted} requests of the warm-up ended in {LONGEST_WARM_UP_SECONDS:.0f} s"
            )
        time.sleep(_LOOK_SECONDS)
    time.sleep(_SETTLE_SECONDS)


async def _observe(bench: Bench, request: WindowRequest) -> WindowMeasurement:
    async with HttpScraper(bench.clock) as http:
        return await observe(request, bench.source, EngineScraper(http), bench.clock)


def gpu_names(bench: Bench) -> list[str]:
    """Return the product name of each GPU that is measured.

    Raises:
        InputError: There is no GPU, or a requested GPU is missing.
    """
    reading = asyncio.run(bench.source.read())
    if not reading.observations and reading.failures:
        raise InputError(str(reading.failures[0]))
    return [gpu.product for gpu in select(reading.observations, bench.gpus)]
