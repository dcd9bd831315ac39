"""What measuring takes in and what it answers.

A counter is a series of (time, value) samples of one identity. Energy is attributed by GPU UUID, never by host name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

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
    "TooFewTokens",
]


@dataclass(frozen=True)
class Sample:
    """One observation; ``time`` in seconds since the Unix epoch."""

    time: float
    value: float


@dataclass(frozen=True)
class GpuEnergySeries:
    """The energy counter of one GPU, in joules whatever the exporter's unit was."""

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
    running: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class LatencyQuantiles:
    """Milliseconds at the asked percentile, from the engine's histograms over the window."""

    ttft_ms: float | None
    itl_ms: float | None


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
    power_watts: float | None = None
    idle_power_watts: float | None = None
    output_tokens_per_second: float | None = None
    joules_per_output_token: float | None = None
    """Withheld (None) below the token floor."""
    error_bound_joules: float | None = None
    latency: LatencyQuantiles | None = None
