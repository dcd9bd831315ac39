"""What a plan's figures leave out, said only where it matters."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import OTHER, deployment, model, plan

from energylens.api.llmdeployment import PlanStatus, PrefillReplicas, VerificationStatus
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.reports.caveats import caveats_of
from energylens.decide.reasons import Reason


def choice(chosen: PlanStatus | None = None, **changes: Any) -> PlanChoice:
    found = PlanChoice(chosen or plan(), good=True, reason=Reason.PLANNED, message="", model=model())
    return replace(found, **changes)


def waiting(ttft_ms: int) -> PlanStatus:
    predicted = plan().predicted.model_copy(update={"ttft_milliseconds": ttft_ms})
    return plan(predicted=predicted)


def test_without_a_good_plan_nothing_is_said() -> None:
    assert caveats_of(deployment(), choice(waiting(60_000), good=False)) == ()
    assert caveats_of(deployment(), choice(plan=None)) == ()


@pytest.mark.parametrize(("ttft_ms", "said"), [(10_000, False), (10_001, True), (25_400, True)])
def test_a_long_wait_without_an_objective_is_said_in_seconds(ttft_ms: int, said: bool) -> None:
    """An answer of 256 tokens at 20 ms takes 5 s; shorter waits than 10 s are not worth a message."""
    texts = caveats_of(deployment(), choice(waiting(ttft_ms)))
    expected = (
        f"a request waits {ttft_ms / 1000:.0f} s for its first token (P95), longer than its answer takes, and "
        "spec.slo.ttftMilliseconds sets no bound"
    )
    assert (expected in texts) is said


@pytest.mark.parametrize(("ttft_ms", "said"), [(20_480, False), (20_481, True)])
def test_a_wait_that_is_shorter_than_the_answer_is_not_worth_a_message(ttft_ms: int, said: bool) -> None:
    workload = {"inputTokens": 512, "outputTokens": 1024, "requestsPerSecond": 2}
    texts = caveats_of(deployment(workload=workload), choice(waiting(ttft_ms)))
    assert any("waits" in text for text in texts) is said


def test_a_wait_that_an_objective_bounds_is_not_said() -> None:
    assert caveats_of(deployment(slo={"ttftMilliseconds": 60_000}), choice(waiting(50_000))) == ()


def test_a_plan_that_will_be_verified_says_so() -> None:
    text = "one replica of this plan is measured before the rollout, since spec.rollout.verify is Measured"
    before = {"plan": plan(OTHER, tensor_parallel=2).model_dump(by_alias=True, exclude_none=True)}
    asked: dict[str, Any] = {"rollout": {"verify": "Measured"}}
    assert text in caveats_of(deployment(before, **asked), choice())
    assert text not in caveats_of(deployment(before), choice())
    assert text not in caveats_of(deployment(**asked), choice())
    assert text not in caveats_of(deployment(before, **asked), choice(verification=VerificationStatus()))
    same = {"plan": plan(OTHER, replicas=3, gpus=3).model_dump(by_alias=True, exclude_none=True)}
    assert text not in caveats_of(deployment(same, **asked), choice())


def scaled(least: int = 0, **slo: Any) -> tuple[str, ...]:
    scaling = {"mode": "External", "minReplicas": least, "startSeconds": 100, "startJoules": 50_000}
    return caveats_of(deployment(scaling=scaling, replicas=2, slo=slo), choice())


def test_an_autoscaler_that_may_stop_the_last_replica_learns_what_that_saves_and_costs() -> None:
    """Two replicas idle at 200 W, so that one draws 100 W, and a start takes 50 kJ."""
    text = (
        "zero replicas save the 100 W of the last idle one, which pays for the 50 kJ of a start after 500 s without "
        "requests; the next request waits about 100 s longer for its first token"
    )
    assert text in scaled()
    assert not any("zero replicas" in found for found in scaled(least=1))
    assert not any("zero replicas" in found for found in caveats_of(deployment(), choice()))


@pytest.mark.parametrize(("ttft_ms", "excluded"), [(99_999, True), (100_000, False)])
def test_an_objective_shorter_than_a_start_excludes_zero_replicas(ttft_ms: int, excluded: bool) -> None:
    found = "".join(scaled(ttftMilliseconds=ttft_ms))
    assert (f"; spec.slo.ttftMilliseconds={ttft_ms} is less" in found) is excluded


def test_a_start_takes_the_energy_of_the_gpus_of_one_replica() -> None:
    scaling = {"mode": "External", "minReplicas": 0, "startSeconds": 100}

    def kilojoules(replicas: int) -> float:
        chosen = plan(gpus=4, replicas=replicas, tensor_parallel=4 // replicas)
        (text,) = (t for t in caveats_of(deployment(scaling=scaling, replicas=2), choice(chosen)) if "zero" in t)
        return float(text.partition("pays for the ")[2].partition(" kJ")[0])

    assert kilojoules(2) == pytest.approx(2 * kilojoules(4), rel=0.01)


@pytest.mark.parametrize(("mode", "said"), [("Auto", True), ("Advisory", True), ("Manual", False)])
def test_an_approval_that_nothing_waits_for_is_reported(mode: str, said: bool) -> None:
    asked = deployment(planning={"mode": mode, "approvedPlanHash": OTHER})
    text = f"spec.planning.approvedPlanHash={OTHER} has no effect while planning.mode is {mode}"
    assert (text in caveats_of(asked, choice())) is said


FOLLOWS: dict[str, Any] = {
    "planning": {"disaggregation": "Follow"},
    "routing": {
        "inferencePool": {"endpointPicker": {"name": "epp"}},
        "disaggregation": {"router": "LLMD", "sidecarImage": "example.org/sidecar:v1"},
    },
}
PREFILL = PrefillReplicas(
    replicas=1, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)


@pytest.mark.parametrize(
    ("spec", "changes", "said"),
    [
        ({}, {}, True),
        ({"planning": {"disaggregation": "Compare"}}, {}, False),
        ({}, {"plan": plan(prefill=PREFILL)}, False),
        ({}, {"model": None}, False),
        ({"engine": {"type": "VLLM"}}, {}, False),
    ],
)
def test_roles_that_the_engine_refuses_have_no_effect(
    spec: dict[str, Any], changes: dict[str, Any], said: bool
) -> None:
    engine = {"type": "VLLM", "image": "vllm/vllm-openai:v0.10.0"}
    asked = deployment(**{**FOLLOWS, "engine": engine, **spec})
    texts = caveats_of(asked, choice(**changes))
    assert any(text.startswith("spec.planning.disaggregation=Follow has no effect: ") for text in texts) is said
