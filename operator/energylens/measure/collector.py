"""Collects sources and engines into histories, and measures one deployment's window."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from energylens.api.words import counted
from energylens.clock import Clock
from energylens.measure.energy import EnergySpan, energy_span
from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.history import Attribution, History
from energylens.measure.roles import with_prefill
from energylens.measure.scrape import TargetFailure
from energylens.measure.source import EnergySource
from energylens.measure.types import EnergyReason, OwnedPods, Percentile, PodRef, WindowMeasurement
from energylens.measure.window import WindowOptions, measure_window
from energylens.records import dataclass

MAX_NAMED = 3
"""Number of failures that a message spells out; it only counts the rest."""


@dataclass(frozen=True)
class CollectReport:
    """Result of one collect."""

    gpus: int
    engines: int
    failures: tuple[TargetFailure, ...]
    rejected: tuple[str, ...] = ()


class Collector:
    """Feeds histories from sources and engines, and measures windows on them.

    Each source has its own history: two sources that report the same GPU read it at different moments, and perhaps with
    different clocks.
    """

    def __init__(
        self,
        sources: Sequence[EnergySource],
        engines: EngineScraper,
        clock: Clock,
        *,
        history: Callable[[], History] = History,
    ) -> None:
        """Take the parts, sources in the order in which they are asked for a window; ``history`` makes an empty one."""
        self._sources = tuple(sources)
        self._engines = engines
        self._clock = clock
        self._gpus = {source.name: history() for source in sources}
        self._serving = history()
        self._source_failures: dict[str, tuple[TargetFailure, ...]] = {}
        self._engine_failures: dict[PodRef, TargetFailure] = {}

    async def collect(self, targets: Iterable[EngineTarget] = ()) -> CollectReport:
        """Read every source and every engine once, concurrently, and record the results."""
        targets = tuple(targets)
        async with asyncio.TaskGroup() as group:
            engines = group.create_task(self._engines.read(targets))
            sources = [group.create_task(source.read()) for source in self._sources]
        observed, engine_failures = engines.result()
        readings = [source.result() for source in sources]
        for source, reading in zip(self._sources, readings, strict=True):
            self._gpus[source.name].record_gpus(reading.observations)
            self._source_failures[source.name] = reading.failures
        self._serving.record_engines(observed)
        for history in (*self._gpus.values(), self._serving):
            history.prune(self._clock.now().timestamp())
        by_url = {failure.target: failure for failure in engine_failures}
        self._engine_failures = {target.pod: by_url[target.url] for target in targets if target.url in by_url}
        return CollectReport(
            gpus=sum(len({gpu.uuid for gpu in reading.observations}) for reading in readings),
            engines=len(observed),
            failures=tuple(failure for reading in readings for failure in reading.failures) + engine_failures,
            rejected=tuple(sentence for reading in readings for sentence in reading.rejected),
        )

    def measurement(
        self,
        owned: OwnedPods,
        window_seconds: float,
        *,
        ready_since: float | None = None,
        warmup_seconds: float = 0.0,
        percentile: Percentile = "P95",
        min_output_tokens: float = 100.0,
        source: str | None = None,
    ) -> WindowMeasurement:
        """Measure the window that ends now, from what was collected; no I/O.

        Args:
            owned: The pods of the running revision.
            window_seconds: Length of the window, s; at least four collects must fit.
            ready_since: Time at which the revision became ready, in seconds since the Unix epoch; the window begins no
                earlier than ``warmup_seconds`` later.
            warmup_seconds: See ``ready_since``.
            percentile: Percentile of the latencies in the answer.
            min_output_tokens: Fewest tokens for the ratio of energy and tokens.
            source: Name of the only source to use; None for the first source that has the whole window, otherwise the
                first that has energy.

        Raises:
            ValueError: The number of GPUs or ``window_seconds`` is not positive.
        """
        serving = owned.pods if owned.engines is None else owned.engines
        options = WindowOptions(
            end=self._clock.now().timestamp(),
            window_seconds=window_seconds,
            not_before=float("-inf") if ready_since is None else ready_since + warmup_seconds,
            percentile=percentile,
            power_limit_watts=owned.power_limit_watts,
            engines_expected=len(set(serving)),
            min_output_tokens=min_output_tokens,
        )
        asked = [name for name in self._gpus if source in (None, name)]
        if not asked:
            return WindowMeasurement("NoSource", f"no energy source {source or 'of any kind'} is configured")
        owners, engines = owned.refs(owned.pods), owned.refs(serving)
        answers = []
        prompts = self._serving.engines_of(owned.refs(owned.prefill))
        for name in asked:
            found = replace(self._measured_by(name, owners, engines, owned.gpus, options), source=name)
            if owned.prefill:
                expected, longest = len(owned.prefill), options.stale_after_seconds
                found = with_prefill(found, prompts, expected, percentile, longest, apart=owned.prompts_apart)
            if found.reason == "Measured":
                return found
            answers.append(found)
        return next((found for found in answers if found.energy_joules is not None), answers[0])

    def energy(self, owned: OwnedPods, since: float) -> EnergySpan | None:
        """Return the energy of pods from ``since`` on, by the first source that has it of all their GPUs; no I/O.

        Args:
            owned: The pods, whether they are ready or not.
            since: Start of the time, in seconds since the Unix epoch.
        """
        owners = owned.refs(owned.pods)
        for history in self._gpus.values():
            found = history.gpus_of(owners, since=since)
            if not found.shared:
                span = energy_span(found.series, owned.gpus, since, owned.power_limit_watts)
                if span is not None:
                    return span
        return None

    def _measured_by(
        self,
        source: str,
        owners: Sequence[PodRef],
        engines: Sequence[PodRef],
        gpus_owned: int,
        options: WindowOptions,
    ) -> WindowMeasurement:
        failures = self._source_failures.get(source, ())
        found = self._gpus[source].gpus_of(owners, since=options.start)
        if found.shared:
            return WindowMeasurement("NotAttributable", _sentences(found.shared))
        measured = measure_window(found.series, self._serving.engines_of(engines), gpus_owned, options)
        if measured.reason == "NoSeries":
            return self._why_no_series(source, measured, found)
        if measured.reason in ("PartialCoverage", "Collecting") and failures:
            return replace(measured, message=f"{measured.message}; {_sentences(failures)}")
        if measured.reason == "TokensMissing":
            silent = [self._engine_failures[pod] for pod in engines if pod in self._engine_failures]
            return replace(
                measured, message=f"{measured.message}; {_sentences(silent)}" if silent else measured.message
            )
        return measured

    def _why_no_series(self, source: str, measured: WindowMeasurement, found: Attribution) -> WindowMeasurement:
        reason: EnergyReason = "NoSeries"
        failures, history = self._source_failures.get(source, ()), self._gpus[source]
        # A source may answer without a counter, such as a Prometheus whose exporter has been down for long.
        if any(failure.reason != "NoEnergyCounter" for failure in failures):
            reason, detail = "SourceUnreachable", _sentences(failures)
        elif failures:
            detail = _sentences(failures)
        elif found.unlabelled:
            reason, detail = "PodLabelsMissing", f"GPU {_sentences(found.unlabelled)} lost its pod labels"
        elif found.series:
            return measured
        elif not history.gpu_count:
            detail = "the energy sources answer without any GPU"
        elif not history.any_pod_labels():
            reason, detail = (
                "PodLabelsMissing",
                (
                    f"none of {counted(history.gpu_count, 'GPU')} carries pod labels; dcgm-exporter needs "
                    "DCGM_EXPORTER_KUBERNETES=true and the kubelet's pod-resources socket, and for GPUs of "
                    "ResourceClaims KUBERNETES_ENABLE_DRA=true"
                ),
            )
        else:
            detail = f"none of {counted(history.gpu_count, 'GPU')} carries the pods' labels"
        return replace(measured, reason=reason, message=f"{measured.message}: {detail}")


def _sentences(items: Sequence[object]) -> str:
    named = "; ".join(map(str, items[:MAX_NAMED]))
    return named if len(items) <= MAX_NAMED else f"{named}; and {len(items) - MAX_NAMED} more"
