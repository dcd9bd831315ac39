"""Measured against predicted, with the replay exporter's counters of real runs."""

from __future__ import annotations

import pytest
from tests.support.operator_cluster import OperatorCluster, Team

from energylens.api.quantity import parse_quantity
from energylens.devcluster import eventually

MEASURED = {
    "hardware": {"gpuProducts": ["NVIDIA-H100-80GB-HBM3"]},
    "workload": {"inputTokens": 512, "outputTokens": 512, "concurrency": 64},
    "planning": {"overrides": {"tensorParallel": 1, "replicas": 1}},
    "validation": {"source": "DCGMExporter", "warmupSeconds": 0, "windowSeconds": 10},
}


@pytest.fixture(autouse=True)
def healthy_exporter(operator: OperatorCluster) -> None:
    operator.break_exporter()


def test_measured_energy_appears_beside_the_prediction(operator: OperatorCluster, team: Team) -> None:
    team.apply(**MEASURED)
    plan = team.ready()["plan"]
    team.wait("EnergyMetricsAvailable", "True", "Measured")
    status = team.status()
    measured, prediction = status["measured"], status["prediction"]
    assert measured["coveragePercent"] == 100
    assert measured["powerWatts"] > 100
    assert measured["outputTokensPerSecond"] > 0
    joules = float(parse_quantity(measured["joulesPerOutputToken"]))
    # Energy per token is power over tokens, as rounding leaves it.
    assert joules == pytest.approx(measured["powerWatts"] / measured["outputTokensPerSecond"], rel=0.02)
    predicted = float(parse_quantity(plan["predicted"]["joulesPerOutputToken"]))
    assert prediction["energyErrorPercent"] == pytest.approx(100 * (predicted / joules - 1), abs=1.5)
    assert prediction["samples"] >= 1
    accurate = team.condition("PredictionAccurate")
    within = abs(prediction["energyErrorPercent"]) <= 15
    assert accurate["status"] == ("True" if within else "False")
    assert accurate["reason"] == ("WithinTolerance" if within else "OutsideTolerance")
    labels = f'{{name="llama",namespace="{team.namespace}"}}'
    assert operator.metric(f"energylens_measured_joules_per_output_token{labels}") == pytest.approx(joules, rel=0.05)


def test_a_measured_deployment_is_not_written_more_often_than_its_windows(
    operator: OperatorCluster, team: Team
) -> None:
    team.apply(**MEASURED)
    team.ready()
    team.wait("EnergyMetricsAvailable", "True", "Measured")
    log, samples = operator.audit(), team.status()["prediction"]["samples"]
    eventually(lambda: team.status()["prediction"]["samples"] >= samples + 2, 90)
    windows = team.status()["prediction"]["samples"] - samples
    writes = [event for event in operator.writes(log, team.namespace) if event.subresource == "status"]
    assert len(writes) <= windows + 1, writes


@pytest.mark.parametrize(("fault", "reason"), [("dead", "SourceUnreachable"), ("drop-labels", "PodLabelsMissing")])
def test_without_metrics_there_is_a_condition_and_no_number(
    operator: OperatorCluster, team: Team, fault: str, reason: str
) -> None:
    operator.break_exporter(fault)
    try:
        team.apply(**MEASURED)
        team.ready()
        condition = team.wait("EnergyMetricsAvailable", "False", reason)
        assert condition["message"]
        status = team.status()
        assert "joulesPerOutputToken" not in status.get("measured", {})
        assert "energyErrorPercent" not in status.get("prediction", {})
        assert team.condition("PredictionAccurate")["status"] == "Unknown"
        assert team.condition("Ready")["status"] == "True"
    finally:
        operator.break_exporter()
    team.wait("EnergyMetricsAvailable", "True", "Measured")


def test_without_a_source_nothing_is_measured(team: Team) -> None:
    team.apply(**{**MEASURED, "validation": {"source": "None"}})
    team.ready()
    team.wait("EnergyMetricsAvailable", "Unknown", "Disabled")
    assert "measured" not in team.status()
