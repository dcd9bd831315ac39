"""GPU energy out of a Prometheus that scrapes dcgm-exporter: raw samples, never its ``increase()``.

`increase()` extrapolates to the edges of its window, takes every fall for a reset, and loses the first sample of a new
series. So a range selector asks for the samples as they were scraped, and the window maths does the rest.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from energylens.clock import Clock
from energylens.measure.dcgm import EXPORTED, METRICS, observe
from energylens.measure.exposition import MetricSample
from energylens.measure.prometheus_http import Prometheus, PrometheusError
from energylens.measure.scrape import TargetFailure
from energylens.measure.source import ENERGY_COUNTERS, SourceReading
from energylens.measure.types import GpuObservation

OVERLAP_SECONDS = 60.0
"""Asked for again at each read: remote storage and federation show a sample later than its time."""
CLOCK_TOLERANCE_SECONDS = 0.5
"""Differences of two clocks below it are not told from the time that an answer takes, and move no sample."""
MAX_REJECTED = 20


@dataclass(frozen=True)
class LabelMap:
    """Which labels say what, for Prometheus servers that rename them; empty: as dcgm-exporter and Prometheus do."""

    uuid: str = ""
    pod: str = ""
    namespace: str = ""


@dataclass(frozen=True)
class Series:
    """One series of a range: samples as (seconds since the Unix epoch by the server's clock, value)."""

    name: str
    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]


class PrometheusSource:
    """Reads what was scraped since the last read."""

    name = "prometheus"

    def __init__(
        self,
        prometheus: Prometheus,
        clock: Clock,
        *,
        lookback_seconds: float = 1800.0,
        matchers: str = "",
        labels: LabelMap = LabelMap(),
    ) -> None:
        """Ask for ``lookback_seconds`` at the first read and after an outage, so that no energy goes uncounted.

        Args:
            prometheus: Where to ask.
            clock: Of this process; samples are moved to it by the difference between the two clocks.
            lookback_seconds: The longest range that is asked for.
            matchers: More label matchers for the selector, such as ``cluster="a"``.
            labels: Labels that were renamed.
        """
        self._prometheus = prometheus
        self._clock = clock
        self._lookback = lookback_seconds
        self._matchers = matchers
        self._labels = labels
        self._read_until: float | None = None
        self._offset = 0.0

    async def read(self) -> SourceReading:
        """Return the observations since the last read, each at its own time."""
        try:
            before = self._clock.now().timestamp()
            server = _scalar((await self._prometheus.query("time()")).data)
            after = self._clock.now().timestamp()
            since = self._lookback
            if self._read_until is not None:
                since = min(self._lookback, server - self._read_until + OVERLAP_SECONDS)
            # A clock that was set back must not ask for less than nothing.
            answer = await self._prometheus.query(self._selector(max(since, OVERLAP_SECONDS)), server)
            series = series_of(answer.data)
        except PrometheusError as error:
            return SourceReading((), (TargetFailure(self._prometheus.url, "Prometheus", str(error)),))
        self._read_until = server
        offset = clock_offset(before, server, after)
        # A sample that is read twice must have the same time twice.
        if abs(offset - self._offset) > CLOCK_TOLERANCE_SECONDS:
            self._offset = offset
        reading = await asyncio.to_thread(observations, series, self._labels, self._offset, self.name)
        failures = [TargetFailure(self._prometheus.url, "Prometheus", text) for text in answer.warnings]
        if not any(METRICS[each.name][0] == "energy_joules" for each in series):
            where = f" with {self._matchers}" if self._matchers else ""
            message = f"no {ENERGY_COUNTERS} in {since:.0f} s of series{where}"
            failures.append(TargetFailure(self._prometheus.url, "NoEnergyCounter", message))
        return SourceReading(reading.observations, tuple(failures), reading.rejected)

    def _selector(self, seconds: float) -> str:
        names = "|".join(METRICS)
        more = f",{self._matchers}" if self._matchers else ""
        return f'{{__name__=~"{names}"{more}}}[{math.ceil(seconds)}s]'


def clock_offset(before: float, server: float, after: float) -> float:
    """Return the seconds that the server's clock is ahead; 0 when the time that the question took explains it.

    Args:
        before: This process's clock when the server was asked for its time.
        server: The server's answer.
        after: This process's clock at the answer.
    """
    if before <= server <= after:
        return 0.0
    return server - (before + after) / 2


def series_of(data: Mapping[str, Any], names: Collection[str] = METRICS) -> list[Series]:
    """Return the series of a ``matrix``, of the metrics named; samples that are no number are left out.

    Raises:
        PrometheusError: the data is something else.
    """
    try:
        if data["resultType"] != "matrix":
            raise PrometheusError(f"answered with a {data['resultType']}, a matrix is needed")
        return [
            Series(
                str(each["metric"]["__name__"]),
                each["metric"],
                [(float(time), float(value)) for time, value in each.get("values", ())],
            )
            for each in data["result"]
            if each["metric"].get("__name__") in names
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise PrometheusError(f"answered with series that cannot be read: {error!r}") from error


def observations(series: Iterable[Series], labels: LabelMap, offset: float, source: str) -> SourceReading:
    """Return one observation per GPU and scrape.

    All metrics of one scrape carry one time, so samples are put together by it, whatever labels their series have:
    a scrape without pod labels is a series of its own, and so is the copy of a second Prometheus.

    Args:
        series: What was scraped.
        labels: Labels that were renamed.
        offset: Seconds that the times of the series are ahead of this process's clock.
        source: Name for the observations.
    """
    series = list(series)
    # A job is one way to scrape: where it renames the exporter's labels, it does so for all of its targets.
    renaming = {each.labels.get("job", "") for each in series if each.labels.get(EXPORTED[0])}
    by_time: dict[float, list[MetricSample]] = defaultdict(list)
    for each in series:
        own = _exporters_labels(each.labels, labels, each.labels.get("job", "") in renaming)
        for time, value in each.values:
            if not math.isnan(value):
                by_time[time].append(MetricSample(each.name, own, value, time - offset))
    found: list[GpuObservation] = []
    rejected: dict[str, None] = {}
    for time, samples in sorted(by_time.items()):
        reading = observe(samples, time=time - offset, source=source)
        found.extend(reading.gpus)
        rejected |= dict.fromkeys(reading.rejected)
    return SourceReading(tuple(found), (), tuple(rejected)[:MAX_REJECTED])


def _exporters_labels(labels: Mapping[str, str], wanted: LabelMap, renamed: bool) -> Mapping[str, str]:
    """Return the labels as dcgm-exporter wrote them; where the job renames, the plain ones are the scraped pod's."""
    moved = {"UUID": wanted.uuid, "pod": wanted.pod, "namespace": wanted.namespace}
    if renamed:
        moved["pod"], moved["namespace"] = wanted.pod or EXPORTED[0], wanted.namespace or EXPORTED[1]
    own = {target: labels.get(name, "") for target, name in moved.items() if name}
    return {name: value for name, value in labels.items() if name not in EXPORTED} | own


def _scalar(data: Mapping[str, Any]) -> float:
    try:
        if data["resultType"] != "scalar":
            raise PrometheusError(f"answered time() with a {data['resultType']}")
        return float(data["result"][1])
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise PrometheusError(f"answered time() with {str(data)[:100]}") from error
