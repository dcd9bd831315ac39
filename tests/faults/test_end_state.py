"""What two runs of a scenario have in common is compared, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.end_state import differences, masked
from tests.support.transitions import without_empty_lists

UID = "0b0e6f6e-8d5b-4c61-9c34-0a54b5a5d3a1"


def body(namespace: str, generation: int, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "llama", "namespace": namespace, "uid": UID, "generation": generation},
        "spec": {"nodeSelector": {"space": namespace}},
        "status": {"observedGeneration": generation, **status},
    }


def test_names_versions_and_times_are_alike_in_every_run() -> None:
    one = masked(body("faults-1", 3, at="2026-11-27T12:01:02Z", plan='{"inputsHash": "a1"}'), "faults-1")
    other = masked(body("clean-2", 5, at="2026-11-27T13:01:02.5Z", plan='{"inputsHash": "b2"}'), "clean-2")
    assert list(differences(one, other)) == []


@pytest.mark.parametrize(
    ("status", "path"),
    [
        ({"replicas": 3}, "status.replicas: 2 != 3"),
        ({"observedGeneration": 2}, "status.observedGeneration: true != false"),
        ({"conditions": []}, 'status.conditions: [{"reason": "Feasible"}] != []'),
        ({"conditions": [{"reason": "NoPlan"}]}, 'status.conditions[0].reason: "Feasible" != "NoPlan"'),
    ],
)
def test_what_differs_is_named(status: dict[str, Any], path: str) -> None:
    usual = {"replicas": 2, "conditions": [{"reason": "Feasible"}]}
    one, other = body("one", 3, **usual), body("one", 3, **{**usual, **status})
    assert list(differences(masked(one, "one"), masked(other, "one"))) == [path]


def test_a_plan_that_was_found_again_is_a_plan() -> None:
    planned = {"reason": "Planned", "message": "2 x L40S: 2.3 J per output token"}
    again = {"reason": "KeepingRunningPlan", "message": "the inputs changed, the best plan is still 2 x L40S"}
    kept = {"reason": "KeepingRunningPlan", "message": "the best plan saves 3 % only"}
    states = [masked(body("one", 1, conditions=[condition]), "one") for condition in (planned, again, kept)]
    assert states[0] == states[1] != states[2]


def test_an_empty_list_that_stays_after_it_was_taken_back_is_no_difference() -> None:
    before = {"rollout": {"strategy": "Surge"}, "hardware": {"nodeSelector": {}}, "suspend": False}
    after = {
        "rollout": {"strategy": "Surge", "rollbackOn": []},
        "hardware": {"nodeSelector": {}},
        "suspend": False,
        "podTemplate": {"spec": {"tolerations": []}},
    }
    assert without_empty_lists(after) == before == without_empty_lists(before)
    assert without_empty_lists({"hardware": {"gpuProducts": ["A"]}}) != without_empty_lists({"hardware": {}})
