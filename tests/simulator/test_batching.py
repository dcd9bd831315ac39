"""The simulator's schedule, step by step, against what one works out by hand."""

from __future__ import annotations

import random

import numpy as np
import pytest
from tests.simulator.batching import Limits, Request, Step, simulate
from tests.simulator.counting import count
from tests.simulator.lanes import Loads, serve

from energylens.predictor.types import FloatArray, IntArray

ROOMY = Limits(slots=8, step_tokens=100, blocks=1000)


def recorded(requests: list[Request], limits: Limits) -> tuple[list[Step], list[list[float]], list[int]]:
    """Return the steps, when each token of each request came, and preemptions; every step takes a second."""
    steps: list[Step] = []

    def second(step: Step) -> float:
        steps.append(step)
        return 1.0

    traces = simulate(requests, limits, second)
    return steps, [trace.tokens for trace in traces], [trace.preemptions for trace in traces]


def test_a_prompt_gives_its_first_token_and_each_step_one_more() -> None:
    steps, tokens, _ = recorded([Request(0.0, 40, 3)], ROOMY)
    assert steps == [Step(0, 1, 40, 0), Step(1, 0, 0, 40), Step(1, 0, 0, 41)]
    assert tokens == [[1.0, 2.0, 3.0]]


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    steps, tokens, _ = recorded([Request(0.0, 10, 5), Request(0.5, 150, 1)], ROOMY)
    # One token of the budget of 100 goes to the sequence that decodes.
    assert steps[1:3] == [Step(1, 1, 99, 10), Step(1, 1, 51, 11)]
    assert tokens[1] == [3.0]


def test_prompts_share_the_budget_in_the_order_of_arrival() -> None:
    steps, tokens, _ = recorded([Request(0.0, 60, 1), Request(0.0, 60, 1), Request(0.0, 60, 1)], ROOMY)
    assert [step.prompt_tokens for step in steps] == [100, 80]
    assert [step.prompts for step in steps] == [2, 2]
    assert tokens == [[1.0], [2.0], [2.0]]


def test_a_request_waits_for_a_slot() -> None:
    _, tokens, _ = recorded([Request(0.0, 10, 3), Request(0.0, 10, 1)], Limits(1, 100, 1000))
    assert tokens == [[1.0, 2.0, 3.0], [4.0]]


def test_a_prompt_waits_for_blocks_of_the_cache() -> None:
    # 32 tokens fill 2 of 3 blocks of 16; the second prompt of 32 waits until the first has ended.
    _, tokens, preempted = recorded([Request(0.0, 31, 2), Request(0.0, 32, 1)], Limits(8, 100, 3))
    assert tokens == [[1.0, 2.0], [3.0]]
    assert preempted == [0, 0]


def test_who_came_last_gives_its_blocks_back_and_computes_anew() -> None:
    # Both prompts fill their block; the first decode of the first request needs a second one, of which there is none.
    steps, tokens, preempted = recorded([Request(0.0, 16, 3), Request(0.0, 16, 3)], Limits(8, 100, 2))
    assert preempted == [0, 1]
    assert tokens[0] == [1.0, 2.0, 3.0]
    # 16 tokens of the prompt and the one that was generated already.
    assert steps[3] == Step(0, 1, 17, 0)
    assert tokens[1] == [1.0, 4.0, 5.0]


def test_steps_composed_ahead_take_in_an_arrival_one_step_later() -> None:
    load = [Request(0.0, 10, 6), Request(1.5, 10, 1)]
    assert recorded(load, ROOMY)[1][1] == [3.0]
    assert recorded(load, Limits(8, 100, 1000, scheduled_ahead=True))[1][1] == [4.0]


def test_a_request_larger_than_the_cache_is_refused() -> None:
    with pytest.raises(ValueError, match="more than the 2 blocks"):
        recorded([Request(0.0, 30, 10)], Limits(8, 100, 2))


@pytest.mark.parametrize("seed", range(8))
def test_no_limit_is_ever_broken_and_every_token_comes(seed: int) -> None:
    rng = random.Random(seed)
    requests = sorted(
        (Request(rng.uniform(0, 40), rng.randint(1, 120), rng.randint(1, 30)) for _ in range(60)),
        key=lambda request: request.arrival,
    )
    limits = Limits(slots=5, step_tokens=64, blocks=14, scheduled_ahead=seed % 2 == 1)
    steps, tokens, preempted = recorded(requests, limits)
    assert any(preempted)
    assert all(step.decodes + step.prompt_tokens <= limits.step_tokens for step in steps)
    assert all(step.decodes + step.prompts <= limits.slots for step in steps)
    assert all(step.context_tokens <= limits.blocks * limits.block_tokens for step in steps)
    for request, times in zip(requests, tokens, strict=True):
        assert len(times) == request.output
        assert times[0] > request.arrival
        assert times == sorted(set(times))


@pytest.mark.parametrize("seed", range(6))
def test_counting_gives_every_token_the_time_that_keeping_sequences_gives(seed: int) -> None:
    rng = random.Random(seed)
    now, requests = 0.0, []
    for _ in range(300):
        now += rng.expovariate(0.3)
        requests.append(Request(now, rng.randint(1, 150), rng.randint(1, 40)))
    limits = Limits(slots=12, step_tokens=80, blocks=10_000, scheduled_ahead=seed % 2 == 1)

    def seconds(step: Step) -> float:
        return 0.5 + 0.01 * step.decodes + 0.002 * step.prompt_tokens + 0.1 * step.prompts

    kept, counted = simulate(requests, limits, seconds), count(requests, limits, seconds)
    assert counted.first == pytest.approx([trace.ttft for trace in kept])
    assert counted.last == pytest.approx([trace.tokens[-1] for trace in kept])
    gaps = sorted(gap for trace in kept for gap in trace.gaps)
    assert sorted(took for _, took, decodes in counted.steps for _ in range(decodes)) == pytest.approx(gaps)


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("slots", [12, 3])
def test_runs_side_by_side_give_every_token_the_time_that_counting_gives(ahead: bool, slots: int) -> None:
    rng, shape = np.random.default_rng(slots), (7, 300)
    # Some requests arrive together, and some long after all others have ended.
    gaps = rng.exponential(3.0, shape) * (rng.random(shape) > 0.2) + 500.0 * (rng.random(shape) > 0.99)
    loads = Loads(np.cumsum(gaps, axis=1), rng.integers(1, 250, shape), rng.integers(1, 40, shape))
    limits = Limits(slots, step_tokens=80, blocks=10_000, scheduled_ahead=ahead)

    def seconds(decodes: IntArray, tokens: IntArray) -> FloatArray:
        return np.asarray(0.5 + 0.01 * decodes + 0.002 * tokens + 0.1 * (tokens > 0))

    def one(step: Step) -> float:
        return float(seconds(np.asarray(step.decodes), np.asarray(step.prompt_tokens)))

    begins = loads.arrivals[:, 100]
    found, steps = serve(loads, limits, seconds, begins), []
    for run, begin in enumerate(begins):
        columns = zip(*(column[run].tolist() for column in vars(loads).values()), strict=True)
        counted = count([Request(*each) for each in columns], limits, one)
        assert found.first[run] == pytest.approx(counted.first, abs=1e-9)
        assert found.last[run] == pytest.approx(counted.last, abs=1e-9)
        steps += [step for step in counted.steps if begin <= step[0] < loads.arrivals[run, -1]]
    assert found.steps.sum() == sum(decodes for _, _, decodes in steps)
    held = [sum(took for _, took, decodes in steps if decodes == number) for number in range(slots + 1)]
    assert found.held == pytest.approx(held)
    later = sorted(took for _, took, decodes in steps for _ in range(decodes))
    assert found.itl(0.5) == pytest.approx(later[len(later) // 2], rel=0.003)
