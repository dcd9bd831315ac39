"""Inputs and results of measuring.

A counter is a series of (time, value) samples of one identity. Energy is attributed by GPU UUID, never by host name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Literal, NamedTuple

from energylens.records import dataclass

EnergyReason = Literal[
    "Measured",
    "Collecting",
    "NoSource",
    "SourceUnreachable",
    "NoSeries",
    "PodLabelsMissing",
    "NotAttributable",
    "PartialCoverage",
    "Implausible",
    "TokensMissing",
    "TooFewTokens",
    "InternalError",
]
Percentile = Literal["P50", "P90", "P95", "P99"]


class PodRef(NamedTuple):
    """A pod by namespace and name."""

    namespace: str
    pod: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}"


@dataclass(frozen=True)
class OwnedPods:
    """The pods of one deployment whose GPUs are measured together."""

    namespace: str
    pods: tuple[str, ...]
    """Names of all pods that hold GPUs."""
    gpus: int
    """GPUs of the pods together."""
    engines: tuple[str, ...] | None = None
    """Pods that serve metrics and generate tokens; None for all pods."""
    prefill: tuple[str, ...] = ()
    """Pods that only process prompts, in a plan with separate prefill and decode."""
    prompts_apart: bool = True
    """Whether a decode pod gets a request only when its prompt is processed."""
    power_limit_watts: float | None = None
    """Power limit of one GPU if no source reports it, W; a higher reading is refused."""

    def refs(self, names: Iterable[str]) -> list[PodRef]:
        """Return references to pods of the deployment."""
        return [PodRef(self.namespace, name) for name in names]


@dataclass(frozen=True)
class Sample:
    """One observation; ``time`` in seconds since the Unix epoch."""

    time: float
    value: float


@dataclass(frozen=True)
class Histogram:
    """A cumulative histogram: ``counts[i]`` observations were at most ``bounds[i]``; the last bound is infinite."""

    bounds: tuple[float, ...]
    """Seconds for latencies, tokens for lengths; ascending."""
    counts: tuple[float, ...]


@dataclass(frozen=True)
class HistogramSample:
    """A histogram as it stood at ``time``, in seconds since the Unix epoch."""

    time: float
    histogram: Histogram


@dataclass(frozen=True)
class GpuObservation:
    """One GPU as one source saw it once."""

    uuid: str
    time: float
    source: str
    energy_joules: float | None = None
    power_watts: float | None = None
    power_limit_watts: float | None = None
    owners: frozenset[PodRef] = frozenset()
    """Pods that hold the GPU; several with time-slicing, MPS, MIG and shared DRA claims."""
    partly_unallocated: bool = False
    """Whether some MIG instances of the board belong to no pod, so that not all of its energy belongs to the owners."""
    product: str = ""
    index: str = ""
    """Index of the GPU on its machine, which does not identify it."""
    host: str = ""
    """Host name that the exporter wrote; it attributes no energy to pods."""


@dataclass(frozen=True)
class EngineObservation:
    """The serving metrics of one engine pod at one moment; None for metrics that the engine lacks."""

    pod: PodRef
    time: float
    engine: Literal["vllm", "sglang"]
    generation_tokens: float | None = None
    prompt_tokens: float | None = None
    cached_prompt_tokens: float | None = None
    requests: float | None = None
    """Requests that ended, whatever the reason."""
    running: float | None = None
    waiting: float | None = None
    kv_cache_usage: float | None = None
    """KV cache usage of the fullest data-parallel rank, 0 to 1."""
    ttft: Histogram | None = None
    itl: Histogram | None = None
    tpot: Histogram | None = None
    end_to_end: Histogram | None = None
    prompt_length: Histogram | None = None
    output_length: Histogram | None = None
    draft_rounds: float | None = None
    """Counters of speculative decoding: steps of a sequence that verified drafts, and drafted and accepted tokens."""
    drafted_tokens: float | None = None
    accepted_tokens: float | None = None
    accept_length: float | None = None
    """Gauges of speculative decoding, of engines that have them: tokens per step, and the accepted share of drafts."""
    accept_rate: float | None = None


@dataclass(frozen=True)
class GpuEnergySeries:
    """The energy counter of one GPU, in joules whatever the exporter's unit."""

    uuid: str
    samples: tuple[Sample, ...]
    pod: str | None = None
    namespace: str | None = None
    power_samples: tuple[Sample, ...] = ()
    """Watts."""
    power_limit_watts: float | None = None


@dataclass(frozen=True)
class TokenSeries:
    """Serving counters of one engine pod."""

    pod: str
    namespace: str
    generation_tokens: tuple[Sample, ...]
    prompt_tokens: tuple[Sample, ...] = ()
    cached_prompt_tokens: tuple[Sample, ...] = ()
    requests: tuple[Sample, ...] = ()
    running: tuple[Sample, ...] = ()
    waiting: tuple[Sample, ...] = ()
    kv_cache_usage: tuple[Sample, ...] = ()
    ttft: tuple[HistogramSample, ...] = ()
    itl: tuple[HistogramSample, ...] = ()
    tpot: tuple[HistogramSample, ...] = ()
    end_to_end: tuple[HistogramSample, ...] = ()
    prompt_length: tuple[HistogramSample, ...] = ()
    output_length: tuple[HistogramSample, ...] = ()
    draft_rounds: tuple[Sample, ...] = ()
    drafted_tokens: tuple[Sample, ...] = ()
    accepted_tokens: tuple[Sample, ...] = ()
    accept_length: tuple[Sample, ...] = ()
    accept_rate: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class LatencyQuantiles:
    """Milliseconds at one percentile, from the engine's histograms over the window; None without observations.

    A histogram only determines the bucket. The figure is interpolated linearly within the bucket; for the median ITL
    the mean is used if it lies in the bucket. vLLM's default buckets of ITL end at 10, 25, 50, 75 and 100 ms, so that a
    P95 of 28 ms may read 37 ms. Beyond the last finite bound the figure is that bound, and the bucket ends at infinity.
    """

    ttft_ms: float | None
    itl_ms: float | None
    ttft_bucket_ms: tuple[float, float] | None = None
    itl_bucket_ms: tuple[float, float] | None = None
    """Bounds of the bucket that contains the quantile: the certain part of the figure."""
    tpot_ms: float | None = None
    """Time per output token of a request, the mean over its tokens after the first; over the requests that ended in the
    window."""
    tpot_bucket_ms: tuple[float, float] | None = None
    end_to_end_ms: float | None = None
    """End-to-end latency of the requests that ended in the window."""
    end_to_end_bucket_ms: tuple[float, float] | None = None


@dataclass(frozen=True)
class LengthQuantile:
    """A quantile of the lengths of the requests that ended in a window, tokens.

    A histogram only determines the bucket; the figure is interpolated linearly within the bucket. vLLM's buckets end at
    1, 2, 5, 10, 20, 50 and so on, so that prompts of 300 tokens each read 200 to 500. Beyond the last finite bound the
    figure is that bound, and the bucket ends at infinity.
    """

    tokens: float
    bucket: tuple[float, float]
    """Bounds of the bucket that contains the quantile: the certain part of the figure."""


@dataclass(frozen=True)
class WindowMeasurement:
    """The result of one window; absent data is None, never zero."""

    reason: EnergyReason
    message: str
    window_start: float | None = None
    window_end: float | None = None
    coverage_percent: float = 0.0
    """GPUs with samples over the whole window / GPUs owned."""
    energy_joules: float | None = None
    output_tokens: float | None = None
    prompt_tokens: float | None = None
    cached_prompt_tokens: float | None = None
    requests: float | None = None
    """Requests that ended within the window."""
    requests_per_second: float | None = None
    power_watts: float | None = None
    idle_power_watts: float | None = None
    output_tokens_per_second: float | None = None
    joules_per_output_token: float | None = None
    """None if there are fewer tokens than the floor."""
    error_bound_joules: float | None = None
    mean_running: float | None = None
    """Mean number of running sequences, all pods together."""
    mean_waiting: float | None = None
    """Mean number of requests that wait in the engines, all pods together."""
    kv_cache_usage: float | None = None
    """Largest KV cache usage of any pod, 0 to 1."""
    draft_tokens: float | None = None
    """Mean tokens drafted per step of a sequence; None without speculative decoding."""
    acceptance: float | None = None
    """Accepted over drafted tokens, 0 to 1."""
    latency: LatencyQuantiles | None = None
    """Latencies at the requested percentile."""
    source: str = ""
    """Name of the energy source."""
    latency_by_percentile: Mapping[Percentile, LatencyQuantiles] = field(default_factory=dict)
    prompt_lengths: Mapping[Percentile, LengthQuantile] = field(default_factory=dict)
    """Lengths of prompts by percentile, P50 and P95; empty if the engines observe none."""
    output_lengths: Mapping[Percentile, LengthQuantile] = field(default_factory=dict)

    def shares_half(self, other: WindowMeasurement) -> bool | None:
        """Return whether another window covers at least half of this one's time; None if either has no times.

        Only then do the two figures belong to the same load.
        """
        if self.window_start is None or self.window_end is None:
            return None
        if other.window_start is None or other.window_end is None:
            return None
        common = min(self.window_end, other.window_end) - max(self.window_start, other.window_start)
        return common >= (self.window_end - self.window_start) / 2

    @property
    def prefix_cache_hits(self) -> float | None:
        """Share of the prompt tokens that were in the prefix cache, 0 to 1; None if either counter is missing."""
        if not self.prompt_tokens or self.cached_prompt_tokens is None:
            return None
        # A preempted request looks up its prompt a second time.
        return min(self.cached_prompt_tokens / self.prompt_tokens, 1.0)
