"""Which candidate is best, and what decides between equals, rung by rung."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.api.llmdeployment import Objective
from energylens.planner.search.evaluate import Candidates
from energylens.planner.search.objective import best, ranked, rounded
from energylens.predictor.types import FloatArray, Layouts

Row = dict[str, float]


def candidates(*rows: Row) -> Candidates:
    """Return candidates that are all alike (4 GPUs as 2 replicas of TP2, 0.4 J, 800 W) but for what a row says."""
    n = len(rows)

    def column(name: str, default: float) -> FloatArray:
        return np.array([float(row.get(name, default)) for row in rows])

    one, nothing = np.ones(n, dtype=np.int64), np.zeros(n)
    tensor, replicas = column("tensor", 2).astype(np.int64), column("replicas", 2).astype(np.int64)
    layouts = Layouts(tensor, one, one, one, column("batch", 64).astype(np.int64), np.full(n, np.nan))
    joules = column("joules", 0.4)
    yes = np.ones(n, dtype=np.bool_)
    return Candidates(
        products=("NVIDIA-H200",), product=0 * one, layouts=layouts, nodes_per_replica=one, replicas=replicas,
        supported=yes, reason=np.full(n, "", dtype=object), fits=yes, sustainable=yes, itl_ms=nothing,
        itl_upper_ms=nothing, tpot_ms=nothing, tpot_upper_ms=nothing, ttft_ms=nothing,
        ttft_upper_ms=column("ttft", 500), joules_per_output_token=joules, joules_low=joules, joules_high=joules,
        joules_upper=joules, power_watts=column("watts", 800), idle_power_watts=nothing,
        output_tokens_per_second=nothing, concurrency=nothing, nearest=0 * one,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("objective", "rows"),
    [
        # Each row loses to the one before it by one key, and would win by every later key.
        ("MinimizeEnergy", [{"joules": 0.4, "tensor": 8}, {"joules": 0.401}]),
        ("MinimizePower", [{"watts": 700, "joules": 0.9}, {"joules": 0.3}]),
        ("MinimizePower", [{"joules": 0.4, "tensor": 8}, {"joules": 0.401}]),
        ("MinimizeGPUs", [{"joules": 0.9}, {"joules": 0.3, "tensor": 4}]),
        ("MinimizeGPUs", [{"joules": 0.4, "replicas": 4, "tensor": 1}, {"joules": 0.401, "replicas": 1, "tensor": 4}]),
        ("MinimizeEnergy", [{"replicas": 3, "tensor": 1}, {"replicas": 1, "tensor": 4}]),
        ("MinimizeEnergy", [{"replicas": 1, "tensor": 4, "ttft": 900}, {"replicas": 2, "tensor": 2, "ttft": 300}]),
        ("MinimizeEnergy", [{"ttft": 300, "batch": 256}, {"ttft": 900, "batch": 64}]),
        ("MinimizeEnergy", [{"batch": 32, "ttft": 500}, {"batch": 64, "ttft": 500}]),
        ("MinimizeEnergy", [{}, {}]),
    ],
)
def test_each_key_decides_between_equals_of_the_keys_before(objective: Objective, rows: list[Row]) -> None:
    both = candidates(*rows)
    all_of_them = np.ones(2, dtype=np.bool_)
    assert ranked(both, all_of_them, objective).tolist() == [0, 1]
    assert best(both, all_of_them, objective) == 0
    if rows[0] != rows[1]:
        assert best(candidates(*reversed(rows)), all_of_them, objective) == 1


def test_a_ttft_less_than_a_step_lower_decides_nothing() -> None:
    both = candidates({"ttft": 503, "batch": 32}, {"ttft": 497, "batch": 64})
    assert np.floor(np.log(503) / np.log(1.05)) == np.floor(np.log(497) / np.log(1.05))
    assert best(both, np.ones(2, dtype=np.bool_), "MinimizeEnergy") == 0


def test_energies_that_agree_to_six_digits_are_equal() -> None:
    close = candidates({"joules": 0.40000004, "replicas": 1, "tensor": 4}, {"joules": 0.4})
    assert best(close, np.ones(2, dtype=np.bool_), "MinimizeEnergy") == 0
    apart = candidates({"joules": 0.400002, "replicas": 1, "tensor": 4}, {"joules": 0.4})
    assert best(apart, np.ones(2, dtype=np.bool_), "MinimizeEnergy") == 1


def test_only_what_the_mask_has_is_ranked() -> None:
    rows = candidates({"joules": 0.1}, {"joules": 0.3}, {"joules": 0.2})
    assert ranked(rows, np.array([False, True, True]), "MinimizeEnergy").tolist() == [2, 1]
    assert best(rows, np.array([False, True, True]), "MinimizeEnergy") == 2
    assert best(rows, np.zeros(3, dtype=np.bool_), "MinimizeEnergy") is None


def test_values_are_compared_to_six_digits_whatever_their_size() -> None:
    found = rounded(np.array([0.0, -1.0, 123456.4, 123456.6, 1.234564e-9, 1.234566e-9]))
    assert found.tolist() == pytest.approx([0.0, -1.0, 123456.0, 123457.0, 1.23456e-9, 1.23457e-9], rel=1e-12)
