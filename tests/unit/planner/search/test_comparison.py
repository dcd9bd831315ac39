"""Why a candidate lost although its prediction is lower, in words."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.planner.search.test_objective import SURE, Row, candidates

from energylens.api.llmdeployment import Objective
from energylens.planner.search.comparison import by_risk


@pytest.mark.parametrize(
    ("loser", "words"),
    [
        (
            {"joules": 0.38, "unshared": 0.3, "own": 0.1, "pp": 2, "near": 3},
            "is predicted to use 5 % less energy, but 16 % more energy including its risk: "
            "no replica was measured with pipeline stages",
        ),
        (
            {"joules": 0.38, "unshared": 0.3, "own": 0.1, "near": 3},
            "is predicted to use 5 % less energy, but 16 % more energy including its risk: no similar run was measured",
        ),
        (
            {"joules": 0.392, "nodes": 2, **SURE},
            "is predicted to use 2 % less energy, which is within the prediction error; "
            "the tie goes to fewer nodes of a replica (1 instead of 2)",
        ),
        (
            {"joules": 0.392, "pp": 4, **SURE},
            "is predicted to use 2 % less energy, which is within the prediction error; "
            "the tie goes to fewer pipeline stages (1 instead of 4)",
        ),
        (
            {"joules": 0.392, "near": 2, **SURE},
            "is predicted to use 2 % less energy, which is within the prediction error; "
            "the tie goes to nearer measured runs (this model in this layout instead of another model under this "
            "engine)",
        ),
        ({"joules": 0.41, **SURE}, None),
        ({"joules": 0.4, **SURE}, None),
    ],
)
def test_the_reason_names_what_decided(loser: Row, words: str | None) -> None:
    rows = candidates(loser, {"joules": 0.4, **SURE})
    assert by_risk(rows, 0, rows, 1, "MinimizeEnergy") == words


@pytest.mark.parametrize(("objective", "what"), [("MinimizePower", "power"), ("MinimizeGPUs", "energy")])
def test_what_is_compared_is_what_is_minimised(objective: Objective, what: str) -> None:
    rows = candidates({"watts": 688, "joules": 0.344, "unshared": 0.5, "own": 0.1}, {"watts": 800, **SURE})
    assert by_risk(rows, 0, rows, 1, objective) == (
        f"is predicted to use 14 % less {what}, but 9 % more {what} including its risk: "
        "the nearest measured run is of this model in this layout"
    )


LATE = {"joules": 0.39, "breach": 0.1}
"""Loses to 0.4 J per token for its chance of breaking a latency objective alone."""


@pytest.mark.parametrize(
    ("loser", "winner", "words"),
    [
        (LATE, {"breach": 0.05}, "but breaks spec.slo with a chance of 10 % instead of 5 %"),
        (LATE | {"unshared": 0.3}, {}, "but 78 % more energy including its risk: the nearest measured run is of"),
        (LATE | {"unshared": 0.1}, {"breach": 0.1}, "but 8 % more energy including its risk: the nearest measured run"),
    ],
)
def test_the_chance_of_a_broken_objective_is_the_reason_only_where_nothing_else_is(
    loser: Row, winner: Row, words: str
) -> None:
    rows = candidates(loser, {"joules": 0.4} | winner)
    assert words in str(by_risk(rows, 0, rows, 1, "MinimizeEnergy"))


def test_equal_energy_with_risk_is_a_tie() -> None:
    # The largest factor of risk, 1.4, and the same energy without risk.
    rows = candidates({"joules": 1.0, "unshared": 9.0, "nodes": 2}, {"joules": 1.4})
    assert by_risk(rows, 0, rows, 1, "MinimizeEnergy") == (
        "is predicted to use 29 % less energy, which is within the prediction error; "
        "the tie goes to fewer nodes of a replica (1 instead of 2)"
    )


@pytest.mark.parametrize(
    ("pp", "near", "words"),
    [
        (1, 0, ": no run had a power cap"),
        (2, 3, ": no replica was measured with pipeline stages and no run had a power cap"),
    ],
)
def test_what_no_run_had_is_the_reason_of_a_risk(pp: int, near: int, words: str) -> None:
    rows = candidates({"joules": 0.38, "unshared": 0.3, "pp": pp, "near": near}, {"joules": 0.4})
    rows = replace(rows, layouts=replace(rows.layouts, power_cap_watts=np.array([300.0, np.nan])))
    assert str(by_risk(rows, 0, rows, 1, "MinimizeEnergy")).endswith(words)
