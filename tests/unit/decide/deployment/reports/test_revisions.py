"""The previous plan: which plan it is, what was measured of it, and when a saving against it may be stated."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import (
    HASH,
    MODEL,
    NOW,
    OTHER,
    deployment,
    measured,
    observation,
    plan,
    pod,
    workload,
)

from energylens.api.llmdeployment import ActiveRevision, PlanStatus, PrefillReplicas, PrefillRevision, WorkloadRef
from energylens.decide.deployment.observed.observation import Observation, PlanChoice
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.pods.rollouts import main_rollout
from energylens.decide.deployment.reports.revisions import active_revision, saved_watts
from energylens.decide.deployment.reports.status import status_of
from energylens.decide.reasons import Reason

THIRD = "c" * 16
PREFILL = PrefillReplicas(
    replicas=3, tensor_parallel=2, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)


def written(observed: Observation) -> dict[str, Any]:
    return status_of(observed, children(observed))


def runs(status: dict[str, Any] | None, served: PlanStatus, spec: dict[str, Any] | None = None, **more: Any) -> Any:
    """Return the status after a pass in which the workload of ``served`` was seen."""
    choice = PlanChoice(served, observation().planning.model, True, Reason.PLANNED, "")
    changes = {"planning": choice, "workload": workload(served), "pods": (), **more}
    return written(observation(deployment=deployment(status, **(spec or {})), **changes))


def window(end: int, energy: float, tokens: float = 2000.0) -> Any:
    found = measured(joules_per_output_token=energy, output_tokens_per_second=tokens)
    return replace(found, window_start=end - 600.0, window_end=float(end))


def active(observed: Observation) -> ActiveRevision:
    found = active_revision(observed, main_rollout(observed))
    assert found is not None
    return found


def first(energy: float = 0.5) -> dict[str, Any]:
    """Return the status of a first plan with a measured window."""
    return runs(runs(None, plan()), plan(), measurement=window(1600, energy))


def loaded(served: PlanStatus, tokens: int) -> PlanStatus:
    figures = served.predicted.model_copy(update={"output_tokens_per_second": tokens})
    return served.model_copy(update={"predicted": figures})


def test_the_figures_of_a_running_plan_are_those_of_that_plan() -> None:
    waits = {"planning": PlanChoice(plan(OTHER, max_batch_size=64), None, True, Reason.PLANNED, "")}
    known = active(observation(**waits, standing=plan(max_batch_size=16)))
    assert (known.plan_hash, known.max_batch_size, known.joules_per_output_token) == (HASH, 16, "400m")
    for standing in (None, plan(THIRD)):
        unknown = active(observation(**waits, standing=standing))
        assert (unknown.plan_hash, unknown.ready_replicas, unknown.workload_ref.name) == (HASH, 2, "llama")
        assert (unknown.max_batch_size, unknown.joules_per_output_token) == (None, None)


def test_a_running_plan_has_the_prefill_replicas_of_that_plan() -> None:
    both, pods = plan(prefill=PREFILL), (pod("f0"), pod("f1", ready=False))
    live: dict[str, Any] = {"prefill": workload(ready=1), "prefill_pods": pods}
    expected = PrefillRevision(
        replicas=3,
        layout="TP2",
        workload_ref=WorkloadRef(api_version="apps/v1", kind="Deployment", name="llama-prefill"),
        ready_replicas=1,
        updated_replicas=2,
    )
    served = PlanChoice(both, None, True, Reason.PLANNED, "")
    assert active(observation(planning=served, **live)).prefill == expected
    next_one = replace(served, plan=plan(OTHER, prefill=PREFILL.model_copy(update={"replicas": 1})))
    assert active(observation(planning=next_one, standing=both, **live)).prefill == expected
    # Pods of both roles run, and no plan is known that has them.
    assert active(observation(planning=next_one, **live)).prefill is None
    assert active(observation(planning=next_one, standing=plan(), **live)).prefill is None


def test_a_first_plan_has_none_before_it() -> None:
    status = first()
    assert "previousRevision" not in status
    assert status["activeRevision"]["model"] == MODEL
    assert status["activeRevision"]["outputTokensPerSecond"] == 2000
    assert status["activeRevision"]["measuredJoulesPerOutputToken"] == "500m"


def test_windows_are_averaged_and_each_counts_once() -> None:
    status = first(0.5)
    for _ in range(2):
        status = runs(status, plan(), measurement=window(2200, 0.6, tokens=2400.0))
    active = status["activeRevision"]
    assert (active["measuredJoulesPerOutputToken"], active["measuredOutputTokensPerSecond"]) == ("530m", 2120)


def test_the_mean_begins_anew_at_another_load() -> None:
    active = runs(first(0.5), plan(), measurement=window(2200, 0.9, tokens=900.0))["activeRevision"]
    assert (active["measuredJoulesPerOutputToken"], active["measuredOutputTokensPerSecond"]) == ("900m", 900)


@pytest.mark.parametrize(
    "change",
    [{"reason": "TooFewTokens"}, {"joules_per_output_token": None}, {"output_tokens_per_second": None}],
    ids=["too few tokens", "no energy", "no load"],
)
def test_a_window_without_a_figure_changes_no_mean(change: dict[str, Any]) -> None:
    status = runs(first(0.5), plan(), measurement=replace(window(2200, 0.9), **change))
    assert status["activeRevision"]["measuredJoulesPerOutputToken"] == "500m"


def test_windows_beside_a_canary_count_not() -> None:
    status = runs(first(0.5), plan(), measurement=window(2200, 0.9), canary_pods=(pod("c0"),))
    assert status["activeRevision"]["measuredJoulesPerOutputToken"] == "500m"


def test_a_replaced_plan_is_kept_with_its_figures_and_over_restarts() -> None:
    new = plan(OTHER, max_batch_size=64)
    status = runs(first(0.5), new)
    assert status["previousRevision"] == {
        "planHash": HASH,
        "model": MODEL,
        "gpuProduct": "NVIDIA-H100-80GB-HBM3",
        "gpus": 2,
        "replicas": 2,
        "layout": "TP1",
        "maxBatchSize": 32,
        "joulesPerOutputToken": "400m",
        "outputTokensPerSecond": 2000,
        "measuredJoulesPerOutputToken": "500m",
        "measuredOutputTokensPerSecond": 2000,
        "replacedBy": OTHER,
        "replacedTime": "2026-03-01T12:00:00Z",
    }
    assert "measuredJoulesPerOutputToken" not in status["activeRevision"]
    later = runs(status, new, measurement=window(2200, 0.4), now=NOW + timedelta(hours=1))
    assert later["previousRevision"] == status["previousRevision"]


def test_a_plan_that_was_never_measured_has_only_its_prediction() -> None:
    before = runs(runs(None, plan()), plan(OTHER, max_batch_size=64))["previousRevision"]
    assert before["joulesPerOutputToken"] == "400m"
    assert "measuredJoulesPerOutputToken" not in before


def test_a_return_to_the_plan_before_replaces_no_plan() -> None:
    status = runs(runs(first(), plan(OTHER, max_batch_size=64)), plan())
    assert "previousRevision" not in status


def test_a_third_plan_replaces_the_second() -> None:
    status = runs(runs(first(), plan(OTHER, max_batch_size=64)), plan(THIRD, max_batch_size=128))
    assert (status["previousRevision"]["planHash"], status["previousRevision"]["replacedBy"]) == (OTHER, THIRD)


def test_plans_of_another_model_are_not_compared() -> None:
    spec = {"model": {"name": "Qwen/Qwen3-8B"}}
    assert "previousRevision" not in runs(first(), plan(OTHER, max_batch_size=64), spec)


def test_a_plan_that_stays_because_another_model_has_none_keeps_its_model() -> None:
    spec = {"model": {"name": "Qwen/Qwen3-8B"}}
    none = PlanChoice(plan(), observation().planning.model, False, Reason.SLO_INFEASIBLE, "no plan; the running stays")
    kept = runs(first(), plan(), spec, planning=none)
    assert kept["activeRevision"]["model"] == MODEL
    assert "previousRevision" not in runs(kept, plan(OTHER, max_batch_size=64), spec)


def test_a_plan_that_waits_for_approval_replaces_no_plan() -> None:
    waits = plan(OTHER, max_batch_size=64)
    status = runs(first(), waits, workload=workload(plan()), standing=plan())
    assert (status["activeRevision"]["planHash"], status["activeRevision"]["model"]) == (HASH, MODEL)
    assert status["activeRevision"]["measuredJoulesPerOutputToken"] == "500m"
    assert "previousRevision" not in status


def test_replicas_that_follow_the_load_keep_the_plan_before() -> None:
    wide = plan(OTHER, max_batch_size=64)
    more = loaded(plan(THIRD, max_batch_size=64, replicas=3, gpus=3), 3000)
    before = runs(runs(first(), wide), more)["previousRevision"]
    assert (before["planHash"], before["replacedBy"]) == (HASH, THIRD)
    assert "previousRevision" not in runs(first(), loaded(plan(OTHER, replicas=3, gpus=3), 3000))


@pytest.mark.parametrize(("tokens", "kept"), [(2080, HASH), (2140, None)])
def test_a_load_within_five_percent_is_the_same_load(tokens: int, kept: str | None) -> None:
    """More replicas for the same load are another plan, and more replicas for more load are not."""
    more = loaded(plan(OTHER, replicas=3, gpus=3), tokens)
    assert runs(first(), more).get("previousRevision", {}).get("planHash") == kept


@pytest.mark.parametrize(
    "change",
    [{"max_batch_size": 64}, {"max_batched_tokens": 4096}, {"layout": "TP2"}, {"gpu_product": "NVIDIA-H200"}],
    ids=lambda change: next(iter(change)),
)
def test_other_replicas_in_another_number_are_another_plan_at_any_load(change: dict[str, Any]) -> None:
    other = loaded(plan(OTHER, replicas=3, gpus=3, **change), 3000)
    assert runs(first(), other, workload=workload(plan(OTHER)))["previousRevision"]["planHash"] == HASH


def test_a_plan_whose_load_is_not_known_is_another_plan() -> None:
    status = first()
    del status["activeRevision"]["outputTokensPerSecond"]
    more = loaded(plan(OTHER, replicas=3, gpus=3), 3000)
    assert runs(status, more)["previousRevision"]["planHash"] == HASH


def test_fewer_replicas_at_the_same_load_are_another_plan() -> None:
    status = runs(first(), plan(OTHER, replicas=1, gpus=1))
    assert status["previousRevision"]["replicas"] == 2


def test_an_interval_without_a_workload_keeps_the_comparison_of_the_same_plan_only() -> None:
    new = plan(OTHER, max_batch_size=64)
    stopped = runs(runs(first(), new), new, workload=None)
    assert stopped["previousRevision"]["planHash"] == HASH
    assert runs(stopped, new)["previousRevision"]["planHash"] == HASH
    assert "previousRevision" not in runs(stopped, plan(THIRD, max_batch_size=128))


def test_plans_of_a_release_that_kept_no_model_are_not_compared() -> None:
    status = first()
    del status["activeRevision"]["model"]
    assert "previousRevision" not in runs(status, plan(OTHER, max_batch_size=64))


@pytest.mark.parametrize(
    ("tokens", "saved"), [(1000.0, 200.0), (1300.0, 260.0), (1340.0, None), (750.0, 150.0), (740.0, None)]
)
def test_a_saving_is_stated_at_a_similar_load_only(tokens: float, saved: float | None) -> None:
    assert saved_watts(0.6, 1000.0, 0.4, tokens) == (None if saved is None else pytest.approx(saved))


def test_more_energy_is_a_negative_saving_and_no_load_none() -> None:
    assert saved_watts(0.4, 1000.0, 0.6, 1000.0) == pytest.approx(-200.0)
    assert saved_watts(0.6, 0.5, 0.4, 0.5) == pytest.approx(0.1)
    assert saved_watts(0.4, 0.0, 0.6, 1000.0) is None
