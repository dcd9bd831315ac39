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


@pytest.mark.parametrize("rate", [0.01, 0.3, 2.0])
@pytest.mark.parametrize(("variation", "graphs"), [(0.004, np.inf), (0.3, np.inf), (1.2, np.inf), (0.3, 900.0)])
def test_ranks_are_padded_to_the_rank_with_most_prompt_tokens(rate: float, variation: float, graphs: float) -> None:
    random, steps = np.random.default_rng(11), 40_000
    counts = random.poisson(rate, (steps, int(RANKS)))
    spread = np.sqrt(np.log1p(variation))
    tokens = np.zeros(counts.shape)
    for drawn in range(counts.max()):
        lengths = 1000.0 * random.lognormal(-(spread**2) / 2.0, spread, counts.shape)
        tokens += np.where(counts > drawn, lengths, 0.0)
    longest = tokens.max(axis=1)
    held_up = longest > 0.0
    padding = np.where(longest <= graphs, (longest[:, None] - tokens).sum(axis=1), 0.0)
    one, lockstep = np.ones(1), Lockstep(padded=True, chunk=1e9, graphed=True, graphs=graphs)
    prompts = rank_prompts(rate * one, RANKS * one, 1000.0, one, lockstep, variation)
    assert prompts.tokens[0] == pytest.approx(longest[held_up].mean(), rel=0.1)
    assert prompts.padding[0] == pytest.approx(padding[held_up].mean(), rel=0.15, abs=1.0)


def test_no_rank_is_padded_beyond_the_chunk_of_a_step() -> None:
    assert found(0.5, prompt=4000.0, chunk=2048.0).tokens[0] <= 2048.0 * 1.001


def test_ranks_that_are_not_padded_compute_the_mean_of_their_prompts() -> None:
    prompts = found(0.01, padded=False)
    assert prompts.padding[0] == 0.0
    assert prompts.tokens[0] == pytest.approx(1000.0, rel=0.05)


def test_running_sequences_leave_less_room_in_steps_that_hold_them() -> None:
    one, shared = np.ones(1), Lockstep(padded=True, chunk=2048.0, holds_decodes=True)

    def share_with(decoding: float, lockstep: Lockstep) -> float:
        return share(rank_prompts(0.1 * one, RANKS * one, 8000.0, one, lockstep, decoding=decoding))

    assert share_with(512.0, shared) > share_with(0.0, shared)
    own = Lockstep(padded=True, chunk=2048.0)
    assert share_with(512.0, own) == share_with(0.0, own) == share_with(0.0, shared)
