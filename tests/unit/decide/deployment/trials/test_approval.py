"""What is said of an approval that does not approve."""

from __future__ import annotations

import pytest
from tests.unit.decide.observations import deployment, plan

from energylens.decide.deployment.trials.approval import waits, why_it_waits

PENDING, RUNNING = "0123456789abcdef", "fedcba9876543210"


@pytest.mark.parametrize(
    ("approved", "said"),
    [
        ("01234567", "is only the first 8 of the 16 digits"),
        ("0123456789abcde", "is only the first 15 of the 16 digits"),
        ("0123456789abcdeg", "is not a plan's hash: digits are 0 to 9 and a to f, not 'g'"),
        ("abc", "is not a plan's hash: a hash has 16 digits, not 3"),
        ("0123456789abcdef0", "is not a plan's hash: a hash has 16 digits, not 17"),
        ("0123456789abdcef", "but nearly equal (a typing error?)"),
        ("0123456789abc777", "but nearly equal (a typing error?)"),
        ("0123456789ab7777", "unknown, or of a plan that another one has replaced"),
        ("7777777777777777", "unknown, or of a plan that another one has replaced"),
    ],
)
def test_an_approval_of_another_hash_is_called_wrong_and_the_pending_plan_is_named(approved: str, said: str) -> None:
    asked = deployment(planning={"mode": "Manual", "approvedPlanHash": approved})
    assert waits(asked, plan(PENDING))
    text = why_it_waits(asked, plan(PENDING), RUNNING)
    assert text.startswith(f"spec.planning.approvedPlanHash={approved} is ")
    assert said in text
    assert f"set spec.planning.approvedPlanHash to {PENDING}" in text
    assert f"plan {RUNNING} runs meanwhile" in text


def test_the_approval_of_what_runs_is_not_wrong_while_another_plan_is_pending() -> None:
    asked = deployment(planning={"mode": "Manual", "approvedPlanHash": RUNNING})
    text = why_it_waits(asked, plan(PENDING), RUNNING)
    assert text.startswith(f"the approved plan {RUNNING} runs, and another one is pending: ")
    assert PENDING in text


def test_without_an_approval_the_plan_is_described() -> None:
    text = why_it_waits(deployment(planning={"mode": "Manual"}), plan(PENDING), "")
    assert text.startswith(f"planning.mode is Manual: set spec.planning.approvedPlanHash to {PENDING}")
    assert "2 x" in text


def test_nothing_waits_that_is_approved_or_needs_no_approval() -> None:
    assert not waits(deployment(), plan(PENDING))
    assert not waits(deployment(planning={"mode": "Manual", "approvedPlanHash": PENDING}), plan(PENDING))
