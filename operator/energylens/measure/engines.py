"""Scraping the serving engines' own metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from energylens.measure.engine_metrics import parse_engine
from energylens.measure.exposition import MalformedExpositionError
from energylens.measure.scrape import Scraper, TargetFailure
from energylens.measure.types import EngineObservation, PodRef
from energylens.records import dataclass


@dataclass(frozen=True)
class EngineTarget:
    """An engine pod and the URL of its metrics."""

    pod: PodRef
    url: str


class EngineScraper:
    """Reads engines of any known kind; their metrics identify the engine."""

    def __init__(self, scraper: Scraper) -> None:
        """Fetch pages with ``scraper``."""
        self._scraper = scraper

    async def read(
        self, targets: Iterable[EngineTarget]
    ) -> tuple[tuple[EngineObservation, ...], tuple[TargetFailure, ...]]:
        """Return one observation or one failure per target; faults of targets raise nothing."""
        answers = await asyncio.gather(*(self._read(target) for target in targets))
        observations = tuple(answer for answer in answers if isinstance(answer, EngineObservation))
        return observations, tuple(answer for answer in answers if isinstance(answer, TargetFailure))

    async def _read(self, target: EngineTarget) -> EngineObservation | TargetFailure:
        page = await self._scraper.fetch(target.url)
        if isinstance(page, TargetFailure):
            return page
        try:
            observation = parse_engine(page.text, pod=target.pod, time=page.time)
        except MalformedExpositionError as error:
            return TargetFailure(target.url, "Malformed", str(error))
        if observation is None:
            return TargetFailure(
                target.url, "NoEngineMetrics", "no metric of vLLM or SGLang (SGLang needs --enable-metrics)"
            )
        return observation
