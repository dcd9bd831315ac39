"""What was written is gone by; what was not is checked."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.controller.state.status_memory import OwnPart, StatusMemory, differences, removal
from energylens.decide.budgets.status_check import own_part as own_budget_part
from energylens.decide.deployment.reports.status_check import own_part
from energylens.decide.stated import Checked

KEY = ("team", "llama")


def body(status: dict[str, Any], uid: str = "1") -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "status": status}


def check(found: Any) -> Checked:
    return {"checked": found["status"]}, ("left out",)


def test_a_status_of_unknown_origin_is_checked_until_something_is_known() -> None:
    memory = StatusMemory(check)
    assert memory.believed(KEY, body({"a": 1})) == ({"checked": {"a": 1}}, ("left out",))
    memory.hold(KEY, body({"a": 1}))
    assert memory.believed(KEY, body({"a": 1})) == ({"a": 1}, ())
    assert memory.believed(KEY, body({"a": 2})) == ({"a": 1}, ("status.a",))


def test_a_write_whose_answer_was_lost_may_have_been_carried_out_or_not() -> None:
    memory = StatusMemory(check)
    memory.wrote(KEY, body({}), {"a": 1}, {"a": 1})
    memory.attempts(KEY, body({}), {"a": 2}, {"a": 2})
    assert memory.believed(KEY, body({"a": 1})) == ({"a": 1}, ())
    assert memory.believed(KEY, body({"a": 2})) == ({"a": 2}, ())
    assert memory.believed(KEY, body({"a": 1})) == ({"a": 2}, ("status.a",))


def test_an_object_of_the_same_name_is_another_one() -> None:
    memory = StatusMemory(check)
    memory.wrote(KEY, body({}), {"a": 1}, {"a": 1})
    assert memory.believed(KEY, body({"a": 1}, uid="2"))[1] == ("left out",)
    memory.forget(KEY)
    assert memory.believed(KEY, body({"a": 1}))[1] == ("left out",)


def test_differences_are_named_and_few() -> None:
    ours = {"plan": {"replicas": 2, "gpus": 2}, "x": [1]}
    assert differences(ours, {"plan": {"replicas": 3, "gpus": 2}, "x": [1]}) == ("status.plan.replicas",)
    assert differences(ours, {}) == ("status.plan", "status.x")
    many = {str(number): number for number in range(9)}
    assert differences(many, {}) == ("status.0", "status.1", "status.2", "6 more")


def test_the_patch_removes_what_is_not_ours_and_nothing_else() -> None:
    ours = {"plan": {"replicas": 2}, "list": [1]}
    stated = {"plan": {"replicas": 2, "shedBy": "x"}, "list": [1, 2], "load": {"a": 1}}
    assert removal(ours, stated) == {"plan": {"shedBy": None}, "list": [1], "load": None}
    assert removal(ours, ours) == {}


OTHERS = {"type": "Synced", "status": "True"}
READY = {"type": "Ready", "status": "True"}
STALE = {"type": "WithinEnergyBudget", "status": "True"}


@pytest.mark.parametrize(
    ("stated", "patch"),
    [
        pytest.param({"conditions": [READY]}, {}, id="nothing of others"),
        pytest.param({"conditions": [READY], "x": 1}, {"x": None}, id="a field"),
        pytest.param({"conditions": [READY, STALE]}, {"conditions": [READY]}, id="a condition of a type of ours"),
        pytest.param({"conditions": [READY, OTHERS]}, {}, id="a condition of another type"),
        pytest.param({"conditions": [READY, STALE, OTHERS], "x": 1}, {"x": None}, id="both: the list stays"),
    ],
)
@pytest.mark.parametrize("own_part", [own_part, own_budget_part])
def test_a_write_takes_out_what_others_left_but_their_own_conditions(
    own_part: OwnPart, stated: dict[str, Any], patch: dict[str, Any]
) -> None:
    memory = StatusMemory(check, own_part)
    assert memory.foreign({"conditions": [READY]}, body(stated)) == patch


def test_what_the_api_server_was_not_sent_is_remembered_and_missing_from_no_status() -> None:
    memory = StatusMemory(check)
    memory.wrote(KEY, body({}), {"a": 1, "new": 1}, {"a": 1})
    assert memory.believed(KEY, body({"a": 1})) == ({"a": 1, "new": 1}, ())
    assert memory.believed(KEY, body({"a": 2})) == ({"a": 1, "new": 1}, ("status.a",))
    memory.attempts(KEY, body({}), {"a": 3, "new": 3}, {"a": 3})
    assert memory.believed(KEY, body({"a": 3})) == ({"a": 3, "new": 3}, ())
