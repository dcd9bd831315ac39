"""Sources of GPU energy: one small interface, one class per kind of source."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from energylens.api.words import counted
from energylens.measure.dcgm import parse_dcgm
from energylens.measure.exposition import MalformedExpositionError
from energylens.measure.scrape import Scraper, TargetFailure
from energylens.measure.types import GpuObservation
from energylens.records import dataclass

ENERGY_COUNTERS = "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL or DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"


@dataclass(frozen=True)
class SourceReading:
    """Observations of one source at one collect."""

    observations: tuple[GpuObservation, ...]
    """Observations; the newest last if a source returns several per GPU (Prometheus ranges)."""
    failures: tuple[TargetFailure, ...] = ()
    rejected: tuple[str, ...] = ()
    """One sentence for each impossible value, which was left out."""


class EnergySource(Protocol):
    """A source of GPU energy counters."""

    @property
    def name(self) -> str:
        """Short, stable name, such as ``dcgm-exporter``; stored with every observation."""
        ...

    async def read(self) -> SourceReading:
        """Return new observations. A target's fault is a failure in the reading, never an exception."""
        ...


class DcgmExporterSource:
    """Direct scrape of dcgm-exporter pods."""

    name = "dcgm-exporter"

    def __init__(self, scraper: Scraper, targets: Callable[[], Sequence[str]]) -> None:
        """Read the URLs that ``targets`` returns at each read, so that targets may come and go."""
        self._scraper = scraper
        self._targets = targets

    async def read(self) -> SourceReading:
        """Scrape all targets concurrently and independently."""
        readings = await asyncio.gather(*(self._read(url) for url in self._targets()))
        return SourceReading(
            observations=tuple(gpu for reading in readings for gpu in reading.observations),
            failures=tuple(failure for reading in readings for failure in reading.failures),
            rejected=tuple(sentence for reading in readings for sentence in reading.rejected),
        )

    async def _read(self, url: str) -> SourceReading:
        page = await self._scraper.fetch(url)
        if isinstance(page, TargetFailure):
            return SourceReading((), (page,))
        try:
            reading = parse_dcgm(page.text, time=page.time, source=self.name)
        except MalformedExpositionError as error:
            return SourceReading((), (TargetFailure(url, "Malformed", str(error)),))
        failures: tuple[TargetFailure, ...] = ()
        if all(gpu.energy_joules is None for gpu in reading.gpus):
            among = counted(len(reading.gpus), "GPU")
            message = f"no energy counter among {among}; its counters file must list {ENERGY_COUNTERS}"
            failures = (TargetFailure(url, "NoEnergyCounter", message),)
        return SourceReading(reading.gpus, failures, reading.rejected)
