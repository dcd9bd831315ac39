"""A batch job in words: when it ends, what it takes and what it costs."""

from __future__ import annotations

import pytest

from energylens.api.llmdeployment import PlannedJob
from energylens.cli.inputs.rates import NO_RATES, Rates
from energylens.cli.text.job import duration, job_cost_lines, job_cost_object, job_text

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
