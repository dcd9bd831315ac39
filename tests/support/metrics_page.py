"""The operator's page of metrics, read as Prometheus reads it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread

from aiohttp import web
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families

from energylens.controller.endpoints.http import application, listen
from energylens.controller.endpoints.metrics import Metrics


@dataclass(frozen=True)
class Scrape:
    """The families of one page, in its order."""

    families: tuple[Metric, ...]

    def value(self, series: str, **labels: str) -> float | None:
        """Return the value of a series, ``None`` without the series."""
        values = [
            sample.value
            for family in self.families
            for sample in family.samples
            if (sample.name, sample.labels) == (series, labels)
        ]
        assert len(values) <= 1, f"{series} of {labels} is on the page {len(values)} times"
        return values[0] if values else None

    def of(self, name: str) -> dict[str, float]:
        """Return the series of the object ``name`` by the name of their metric."""
        samples = (sample for family in self.families for sample in family.samples)
        return {sample.name: sample.value for sample in samples if sample.labels.get("name") == name}


async def page(metrics: Metrics) -> str:
    """Return the text that the operator answers to a scrape."""
    return b"".join([part async for part in metrics.page()]).decode()


async def scrape(metrics: Metrics) -> Scrape:
    """Return the families of the page."""
    return Scrape(tuple(text_string_to_metric_families(await page(metrics))))


@contextmanager
def served(metrics: Metrics, port: int) -> Iterator[None]:
    """Answer ``/metrics`` on ``port`` of this machine as the operator does, in a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = Thread(target=loop.run_forever)
    thread.start()
    runner = web.AppRunner(application(metrics.page, lambda: "", lambda: ""))

    async def start() -> None:
        await runner.setup()
        await listen(runner, "127.0.0.1", port)

    try:
        asyncio.run_coroutine_threadsafe(start(), loop).result()
        yield
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
