"""Prompts on data-parallel ranks that step together: how often one of them delays all, and with how many tokens."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from energylens.predictor.load.mixture import normal_quantiles
from energylens.predictor.load.step_law import normal_share
from energylens.predictor.step.lockstep import Lockstep
from energylens.predictor.types import FloatArray
from energylens.records import dataclass

BUSIEST = 0.995
"""Largest share of a rank's steps that prefill; with more prompts, fewer sequences run."""
SMALLEST_ROOM = 64.0
"""Prompt tokens for which a step has room at least, as a full step would otherwise never prefill."""
PROMPT_VARIATION = 0.3
"""Squared coefficient of variation of prompts whose lengths are not known: that of the fitted ``prompt_spread``."""
_LEVELS = np.array([0.0694318442, 0.3300094782, 0.6699905218, 0.9305681558])
_WEIGHTS = np.array([0.1739274226, 0.3260725774, 0.3260725774, 0.1739274226])
"""Gauss-Legendre quadrature over the levels of a distribution."""


@dataclass(frozen=True)
class RankPrompts:
    """Prompts of the steps of a group of ranks, arrays of shape (n,)."""

    starts: FloatArray
    """Mean starts per step of a Poisson process whose steps with starts match the steps in which any rank prefills."""
    tokens: FloatArray
    """Prompt tokens in such a step on each rank with prompts; on an engine with padding, on the rank that has most."""
    everywhere: FloatArray
    """Prompt tokens of all ranks together."""
    padding: FloatArray
    """Rows that pad ranks to the rank with the most prompt tokens, on all of them together, in the mean step."""


def rank_prompts(
    rate: FloatArray,
    ranks: FloatArray,
    prompt: float,
    chunks: FloatArray,
    lockstep: Lockstep,
    variation: float = PROMPT_VARIATION,
    decoding: FloatArray | float = 0.0,
) -> RankPrompts:
    """Return the prompts of a step in which any rank prefills.

    Each rank has a scheduler and a chunk of its own. It prefills in a step with probability 1 - exp(-rate) where a
    chunk holds whole prompts, and in rate x prompt / chunk of its steps where a prompt takes several chunks. Ranks are
    independent: stalls of one rank overlap with those of others, the more the busier each of them is.

    Args:
        rate: Requests that start per step on each rank, shape (n,).
        ranks: Number of ranks that step together, shape (n,).
        prompt: Computed tokens of a prompt.
        chunks: Chunks that a rank computes in a step, shape (n,): one for each micro-batch of a pipeline.
        lockstep: How the ranks synchronise their steps.
        variation: Squared coefficient of variation of the computed prompts.
        decoding: Tokens of running sequences in a step of each rank, shape (n,).
    """
    beside = decoding if lockstep.holds_decodes else 0.0
    room = np.maximum(lockstep.chunk - beside, SMALLEST_ROOM) * chunks
    busy = np.clip(np.maximum(-np.expm1(-rate), rate * prompt / room), 1e-12, BUSIEST)
    starts = -ranks * np.log1p(-busy) / lockstep.clump
    share = np.maximum(-np.expm1(-starts), 1e-12)
    holding = np.clip(ranks * busy / share, 1.0, ranks)
    everywhere = prompt * rate * ranks / share
    tokens = everywhere / holding
    if not lockstep.padded:
        return RankPrompts(starts, tokens, everywhere, np.zeros_like(tokens))
    count = np.maximum(rate / busy, 1.0)
    square = np.maximum((variation + 1.0 + rate - count) / count, 0.0)
    longest = _Longest(busy, ranks, tokens, np.sqrt(np.log1p(square)), room)
    most = longest.mean()
    padded = longest.share_below(np.maximum(lockstep.graphs - decoding, 0.0) * chunks) if lockstep.graphed else 1.0
    return RankPrompts(starts, most, everywhere, padded * np.maximum(ranks * most - everywhere, 0.0))


@dataclass(frozen=True)
class _Longest:
    """Prompt tokens on the rank with most of them, in steps in which any rank has some; arrays of shape (n,).

    The tokens of a rank with prompts are a Poisson number of prompts, which the room of a step bounds; their sum is
    taken as log-normal. The largest of independent ranks is below t with probability P(one rank is below t)^ranks.
    """

    busy: FloatArray
    """Share of the steps in which a rank has prompts."""
    ranks: FloatArray
    tokens: FloatArray
    """Mean tokens of a rank with prompts."""
    deviation: FloatArray
    """Standard deviation of the logarithm of these tokens."""
    room: FloatArray

    @cached_property
    def plain_mean(self) -> FloatArray:
        """The mean by quadrature, shape (n,)."""
        return np.asarray(_WEIGHTS @ self._quantiles(_LEVELS[:, None]))

    def mean(self) -> FloatArray:
        """Return the mean, at least that of any rank with prompts, shape (n,)."""
        return np.maximum(self.plain_mean, self.tokens)

    def share_below(self, tokens: FloatArray) -> FloatArray:
        """Return the share of all such tokens that belongs to steps whose longest rank has at most ``tokens``."""
        with np.errstate(divide="ignore"):
            z = (np.log(tokens / self.tokens) + self.deviation**2 / 2.0) / np.maximum(self.deviation, 1e-9)
        none = (1.0 - self.busy) ** self.ranks
        below = (1.0 - self.busy + self.busy * normal_share(np.clip(z, -9.0, 9.0))) ** self.ranks
        steps = np.where(tokens >= self.room, 1.0, np.clip((below - none) / (1.0 - none), 0.0, 1.0))
        if not steps.any():
            return steps
        part = steps * (_WEIGHTS @ self._quantiles(_LEVELS[:, None] * steps))
        return np.asarray(part / self.plain_mean)

    def _quantiles(self, levels: FloatArray) -> FloatArray:
        none = (1.0 - self.busy) ** self.ranks
        level = (levels * (1.0 - none) + none) ** (1.0 / self.ranks)
        quantile = normal_quantiles((level - (1.0 - self.busy)) / self.busy)
        return np.minimum(self.tokens * np.exp(self.deviation * quantile - self.deviation**2 / 2.0), self.room)
