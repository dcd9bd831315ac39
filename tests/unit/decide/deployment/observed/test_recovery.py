"""The plan after a start of the operator: of status, table of plans and workload, the two that agree."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import deployment, plan, workload

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.decide.deployment.observed.recovery import recovered
from energylens.planner.search.identity import action_hash
from energylens.serving.support import PLAN_KEY


def made(**changes: Any) -> PlanStatus:
    found = plan(inputs_hash="1" * 16, **changes)
    return found.model_copy(update={"hash": action_hash(found)})


OLD, NEW, THIRD = made(), made(max_batch_size=64), made(max_batch_size=128)
ADOPTED = "2026-02-01T00:00:00Z"


def table(of: PlanStatus) -> dict[str, Any]:
    return {"data": {PLAN_KEY: of.model_dump_json(by_alias=True, exclude_none=True)}}


def stating(stated: PlanStatus | None, **planning: Any) -> LLMDeployment:
    status: dict[str, Any] = {"planAdoptionTime": ADOPTED}
    if stated is not None:
        status["plan"] = stated.model_dump(mode="json", by_alias=True, exclude_none=True)
    return deployment(status, planning=planning)


@pytest.mark.parametrize(
    ("recorded", "runs"),
    [(None, OLD), (OLD, None), (NEW, OLD), (OLD, NEW), (OLD, THIRD)],
    ids=["no table", "no workload", "table written", "workload left", "no two agree"],
)
def test_the_status_holds_unless_table_and_workload_agree_on_another_plan(
    recorded: PlanStatus | None, runs: PlanStatus | None
) -> None:
    asked = stating(NEW)
    seen = None if recorded is None else table(recorded), None if runs is None else workload(runs)
    assert recovered(asked, *seen) is asked


def test_a_table_that_is_no_plan_says_nothing() -> None:
    asked = stating(NEW)
    edited = OLD.model_copy(update={"replicas": 7})
    for wrong in ({}, {"data": None}, {"data": {PLAN_KEY: "{"}}, table(edited)):
        assert recovered(asked, wrong, workload(OLD)) is asked


def test_the_running_plan_replaces_a_stale_one_and_the_time_of_its_adoption() -> None:
    found = recovered(stating(NEW), table(OLD), workload(OLD))
    assert (found.status.plan, found.status.plan_adoption_time) == (OLD, None)


@pytest.mark.parametrize("runs", [OLD, NEW])
def test_without_a_plan_in_the_status_the_table_has_it(runs: PlanStatus) -> None:
    assert recovered(stating(None), table(OLD), workload(runs)).status.plan == OLD


@pytest.mark.parametrize("planning", [{"mode": "Manual"}, {"mode": "Advisory"}])
def test_a_plan_that_is_only_shown_is_made_again(planning: dict[str, Any]) -> None:
    """It stands in the status alone, where it may have been edited."""
    found = recovered(stating(NEW, **planning), table(OLD), workload(OLD))
    assert found.status.plan == NEW.model_copy(update={"inputs_hash": None})
    assert found.status.plan_adoption_time == ADOPTED


def test_an_approved_plan_that_never_ran_gives_way() -> None:
    approved = stating(NEW, mode="Manual", approvedPlanHash=NEW.hash)
    assert recovered(approved, table(OLD), workload(OLD)).status.plan == OLD
