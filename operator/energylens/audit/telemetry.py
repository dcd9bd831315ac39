"""Measurements of a served model's pods over one window: load, latencies, energy, and the busiest part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import field, replace
from itertools import pairwise

from energylens.audit.served import ServedModel
from energylens.measure.counters import token_track
from energylens.measure.history import History
from energylens.measure.host_meters import HostMeter
from energylens.measure.types import EngineObservation, GpuEnergySeries, GpuObservation, PodRef, WindowMeasurement
from energylens.measure.window import WindowOptions, measure_load, measure_window
from energylens.records import dataclass

PARTS = 12
"""Number of parts of the window among which the busiest is found: 5 minutes each in an hour."""
LEAST_PART_SECONDS = 60.0
"""Shortest part, s; in shorter parts random variation would look like load."""
_SAMPLES = 200_000


@dataclass
class Telemetry:
    """Counters of GPUs and engines over a window; times in seconds since the Unix epoch."""

    start: float
    end: float
    failures: tuple[str, ...] = ()
    """Sources that could not be read, one sentence each."""
    source: str = ""
    """Source of the counters, in words; "" if none was read."""
    meters: tuple[HostMeter, ...] = ()
    """Meters of whole machines."""
    _gpus: History = field(init=False)
    _engines: History = field(init=False)

    def __post_init__(self) -> None:
        """Create empty histories."""
        self._gpus, self._engines = (
            History(max_age_seconds=max(self.end - self.start, 1.0) + 600.0, max_samples=_SAMPLES) for _ in range(2)
        )

    def record(self, gpus: Iterable[GpuObservation], engines: Iterable[EngineObservation]) -> None:
        """Record observations in any order."""
        self._gpus.record_gpus(gpus)
        self._engines.record_engines(engines)

    def gpus(self) -> Iterator[tuple[GpuEnergySeries, frozenset[PodRef], str]]:
        """Yield the counters of every GPU, the pods that held it, and the host name that the exporter wrote."""
        return self._gpus.gpus()

    def window(self, served: ServedModel) -> WindowMeasurement:
        """Return the measurements of a served model; unknown figures are None, and the message says why."""
        if self.end <= self.start:
            return WindowMeasurement(
                "NoSource", "no metrics were read" if not self.source else "the metrics cover only one moment"
            )
        options = WindowOptions(
            end=self.end,
            window_seconds=self.end - self.start,
            engines_expected=max(len(served.engine_pods), 1),
            min_output_tokens=1.0,
            # The last sample from Prometheus is up to one scrape old, a sample from a file as old as the file.
            stale_after_seconds=max(120.0, 0.2 * (self.end - self.start)),
        )
        tokens = self._engines.engines_of(served.engine_pods)
        found = self._gpus.gpus_of(served.pods, since=self.start)
        if found.shared:
            why = WindowMeasurement("NotAttributable", "; ".join(found.shared[:3]))
        elif not served.gpus:
            why = WindowMeasurement("NoSeries", "no pod is running")
        else:
            why = measure_window(found.series, tokens, served.gpus, options)
        if why.output_tokens is not None:
            return why
        load = measure_load(tokens, options)
        if why.energy_joules is None:
            return replace(load, message=why.message if load.output_tokens is not None else load.message)
        if load.output_tokens is None:
            return why
        # Energy and tokens over different spans must not form a ratio.
        return replace(load, power_watts=why.power_watts, message=why.message)

    def busiest_tokens_per_second(self, served: ServedModel) -> float | None:
        """Return the output tokens per second of the busiest part of the window; None if the parts are too short."""
        tracks = [
            track
            for series in self._engines.engines_of(served.engine_pods)
            if (track := token_track(series.generation_tokens)) is not None
        ]
        seconds = (self.end - self.start) / PARTS
        if not tracks or seconds < LEAST_PART_SECONDS:
            return None
        edges = [self.start + part * seconds for part in range(PARTS + 1)]
        rates = [sum(track.between(begin, finish) for track in tracks) / seconds for begin, finish in pairwise(edges)]
        return max(rates)


def prompt_and_output(load: WindowMeasurement) -> tuple[int, int] | None:
    """Return the mean tokens of a prompt and of an answer; None if the counters lack them."""
    if not load.requests or load.output_tokens is None or load.prompt_tokens is None:
        return None
    return max(round(load.prompt_tokens / load.requests), 1), max(round(load.output_tokens / load.requests), 1)


def is_idle(load: WindowMeasurement) -> bool:
    """Return whether no token was generated in the window."""
    return load.output_tokens is not None and load.output_tokens == 0
