"""Which candidates are tried with other tokens per step, and which of the tried ones are kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.search.large import asked
from tests.unit.planner.search.test_objective import candidates

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.data import find_gpu
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import Constraint, build_constraints
from energylens.planner.search.ranking import LARGEST_TIE
from energylens.planner.search.space import ProductSpace
from energylens.planner.search.steps import directions, highest_tried, with_other_steps
from energylens.planner.types import PowerAllowance

SLO = {"ttftMilliseconds": 500, "itlMilliseconds": 50, "tpotMilliseconds": 60, "endToEndMilliseconds": 9000}
LATE = {"ttft_upper_ms": 501.0}
LONG = {"itl_upper_ms": 51.0}
SLOW: dict[str, Any] = {"tpot_upper_ms": 61.0}
WHOLE = {"end_to_end_upper_ms": 9001.0}
QUEUED = {"sustainable": False, "utilization": 0.5, "utilization_limit": 0.8, "ttft_upper_ms": math.inf}


def made(n: int = 1, **columns: Any) -> Candidates:
    """Return equal candidates that meet every objective but for the given columns."""
    rows = candidates(*[{}] * n)
    changed: dict[str, Any] = {name: np.broadcast_to(np.asarray(value), (n,)) for name, value in columns.items()}
    return replace(rows, **changed)


def ruled(rows: Candidates, spec: LLMDeploymentSpec, watts: float = 1e6) -> tuple[Constraint, ...]:
    return build_constraints(rows, spec, (), ((8,),), PowerAllowance(watts, "EnergyBudget a/b"))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({}, (False, False)),
        (LONG, (True, False)),
        (SLOW, (True, False)),
        (LATE, (False, True)),
        (WHOLE, (True, True)),
        (WHOLE | LONG, (True, False)),
        (WHOLE | LATE, (False, True)),
        (LONG | LATE, (False, False)),
        (LONG | {"itl_decode_upper_ms": 50.0}, (True, False)),
        (LONG | {"itl_decode_upper_ms": 50.1}, (False, False)),
        (LATE | {"itl_decode_upper_ms": 50.1}, (False, True)),
        (QUEUED, (False, True)),
        (QUEUED | {"utilization": 0.8}, (False, True)),
        (QUEUED | {"utilization": 0.81}, (False, False)),
        (QUEUED | {"utilization": 1.0, "utilization_limit": 1.0}, (False, False)),
        (QUEUED | {"ttft_upper_ms": 400.0}, (False, False)),
        (QUEUED | LONG, (False, False)),
        (LONG | {"fits": False}, (False, False)),
        (LONG | {"supported": False}, (False, False)),
        (LONG | {"joules_per_output_token": math.nan}, (False, False)),
        (LONG | {"power_watts": 2e6}, (True, False)),
        ({"power_watts": 2e6}, (False, False)),
    ],
)
def test_broken_latencies_decide_which_steps_may_help(columns: dict[str, Any], expected: tuple[bool, bool]) -> None:
    rows, spec = made(**columns), asked(slo=SLO).spec
    fewer, more = directions(rows, ruled(rows, spec), spec)
    assert (bool(fewer[0]), bool(more[0])) == expected


def test_without_a_bound_on_itl_steps_without_prompts_are_never_too_long() -> None:
    rows, spec = made(itl_decode_upper_ms=1e6, **SLOW), asked(slo={"tpotMilliseconds": 60}).spec
    fewer, more = directions(rows, ruled(rows, spec), spec)
    assert (fewer.tolist(), more.tolist()) == ([True], [False])


def test_candidates_above_the_chosen_one_are_tried_up_to_a_tie() -> None:
    assert highest_tried(np.array([0.4, 0.5]), 1) == pytest.approx(0.5 * LARGEST_TIE)
    assert highest_tried(np.array([0.4, 0.5]), None) == math.inf


def tried(
    rows: Candidates, itl: Callable[[float], float], chosen: int | None = None, most: float = 50.0
) -> tuple[list[tuple[int, int]], list[int]]:
    """Return replicas and steps of what is found, and all steps that were predicted, where ITL depends on them."""
    spec, asked_for = asked(slo={"itlMilliseconds": int(most)}).spec, []

    def predicted(spaces: Sequence[ProductSpace]) -> Candidates:
        (space,) = spaces
        tokens = space.layouts.max_batched_tokens
        asked_for.extend(tokens.tolist())
        found = made(len(tokens), itl_upper_ms=[itl(float(t)) for t in tokens])
        return replace(found, layouts=space.layouts, replicas=space.first, step_tokens=tokens)

    found = with_other_steps(
        rows, ruled(rows, spec), chosen, spec, [find_gpu("H200")], predicted, lambda others: ruled(others, spec)
    )
    kept = [] if found is None else list(zip(found.replicas.tolist(), found.step_tokens.tolist(), strict=True))
    return kept, sorted(asked_for)


LONG_ROWS = made(itl_upper_ms=80.0)


def test_the_steps_nearest_to_the_default_that_meet_the_objective_are_kept() -> None:
    assert tried(LONG_ROWS, lambda tokens: tokens / 100) == ([(2, 4096)], [1024, 2048, 4096])
    assert tried(LONG_ROWS, lambda tokens: tokens / 50) == ([(2, 2048)], [1024, 2048, 4096])


def test_steps_that_only_come_closer_are_kept_where_none_meets_the_objective() -> None:
    assert tried(LONG_ROWS, lambda tokens: 60 + tokens / 1000)[0] == [(2, 1024)]
    assert tried(LONG_ROWS, lambda tokens: 80 + tokens / 1000)[0] == []
    assert tried(LONG_ROWS, lambda tokens: 80.0)[0] == []
    assert tried(LONG_ROWS, lambda tokens: math.nan)[0] == []


def test_where_the_ends_do_not_help_nothing_between_them_counts() -> None:
    assert tried(LONG_ROWS, lambda tokens: 40.0 if tokens == 2048 else 90.0)[0] == []


def test_a_step_holds_a_token_of_each_sequence() -> None:
    rows = replace(LONG_ROWS, layouts=replace(LONG_ROWS.layouts, max_batch_size=np.array([2048])))
    assert tried(rows, lambda tokens: tokens / 100) == ([(2, 4096)], [2048, 4096])


def longer(ttft: tuple[float, float], whole: tuple[float, float] = (0.0, 0.0)) -> tuple[list[int], list[int]]:
    """Return the steps that are found, and all that were predicted, given both latencies at 8192 and 16384 tokens."""
    spec, asked_for = asked(slo={"ttftMilliseconds": 500, "endToEndMilliseconds": 9000}).spec, list[int]()

    def predicted(spaces: Sequence[ProductSpace]) -> Candidates:
        tokens = spaces[0].layouts.max_batched_tokens
        asked_for.extend(tokens.tolist())
        last = (tokens == 16384).astype(int).tolist()
        found = made(len(tokens), ttft_upper_ms=[ttft[i] for i in last], end_to_end_upper_ms=[whole[i] for i in last])
        return replace(found, layouts=spaces[0].layouts, step_tokens=tokens)

    rows = made(ttft_upper_ms=900.0, step_tokens=4096)
    found = with_other_steps(
        rows, ruled(rows, spec), None, spec, [find_gpu("H200")], predicted, lambda others: ruled(others, spec)
    )
    return [] if found is None else found.step_tokens.tolist(), sorted(asked_for)


def test_longer_steps_are_tried_up_to_the_largest() -> None:
    assert longer((490.0, 90.0)) == ([8192], [8192, 16384])
    assert longer((600.0, 90.0))[0] == [16384]


def test_between_the_ends_longer_steps_count_if_the_largest_meet_the_ttft() -> None:
    assert longer((400.0, 900.0))[0] == []
    assert longer((400.0, 400.0), (8000.0, 9001.0))[0] == [8192]


def many(joules: float) -> Candidates:
    """Return 256 candidates that are tried in one call, and one that is tried after them."""
    values = [0.4] * 256 + [joules]
    return made(257, itl_upper_ms=80.0, joules_per_output_token=values, replicas=np.array([1] * 256 + [3]))


def test_once_one_is_found_those_beyond_a_tie_are_not_tried() -> None:
    for factor, expected in ((0.999, 257), (1.001, 256)):
        kept, asked_for = tried(many(0.4 * LARGEST_TIE * factor), lambda tokens: tokens / 100)
        assert len(kept) == expected
        assert len(asked_for) == 3 * expected
    assert len(tried(many(0.9), lambda tokens: 60 + tokens / 1000)[0]) == 257


def test_candidates_without_options_do_not_end_the_search() -> None:
    rows = many(0.4)
    rows = replace(rows, layouts=replace(rows.layouts, max_batch_size=np.array([32768] * 256 + [64])))
    assert tried(rows, lambda tokens: tokens / 100)[0] == [(3, 4096)]


def test_only_candidates_that_may_be_better_than_the_chosen_one_are_tried() -> None:
    joules = np.array([0.4, 0.4 * LARGEST_TIE * 0.999, 0.4 * LARGEST_TIE * 1.001])
    rows = made(3, itl_upper_ms=[10.0, 80.0, 80.0], joules_per_output_token=joules, replicas=np.array([1, 2, 3]))
    assert tried(rows, lambda tokens: tokens / 100, chosen=0)[0] == [(2, 4096)]
    assert tried(rows, lambda tokens: tokens / 100)[0] == [(2, 4096), (3, 4096)]
    assert tried(made(itl_upper_ms=10.0), lambda tokens: tokens / 100) == ([], [])
