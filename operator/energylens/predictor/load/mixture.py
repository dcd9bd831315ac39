"""Continuous batching in steady state: steps that only decode, and steps that also prefill arriving requests.

In a replica with b running sequences of S output tokens each, b/S requests end per step, and as many start. Starts per
step are Poisson distributed. Throughput follows from the mean step; inter-token latencies are quantiles of the mixture,
so that the median mostly excludes prefill.
"""

from __future__ import annotations

from functools import lru_cache
from math import erf, sqrt

import numpy as np

from energylens.predictor.types import FloatArray, IntArray
from energylens.records import dataclass

MANY = 6.0
"""Starts per step above which the Poisson distribution is approximated as normal."""
TERMS = 16
FITTED_LOWEST = 1e-3
LOWEST = 1e-6
"""Lowest level of a quantile and, as the distance from 1, the highest."""
SHORTEST = 0.02
"""Level of the shortest prompts that are distinguished among steps with starts."""
_MIDDLE = (
    (-3.969683028665376e1, 2.209460984245205e2, -2.759285104469687e2, 1.383577518672690e2, -3.066479806614716e1,
     2.506628277459239),
    (-5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1, 1.0),
)  # fmt: skip
_TAIL = (
    (-7.784894002430293e-3, -3.223964580411365e-1, -2.400758277161838, -2.549732539343734, 4.374664141464968,
     2.938163982698783),
    (7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416, 1.0),
)  # fmt: skip
_TAIL_BELOW = 0.02425


@dataclass(frozen=True)
class StepMixture:
    """Two kinds of steps; arrays of shape (n,), seconds."""

    starts: FloatArray
    """Mean requests that start per step."""
    decode: FloatArray
    """Time of a step that only decodes."""
    mixed: FloatArray
    """Time of a step that also prefills the mean number of starts given at least one."""
    base: FloatArray
    """Part of ``mixed`` beyond ``decode`` that does not grow with the number of starts."""
    prompt_spread: float | FloatArray = 0.0
    """Standard deviation of the logarithm of the prompt length; most prompts are shorter than the mean."""

    def take(self, index: IntArray) -> StepMixture:
        """Return the mixtures of an index array of shape (m,)."""
        spread = self.prompt_spread
        return StepMixture(
            self.starts[index],
            self.decode[index],
            self.mixed[index],
            self.base[index],
            spread if isinstance(spread, float) else np.broadcast_to(spread, self.starts.shape)[index],
        )

    @property
    def mixed_share(self) -> FloatArray:
        """Share of steps that prefill."""
        return np.asarray(-np.expm1(-self.starts))

    @property
    def mean(self) -> FloatArray:
        """Mean step."""
        share = self.mixed_share
        return np.asarray((1.0 - share) * self.decode + share * self.mixed)

    def tpot(self, running: FloatArray) -> FloatArray:
        """Return the mean time per output token of a request, with the prefill of other requests but not its own.

        Args:
            running: Sequences whose prompts hold up each other, those of all ranks that step together, shape (n,): all
                but one of the prompts are others'.
        """
        others = np.maximum(1.0 - 1.0 / np.maximum(running, 1.0), 0.0)
        return np.asarray(self.decode + (self.mean - self.decode) * others)

    def tpot_spread(self, running: FloatArray, output_tokens: float) -> FloatArray:
        """Return the standard deviation of the logarithm of the time per output token over requests, shape (n,).

        A request's time per output token is the mean of its steps, which differ by the prompts that start in them: a
        Poisson number, each of log-normal length. The mean of k such steps has 1/k of the variance of one step.

        Args:
            running: Sequences whose prompts hold up each other, shape (n,), as for :meth:`tpot`.
            output_tokens: Output tokens of a request; the harmonic mean if outputs differ.
        """
        base, slope = self._line()
        once, share = base - self.decode, self.mixed_share
        prompt = np.exp(np.asarray(self.prompt_spread, dtype=np.float64) ** 2)
        variance = once**2 * share * (1.0 - share) + slope**2 * self.starts * prompt
        variance += 2.0 * once * slope * self.starts * (1.0 - share)
        others = np.maximum(1.0 - 1.0 / np.maximum(running, 1.0), 0.0)
        steps = max(output_tokens - 1.0, 1.0)
        return np.asarray(np.sqrt(np.log1p(variance * others / (steps * self.tpot(running) ** 2))))

    @property
    def once(self) -> FloatArray:
        """Part of a step that starts requests, beyond one that only decodes, that does not grow with their number."""
        return self._line()[0] - self.decode

    @property
    def starts_when_mixed(self) -> FloatArray:
        """Mean starts in a step with at least one."""
        return np.where(self.starts > 1e-9, self.starts / np.maximum(self.mixed_share, 1e-12), 1.0)

    def with_starts(self, count: FloatArray) -> FloatArray:
        """Return the time of a step with ``count`` > 0 starts of mean length."""
        base, slope = self._line()
        return np.asarray(base + slope * count)

    def _line(self) -> tuple[FloatArray, FloatArray]:
        """Return the time of a step that starts requests without the part that grows with them, and that part."""
        base = np.minimum(self.base, np.maximum(self.mixed - self.decode, 0.0))
        slope = np.maximum(self.mixed - self.decode - base, 0.0) / self.starts_when_mixed
        return self.decode + base, slope

    def quantile(self, level: float | FloatArray) -> FloatArray:
        """Return a quantile of the step time over steps, shape (n,); ``level`` is one number or has that shape.

        Coefficients are fitted with this quantile. Far above the median, :meth:`tail` is more accurate: here the prompt
        length is taken at the level of the whole step, although few steps have a prompt.

        Steps between two counts of starts blend over a narrow range of levels, so that the result is continuous.
        """
        width = 0.08 * (1.0 - level)
        z = normal_quantiles(np.clip(np.asarray(level, dtype=np.float64), FITTED_LOWEST, 1.0 - FITTED_LOWEST))
        spread = np.asarray(self.prompt_spread, dtype=np.float64)
        value = self.decode.copy()
        few = np.minimum(self.starts, MANY)
        probability = np.exp(-few)
        cumulative = probability.copy()
        before, (base, slope) = self.decode, self._line()
        for count in range(1, TERMS + 1):
            after = base + slope * (float(count) * _length_quantile(z, spread, float(count)))
            weight = 1.0 / (1.0 + np.exp(np.clip((cumulative - level) / width, -60.0, 60.0)))
            value += np.maximum(after - before, 0.0) * weight
            before = after
            probability = probability * few / count
            cumulative = cumulative + probability
        # With many starts, a Poisson number of log-normal lengths has a sum with this squared coefficient of variation.
        many = np.maximum(self.starts, 1.0)
        variation = np.log1p(np.exp(spread**2) / many)
        total = many * np.exp(z * np.sqrt(variation) - variation / 2.0)
        return np.where(self.starts > MANY, base + slope * total, value)

    def tail(self, level: float, median: FloatArray | None = None) -> FloatArray:
        """Return a high quantile of the step time over steps, shape (n,), never below the median.

        ``median`` is ``quantile(0.5)`` if it is known, shape (n,).

        A step with starts has a Poisson number of prompts, at least one, of log-normal lengths. Their sum is
        approximated as log-normal with the same mean and variance. At the level where such steps begin, the result
        rises over a narrow range of levels, so that it is continuous.
        """
        none = np.exp(-self.starts)
        z = normal_quantiles(np.maximum((level - none) / np.maximum(1.0 - none, 1e-12), SHORTEST))
        mean, variance = self.prompts()
        width = np.log1p(variance / mean**2)
        base, slope = self._line()
        prompts = base + slope * mean * np.exp(z * np.sqrt(width) - width / 2.0)
        any_start = 1.0 / (1.0 + np.exp(np.clip((none - level) / (0.08 * (1.0 - level)), -60.0, 60.0)))
        median = self.quantile(0.5) if median is None else median
        return np.maximum(self.decode + (prompts - self.decode) * any_start, median)

    @property
    def prompt_variance(self) -> float | FloatArray:
        """Variance of a prompt's length over the square of the mean length."""
        return np.expm1(np.asarray(self.prompt_spread, dtype=np.float64) ** 2)

    def prompts(self) -> tuple[FloatArray, FloatArray]:
        """Return mean and variance of the prompt tokens of a step that has any, in prompts of mean length."""
        mean = self.starts_when_mixed
        square = mean * (1.0 + self.prompt_variance + self.starts)
        return mean, np.maximum(square - mean**2, 1e-6)


def _length_quantile(z: FloatArray, spread: FloatArray, count: float) -> FloatArray:
    """Return a quantile of the mean length of ``count`` prompts, relative to the mean of all prompts."""
    variance = np.log1p(np.expm1(spread**2) / count)
    return np.asarray(np.exp(z * np.sqrt(variance) - variance / 2.0))


def normal_cdf(x: float) -> float:
    """Return the standard normal distribution function."""
    return 0.5 * (1.0 + erf(x / sqrt(2.0)))


def normal_quantiles(levels: FloatArray) -> FloatArray:
    """Return :func:`normal_quantile` of every level, shape of ``levels``, within 1e-8.

    Uses P. J. Acklam's rational approximation. Levels outside of 0 to 1 are clipped to nearly 0 and nearly 1.
    """
    p = np.clip(np.asarray(levels, dtype=np.float64), LOWEST, 1.0 - LOWEST)
    smaller = np.minimum(p, 1.0 - p)
    q = np.sqrt(-2.0 * np.log(smaller))
    tail = np.polyval(_TAIL[0], q) / np.polyval(_TAIL[1], q)
    r = p - 0.5
    middle = r * np.polyval(_MIDDLE[0], r * r) / np.polyval(_MIDDLE[1], r * r)
    return np.asarray(np.where(smaller < _TAIL_BELOW, np.where(p < 0.5, tail, -tail), middle))


@lru_cache(maxsize=256)
def normal_quantile(level: float) -> float:
    """Return the standard normal quantile by bisection.

    Raises:
        ValueError: ``level`` is not strictly between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be between 0 and 1, not {level}")
    low, high = -8.0, 8.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if normal_cdf(middle) < level else (low, middle)
    return 0.5 * (low + high)
