"""How far the median ITL that the operator reads off vLLM's histogram is from that of the measured runs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from tests.unit.measure.builders import engine, gpu, grid, options

from energylens.measure.quantiles import quantile
from energylens.measure.types import Histogram, HistogramSample
from energylens.measure.window import measure_window
from energylens_dev.replay.fleet import ITL_BOUNDS, itl_shares
from energylens_dev.replay.runs import measured_runs

TIMES = grid(0, 600, 150)


def test_the_mean_within_the_bucket_is_nearer_to_the_median_than_a_linear_guess() -> None:
    """docs/measurement.md has both figures."""
    linear, guessed = [], []
    for run in measured_runs():
        assert run.measured is not None
        found, rate = run.measured, run.measured.output_tokens_per_second
        shares = itl_shares((found.median_itl_ms, found.p90_itl_ms, found.p95_itl_ms, found.p99_itl_ms))  # type: ignore[arg-type]
        bounds = (*ITL_BOUNDS, math.inf)

        def counted(time: float, rate: float = rate, shares: tuple[float, ...] = tuple(shares)) -> Histogram:  # type: ignore[assignment]
            return Histogram((*ITL_BOUNDS, math.inf), tuple(rate * time * share for share in shares))

        series = replace(
            engine(rate=rate, times=TIMES, running=lambda time, running=run.concurrency: running),  # type: ignore[arg-type, misc]
            itl=tuple(HistogramSample(time, counted(time)) for time in TIMES),
        )
        result = measure_window([gpu(times=TIMES)], [series], 1, options(percentile="P50"))
        assert result.latency is not None
        assert result.latency.itl_ms is not None
        guessed.append(result.latency.itl_ms / found.median_itl_ms - 1)
        linear.append(1000 * quantile(Histogram(bounds, tuple(shares)), 0.5)[0] / found.median_itl_ms - 1)
    assert len(guessed) == 316
    assert round(float(100 * np.mean(np.abs(guessed))), 1) == 8.3
    assert round(float(100 * np.mean(np.abs(linear))), 1) == 13.4
