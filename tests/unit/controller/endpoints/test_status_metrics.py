"""Series of objects: those of the status as it is, and none that is old."""

from __future__ import annotations

import asyncio
from typing import Any, get_args

import pytest
from tests.support.metrics_page import Scrape, page, scrape

from energylens.controller.endpoints.metrics import PLAN_DECISIONS, Metrics
from energylens.controller.endpoints.status_metrics import _AT_ONCE, DEPLOYMENT_FAMILIES
from energylens.controller.state.store import Store
from energylens.planner.adoption import AdoptionReason

LABELS = {"namespace": "team", "name": "llama"}
STATUS: dict[str, Any] = {
    "plan": {
        "hash": "abc",
        "gpuProduct": "NVIDIA-H100-80GB-HBM3",
        "layout": "TP2",
        "predictorVersion": "1+x",
        "confidence": "Interpolated",
        "gpus": 4,
        "replicas": 2,
        "correction": {"ttft": "1", "itl": "1100m", "power": "1", "energy": "1200m"},
        "predicted": {
            "joulesPerOutputToken": "400m",
            "powerWatts": 2000,
            "outputTokensPerSecond": 5000,
            "itlMilliseconds": 20,
            "tpotMilliseconds": 30,
            "ttftMilliseconds": 150,
        },
    },
    "measured": {
        "joulesPerOutputToken": "500m",
        "powerWatts": 2100,
        "requestsPerSecond": "2500m",
        "itlMilliseconds": 25,
        "tpotMilliseconds": 40,
        "prefixCacheHitPercent": 42,
        "acceptancePercent": 0,
    },
    "prediction": {"energyErrorPercent": -20, "itlErrorPercent": -20, "tpotErrorPercent": -25, "samples": 3},
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "PodsReady"},
        {"type": "EnergyMetricsAvailable", "status": "True", "reason": "Measured"},
        {"type": "SLOMet", "status": "Unknown", "reason": "NotMeasured"},
    ],
}


def scraped(status: dict[str, Any]) -> Scrape:
    store = Store()
    metadata = {"namespace": "team", "name": "llama", "uid": "u", "resourceVersion": "1"}
    store.put_deployment({"metadata": metadata, "spec": {}, "status": status}, deleted=False)
    return asyncio.run(scrape(Metrics(store)))


def value(found: Scrape, name: str, **labels: str) -> float | None:
    return found.value(f"energylens_{name}", **LABELS, **labels)


def test_figures_are_those_of_the_status_in_base_units() -> None:
    found = scraped(STATUS)
    assert value(found, "predicted_joules_per_output_token") == 0.4
    assert value(found, "measured_joules_per_output_token") == 0.5
    assert (value(found, "predicted_itl_seconds"), value(found, "measured_itl_seconds")) == (0.02, 0.025)
    assert (value(found, "predicted_tpot_seconds"), value(found, "measured_tpot_seconds")) == (0.03, 0.04)
    assert value(found, "prediction_error_ratio", figure="tpot") == -0.25
    assert value(found, "measured_prefix_cache_hit_ratio") == 0.42
    assert value(found, "measured_draft_acceptance_ratio") == 0
    assert value(found, "measured_requests_per_second") == 2.5
    assert value(found, "prediction_error_ratio", figure="energy") == -0.2
    assert value(found, "plan_correction_ratio", figure="energy") == 1.2
    assert (value(found, "plan_gpus"), value(found, "plan_replicas")) == (4, 2)
    plan = {"hash": "abc", "gpu_product": "NVIDIA-H100-80GB-HBM3", "layout": "TP2"}
    assert value(found, "plan_info", **plan, predictor_version="1+x", confidence="Interpolated") == 1


PREVIOUS = {
    "planHash": "abd",
    "joulesPerOutputToken": "700m",
    "measuredJoulesPerOutputToken": "750m",
    "measuredOutputTokensPerSecond": 4000,
}


def test_the_saving_is_that_of_two_measured_plans_at_a_similar_load() -> None:
    status = {**STATUS, "previousRevision": PREVIOUS}
    status["measured"] = {**STATUS["measured"], "outputTokensPerSecond": 4400}
    found = scraped(status)
    assert value(found, "previous_plan_predicted_joules_per_output_token") == 0.7
    assert value(found, "previous_plan_measured_joules_per_output_token") == 0.75
    assert value(found, "saved_power_watts") == pytest.approx(1100.0)


@pytest.mark.parametrize(
    "case", ["no plan before", "not measured before", "no load", "another load", "canary", "stale"]
)
def test_no_saving_is_claimed_without_both_measurements(case: str) -> None:
    before = {**PREVIOUS}
    status = {**STATUS, "previousRevision": before, "measured": {**STATUS["measured"], "outputTokensPerSecond": 4400}}
    if case == "no plan before":
        del status["previousRevision"]
    elif case == "not measured before":
        del before["measuredJoulesPerOutputToken"]
    elif case == "no load":
        del status["measured"]["outputTokensPerSecond"]
    elif case == "another load":
        status["measured"]["outputTokensPerSecond"] = 6000
    elif case == "canary":
        status["verification"] = {"plan": STATUS["plan"], "goodWindows": 1}
    else:
        status["conditions"] = [{"type": "EnergyMetricsAvailable", "status": "False", "reason": "NoMetrics"}]
    assert value(scraped(status), "saved_power_watts") is None


def test_what_was_not_measured_has_no_series() -> None:
    found = scraped(STATUS)
    assert value(found, "measured_ttft_seconds") is None
    assert value(found, "measured_idle_power_watts") is None
    assert value(found, "prediction_error_ratio", figure="power") is None


@pytest.mark.parametrize("reason", ["SourceUnreachable", "Implausible", "Collecting", "Disabled"])
def test_a_measurement_of_before_has_no_series(reason: str) -> None:
    conditions = [{"type": "EnergyMetricsAvailable", "status": "False", "reason": reason}]
    found = scraped({**STATUS, "conditions": conditions})
    assert value(found, "measured_joules_per_output_token") is None
    assert value(found, "measured_power_watts") is None
    assert value(found, "prediction_error_ratio", figure="energy") is None
    assert value(found, "predicted_joules_per_output_token") == 0.4


def test_conditions_have_three_values_and_their_reason() -> None:
    found = scraped(STATUS)
    assert value(found, "condition_status", type="Ready", reason="PodsReady") == 1
    assert value(found, "condition_status", type="SLOMet", reason="NotMeasured") == -1
    down = scraped({"conditions": [{"type": "Ready", "status": "False", "reason": "Suspended"}]})
    assert value(down, "condition_status", type="Ready", reason="Suspended") == 0


def test_an_object_without_a_status_has_no_series() -> None:
    assert value(scraped({}), "plan_gpus") is None


async def test_a_deleted_object_has_no_series() -> None:
    store = Store()
    body = {"metadata": {"namespace": "team", "name": "llama", "uid": "u", "resourceVersion": "1"}, "status": STATUS}
    store.put_deployment(body, deleted=False)
    found = Metrics(store)
    assert value(await scrape(found), "plan_gpus") == 4
    store.put_deployment(body, deleted=True)
    assert value(await scrape(found), "plan_gpus") is None
    found.energy.labels("team", "llama").inc(5)
    assert value(await scrape(found), "energy_joules_total") == 5
    found.forget(("team", "llama"))
    found.forget(("team", "never-there"))
    assert value(await scrape(found), "energy_joules_total") is None


@pytest.mark.parametrize(
    ("name", "labels"),
    [
        ("reconciles_total", {"result": "error"}),
        ("reconciles_total", {"result": "retry"}),
        ("measurement_failures_total", {"reason": "Defect"}),
        ("measurement_failures_total", {"reason": "NoEnergyCounter"}),
        ("plan_decisions_total", {"decision": "adopt", "reason": "FirstPlan"}),
        ("plan_decisions_total", {"decision": "none", "reason": "SLOInfeasible"}),
    ],
)
def test_counters_begin_at_zero_so_that_the_first_time_is_an_increase(name: str, labels: dict[str, str]) -> None:
    assert asyncio.run(scrape(Metrics())).value(f"energylens_{name}", **labels) == 0


def test_every_reason_to_adopt_or_keep_a_plan_is_counted_from_zero() -> None:
    known = {*PLAN_DECISIONS["adopt"], *PLAN_DECISIONS["keep"]} - {
        "Shed",
        "ShedEnded",
        "AtTheFloor",
        "MostCarried",
        "OtherModelOrEngine",
    }
    assert known == set(get_args(AdoptionReason))


async def test_each_family_is_on_the_page_once_with_its_help_and_the_series_of_all_objects() -> None:
    store = Store()
    found = Metrics(store)
    names = ("llama", 'qu"ote', "new")
    for number, name in enumerate(names):
        metadata = {"namespace": "team", "name": name, "uid": name, "resourceVersion": "1"}
        plan = {**STATUS["plan"], "layout": f"TP{number}\n\\", "predictorVersion": "a\0b"}
        status = {} if name == "new" else {**STATUS, "plan": plan}
        store.put_deployment({"metadata": metadata, "spec": {}, "status": status}, deleted=False)
    # The second page is put together from the lines that the first one left.
    for _ in range(2):
        served = (await scrape(found)).families
        # A family in two places would be here twice.
        of_objects = [family for family in served if family.name in {each.name for each in DEPLOYMENT_FAMILIES}]
        assert [(family.name, family.type, family.documentation) for family in of_objects] == [
            (family.name, "gauge", family.text) for family in DEPLOYMENT_FAMILIES
        ]
        (plans,) = (family.samples for family in of_objects if family.name == "energylens_plan_info")
        assert [(plan.labels["name"], plan.labels["layout"], plan.labels["predictor_version"]) for plan in plans] == [
            ("llama", "TP0\n\\", "a\0b"),
            ('qu"ote', "TP1\n\\", "a\0b"),
        ]
        (errors,) = (family.samples for family in of_objects if family.name == "energylens_prediction_error_ratio")
        assert [(error.labels["name"], error.labels["figure"], error.value) for error in errors] == [
            (name, figure, ratio)
            for name in names[:2]
            for figure, ratio in (("energy", -0.2), ("itl", -0.2), ("tpot", -0.25))
        ]


async def test_the_page_follows_changes_and_deletions() -> None:
    store = Store()
    found = Metrics(store)
    metadata = {"namespace": "team", "name": "llama", "uid": "u", "resourceVersion": "1"}
    body = {"metadata": metadata, "spec": {}, "status": STATUS}
    store.put_deployment(body, deleted=False)
    assert 'energylens_plan_gpus{name="llama",namespace="team"} 4.0' in await page(found)
    status = {**STATUS, "plan": {**STATUS["plan"], "gpus": 8}}
    store.put_deployment({**body, "metadata": {**metadata, "resourceVersion": "2"}, "status": status}, deleted=False)
    assert 'energylens_plan_gpus{name="llama",namespace="team"} 8.0' in await page(found)
    store.put_deployment({**body, "metadata": {**metadata, "resourceVersion": "3"}}, deleted=True)
    assert "llama" not in await page(found)
    assert not found._statuses._known


async def test_a_deployment_that_goes_while_the_page_is_written_is_left_out() -> None:
    store = Store()
    found = Metrics(store)
    metadata = {"namespace": "team", "uid": "u", "resourceVersion": "1"}
    for number in range(3 * _AT_ONCE):
        body = {"metadata": {**metadata, "name": f"n{number}"}, "spec": {}, "status": STATUS}
        store.put_deployment(body, deleted=False)
    writing = asyncio.create_task(page(found))
    await asyncio.sleep(0)
    for key in list(store.deployments)[-1:]:
        del store.deployments[key]
    said = await writing
    assert said.count("energylens_plan_gpus{") == 3 * _AT_ONCE - 1
