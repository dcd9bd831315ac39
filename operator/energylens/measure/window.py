"""The window calculation: from counters of GPUs and engines to one measurement. Pure.

Energy and tokens come from different targets at different instants, so both are interpolated to their common span. The
energy counter is the only sound source of energy: power gauges are sampled far apart and serve as a cross-check.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from energylens.api.words import counted
from energylens.measure.counters import Track, energy_track, ordered, token_track
from energylens.measure.load import is_fresh, load_figures, step_values
from energylens.measure.types import (
    EnergyReason,
    GpuEnergySeries,
    Percentile,
    TokenSeries,
    WindowMeasurement,
)
from energylens.records import dataclass

DEFAULT_CEILING_WATTS = 2000.0
"""Limit assumed if no power limit is known, W; above the limit of any GPU board sold in 2026 (B300: 1400 W)."""
FLOOR_WATTS = 2.0
"""Power below which no data-centre GPU idles, W (the smallest, L4, draws 14 W); a GPU that reads 1000-fold too low is
below it."""
CEILING_MARGIN = 1.1
"""Tolerated factor above the power limit: boards exceed it briefly, whereas a 1000-fold unit error is far above."""
POWER_AGREEMENT = 3.0
"""Largest factor between counter and gauge: a gauge sampled every 30 s misses bursts."""
MIN_POWER_SAMPLES = 4


@dataclass(frozen=True)
class WindowOptions:
    """A window, and the requirements on its figures. Times in seconds since the Unix epoch."""

    end: float
    window_seconds: float
    not_before: float = float("-inf")
    """Earliest start of the window: the revision's readiness plus warm-up."""
    percentile: Percentile = "P95"
    power_limit_watts: float | None = None
    """Power limit per GPU, W, if the series has none."""
    engines_expected: int = 1
    """Number of engine pods whose counters the ratio needs."""
    min_output_tokens: float = 100.0
    """Fewest tokens for the ratio: idle energy divided by a few tokens says nothing about serving."""
    min_overlap: float = 0.8
    """Share of the window that energy and tokens must cover together."""
    min_intervals: float = 4.0
    """Least length of the window in intervals between energy samples; in shorter windows the edges dominate."""
    stale_after_seconds: float = 120.0
    """Longest age of a sample: four collect intervals of dcgm-exporter at its default of 30 s."""

    @property
    def start(self) -> float:
        """Where the window begins."""
        return max(self.end - self.window_seconds, self.not_before)


@dataclass(frozen=True)
class _Gpu:
    series: GpuEnergySeries
    track: Track
    limit_watts: float


def measure_window(
    energy: Sequence[GpuEnergySeries], tokens: Sequence[TokenSeries], gpus_owned: int, options: WindowOptions
) -> WindowMeasurement:
    """Measure one window of one deployment.

    Args:
        energy: Counters of the GPUs attributed to the deployment; series of one UUID are merged.
        tokens: counters of its engine pods.
        gpus_owned: GPUs that the plan holds, all replicas together.
        options: the window and its acceptance rules.

    Returns:
        A measurement whose ``reason`` is ``Measured`` if every figure is available. Energy figures are None if GPUs are
        missing, too many, or implausible; the ratio also if tokens are missing or too few. ``error_bound_joules``
        estimates the uncertainty at the edges (two collect intervals x the range of power seen) plus energy lost at
        resets.

    Raises:
        ValueError: ``gpus_owned`` or ``window_seconds`` is not positive.
    """
    _check(gpus_owned, options)
    gpus = _gpus(energy, options)
    if silent := _silence(gpus, gpus_owned, options):
        return WindowMeasurement("NoSeries", silent)
    newest = max(gpu.track.last for gpu in gpus)
    begin = max(options.start, min(gpu.track.first for gpu in gpus))
    finish = min(options.end, newest)
    whole = [gpu for gpu in gpus if _covers(gpu.track, begin, finish, options.min_overlap)]
    coverage = 100.0 * min(1.0, len(whole) / gpus_owned)
    if len(whole) > gpus_owned:
        return WindowMeasurement(
            "NotAttributable",
            f"{counted(len(whole), 'GPU')} carry the pods' labels, but the plan owns {gpus_owned}",
            begin,
            finish,
        )
    start = max([begin, *(gpu.track.first for gpu in whole)])
    end = min([finish, *(gpu.track.last for gpu in whole)])
    gaps = np.concatenate([gpu.track.gaps(start, end) for gpu in whole]) if whole else np.array([])
    interval = float(np.median(gaps)) if gaps.size else 0.0
    if options.window_seconds < options.min_intervals * interval:
        return WindowMeasurement(
            "Collecting",
            f"a window of {options.window_seconds:.0f} s is too short: energy counters move every {interval:.0f} s, "
            f"so it must be {options.min_intervals * interval:.0f} s or longer",
            coverage_percent=coverage,
        )
    # The ends of the window fall between samples: at four intervals per window up to two of them stay open.
    needed = min(options.min_overlap * options.window_seconds, options.window_seconds - 2 * interval)
    if finish - begin < needed or not gaps.size:
        return WindowMeasurement("Collecting", _collecting("energy", finish - begin, needed), coverage_percent=coverage)
    implausible = [sentence for gpu in whole for sentence in _implausible(gpu, start, end)]
    if implausible:
        return WindowMeasurement("Implausible", "; ".join(implausible), start, end, coverage)
    if len(whole) < gpus_owned:
        return WindowMeasurement(
            "PartialCoverage", f"energy of {len(whole)} of {gpus_owned} GPUs over the window", start, end, coverage
        )
    return _with_tokens(whole, tokens, start, end, needed, options)


def _check(gpus_owned: int, options: WindowOptions) -> None:
    if gpus_owned < 1:
        raise ValueError(f"gpus_owned is {gpus_owned}, must be at least 1")
    if options.window_seconds <= 0:
        raise ValueError(f"window_seconds is {options.window_seconds}, must be above 0")


def _silence(gpus: Sequence[_Gpu], gpus_owned: int, options: WindowOptions) -> str:
    """Return why nothing can be measured, if no counter is present or none changes; otherwise ""."""
    if not gpus:
        return f"no energy counter for any of {counted(gpus_owned, 'GPU')}"
    newest, allowed = max(gpu.track.last for gpu in gpus), _allowed_age(gpus, options)
    if newest < options.end - allowed:
        return f"energy counters last moved {options.end - newest:.0f} s ago, allowed are {allowed:.0f} s"
    return ""


def _gpus(energy: Sequence[GpuEnergySeries], options: WindowOptions) -> list[_Gpu]:
    merged: dict[str, GpuEnergySeries] = {}
    for series in energy:
        known = merged.get(series.uuid)
        merged[series.uuid] = (
            series
            if known is None
            else replace(
                known,
                samples=known.samples + series.samples,
                power_samples=known.power_samples + series.power_samples,
                power_limit_watts=known.power_limit_watts or series.power_limit_watts,
            )
        )
    gpus = []
    for series in merged.values():
        limit = series.power_limit_watts or options.power_limit_watts or DEFAULT_CEILING_WATTS
        track = energy_track(series.samples, ceiling_watts=limit * CEILING_MARGIN)
        if track is not None:
            gpus.append(_Gpu(series, track, limit))
    return gpus


def _allowed_age(gpus: Sequence[_Gpu], options: WindowOptions) -> float:
    """Return how old the newest sample may be: a window without any is stale, unless it is shorter than the pace."""
    gaps = np.concatenate([np.diff(gpu.track.times) for gpu in gpus])
    pace = options.min_intervals * float(np.median(gaps)) if gaps.size else options.stale_after_seconds
    return min(options.stale_after_seconds, max(options.window_seconds, pace))


def _covers(track: Track, begin: float, finish: float, share: float) -> bool:
    return min(track.last, finish) - max(track.first, begin) >= share * (finish - begin)


def _collecting(what: str, seconds: float, needed: float) -> str:
    return f"{max(0.0, seconds):.0f} s of {what} so far, {needed:.0f} s are needed"


def _implausible(gpu: _Gpu, start: float, end: float) -> list[str]:
    """Return why a GPU's energy is impossible; empty if it is plausible."""
    joules = gpu.track.between(start, end)
    watts = joules / (end - start)
    # A scrape shows a value collected up to one collect interval earlier, so the window may hold one interval more.
    slack = float(gpu.track.gaps(start, end).max(initial=0.0))
    most = gpu.limit_watts * CEILING_MARGIN * (end - start + slack)
    if joules > most:
        return [
            f"GPU {gpu.series.uuid}: {joules:.0f} J in {end - start:.0f} s, "
            f"above its power limit of {gpu.limit_watts:.0f} W x time; check the counter's unit"
        ]
    if watts < FLOOR_WATTS:
        return [
            f"GPU {gpu.series.uuid}: {watts:.3g} W on average, below the {FLOOR_WATTS:.0f} W of any idle GPU; "
            "check the counter's unit"
        ]
    power = [sample for sample in ordered(gpu.series.power_samples) if start <= sample.time <= end]
    if len(power) < MIN_POWER_SAMPLES:
        return []
    values, times = (np.array([getattr(sample, name) for sample in power]) for name in ("value", "time"))
    gauge = float(np.trapezoid(values, times) / (times[-1] - times[0]))
    if not gauge / POWER_AGREEMENT <= watts <= gauge * POWER_AGREEMENT:
        return [f"GPU {gpu.series.uuid}: {watts:.3g} W by the energy counter, but {gauge:.3g} W by the power gauge"]
    return []


def _with_tokens(
    gpus: Sequence[_Gpu], tokens: Sequence[TokenSeries], start: float, end: float, needed: float, options: WindowOptions
) -> WindowMeasurement:
    usable = [series for series in tokens if is_fresh(series, options.end, options.stale_after_seconds)]
    if len(usable) < max(1, options.engines_expected):
        missing = f"token counters were found for {len(usable)} of {options.engines_expected} engine pods"
        return _energy_only(gpus, start, end, "TokensMissing", missing)
    tracks = [track for series in usable if (track := token_track(series.generation_tokens)) is not None]
    energy_span = (start, end)
    start = max([start, *(track.first for track in tracks)])
    end = min([end, *(track.last for track in tracks)])
    if end - start < needed:
        return _energy_only(
            gpus, *energy_span, "Collecting", _collecting("tokens and energy together", end - start, needed)
        )
    output_tokens = sum(track.between(start, end) for track in tracks)
    joules = sum(gpu.track.between(start, end) for gpu in gpus)
    measured = _energy_only(gpus, start, end, "Measured", _summary(joules, output_tokens, end - start, len(gpus)))
    measured = replace(
        measured,
        **load_figures(usable, start, end, options.percentile),
        idle_power_watts=_idle_watts(gpus, usable, tracks, start, end),
    )
    if output_tokens < options.min_output_tokens:
        return replace(
            measured,
            reason="TooFewTokens",
            message=f"{output_tokens:.0f} output tokens in {end - start:.0f} s, "
            f"the ratio needs {options.min_output_tokens:.0f}",
        )
    return replace(measured, joules_per_output_token=joules / output_tokens)


def _summary(joules: float, output_tokens: float, seconds: float, gpus: int) -> str:
    return f"{joules:.0f} J for {output_tokens:.0f} output tokens in {seconds:.0f} s on {counted(gpus, 'GPU')}"


def _energy_only(
    gpus: Sequence[_Gpu], start: float, end: float, reason: EnergyReason, message: str
) -> WindowMeasurement:
    joules = sum(gpu.track.between(start, end) for gpu in gpus)
    return WindowMeasurement(
        reason=reason,
        message=message,
        window_start=start,
        window_end=end,
        coverage_percent=100.0,
        energy_joules=joules,
        power_watts=joules / (end - start),
        error_bound_joules=sum(_error_bound(gpu, start, end) for gpu in gpus),
    )


def _error_bound(gpu: _Gpu, start: float, end: float) -> float:
    """Return the joules that interpolation at both edges, the age of a collected value, and resets may hide.

    At each edge the power within an interval may be anywhere in the observed range: together at most one interval x
    range. A value is up to one collect interval older than its scrape: at most one more.
    """
    seen = np.concatenate(
        [
            gpu.track.slopes(start, end),
            np.array([sample.value for sample in gpu.series.power_samples if start <= sample.time <= end]),
        ]
    )
    spread = float(seen.max() - seen.min())
    return 2.0 * float(gpu.track.gaps(start, end).max()) * spread + gpu.track.lost_between(start, end)


def _idle_watts(
    gpus: Sequence[_Gpu], tokens: Sequence[TokenSeries], tracks: Sequence[Track], start: float, end: float
) -> float | None:
    """Return the mean power while no engine had a running sequence or generated a token; None without such a span.

    A span is shortened by one interval of the energy samples at both ends, so that it contains no interpolated energy
    of a busy moment.
    """
    if not tokens or not all(series.running for series in tokens):
        return None
    times = {sample.time for series in tokens for sample in (*series.running, *series.generation_tokens)}
    grid = np.array(sorted(time for time in {start, end, *times} if start <= time <= end))
    idle = np.ones(len(grid) - 1, dtype=np.bool_)
    for series, track in zip(tokens, tracks, strict=True):
        running = step_values(series.running, grid)
        idle &= (running[:-1] == 0) & (running[1:] == 0) & (np.diff(track.at(grid)) == 0)
    margin = max(float(gpu.track.gaps(start, end).max()) for gpu in gpus)
    joules = seconds = 0.0
    edges = np.flatnonzero(np.diff(np.concatenate([[False], idle, [False]]).astype(np.int8)))
    for first, last in edges.reshape(-1, 2):
        begin, finish = float(grid[first]) + margin, float(grid[last]) - margin
        if finish > begin:
            joules += sum(gpu.track.between(begin, finish) for gpu in gpus)
            seconds += finish - begin
    return joules / seconds if seconds else None


def measure_load(tokens: Sequence[TokenSeries], options: WindowOptions) -> WindowMeasurement:
    """Measure tokens and latencies without energy; the energy figures are None.

    Args:
        tokens: Counters of the engine pods.
        options: The window and its acceptance rules.
    """
    usable = [series for series in tokens if is_fresh(series, options.end, options.stale_after_seconds)]
    if len(usable) < max(1, options.engines_expected):
        missing = f"token counters were found for {len(usable)} of {options.engines_expected} engine pods"
        return WindowMeasurement("TokensMissing", missing)
    tracks = [track for series in usable if (track := token_track(series.generation_tokens)) is not None]
    start = max([options.start, *(track.first for track in tracks)])
    end = min([options.end, *(track.last for track in tracks)])
    needed = options.min_overlap * options.window_seconds
    if end - start < needed:
        return WindowMeasurement("Collecting", _collecting("tokens", end - start, needed))
    figures = load_figures(usable, start, end, options.percentile)
    return WindowMeasurement("NoSeries", "the energy is not measured", start, end, **figures)
