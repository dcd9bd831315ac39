"""The questions that planning asks about a deployment, and from which inputs its plan was made."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.deployment.plans.test_scheduled import CAP, PINNED, at
from tests.unit.decide.deployment.plans.test_verdict import case_of
from tests.unit.decide.observations import PRODUCT, deployment, plan

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.plans.case import Case, in_words
from energylens.planner.search.identity import sealed
from energylens.planner.search.problem import NO_BINDING_CONSTRAINT
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, PlanningResult, PowerAllowance

PLAN = Case.plan


def constant(rate: str = "20", **spec: Any) -> Case:
    load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": rate}
    return case_of(deployment(**{"planning": PINNED, "workload": load, "hardware": {"gpuProducts": [PRODUCT]}, **spec}))


def best(case: Case) -> PlanStatus:
    found = case.plan(case.inputs.deployment)
    assert isinstance(found, Feasible)
    return found.plan


def test_the_same_question_has_one_hash_and_another_question_another() -> None:
    case = constant()
    asked, other = case.inputs.deployment, case.asked(FollowedLoad(20.0, step=3))
    first = case.hash_of(asked, None)
    assert case.hash_of(asked, None) == first
    made = best(case)
    capped = at(case, allowance=PowerAllowance(5000.0, CAP))
    hashes = {
        capped.hash_of(asked, None),
        capped.hash_of(asked, None, restricted=False),
        capped.hash_of(other, None),
        capped.hash_of(other, None, restricted=False),
    }
    assert len(hashes) == 4
    assert capped.hash_of(asked, None, restricted=False) == first
    # Asked again in any order, each question has its own answer.
    assert capped.hash_of(asked, made) == at(capped).hash_of(asked, made)
    assert capped.hash_of(asked, None) == at(capped).hash_of(asked, None)
    assert capped.hash_of(other, None) == at(capped).hash_of(other, None)


def test_a_known_hash_is_not_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    case = constant()
    asked = case.inputs.deployment
    first = case.hash_of(asked, None)
    monkeypatch.setattr("energylens.decide.deployment.plans.case.plan_inputs_hash", lambda *_, **__: "new")
    assert case.hash_of(asked, None) == first
    assert case.hash_of(asked, None, restricted=False) == "new"
    assert case.hash_of(asked, plan()) == "new"
    assert case.hash_of(case.asked(FollowedLoad(20.0, step=3)), None) == "new"


def test_a_plan_that_no_budget_restricted_is_made_from_the_inputs_while_its_power_fits() -> None:
    case = constant()
    asked, found = case.inputs.deployment, best(case)
    free = case.hash_of(asked, found, restricted=False)
    made = sealed(found, free)
    assert case.made_from(asked, made) == free
    assert case.made_from(asked, sealed(found, "0" * 16)) == ""
    power = float(found.predicted.power_watts)
    for watts, expected in ((power, free), (power - 1, "")):
        assert at(case, allowance=PowerAllowance(watts, CAP)).made_from(asked, made) == expected


def test_a_plan_under_a_budget_is_made_from_this_budget_only() -> None:
    free = constant()
    asked = free.inputs.deployment
    case = at(free, allowance=PowerAllowance(float(best(free).predicted.power_watts), CAP))
    found = best(case)
    exact = case.hash_of(asked, found)
    made = sealed(found, exact)
    assert exact != case.hash_of(asked, found, restricted=False)
    assert case.made_from(asked, made) == exact
    assert at(case, allowance=PowerAllowance(9000.0, CAP)).made_from(asked, made) == ""
    assert free.made_from(asked, made) == ""


@pytest.mark.parametrize(
    ("free", "hardware", "replicas", "serves_lws", "limits"),
    [
        ((2, 4), {}, 1, False, [4]),
        ((4, 2), {}, 1, False, [4]),
        ((4, 4), {"maxGPUsPerReplica": 2}, 1, False, [2]),
        ((4, 4), {"maxGPUsPerReplica": 2}, 1, True, [2]),
        ((4, 4), {}, 1, True, [None]),
        ((), {}, 1, False, [None]),
        # No plan fits one node, so that replicas over nodes are planned for the condition.
        ((1, 0), {}, 3, False, [1, None]),
    ],
)
def test_without_leader_worker_sets_plans_within_one_node_come_first(
    free: tuple[int, ...],
    hardware: dict[str, int],
    replicas: int,
    serves_lws: bool,
    limits: list[int | None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = ClusterSnapshot(tuple(GpuNode(f"n{index}", PRODUCT, count) for index, count in enumerate(free)))
    fields: dict[str, Any] = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64, "replicas": replicas}}
    case = constant("2", hardware={"gpuProducts": [PRODUCT], **hardware}, planning=fields)
    case = at(case, snapshot=nodes, serves_lws=serves_lws)
    asked: list[int | None] = []

    def planned(self: Case, found: LLMDeployment) -> PlanningResult:
        asked.append(found.spec.hardware.max_gpus_per_replica)
        return PLAN(self, found)

    monkeypatch.setattr(Case, "plan", planned)
    found = case.within_what_is_served(case.inputs.deployment)
    assert asked == limits
    assert isinstance(found, Feasible) is (bool(free) and replicas == 1)


def test_a_plan_is_priced_once() -> None:
    case = constant("60")
    found = best(case)
    priced = case.priced(None, found.model_copy(update={"fewer_replicas": ()}))
    assert {each.replicas for each in priced.fewer_replicas} == set(range(1, priced.replicas))
    assert case.priced(None, priced) is priced


def test_a_plan_in_words_names_its_energy_and_what_binds_it() -> None:
    said = "2 x NVIDIA-H100-80GB-HBM3 TP1, max batch 32: 0.400 J per output token; bound by "
    assert in_words(plan(binding_constraint=NO_BINDING_CONSTRAINT)) == f"{said}nothing"
    assert in_words(plan(binding_constraint="spec.slo.itlMilliseconds")) == f"{said}spec.slo.itlMilliseconds"
