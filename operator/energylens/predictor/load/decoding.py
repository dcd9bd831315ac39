"""Distributions over requests of the time from the first token to the last, and from arrival to the last token.

A request experiences the mean of the steps during its life. Under an arrival rate these means differ by the sequences
that run meanwhile and by the prompts that arrive; both are sums over the arrivals during one life and during the life
before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from energylens.predictor.load.mixture import normal_quantile
from energylens.predictor.load.occupancy import MOST_GROWTH, Occupancy
from energylens.predictor.load.step_law import MOST_PREFILL, normal_share
from energylens.predictor.requests import RequestClass
from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass

LEAST_TOKENS = 1e-9
"""Least tokens after the first token, for requests without any, so that their logarithm is finite."""
NARROWEST, FAR, HALVINGS = 1e-3, 4.0, 24
"""Parameters of a search in the logarithm of a time: number of distinguished spreads, standard deviations searched, and
bisections."""
TOGETHER = 0.3
"""Correlation of a request's wait for its first token with the time of its other tokens; 0.2 to 0.5 in simulations."""


@dataclass(frozen=True)
class Decoding:
    """Time per output token of requests relative to steps at the mean number of running sequences.

    Log-normal over requests, up to the pace of a full batch; arrays of shape (n,).
    """

    median: FloatArray
    spread: FloatArray
    """Standard deviation of the logarithm."""
    most: FloatArray
    """Ratio with all places taken; infinite if it is unknown."""

    def take(self, index: IntArray) -> Decoding:
        """Return the rows of an index array of shape (m,)."""
        return Decoding(self.median[index], self.spread[index], self.most[index])

    def quantile(self, level: float) -> FloatArray:
        """Return a quantile, shape (n,)."""
        return np.asarray(np.minimum(self.median * np.exp(normal_quantile(level) * self.spread), self.most))


@dataclass(frozen=True)
class Life:
    """Conditions of a request from its first token to its last, in its lane; arrays of shape (n,).

    A lane is a part of a replica that steps independently, with its share of the requests.
    """

    running: FloatArray
    """Mean running sequences of the lane by Little's law with the mean step, positive."""
    around: Occupancy
    """Distribution of the running sequences of the lane over time."""
    growth: FloatArray
    """Relative growth of the mean step with the logarithm of the sequences."""
    rate: FloatArray
    """Requests per second that join the steps of the lane."""
    prompt: FloatArray
    """Seconds of a prompt of mean length."""
    prompt_variance: float
    """Variance of a prompt's length over the square of the mean."""
    arrival_variation: FloatArray
    """Squared coefficient of variation of the times between requests of the lane."""
    seconds: FloatArray
    """Time per output token of a request at the mean number of sequences, s."""
    fullest: FloatArray
    """Ratio of the time with all places taken to that at the mean number of sequences."""


def decoding(life: Life) -> Decoding:
    """Return the distribution of the time per output token over requests."""
    mean = life.around.mean / life.running
    growth = np.clip(life.growth, 0.0, MOST_GROWTH)
    left = 1.0 - np.minimum(life.rate * life.prompt, MOST_PREFILL)
    # The autocorrelation of the number falls linearly to 0 over one life, and more slowly by 1 - growth if steps grow
    # with the number. This gives the share of its variance that remains in its mean over a life.
    kept = 1.0 - (1.0 - growth) / 3.0
    sequences = growth**2 * kept * life.around.variance / life.around.mean**2
    prompts = life.rate * (life.prompt / left) ** 2 * (life.arrival_variation + life.prompt_variance)
    # Requests that arrive during a life also run beside it, for half of it on average.
    both = growth * life.arrival_variation * life.prompt / left
    variance = np.log1p(sequences + (prompts + both) / np.maximum(mean * life.seconds, 1e-12))
    return Decoding(np.asarray(mean * np.exp(-variance / 2.0)), np.sqrt(variance), life.fullest)


def until_last_token(tpot: Mapping[float, FloatArray], parts: Sequence[RequestClass]) -> dict[float, FloatArray]:
    """Return quantiles of the time from the first token to the last by level, in units of ``tpot``, shape (n,) each.

    Args:
        tpot: Quantiles of the time per output token, shape (n,) each, the median and the 95th percentile among them.
        parts: Classes of requests; output tokens are log-normal within each class.
    """
    found = {}
    usual = np.log(tpot[0.95] / tpot[0.5]) / normal_quantile(0.95)
    for level, quantile in tpot.items():
        z = normal_quantile(level)
        slower = usual if level == 0.5 else np.log(quantile / tpot[0.5]) / z
        logs, spreads = [], []
        for part in parts:
            lengths = math.log1p(part.output_variation)
            logs.append(math.log(max(part.output_tokens - 1.0, LEAST_TOKENS)) - lengths / 2.0)
            spreads.append(np.sqrt(slower**2 + lengths))
        if len(parts) == 1:
            away = logs[0] + z * spreads[0]
        else:
            away = _of_mixture(level, [part.share for part in parts], logs, spreads)
        found[level] = np.asarray(tpot[0.5] * np.exp(away))
    return found


def _of_mixture(
    level: float, shares: Sequence[float], means: Sequence[float], spreads: Sequence[FloatArray]
) -> FloatArray:
    """Return a quantile of a mixture of normal variables, shape (n,), by bisection."""
    widths = [np.maximum(spread, NARROWEST) for spread in spreads]
    low = np.min([mean - FAR * width for mean, width in zip(means, widths, strict=True)], axis=0)
    high = np.max([mean + FAR * width for mean, width in zip(means, widths, strict=True)], axis=0)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        below = sum(
            share * normal_share((middle - mean) / width)
            for share, mean, width in zip(shares, means, widths, strict=True)
        )
        under = below < level
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return np.asarray((low + high) / 2.0)


def end_to_end(first_median: FloatArray, first: FloatArray, rest_median: FloatArray, rest: FloatArray) -> FloatArray:
    """Return a quantile of the time from a request's arrival to its last token, shape (n,); infinite if an input is.

    Medians add up. The excesses over them add like standard deviations of normal variables with correlation
    :data:`TOGETHER`.

    Args:
        first_median: Median TTFT.
        first: Quantile of the TTFT at the same level.
        rest_median: Median of the time from the first token to the last.
        rest: Quantile of that time at the same level.
    """
    with np.errstate(invalid="ignore"):
        a, b = first - first_median, rest - rest_median
        found = first_median + rest_median + np.sqrt(a**2 + b**2 + 2.0 * TOGETHER * a * b)
    return np.where(np.isfinite(first), found, np.inf)
