"""Prompts on data-parallel ranks that step together: how often one of them delays all, and with how many tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from energylens.predictor.step.lockstep import Lockstep
from energylens.predictor.types import FloatArray

BUSIEST = 0.995
"""Largest share of a rank's steps that prefill; with more prompts, fewer sequences run."""


@dataclass(frozen=True)
class RankPrompts:
    """Prompts of the steps of a group of ranks, arrays of shape (n,)."""

    starts: FloatArray
    """Mean starts per step of a Poisson process whose steps with starts match the steps in which any rank prefills."""
    tokens: FloatArray
    """Prompt tokens in such a step on each rank with prompts."""
    everywhere: FloatArray
    """The same on all ranks together."""
    padding: FloatArray
    """Rows that pad the ranks without prompts, on all of them together."""


def rank_prompts(
    rate: FloatArray, ranks: FloatArray, prompt: float, chunks: FloatArray, lockstep: Lockstep
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
    """
    busy = np.clip(np.maximum(-np.expm1(-rate), rate * prompt / (lockstep.chunk * chunks)), 1e-12, BUSIEST)
    starts = -ranks * np.log1p(-busy) / lockstep.clump
    share = np.maximum(-np.expm1(-starts), 1e-12)
    holding = np.clip(ranks * busy / share, 1.0, ranks)
    everywhere = prompt * rate * ranks / share
    tokens = everywhere / holding
    padding = (ranks - holding) * tokens if lockstep.padded else np.zeros_like(tokens)
    return RankPrompts(starts, tokens, everywhere, padding)
