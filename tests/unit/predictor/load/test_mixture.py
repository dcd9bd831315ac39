"""Quantiles of steps against steps that are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.predictor.load.mixture import StepMixture

SPREAD = 0.6
DECODE, BASE, PROMPT = 0.010, 0.004, 0.012
"""Seconds: a step that decodes, what any prompt adds to it, and what a mean prompt adds beyond that."""
LEVELS = (0.9, 0.95, 0.99)


def mixture(starts: float, spread: float = SPREAD) -> StepMixture:
    when_mixed = starts / -np.expm1(-starts)
    mixed = DECODE + BASE + PROMPT * when_mixed
    return StepMixture(np.array([starts]), np.array([DECODE]), np.array([mixed]), np.array([BASE]), spread)


def drawn(starts: float, rng: np.random.Generator, n: int = 200_000) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    counts = rng.poisson(starts, n)
    lengths = np.exp(rng.normal(-(SPREAD**2) / 2, SPREAD, counts.sum()))
    tokens = np.bincount(np.repeat(np.arange(n), counts), lengths, n)
    return np.where(counts > 0, DECODE + BASE + PROMPT * tokens, DECODE)


@pytest.mark.parametrize("starts", [0.003, 0.07, 0.3, 1.0, 3.0, 12.0])
def test_quantiles_are_those_of_the_steps(starts: float) -> None:
    steps, sample = mixture(starts), drawn(starts, np.random.default_rng(3))
    for level in LEVELS:
        assert steps.tail(level)[0] == pytest.approx(np.quantile(sample, level), rel=0.12), level


@pytest.mark.parametrize("level", LEVELS)
def test_quantiles_are_continuous_in_the_load(level: float) -> None:
    starts = np.geomspace(1e-4, 20, 40_000)
    when_mixed = starts / -np.expm1(-starts)
    decode, base = np.full_like(starts, DECODE), np.full_like(starts, BASE)
    values = StepMixture(starts, decode, DECODE + BASE + PROMPT * when_mixed, base, SPREAD).tail(level)
    assert np.all(np.diff(values) > -1e-12)
    assert np.max(values[1:] / values[:-1]) < 1.01
