"""One window of this machine's GPUs and of engines, read second by second."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from energylens.cli.errors import InputError
from energylens.clock import Clock
from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.history import History, series_of_gpu
from energylens.measure.scrape import TargetFailure
from energylens.measure.source import EnergySource
from energylens.measure.types import GpuObservation, PodRef, WindowMeasurement
from energylens.measure.window import WindowOptions, measure_window
from energylens.records import dataclass

INTERVAL_SECONDS = 1.0


@dataclass(frozen=True)
class WindowRequest:
    """The GPUs and engines of a measurement, and its length."""

    seconds: float
    gpus: tuple[str, ...]
    """Indices or UUIDs of GPUs; empty for all."""
    engines: tuple[str, ...]
    """URLs of the engines' metrics."""


async def observe(
    request: WindowRequest,
    source: EnergySource,
    engines: EngineScraper,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> WindowMeasurement:
    """Read until the window is full, and return it.

    Raises:
        InputError: a GPU does not exist, one that was asked for has no energy counter, or an engine does not answer.
    """
    targets = [EngineTarget(PodRef("", url), url) for url in request.engines]
    history = History(max_age_seconds=request.seconds + 600, max_samples=1_000_000)
    seen: dict[str, list[GpuObservation]] = {}
    start = clock.monotonic()
    while True:
        reading, (answers, failures) = await asyncio.gather(source.read(), engines.read(targets))
        _refuse(failures)
        chosen = select(reading.observations, request.gpus)
        if reading.failures and not request.gpus:
            _refuse(reading.failures)
        for gpu in chosen:
            seen.setdefault(gpu.uuid, []).append(gpu)
        history.record_engines(answers)
        if clock.monotonic() - start >= request.seconds:
            break
        await sleep(INTERVAL_SECONDS)
    options = WindowOptions(
        end=clock.now().timestamp(),
        window_seconds=request.seconds,
        engines_expected=len(targets),
    )
    energy = [series_of_gpu(uuid, observed) for uuid, observed in seen.items()]
    return measure_window(energy, history.engines_of([target.pod for target in targets]), len(energy), options)


def select(observed: Sequence[GpuObservation], wanted: Sequence[str]) -> list[GpuObservation]:
    """Return the GPUs with these indices or UUIDs, without duplicates; all if none is named.

    Raises:
        InputError: a GPU is missing.
    """
    if not wanted:
        if not observed:
            raise InputError("NVML finds no GPU on this machine")
        return list(observed)
    by_name = {gpu.uuid: gpu for gpu in observed} | {gpu.index: gpu for gpu in observed}
    missing = [name for name in wanted if name not in by_name]
    if missing:
        there = ", ".join(f"{gpu.index} ({gpu.uuid})" for gpu in observed) or "none"
        raise InputError(f"--gpu={missing[0]}: no such GPU with an energy counter; there are: {there}")
    return list({by_name[name].uuid: by_name[name] for name in wanted}.values())


def _refuse(failures: Sequence[TargetFailure]) -> None:
    if failures:
        raise InputError(str(failures[0]))
