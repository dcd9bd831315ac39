"""Counters of GPUs and engines that tests know the truth about. Watts, tokens per second, seconds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from energylens.measure.types import EngineObservation, GpuEnergySeries, GpuObservation, PodRef, Sample, TokenSeries
from energylens.measure.window import WindowOptions

POD = PodRef("team", "llama-0")


class FakeClock:
    def __init__(self, time: float = 0.0) -> None:
        self.time = time

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time, tz=UTC)

    def monotonic(self) -> float:
        return self.time


def grid(start: float, end: float, step: float) -> list[float]:
    return [start + index * step for index in range(int((end - start) / step) + 1)]


def gpu(
    uuid: str = "GPU-0",
    watts: float = 500.0,
    times: Sequence[float] | None = None,
    *,
    base: float = 1e6,
    energy: Callable[[float], float] | None = None,
    limit: float | None = 700.0,
    power: Sequence[Sample] = (),
) -> GpuEnergySeries:
    times = grid(0, 600, 15) if times is None else times
    counter = energy or (lambda time: base + watts * time)
    return GpuEnergySeries(
        uuid,
        tuple(Sample(time, counter(time)) for time in times),
        pod=POD.pod,
        namespace=POD.namespace,
        power_samples=tuple(power),
        power_limit_watts=limit,
    )


def engine(
    pod: str = POD.pod,
    rate: float = 1000.0,
    times: Sequence[float] | None = None,
    *,
    tokens: Callable[[float], float] | None = None,
    running: Callable[[float], float] = lambda time: 8.0,
) -> TokenSeries:
    times = grid(0, 600, 15) if times is None else times
    counter = tokens or (lambda time: 50_000 + rate * time)
    return TokenSeries(
        pod,
        POD.namespace,
        tuple(Sample(time, counter(time)) for time in times),
        running=tuple(Sample(time, running(time)) for time in times),
    )


def options(**changes: Any) -> WindowOptions:
    return WindowOptions(**({"end": 600.0, "window_seconds": 600.0} | changes))


def seen(
    time: float,
    uuid: str = "GPU-0",
    watts: float = 500.0,
    owners: Sequence[PodRef] = (POD,),
    *,
    source: str = "dcgm-exporter",
    partly_unallocated: bool = False,
) -> GpuObservation:
    return GpuObservation(uuid, time, source, 1e6 + watts * time, watts, 700.0, frozenset(owners), partly_unallocated)


def engine_seen(time: float, pod: PodRef = POD, rate: float = 1000.0) -> EngineObservation:
    return EngineObservation(pod, time, "vllm", generation_tokens=rate * time, running=8.0)
