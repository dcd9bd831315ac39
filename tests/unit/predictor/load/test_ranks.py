"""Prompts of data-parallel ranks that step together, against a count of steps."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.predictor.load.ranks import RankPrompts, rank_prompts
from energylens.predictor.step.lockstep import Lockstep

RANKS = 8.0


def found(rate: float, *, prompt: float = 1000.0, chunk: float = 16384.0, padded: bool = True) -> RankPrompts:
    one, lockstep = np.ones(1), Lockstep(padded=padded, chunk=chunk)
    return rank_prompts(rate * one, RANKS * one, prompt, one, lockstep)


def share(prompts: RankPrompts) -> float:
    return float(-np.expm1(-prompts.starts[0]))


@pytest.mark.parametrize(("rate", "prompt", "chunk"), [(0.05, 1000.0, 16384.0), (0.05, 8192.0, 2048.0)])
def test_steps_with_a_prompt_are_as_many_as_ranks_that_queue_their_chunks_have(
    rate: float, prompt: float, chunk: float
) -> None:
    random, waiting = np.random.default_rng(7), np.zeros(int(RANKS))
    steps, held_up, tokens = 20_000, 0, 0.0
    for _ in range(steps):
        waiting += prompt * random.poisson(rate, int(RANKS))
        taken = np.minimum(waiting, chunk)
        waiting -= taken
        held_up += bool(taken.any())
        tokens += taken.sum()
    assert share(found(rate, prompt=prompt, chunk=chunk)) == pytest.approx(held_up / steps, rel=0.05)
    assert found(rate, prompt=prompt, chunk=chunk).everywhere[0] == pytest.approx(tokens / held_up, rel=0.05)


def test_all_prompt_tokens_are_computed_whatever_the_chunks() -> None:
    for chunk in (1000.0, 2048.0, 16384.0):
        prompts = found(0.1, prompt=4000.0, chunk=chunk)
        assert share(prompts) * prompts.everywhere[0] == pytest.approx(0.1 * RANKS * 4000.0)


def test_stalls_of_busy_ranks_overlap() -> None:
    few, many = found(0.01, prompt=8000.0, chunk=2048.0), found(0.2, prompt=8000.0, chunk=2048.0)
    assert few.everywhere[0] / few.tokens[0] == pytest.approx(1.0, rel=0.2)
    assert many.everywhere[0] / many.tokens[0] > 0.75 * RANKS
    assert share(many) < 8 * share(few)


def test_a_chunk_bounds_what_a_rank_computes_in_a_step_until_ranks_prefill_all_the_time() -> None:
    for rate in (0.01, 0.1, 0.24):
        assert found(rate, prompt=8000.0, chunk=2048.0).tokens[0] <= 2048.0 * 1.001


def test_only_ranks_without_a_prompt_are_padded() -> None:
    assert found(0.01, padded=False).padding[0] == 0.0
    alone, busy = found(0.001), found(2.0)
    assert alone.padding[0] == pytest.approx((RANKS - 1.0) * alone.tokens[0], rel=0.01)
    assert busy.padding[0] < 0.2 * (RANKS - 1.0) * busy.tokens[0]
