"""Measured against predicted, with the replay exporter's counters of real runs."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.operator_cluster import OperatorCluster, Team

from energylens.api.quantity import parse_quantity
from energylens_dev.devcluster import eventually

MEASURED: dict[str, Any] = {
    "hardware": {"gpuProducts": ["NVIDIA-H100-80GB-HBM3"]},
    "workload": {"inputTokens": 512, "outputTokens": 512, "concurrency": 64},
    "planning": {"overrides": {"tensorParallel": 1, "replicas": 1}},
    "validation": {"source": "DCGMExporter", "warmupSeconds": 0, "windowSeconds": 10},
}

AVAILABLE = "EnergyMetricsAvailable"
MEASURED_KINDS = (AVAILABLE, "PredictionAccurate", "SLOMet")


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
    shown = f"energylens_measured_joules_per_output_token{labels}"
    eventually(lambda: operator.metric(shown) == pytest.approx(joules, rel=0.05))


def test_a_measured_deployment_is_not_written_more_often_than_its_windows(
    operator: OperatorCluster, team: Team
) -> None:
    # Rates that are learned by the hour are a part of each window's write.
    load = {"inputTokens": 512, "outputTokens": 390, "requestsPerSecond": "12", "profile": {"learned": {}}}
    team.apply(**{**MEASURED, "workload": load, "planning": {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}})
    team.ready()
    team.wait("EnergyMetricsAvailable", "True", "Measured")
    log, samples = operator.audit(), team.status()["prediction"]["samples"]
    eventually(lambda: team.status()["prediction"]["samples"] >= samples + 2)
    status = team.status()
    windows = status["prediction"]["samples"] - samples
    writes = [event for event in operator.writes(log, team.namespace) if event.subresource == "status"]
    assert len(writes) <= windows + 1, writes
    learned = status["learnedLoad"]
    seconds = learned["measuredSeconds"]
    measured = [hour for hour in range(168) if seconds[hour]]
    # A window at the full hour belongs to one of two hours.
    assert len(measured) in (1, 2)
    assert sum(seconds) >= 20
    rates = [float(parse_quantity(learned["requestsPerSecond"][hour])) for hour in measured]
    assert rates == pytest.approx([12.0] * len(measured), rel=0.1)
    assert [rate for hour, rate in enumerate(learned["requestsPerSecond"]) if hour not in measured] == ["0"] * (
        168 - len(measured)
    )
    assert (learned["coveredHours"], set(learned["plannedSteps"])) == (0, {0})
    assert "hours" in team.condition("PlanReady")["message"]


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


def test_every_gap_of_a_running_deployment_has_its_reason(operator: OperatorCluster, team: Team) -> None:
    """Two replicas; a condition goes on to the next one as soon as its window sees the next fault."""
    operator.break_exporter("dead-engine")
    slo = {"percentile": "P50", "itlMilliseconds": 200, "tpotMilliseconds": 200}
    spec = {**MEASURED, "slo": slo, "planning": {"overrides": {"tensorParallel": 1, "replicas": 2}}}
    team.apply(**{**spec, "suspend": True})
    for kind in MEASURED_KINDS:
        team.wait(kind, "Unknown", "NotServing")
    team.apply(**spec)
    team.ready()
    missing = team.wait(AVAILABLE, "False", "TokensMissing")["message"]
    assert "token counters were found for 0 of 2 engine pods" in missing
    operator.break_exporter()
    team.wait(AVAILABLE, "True", "Measured")
    assert "TPOT P50" in team.wait("SLOMet", "True", "Met")["message"]
    assert 0 < team.status()["measured"]["tpotMilliseconds"] < 200

    operator.break_exporter("time-slicing")
    assert "is shared with" in team.wait(AVAILABLE, "False", "NotAttributable")["message"]
    operator.break_exporter("one-gpu-missing")
    assert "energy of 1 of 2 GPUs" in team.wait(AVAILABLE, "False", "PartialCoverage")["message"]
    for kind in ("PredictionAccurate", "SLOMet"):
        assert team.condition(kind)["reason"] == "NotMeasured"
    operator.break_exporter()
    team.wait(AVAILABLE, "True", "Measured")

    operator.break_exporter("half-load")
    message = team.wait("PredictionAccurate", "Unknown", "LoadDiffers")["message"]
    assert "% of the planned load" in message
    operator.break_exporter("idle")
    team.wait(AVAILABLE, "False", "TooFewTokens")
    for kind in ("PredictionAccurate", "SLOMet"):
        assert team.condition(kind)["reason"] == "NotMeasured"
    eventually(lambda: team.status()["measured"]["idlePowerWatts"] > 0)
    assert "joulesPerOutputToken" not in team.status()["measured"]


def test_an_error_is_reported_and_nothing_else_follows(operator: OperatorCluster, team: Team) -> None:
    """The default of onDrift; 1 % is less than the two runs of one configuration differ by."""
    operator.break_exporter("hungry")
    team.apply(**{**MEASURED, "validation": {**MEASURED["validation"], "tolerancePercent": 1}})
    plan = team.ready()["plan"]
    team.wait("PredictionAccurate", "False", "OutsideTolerance")
    assert team.condition("SLOMet")["reason"] == "NoObjective"
    eventually(lambda: team.status()["prediction"]["samples"] >= 3)
    status = team.status()
    assert status["plan"] == plan
    assert "correction" not in status["prediction"]
    team.apply(**{**MEASURED, "validation": {**MEASURED["validation"], "tolerancePercent": 100}})
    team.wait("PredictionAccurate", "True", "WithinTolerance")


def test_until_the_first_window_is_complete_nothing_is_said(operator: OperatorCluster, team: Team) -> None:
    team.apply(**{**MEASURED, "validation": {**MEASURED["validation"], "windowSeconds": 3600}})
    team.ready()
    for kind in MEASURED_KINDS:
        team.wait(kind, "Unknown", "Collecting")
    assert "measured" not in team.status()


def test_without_a_source_nothing_is_measured(team: Team) -> None:
    team.apply(**{**MEASURED, "validation": {"source": "None"}})
    team.ready()
    for kind in MEASURED_KINDS:
        team.wait(kind, "Unknown", "Disabled")
    assert "measured" not in team.status()
