"""A batch job in words: when it ends, what it takes and what it costs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.unit.cli.conftest import POOLS, Run, Write, budget, chat
from tests.unit.decide.observations import deployment, plan

from energylens.api.llmdeployment import PlannedJob
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.text.job import duration, job_cost_lines, job_cost_object, job_start_lines, job_text
from energylens.cli.text.status import facts

JOB = PlannedJob(completion_seconds=7500, energy_watt_hours=12_345)


@pytest.mark.parametrize(
    ("seconds", "text"), [(48, "48 s"), (119, "119 s"), (120, "2 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min")]
)
def test_a_time_is_hours_and_minutes(seconds: int, text: str) -> None:
    assert duration(seconds) == text


def test_the_end_is_a_time_once_the_pods_were_created() -> None:
    assert job_text(JOB) == "ends 2 h 5 min after the pods are created, 12.3 kWh from the start of the pods"
    assert job_text(JOB, "2026-03-02T22:00:00Z").startswith("ends at about 2026-03-03 00:05 UTC, 12.3 kWh")


def test_a_job_costs_its_energy_and_no_month() -> None:
    rates = Rates(price=0.2, host_watts=100.0)
    cost, hosts = job_cost_lines(rates, JOB, 4)
    assert cost == "  cost        12.3 kWh, 2.47 in money for the job"
    assert hosts.startswith("  hosts       400 W more as stated (100 W for each of 4 GPUs): ")
    assert hosts.endswith("0.833 kWh, 0.167 in money until the last answer")
    found = job_cost_object(rates, JOB, 4, 0.2)
    assert found is not None
    assert found["job"]["money"] == pytest.approx(2.469)
    assert found["hosts"]["job"]["kilowattHours"] == pytest.approx(0.8333, rel=1e-3)
    assert job_cost_lines(NO_RATES, JOB, 4) == []
    assert job_cost_object(NO_RATES, JOB, 4, 0.2) is None


def nightly(**energy: object) -> dict[str, object]:
    job = {"requests": 40_000, "completeWithinSeconds": 7200, "afterCompletion": "Release"}
    return chat(
        "batch/nightly",
        "meta-llama/Llama-3.1-8B-Instruct",
        workload={"inputTokens": 300, "outputTokens": 400, "job": job},
        slo={"percentile": "P50"},
        energy=energy,
    )


def planned(run: Run, write: Write, *documents: object) -> tuple[int, dict[str, Any]]:
    files = ["-f", write("asked.yaml", list(documents)), "--inventory", write("pools.yaml", POOLS)]
    found = run("plan", *files, "-o", "json")
    return found.exit_code, json.loads(found.stdout)["status"]


def test_a_budget_counts_the_power_of_a_job_while_requests_are_served(arithmetic: Run, write: Write) -> None:
    code, free = planned(arithmetic, write, nightly())
    watts = free["plan"]["predicted"]["powerWatts"]
    assert code == 0
    # The mean power over the time that the job may take is lower than that, and would fit into this budget.
    assert 3600 * free["plan"]["job"]["energyWattHours"] / 7200 < watts - 1
    for cap in ({"budget": {"powerWatts": watts - 1, "action": "Enforce"}}, {}):
        own = [nightly(**cap)] if cap else [nightly(), budget("batch/cap", watts - 1)]
        code, less = planned(arithmetic, write, *own)
        assert code == 0
        assert less["plan"]["predicted"]["powerWatts"] < watts
        assert less["plan"]["job"]["completionSeconds"] <= 7200


def test_a_job_that_no_budget_can_power_is_refused_with_the_watts_that_it_needs(arithmetic: Run, write: Write) -> None:
    code, refused = planned(arithmetic, write, nightly(), budget("batch/cap", 50))
    assert code == 3
    (ready,) = (c for c in refused["conditions"] if c["type"] == "PlanReady")
    assert ready["reason"] == "BudgetExceeded"
    (power,) = (r for r in refused["relaxations"] if "batch/cap" in r["field"])
    code, allowed = planned(arithmetic, write, nightly(), budget("batch/cap", int(power["allowed"])))
    assert code == 0
    assert allowed["plan"]["predicted"]["powerWatts"] <= int(power["allowed"])


def test_the_status_of_a_job_that_waits_has_its_start_and_its_end() -> None:
    start = {
        "state": "Waiting",
        "startTime": "2026-03-02T22:00:00Z",
        "endTime": "2026-03-03T00:05:00Z",
        "reason": "BestHours",
        "message": "starts at 2026-03-02T22:00:00Z: 726 g of CO2",
    }
    held = plan(job=JOB).model_dump(mode="json", by_alias=True)
    load = {"inputTokens": 1, "outputTokens": 1, "job": {"requests": 9, "completeWithinSeconds": 9000}}
    adopted = {"plan": held, "planAdoptionTime": "2026-03-02T08:00:00Z"}
    shown = dict(facts(deployment({**adopted, "jobStart": start}, workload=load)))
    assert shown["start"] == "starts at 2026-03-02T22:00:00Z: 726 g of CO2 (BestHours)"
    # Not from the adoption of the plan on, fourteen hours earlier.
    assert shown["job"].startswith("ends at about 2026-03-03 00:05 UTC")
    suspended = {"state": "Suspended", "reason": "Suspended", "message": "spec.suspend is true"}
    stopped = dict(facts(deployment({**adopted, "jobStart": suspended}, workload=load)))
    assert stopped["job"].startswith("ends 2 h 5 min after the pods are created")
    assert "start" not in dict(facts(deployment(adopted, workload=load)))


def test_a_job_that_starts_at_once_has_its_end_and_no_reason_of_its_start() -> None:
    start = {"state": "Started", "startTime": "2026-03-02T22:00:00Z", "reason": "AtOnce", "message": "as soon as"}
    load = {"inputTokens": 1, "outputTokens": 1, "job": {"requests": 9, "completeWithinSeconds": 9000}}
    held = plan(job=JOB).model_dump(mode="json", by_alias=True)
    shown = dict(facts(deployment({"plan": held, "jobStart": start}, workload=load)))
    assert shown["job"].startswith("ends at about 2026-03-03 00:05 UTC")
    assert "start" not in shown
    assert job_start_lines({"jobStart": start}) == []
    refused = {"state": "Waiting", "reason": "BudgetExceeded", "message": "does not start: no room"}
    assert job_start_lines({"jobStart": refused}) == ["start       does not start: no room (BudgetExceeded)"]
    shown = dict(facts(deployment({"plan": held, "jobStart": refused}, workload=load)))
    assert shown["start"] == "does not start: no room (BudgetExceeded)"
    assert shown["job"].startswith("ends 2 h 5 min after the pods are created")
