"""What any status may hold: conditions of others beside those of the operator, times, and amounts of energy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from energylens.decide.stated import MOST_JOULES, is_amount, time_problem, with_own_conditions

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def condition(kind: str) -> dict[str, Any]:
    return {"type": kind, "status": "True"}


def test_conditions_of_others_are_left_out_and_those_of_the_operator_have_its_order() -> None:
    stated = [condition("Ready"), condition("example.com/Scanned"), "Ready", {}, condition("PlanReady")]
    found = with_own_conditions({"plan": 1, "conditions": stated}, ("PlanReady", "Ready", "Degraded"))
    assert found == {"plan": 1, "conditions": [condition("PlanReady"), condition("Ready")]}
    for other in ({"plan": 1}, {"conditions": "Ready"}):
        assert with_own_conditions(other, ("Ready",)) == other


@pytest.mark.parametrize(
    ("value", "plausible"),
    [(0, True), (-1, False), (MOST_JOULES, True), (MOST_JOULES + 1, False), (1.0, False), (True, False), (None, False)],
)
def test_an_amount_of_energy_is_a_whole_number_within_bounds(value: object, plausible: bool) -> None:
    assert is_amount(value) is plausible


@pytest.mark.parametrize(
    ("time", "problem"),
    [
        (None, ""),
        ("2026-03-01T12:05:00Z", ""),
        ("2026-03-01T12:05:01Z", "2026-03-01T12:05:01Z lies in the future"),
        ("2026-03-01T11:00:00", "'2026-03-01T11:00:00' has no time zone"),
        ("noon", "'noon' is not a time"),
    ],
)
def test_a_time_of_a_status_lies_in_the_past_but_for_clocks_that_differ(time: str | None, problem: str) -> None:
    assert time_problem(time, NOW) == problem
