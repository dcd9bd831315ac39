"""A bounded history of observations from sources and engines, and the series of a deployment's pods.

A GPU is identified by its UUID. The pod that holds it is a property of each observation, because GPUs change owners,
and because dcgm-exporter omits pod labels whenever it cannot reach the kubelet.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import field
from typing import TypeVar

from energylens.measure.types import (
    EngineObservation,
    GpuEnergySeries,
    GpuObservation,
    HistogramSample,
    PodRef,
    Sample,
    TokenSeries,
)
from energylens.records import dataclass

_Observation = TypeVar("_Observation", GpuObservation, EngineObservation)

LABEL_GRACE_SECONDS = 120.0
"""Time for which a GPU without pod labels keeps its last known pods: four default collect intervals of dcgm-exporter.
"""
MAX_PODS_REMEMBERED = 16
"""Most pods remembered per GPU; beyond it, pods that no observation names any more are forgotten."""


@dataclass(frozen=True)
class Attribution:
    """The GPUs of some pods."""

    series: tuple[GpuEnergySeries, ...]
    shared: tuple[str, ...] = ()
    """One sentence for each GPU whose energy does not belong only to these pods."""
    unlabelled: tuple[str, ...] = ()
    """UUIDs of GPUs that belonged to the pods and have had no pod labels for longer than the grace period."""


@dataclass
class _GpuMemory:
    observations: list[GpuObservation] = field(default_factory=list)
    pods: set[PodRef] = field(default_factory=set)
    """At least those that the observations name; finds a deployment's GPUs without walking every sample."""


class History:
    """Observations by identity, at most ``max_age_seconds`` old and ``max_samples`` each; not thread-safe."""

    def __init__(
        self,
        *,
        max_age_seconds: float = 1800.0,
        max_samples: int = 4096,
        label_grace_seconds: float = LABEL_GRACE_SECONDS,
    ) -> None:
        """Keep observations for the longest window that will be measured, and a little longer.

        Raises:
            ValueError: a limit is not positive.
        """
        for name, value in (("max_age_seconds", max_age_seconds), ("max_samples", max_samples)):
            if value <= 0:
                raise ValueError(f"{name} is {value}, must be above 0")
        self._max_age = max_age_seconds
        self._max_samples = max_samples
        self._grace = label_grace_seconds
        self._gpus: dict[str, _GpuMemory] = {}
        self._engines: dict[PodRef, list[EngineObservation]] = {}

    def record_gpus(self, observations: Iterable[GpuObservation]) -> None:
        """Record observations in any order; an observation with a known time changes nothing."""
        for observation in observations:
            memory = self._gpus.setdefault(observation.uuid, _GpuMemory())
            _insert(memory.observations, observation, self._max_samples)
            memory.pods |= observation.owners

    def record_engines(self, observations: Iterable[EngineObservation]) -> None:
        """Record observations in any order; an observation with a known time changes nothing."""
        for observation in observations:
            _insert(self._engines.setdefault(observation.pod, []), observation, self._max_samples)

    def prune(self, now: float) -> None:
        """Remove observations older than ``max_age_seconds`` at ``now``, and identities without observations."""
        oldest = now - self._max_age
        for uuid, memory in list(self._gpus.items()):
            del memory.observations[: bisect.bisect_left(memory.observations, oldest, key=_time)]
            if not memory.observations:
                del self._gpus[uuid]
            elif len(memory.pods) > MAX_PODS_REMEMBERED:
                memory.pods = {pod for observation in memory.observations for pod in observation.owners}
        for pod, known in list(self._engines.items()):
            del known[: bisect.bisect_left(known, oldest, key=_time)]
            if not known:
                del self._engines[pod]

    @property
    def gpu_count(self) -> int:
        """GPUs known."""
        return len(self._gpus)

    def any_pod_labels(self) -> bool:
        """Whether the newest observation of any GPU that is still read names a pod."""
        last = [memory.observations[-1] for memory in self._gpus.values()]
        newest = max((observation.time for observation in last), default=0.0)
        return any(seen.owners for seen in last if seen.time >= newest - self._grace)

    def gpus_of(self, pods: Collection[PodRef], *, since: float) -> Attribution:
        """Return the GPUs that ``pods`` hold now, each from the moment they got it.

        A GPU shared with other pods, or of which a MIG instance is free, is named in ``shared`` when that was so after
        ``since`` (seconds since the Unix epoch).
        """
        asked = frozenset(pods)
        series, shared, unlabelled = [], [], []
        for uuid, memory in self._gpus.items():
            if memory.pods.isdisjoint(asked):
                continue
            run: list[GpuObservation] = []
            holder: frozenset[PodRef] = frozenset()
            conflict = ""
            for observation, owners in self._with_owners(memory.observations):
                if owners and owners <= asked and not observation.partly_unallocated:
                    run.append(observation)
                    holder = owners
                    continue
                run = []
                if owners & asked and observation.time >= since:
                    others = ", ".join(sorted(map(str, owners - asked))) or "unallocated MIG instances"
                    conflict = f"GPU {uuid} is shared with {others}"
            if conflict:
                shared.append(conflict)
            elif run:
                series.append(series_of_gpu(uuid, run, min(holder)))
            elif holder and not memory.observations[-1].owners:
                unlabelled.append(uuid)
        return Attribution(tuple(series), tuple(shared), tuple(unlabelled))

    def gpus(self) -> Iterator[tuple[GpuEnergySeries, frozenset[PodRef], str]]:
        """Yield the counters of every GPU, the pods that held it, and the host name that the exporter wrote."""
        for uuid, memory in self._gpus.items():
            host = next((seen.host for seen in reversed(memory.observations) if seen.host), "")
            yield series_of_gpu(uuid, memory.observations), frozenset(memory.pods), host

    def engines_of(self, pods: Collection[PodRef]) -> tuple[TokenSeries, ...]:
        """Return the known serving counters of ``pods``."""
        return tuple(_tokens(pod, self._engines[pod]) for pod in sorted(pods) if pod in self._engines)

    def _with_owners(
        self, observations: Iterable[GpuObservation]
    ) -> Iterator[tuple[GpuObservation, frozenset[PodRef]]]:
        owners: frozenset[PodRef] = frozenset()
        labelled = float("-inf")
        for observation in observations:
            if observation.owners:
                owners, labelled = observation.owners, observation.time
            elif observation.time - labelled > self._grace:
                owners = frozenset()
            yield observation, owners


def _time(observation: GpuObservation | EngineObservation) -> float:
    return observation.time


def _insert(known: list[_Observation], observation: _Observation, limit: int) -> None:
    index = bisect.bisect_left(known, observation.time, key=_time)
    if index < len(known) and known[index].time == observation.time:
        return
    known.insert(index, observation)
    del known[: max(0, len(known) - limit)]


def series_of_gpu(uuid: str, run: Sequence[GpuObservation], pod: PodRef | None = None) -> GpuEnergySeries:
    """Return the observations of one GPU as series, held by ``pod``."""
    limits = [seen.power_limit_watts for seen in run if seen.power_limit_watts]
    return GpuEnergySeries(
        uuid=uuid,
        samples=tuple(Sample(seen.time, seen.energy_joules) for seen in run if seen.energy_joules is not None),
        pod=None if pod is None else pod.pod,
        namespace=None if pod is None else pod.namespace,
        power_samples=tuple(Sample(seen.time, seen.power_watts) for seen in run if seen.power_watts is not None),
        power_limit_watts=max(limits) if limits else None,
    )


def _tokens(pod: PodRef, known: list[EngineObservation]) -> TokenSeries:
    def scalars(name: str) -> tuple[Sample, ...]:
        values = ((seen.time, getattr(seen, name)) for seen in known)
        return tuple(Sample(time, value) for time, value in values if value is not None)

    def histograms(name: str) -> tuple[HistogramSample, ...]:
        values = ((seen.time, getattr(seen, name)) for seen in known)
        return tuple(HistogramSample(time, value) for time, value in values if value is not None)

    return TokenSeries(
        pod=pod.pod,
        namespace=pod.namespace,
        generation_tokens=scalars("generation_tokens"),
        prompt_tokens=scalars("prompt_tokens"),
        cached_prompt_tokens=scalars("cached_prompt_tokens"),
        requests=scalars("requests"),
        running=scalars("running"),
        waiting=scalars("waiting"),
        kv_cache_usage=scalars("kv_cache_usage"),
        draft_rounds=scalars("draft_rounds"),
        drafted_tokens=scalars("drafted_tokens"),
        accepted_tokens=scalars("accepted_tokens"),
        accept_length=scalars("accept_length"),
        accept_rate=scalars("accept_rate"),
        ttft=histograms("ttft"),
        itl=histograms("itl"),
        tpot=histograms("tpot"),
        end_to_end=histograms("end_to_end"),
        prompt_length=histograms("prompt_length"),
        output_length=histograms("output_length"),
    )
