"""The operator's own metrics; docs/metrics.md has a row for each. Labels are bounded by the number of deployments."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

_OBJECT = ("namespace", "name")


class Metrics:
    """All metrics, in a registry of their own so that two operators in one process do not share them."""

    def __init__(self) -> None:
        """Register the metrics."""
        self.registry = CollectorRegistry()

        def gauge(name: str, text: str, labels: tuple[str, ...] = _OBJECT) -> Gauge:
            return Gauge(name, text, labels, registry=self.registry)

        self.build = Info("energylens_operator", "Version of the operator.", registry=self.registry)
        self.predicted_energy = gauge(
            "energylens_predicted_joules_per_output_token", "Predicted GPU energy per output token, J."
        )
        self.measured_energy = gauge(
            "energylens_measured_joules_per_output_token", "Measured GPU energy per output token, J."
        )
        self.measured_power = gauge("energylens_measured_power_watts", "Measured mean power of all GPUs owned, W.")
        self.error_ratio = gauge(
            "energylens_prediction_error_ratio", "(predicted - measured) / measured.", (*_OBJECT, "quantity")
        )
        self.replans = Counter(
            "energylens_plan_decisions_total",
            "Decisions about plans.",
            ("decision", "reason"),
            registry=self.registry,
        )
        self.reconciles = Counter(
            "energylens_reconciles_total", "Passes over an LLMDeployment.", ("result",), registry=self.registry
        )
        self.reconcile_seconds = Histogram(
            "energylens_reconcile_duration_seconds", "Duration of a pass over an LLMDeployment.", registry=self.registry
        )
        self.writes = Counter(
            "energylens_writes_total", "Requests that write to the API server.", ("kind",), registry=self.registry
        )
        self.queue_length = gauge("energylens_queue_length", "LLMDeployments waiting for a pass.", ())
        self.event_age = gauge("energylens_last_event_age_seconds", "Time since the last watch event.", ())
        self.leading = gauge("energylens_leading", "1 while this operator holds the lease.", ())

    def forget(self, namespace: str, name: str) -> None:
        """Remove the series of a deleted LLMDeployment."""
        for metric in (self.predicted_energy, self.measured_energy, self.measured_power):
            _remove(metric, (namespace, name))
        for quantity in ("energy", "power", "itl", "ttft"):
            _remove(self.error_ratio, (namespace, name, quantity))


def _remove(metric: Gauge, labels: tuple[str, ...]) -> None:
    try:
        metric.remove(*labels)
    except KeyError:
        return
