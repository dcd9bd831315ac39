"""The status as it is written: figures of this plan only, absent where nothing was measured."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, OTHER, deployment, measured, observation, plan, pod, workload

from energylens.decide.deployment.observed.observation import Observation, PlanChoice
from energylens.decide.deployment.pods.children import children
from energylens.decide.deployment.reports.status import status_of
from energylens.decide.learned.comparison import load_differences
from energylens.decide.reasons import Reason
from energylens.measure.types import EnergyReason, LatencyQuantiles, WindowMeasurement
from energylens.planner.types import Change, Infeasible, Relaxation


def written(observed: Observation) -> dict[str, Any]:
    return status_of(observed, children(observed))


def after(status: dict[str, Any], **changes: Any) -> Observation:
    """Return the observation of the next pass, with the status that the last one wrote."""
    return observation(deployment=deployment(status), **changes)


def test_a_first_window_is_one_sample_with_its_errors() -> None:
    first = written(observation())
    found = measured(joules_per_output_token=0.5, power_watts=1000.0, source="dcgm-exporter")
    status = written(after(first, measurement=found))
    assert status["measured"] == {
        "windowStart": "1970-01-01T00:16:40Z",
        "windowEnd": "1970-01-01T00:26:40Z",
        "source": "DCGMExporter",
        "coveragePercent": 100,
        "powerWatts": 1000,
        "outputTokensPerSecond": 2000,
        "joulesPerOutputToken": "500m",
        "ttftMilliseconds": 90,
        "itlMilliseconds": 19,
    }
    assert status["prediction"] == {
        "energyErrorPercent": -20,
        "powerErrorPercent": -20,
        "ttftErrorPercent": 11,
        "itlErrorPercent": 5,
        "samples": 1,
    }


def test_the_load_of_a_window_is_kept_per_request() -> None:
    found = measured(
        error_bound_joules=4801.0,
        requests=6000.0,
        requests_per_second=10.0,
        prompt_tokens=3_072_000.0,
        mean_running=15.6,
        mean_waiting=0.2,
        kv_cache_usage=0.316,
    )
    status = written(after(written(observation()), measurement=found))["measured"]
    assert (status["requestsPerSecond"], status["inputTokens"], status["outputTokens"]) == ("10000m", 512, 200)
    assert (status["runningRequests"], status["waitingRequests"], status["kvCachePercent"]) == ("15600m", "200m", 32)
    assert status["energyBoundPercent"] == 2


def test_the_inter_token_latency_is_kept_by_percentile() -> None:
    values = {"P50": 28.25, "P90": 40.0, "P95": 45.0, "P99": 60.0}
    latencies = {name: LatencyQuantiles(None, value) for name, value in values.items()}
    found = written(after(written(observation()), measurement=measured(latency_by_percentile=latencies)))["measured"]
    assert found["itlPercentiles"] == {"p50": "28250m", "p90": "40000m", "p95": "45000m", "p99": "60000m"}
    assert "itlPercentiles" not in written(after(written(observation()), measurement=measured()))["measured"]


def test_the_time_per_output_token_is_compared_with_the_plans() -> None:
    found = measured(latency=LatencyQuantiles(ttft_ms=90.0, itl_ms=19.0, tpot_ms=24.2))
    before = observation()
    assert before.planning.plan is not None
    figures = before.planning.plan.predicted.model_copy(update={"tpot_milliseconds": 20})
    plan = before.planning.plan.model_copy(update={"predicted": figures})
    before = replace(before, planning=replace(before.planning, plan=plan))
    status = written(replace(after(written(before), measurement=found), planning=before.planning))
    assert status["measured"]["tpotMilliseconds"] == 25
    assert status["prediction"]["tpotErrorPercent"] == round(100 * (20 / 24.2 - 1))
    # A plan of a release that did not predict it is compared in all else.
    old = written(after(written(observation()), measurement=found))
    assert "tpotErrorPercent" not in old["prediction"]
    assert "itlErrorPercent" in old["prediction"]


def test_hits_and_drafts_are_shown_and_said_where_they_differ_from_the_spec() -> None:
    found = measured(prompt_tokens=1000.0, cached_prompt_tokens=420.0, draft_tokens=2.96, acceptance=0.613)
    status = written(after(written(observation()), measurement=found))
    assert status["measured"]["prefixCacheHitPercent"] == 42
    assert (status["measured"]["draftTokens"], status["measured"]["acceptancePercent"]) == ("2960m", 61)
    (accurate,) = [c["message"] for c in status["conditions"] if c["type"] == "PredictionAccurate"]
    assert "the prefix cache had 42 % of prompt tokens, spec.workload.prefixCacheHitPercent is 0" in accurate
    assert "the engine drafts 2.96 tokens per step, 61 % of them accepted, and spec.workload.speculative is" in accurate


DRAFTS = {"draftTokens": 3, "acceptancePercent": 60}


@pytest.mark.parametrize(
    ("load", "cached", "acceptance", "said"),
    [
        ({"prefixCacheHitPercent": 40}, 420.0, None, []),
        ({"prefixCacheHitPercent": 60}, 420.0, None, ["the prefix cache had 42 % of prompt tokens"]),
        ({}, 90.0, None, []),
        ({"speculative": DRAFTS}, 0.0, 0.66, []),
        ({"speculative": DRAFTS}, 0.0, 0.4, ["40 % of drafted tokens were accepted"]),
        ({"speculative": DRAFTS}, None, None, []),
    ],
)  # fmt: skip
def test_ten_points_of_difference_are_no_difference(
    load: dict[str, Any], cached: float | None, acceptance: float | None, said: list[str]
) -> None:
    workload = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "2", **load}
    found = measured(prompt_tokens=1000.0, cached_prompt_tokens=cached, draft_tokens=3.0, acceptance=acceptance)
    texts = load_differences(deployment(workload=workload), found)
    assert [text.split(",")[0] for text in texts] == said


@pytest.mark.parametrize(
    ("requests", "prompt", "output", "said"),
    [
        (1200.0, 512.0, 256.0, []),
        (1200.0, 640.0, 200.0, []),
        (1200.0, 1024.0, 256.0, ["prompts have 1024 tokens on average, and the plan counts 512"]),
        (1200.0, 512.0, 64.0, ["outputs have 64 tokens on average, and the plan counts 256"]),
        (99.0, 1024.0, 64.0, []),
    ],
)
def test_other_lengths_than_planned_for_are_said(
    requests: float, prompt: float, output: float, said: list[str]
) -> None:
    found = measured(requests=requests, prompt_tokens=requests * prompt, output_tokens=requests * output)
    assert load_differences(deployment(), found) == said


def test_a_window_in_which_no_request_ended_has_no_mean_request() -> None:
    found = measured(requests=0.0, requests_per_second=0.0, prompt_tokens=100.0)
    status = written(after(written(observation()), measurement=found))["measured"]
    assert status["requestsPerSecond"] == "0"
    assert "inputTokens" not in status
    assert "outputTokens" not in status


def test_the_same_window_counts_once() -> None:
    once = written(after(written(observation()), measurement=measured()))
    again = written(after(once, measurement=measured()))
    assert again["prediction"]["samples"] == 1
    assert again == once
    later = written(after(again, measurement=measured(window_start=1600.0, window_end=2200.0)))
    assert later["prediction"]["samples"] == 2


def test_what_was_not_measured_is_absent_and_never_zero() -> None:
    status = written(after(written(observation()), measurement=measured("PartialCoverage")))
    assert "measured" not in status
    assert "prediction" not in status


def test_a_window_without_tokens_has_power_and_no_ratio() -> None:
    found = measured("TooFewTokens", energy_joules=1000.0, power_watts=200.0, coverage_percent=100.0)
    status = written(after(written(observation()), measurement=found))
    assert status["measured"]["powerWatts"] == 200
    assert "joulesPerOutputToken" not in status["measured"]
    assert "energyErrorPercent" not in status["prediction"]


def test_a_latency_without_observations_is_absent() -> None:
    found = measured(latency=LatencyQuantiles(ttft_ms=None, itl_ms=19.0))
    status = written(after(written(observation()), measurement=found))
    assert "ttftMilliseconds" not in status["measured"]
    assert status["measured"]["itlMilliseconds"] == 19


def ended(seconds_ago: float) -> WindowMeasurement:
    end = NOW.timestamp() - seconds_ago
    return measured(window_start=end - 600.0, window_end=end)


def test_a_restart_before_the_first_window_keeps_the_last_one() -> None:
    status = written(after(written(observation()), measurement=ended(1800)))
    assert written(after(status, measurement=None)) == status


MEASURED_KINDS = ("EnergyMetricsAvailable", "PredictionAccurate", "SLOMet")


def said(status: dict[str, Any]) -> set[tuple[str, str, str]]:
    found = [c for c in status["conditions"] if c["type"] in MEASURED_KINDS]
    return {(c["status"], c["reason"], c["message"]) for c in found}


@pytest.mark.parametrize(
    ("reason", "over"),
    [("SourceUnreachable", True), ("PodLabelsMissing", True), ("NotAttributable", True), ("PartialCoverage", False),
     ("Implausible", False), ("TokensMissing", False)],
)  # fmt: skip
def test_a_window_that_is_collected_ends_what_it_disproves_and_nothing_else(reason: EnergyReason, over: bool) -> None:
    """With windows of an hour a first look at a pod whose labels were late said PodLabelsMissing for that hour."""
    status = written(after(written(observation()), measurement=measured(reason)))
    later = written(after(status, measurement=measured("Collecting")))
    energy = {c["reason"] for c in later["conditions"] if c["type"] == "EnergyMetricsAvailable"}
    assert energy == {"Collecting" if over else reason}
    others = {c["reason"] for c in later["conditions"] if c["type"] == "PredictionAccurate"}
    assert others == {"Collecting" if over else "NotMeasured"}
    # A restart has seen nothing yet.
    assert written(after(status, measurement=None))["conditions"] == status["conditions"]


def test_a_window_that_ended_long_ago_says_nothing_of_now() -> None:
    """Default windows of 600 s after a warm-up of 120 s: one of two replicas is not ready for half an hour."""
    status = written(after(written(observation()), measurement=ended(1930)))
    down = {"measurement": None, "pods": (pod("p0"), pod("p1", ready=False)), "workload": workload(ready=1)}
    text = "no complete window since 2026-03-01T11:27:50Z; 1 of 2 replicas are ready"
    assert said(written(after(status, **down))) == {("Unknown", "Collecting", text)}


def test_without_a_ready_replica_nothing_is_said_to_be_measured() -> None:
    status = written(after(written(observation()), measurement=ended(10)))
    gone = {"measurement": None, "pods": (pod("p0", ready=False),), "workload": workload(ready=0)}
    assert said(written(after(status, **gone))) == {("Unknown", "NotServing", "no replica is ready")}


def test_figures_of_another_plan_go_with_it() -> None:
    status = written(after(written(observation()), measurement=measured()))
    new = plan(OTHER, max_batch_size=64)
    moved = after(
        status,
        planning=PlanChoice(new, observation().planning.model, True, Reason.PLANNED, ""),
        workload=workload(new),
        pods=(),
    )
    assert "measured" not in written(moved)
    assert "prediction" not in written(moved)


def test_without_a_workload_nothing_is_active() -> None:
    status = written(observation(workload=None, pods=()))
    assert "activeRevision" not in status
    assert status["observedGeneration"] == 3
    assert status["plan"]["hash"] == plan().hash


def test_the_status_of_the_same_observation_is_the_same() -> None:
    first = observation(measurement=measured())
    status = written(first)
    assert written(replace(first, deployment=deployment(status))) == status


def test_the_cooldown_counts_from_the_adoption_and_not_from_a_crash_of_pods() -> None:
    adopted = replace(observation().planning, adopted=True, decision="FirstPlan")
    first = written(observation(planning=adopted, takes_over=True))
    assert first["planAdoptionTime"] == "2026-03-01T12:00:00Z"
    later = NOW + timedelta(hours=1)
    crashed = written(after(first, workload=workload(ready=0), pods=(), now=later))
    progressing = [c for c in crashed["conditions"] if c["type"] == "Progressing"]
    assert progressing[0]["lastTransitionTime"] == "2026-03-01T13:00:00Z"
    assert crashed["planAdoptionTime"] == first["planAdoptionTime"]
    replaced = written(after(crashed, planning=replace(adopted, plan=plan(OTHER)), now=later, takes_over=True))
    assert replaced["planAdoptionTime"] == "2026-03-01T13:00:00Z"


def test_what_would_allow_a_plan_is_listed_while_there_is_none() -> None:
    single = Relaxation(Change("spec.slo.itlMilliseconds", "5", "11"), 1.235)
    pair = Relaxation(Change("spec.slo.ttftMilliseconds", "5", "40"), 0.5, Change("free GPUs", "0 of X", "2 of X"))
    none = PlanChoice(
        None, None, False, Reason.SLO_INFEASIBLE, "no", result=Infeasible("SLOInfeasible", "no", (), (single, pair))
    )
    status = written(observation(planning=none, workload=None, pods=()))
    assert status["relaxations"] == [
        {"field": "spec.slo.itlMilliseconds", "value": "5", "allowed": "11", "joulesPerOutputToken": "1235m"},
        {
            "field": "spec.slo.ttftMilliseconds",
            "value": "5",
            "allowed": "40",
            "withField": "free GPUs",
            "withValue": "0 of X",
            "withAllowed": "2 of X",
            "joulesPerOutputToken": "500m",
        },
    ]
    assert "planAdoptionTime" not in status
    assert "relaxations" not in written(after(status))
