"""Steps of a full replica whose prompts are longer than a step: quantiles of steps, and the steps that a prompt takes.

An engine limits the tokens of a step. With a fixed number of requests in flight, as many start per step whatever the
limit is, and a prompt beyond the limit takes several steps: more steps have prompts, and none is longer than a full
one. Throughput is assumed to be the same, since the additional steps of a prompt also decode.
"""

from __future__ import annotations

import numpy as np

from energylens.predictor.load.mixture import SHORTEST, StepMixture, normal_quantiles
from energylens.predictor.load.step_law import normal_share
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

HALVINGS = 30
RARE = 1e-4
"""Share of the steps with new prompts below which a limit changes no quantile."""


@dataclass(frozen=True)
class Chunks:
    """How prompts fill the steps of full replicas; arrays of shape (n,)."""

    mixture: StepMixture
    room: FloatArray
    """Starts of the mixture for which a step has room."""
    together: FloatArray
    """Prompts in a start."""

    @property
    def _log_mean(self) -> FloatArray:
        mean, variance = self.mixture.prompts()
        return np.asarray(np.log(mean) - np.log1p(variance / mean**2) / 2.0)

    @property
    def _spread(self) -> FloatArray:
        mean, variance = self.mixture.prompts()
        return np.asarray(np.sqrt(np.log1p(variance / mean**2)))

    @property
    def longer(self) -> FloatArray:
        """Probability that the prompts that start together need more than one step."""
        return np.asarray(1.0 - normal_share((np.log(self.room) - self._log_mean) / self._spread))

    @property
    def of_prompt(self) -> FloatArray:
        """Mean number of steps in which one prompt is computed: its last step is half full on average."""
        spread = np.maximum(np.asarray(self.mixture.prompt_spread, dtype=np.float64), 1e-3)
        room = self.room * self.together
        edge = (np.log(room) + spread**2 / 2.0) / spread
        longer, beyond = normal_share(-edge), normal_share(spread - edge)
        return np.asarray(1.0 - longer / 2.0 + beyond / room)

    def quantile(self, level: float) -> FloatArray:
        """Return a quantile of the step time over steps, s, shape (n,)."""
        mixture, room, longer = self.mixture, self.room, self.longer
        log, spread = self._log_mean, self._spread
        mean, _ = mixture.prompts()
        starts = mixture.mixed_share
        beyond = mean * normal_share(spread - (np.log(room) - log) / spread)
        # As in `step_law`: a cluster takes whole steps, and shares its last one with the next cluster if one waits.
        last = np.maximum(1.0 - longer / 2.0 + (beyond - mean) / room, 0.0)
        mixed = np.minimum(starts * (mean / room + last) / (1.0 + starts * last * longer), 1.0)
        ends = np.minimum(starts * (1.0 - mixed * longer) / np.maximum(mixed, 1e-12), 1.0)
        none = 1.0 - mixed
        within = np.maximum((level - none) / np.maximum(mixed, 1e-12), SHORTEST) / np.maximum(ends, 1e-12)
        low, high = np.log(room) - 12.0, np.log(room)
        for _ in range(HALVINGS):
            middle = (low + high) / 2.0
            below = normal_share((middle - log) / spread) + longer * np.exp(middle) / room < within
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        # Without a limit, the quantile of all prompts that start together.
        unlimited = log + spread * normal_quantiles(np.minimum(within, 1.0))
        prompts = np.exp(np.where(longer > RARE, high, np.minimum(unlimited, high)))
        time = mixture.with_starts(prompts)
        any_prompt = 1.0 / (1.0 + np.exp(np.clip((none - level) / (0.08 * (1.0 - level)), -60.0, 60.0)))
        return np.asarray(mixture.decode + (time - mixture.decode) * any_prompt)
