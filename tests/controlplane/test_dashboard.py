"""Every panel of the dashboard, by a real Prometheus that scrapes the operator's own page with all figures on it.

A cluster has some of them only after an hour, or when something fails; the operator's own tests ask there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.dashboard import filled_queries
from tests.support.metrics_page import scrape, served
from tests.support.prometheus import prometheus

from energylens.api.energybudget import EnergyBudgetStatus
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.endpoints.status_metrics import DEPLOYMENT_FAMILIES
from energylens.controller.state.store import Store
from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.ports import free_port

PREDICTED = {"joulesPerOutputToken": "400m", "powerWatts": 2000, "outputTokensPerSecond": 5000, "itlMilliseconds": 20,
             "tpotMilliseconds": 22, "ttftMilliseconds": 150, "endToEndMilliseconds": 6000}  # fmt: skip
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
        "predicted": PREDICTED,
    },
    "measured": {
        **PREDICTED,
        "idlePowerWatts": 480,
        "requestsPerSecond": "2500m",
        "prefixCacheHitPercent": 40,
        "acceptancePercent": 60,
    },
    "previousRevision": {
        "joulesPerOutputToken": "600m",
        "measuredJoulesPerOutputToken": "650m",
        "measuredOutputTokensPerSecond": 5000,
    },
    "prediction": {f"{name}ErrorPercent": -20 for name in ("energy", "power", "itl", "tpot", "ttft", "endToEnd")},
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "PodsReady"},
        {"type": "EnergyMetricsAvailable", "status": "True", "reason": "Measured"},
    ],
}
BUDGET = {
    "energyLimit": "100k",
    "usedWattHours": 40_000,
    "usedPercent": 40,
    "remainingWattHours": 60_000,
    "predictedWattHours": 1000,
    "burnRatePercent": 120,
    "exhaustionTime": "2026-03-02T00:00:00Z",
    "committedPowerWatts": 2000,
    "allowedPowerWatts": 5000,
}


def full() -> Metrics:
    """Return the operator's metrics with a figure for every family of a deployment and a budget."""
    store = Store()
    metadata = {"namespace": "team", "name": "llama", "uid": "u", "resourceVersion": "1"}
    store.put_deployment({"metadata": metadata, "spec": {}, "status": STATUS}, deleted=False)
    metrics = Metrics(store)
    metrics.observe_budget("team", "budget", EnergyBudgetStatus.model_validate(BUDGET))
    metrics.energy.labels("team", "llama")
    for gauge in (metrics.queue_length, metrics.event_age, metrics.leading):
        gauge.set(1)
    return metrics


def work(metrics: Metrics) -> None:
    """Let the operator do a little of everything."""
    metrics.energy.labels("team", "llama").inc(2000)
    metrics.reconciles.labels("ok").inc()
    metrics.reconcile_seconds.observe(0.02)
    metrics.writes.labels("LLMDeployment/status").inc()
    metrics.replans.labels("adopt", "EnergySaving").inc()
    metrics.collect_failures.labels("Timeout").inc()


async def test_every_family_of_a_deployment_has_a_series_here() -> None:
    found = {family.name for family in (await scrape(full())).families if family.samples}
    assert {family.name for family in DEPLOYMENT_FAMILIES} <= found


def test_every_query_of_the_dashboard_yields_numbers(tmp_path: Path) -> None:
    queries = filled_queries("team")
    metrics, port = full(), free_port()
    with served(metrics, port), prometheus(tmp_path, f"http://127.0.0.1:{port}/none") as scraping:
        scraping.scrape("operator", f"http://127.0.0.1:{port}/metrics")

        def silent() -> list[str]:
            work(metrics)
            return [
                query
                for query, expression in queries.items()
                if not [value for _, value in scraping.values(expression) if value == value]
            ]

        def every_query_answers() -> bool:
            assert silent() == []
            return True

        eventually(every_query_answers, interval=1.0)
