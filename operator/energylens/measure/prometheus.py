"""GPU energy from a Prometheus that scrapes dcgm-exporter: raw samples, never its ``increase()``.

`increase()` extrapolates to the edges of its window, treats every decrease as a reset, and loses the first sample of a
new series. A range selector therefore requests the samples as they were scraped, and the window calculation does the
rest.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from energylens.clock import Clock
from energylens.measure.dcgm import EXPORTED, METRICS, observe
from energylens.measure.exposition import MetricSample
from energylens.measure.prometheus_http import Prometheus, PrometheusError
from energylens.measure.scrape import TargetFailure
from energylens.measure.source import ENERGY_COUNTERS, SourceReading
from energylens.measure.types import GpuObservation
from energylens.records import dataclass

OVERLAP_SECONDS = 60.0
"""Overlap of consecutive reads, s: remote storage and federation show a sample some time after its timestamp."""
CLOCK_TOLERANCE_SECONDS = 0.5
"""Clock differences below this, s, are indistinguishable from the duration of the answer and shift no sample."""
MAX_REJECTED = 20


@dataclass(frozen=True)
class LabelMap:
    """Names of labels on Prometheus servers that rename them; empty for the names of dcgm-exporter and Prometheus."""

    uuid: str = ""
    pod: str = ""
    namespace: str = ""


OWN_NAMES = LabelMap()


@dataclass(frozen=True)
class Series:
    """One series of a range: samples as (seconds since the Unix epoch by the server's clock, value)."""

    name: str
    labels: Mapping[str, str]
    values: Sequence[tuple[float, float]]


class PrometheusSource:
    """Reads the samples that were scraped since the last read."""

    name = "prometheus"

    def __init__(
        self,
        prometheus: Prometheus,
        clock: Clock,
        *,
        lookback_seconds: float = 1800.0,
        matchers: str = "",
        labels: LabelMap = OWN_NAMES,
    ) -> None:
        """Read ``lookback_seconds`` first and after an outage, so that no energy is lost.

        Args:
            prometheus: The Prometheus API.
            clock: Clock of this process; samples are shifted to it by the difference between the two clocks.
            lookback_seconds: The longest range to request.
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
            # After the clock was set back, the range must not be negative.
            answer = await self._prometheus.query(self._selector(max(since, OVERLAP_SECONDS)), server)
            series = series_of(answer.data)
        except PrometheusError as error:
            return SourceReading((), (TargetFailure(self._prometheus.url, "Prometheus", str(error)),))
        self._read_until = server
        offset = clock_offset(before, server, after)
        # A sample that is read twice must get the same time both times.
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
    """Return by how many seconds the server's clock is ahead; 0 if the duration of the request explains the difference.

    Args:
        before: This process's clock before the request.
        server: Time in the server's answer.
        after: This process's clock after the answer.
    """
    if before <= server <= after:
        return 0.0
    return server - (before + after) / 2


def series_of(data: Mapping[str, Any], names: Collection[str] = METRICS) -> list[Series]:
    """Return the series of the given metrics in a ``matrix``, without samples that are not numbers.

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

    All metrics of one scrape have the same time, which groups the samples whatever labels their series have: a scrape
    without pod labels is a separate series, and so is the copy of a second Prometheus.

    Args:
        series: The scraped series.
        labels: Labels that were renamed.
        offset: Seconds that the times of the series are ahead of this process's clock.
        source: Name for the observations.
    """
    series = list(series)
    # A job that renames the exporter's labels does so for all of its targets.
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
    """Return the labels as dcgm-exporter wrote them.

    If the job renames labels, the plain ones belong to the scraped pod.
    """
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
