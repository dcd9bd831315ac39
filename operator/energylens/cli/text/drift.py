"""One row of `energylens drift`: what was predicted, what was measured, and the errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.cli.text.tables import correction_text, joules
from energylens.records import dataclass

FIGURES = ("energy", "power", "itl", "tpot", "ttft", "end_to_end")
NOT_COMPARED = ("LoadDiffers",)


@dataclass(frozen=True)
class DriftRow:
    """One LLMDeployment."""

    namespace: str
    name: str
    model: str
    gpus: str
    layout: str
    load_percent: int | None
    """Measured load in percent of the load that was planned for: requests in flight if the spec gives them, else tokens
    per second."""
    predicted: Mapping[str, float]
    """Predictions by figure: energy in J per output token, power in W, ITL, TPOT, TTFT and end-to-end latency in ms."""
    found: Mapping[str, float]
    """Measurements by figure, in the same units; figures that were not measured are absent."""
    errors: Mapping[str, int]
    """Errors by figure, in whole percents."""
    correction: str
    """Corrections from measurement that the predictions include; "" without any."""
    reason: str
    """Why nothing was measured, or why the measurement is not compared; "" if it is compared."""

    @property
    def measured(self) -> bool:
        """Whether energy per token was measured."""
        return "energy" in self.found

    @property
    def comparable(self) -> bool:
        """Whether energy per token was measured at a load close to the one that the plan was made for."""
        return self.measured and self.reason not in NOT_COMPARED

    def cells(self) -> tuple[str, ...]:
        """Return the row's texts."""

        def number(values: Mapping[str, float], name: str) -> str:
            return f"{values[name]:.3g}" if name in values else "-"

        errors = (f"{self.errors[name]:+d} %" if name in self.errors else "-" for name in FIGURES)
        load = "-" if self.load_percent is None else f"{self.load_percent} %"
        energy = number(self.predicted, "energy"), number(self.found, "energy")
        why = " ".join(filter(None, (self.reason, self.correction and f"(corrected: {self.correction})")))
        return (self.namespace, self.name, self.gpus, self.layout, load, *energy, *errors, why)

    def as_object(self) -> dict[str, Any]:
        """Return the row for programs."""
        return {
            "namespace": self.namespace,
            "name": self.name,
            "model": self.model,
            "gpus": self.gpus,
            "layout": self.layout,
            "loadPercent": self.load_percent,
            "predicted": dict(self.predicted),
            "measured": dict(self.found),
            "errorPercent": dict(self.errors),
            "correction": self.correction,
            "reason": self.reason,
        }


def _load_percent(deployment: LLMDeployment) -> int | None:
    plan, measured = deployment.status.plan, deployment.status.measured
    if plan is None or measured is None:
        return None
    predicted, running = plan.predicted, measured.running_requests
    if deployment.spec.workload.in_flight is not None and running is not None and predicted.concurrency:
        return round(100 * float(parse_quantity(running)) / predicted.concurrency)
    if measured.output_tokens_per_second is None or not predicted.output_tokens_per_second:
        return None
    return round(100 * measured.output_tokens_per_second / predicted.output_tokens_per_second)


def row_of(deployment: LLMDeployment) -> DriftRow:
    """Return the row of an LLMDeployment, from its status alone."""
    status, metadata = deployment.status, deployment.metadata
    plan, measured, prediction = status.plan, status.measured, status.prediction
    conditions = {condition.type: condition for condition in status.conditions}
    predicted: dict[str, float] = {}
    found: dict[str, float] = {}
    errors: dict[str, int] = {}
    available, accurate = conditions.get("EnergyMetricsAvailable"), conditions.get("PredictionAccurate")
    reason = "NotPlanned" if plan is None else available.reason if available is not None else "NotMeasured"
    if plan is not None:
        figures = plan.predicted
        predicted = {
            "energy": float(joules(figures.joules_per_output_token)),
            "power": float(figures.power_watts),
            "itl": float(figures.itl_milliseconds),
            "ttft": float(figures.ttft_milliseconds),
        }
        if figures.tpot_milliseconds is not None:
            predicted["tpot"] = float(figures.tpot_milliseconds)
        if figures.end_to_end_milliseconds is not None:
            predicted["end_to_end"] = float(figures.end_to_end_milliseconds)
    if measured is not None and prediction is not None and available is not None and available.status == "True":
        values = {
            "energy": measured.joules_per_output_token and float(joules(measured.joules_per_output_token)),
            "power": measured.power_watts,
            "itl": measured.itl_milliseconds,
            "tpot": measured.tpot_milliseconds,
            "ttft": measured.ttft_milliseconds,
            "end_to_end": measured.end_to_end_milliseconds,
        }
        found = {name: float(value) for name, value in values.items() if value is not None}
        given = {name: getattr(prediction, f"{name}_error_percent") for name in FIGURES}
        errors = {name: value for name, value in given.items() if value is not None}
        reason = accurate.reason if accurate is not None and accurate.reason in NOT_COMPARED else ""
    return DriftRow(
        metadata.namespace,
        metadata.name,
        deployment.spec.model.name,
        "-" if plan is None else f"{plan.gpus} x {plan.gpu_product.removeprefix('NVIDIA-')}",
        "-" if plan is None else f"{plan.replicas} x {plan.layout}",
        _load_percent(deployment) if found else None,
        predicted,
        found,
        errors,
        correction_text(plan),
        reason,
    )
