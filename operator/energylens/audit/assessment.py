"""One served model compared with the plan that would serve its load with less energy, and how certain the saving is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime
from typing import Literal

from energylens.api.llmdeployment import LLMDeployment, Overrides, PlanStatus
from energylens.api.quantity import format_milli, parse_quantity
from energylens.audit.conversion import NotPlannableError, measured_objectives, with_load, with_objectives
from energylens.audit.served import ServedModel
from energylens.audit.telemetry import Telemetry, is_idle, prompt_and_output
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.learned.comparison import measured_point
from energylens.decide.learned.corrections import Pool
from energylens.decide.preview import World, preview
from energylens.measure.types import WindowMeasurement
from energylens.planner.adoption import SwitchCost, pinned_to, same_layout, switch_cost
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

PEAK_SHARE = 1.15
"""Largest excess of the busiest part over the mean that counts as noise; the plan is then made for the mean."""
_OBJECTIVES = {"ttft_milliseconds": "TTFT", "itl_milliseconds": "ITL", "tpot_milliseconds": "TPOT"}

Verdict = Literal["Saves", "WithinError", "Keep", "Managed", "Idle", "NoLoad", "NotPlanned", "Unread"]


@dataclass(frozen=True)
class Power:
    """Mean power of all GPUs, W."""

    watts: float
    low: float
    """Lower end of the 80 % interval; equal to ``watts`` if the power was measured."""
    high: float
    is_measured: bool


@dataclass(frozen=True)
class AuditOptions:
    """The parameters of an audit besides the cluster."""

    objectives: Mapping[str, int] = field(default_factory=dict)
    """Latency objectives to use instead of today's latencies, ms by field of ``spec.slo``."""
    slack_percent: int = 0
    """Allowed increase of today's latencies."""


NOTHING_ASKED = AuditOptions()


@dataclass(frozen=True)
class Assessment:
    """The audit's result for one served model."""

    served: ServedModel
    load: WindowMeasurement
    verdict: Verdict
    reason: str
    """Reason of the verdict, one sentence."""
    now: Power | None = None
    """Power of today's layout: measured if possible, otherwise predicted."""
    predicted_now: PlanStatus | None = None
    """Prediction of today's layout under today's load, before any correction from the window."""
    plan: PlanStatus | None = None
    """The plan that would serve the load, with figures under the mean load of the window."""
    then: Power | None = None
    """Predicted power of the plan."""
    objectives: Mapping[str, int] = field(default_factory=dict)
    """Latency bounds that the plan meets, ms by name at P95."""
    planned_requests_per_second: float | None = None
    """The load for which the plan was chosen: the busiest part of the window if it is known."""
    switch: SwitchCost | None = None
    """Cost of starting the plan."""
    repay_hours: float | None = None
    """Time until the saving pays for the switch; None if nothing is saved."""
    deployment: LLMDeployment | None = None
    """The LLMDeployment to apply for the plan."""
    notes: tuple[str, ...] = ()

    @property
    def saved_watts(self) -> float | None:
        """Mean power that the plan saves, W; None if either figure is missing."""
        return None if self.now is None or self.then is None else self.now.watts - self.then.watts

    @property
    def least_saved_watts(self) -> float | None:
        """Saved power at the upper end of the plan's 80 % interval, and the lower end of today's if predicted, W."""
        return None if self.now is None or self.then is None else self.now.low - self.then.high

    @property
    def saved_percent(self) -> tuple[float, float, float] | None:
        """Energy that the plan saves and the ends of its 80 % interval, %; None if either figure is missing."""
        if self.now is None or self.then is None or self.now.watts <= 0:
            return None
        ratios = (
            self.then.watts / self.now.watts,
            self.then.high / self.now.low if self.now.low > 0 else math.inf,
            self.then.low / self.now.high,
        )
        best, low, high = (100.0 * (1.0 - ratio) for ratio in ratios)
        return best, low, high


def assess(
    served: ServedModel,
    name: str,
    telemetry: Telemetry,
    world: World,
    gpus: Mapping[str, GpuSpec],
    now: datetime,
    question: AuditOptions = NOTHING_ASKED,
) -> Assessment:
    """Return the audit's result for one served model.

    Args:
        served: The served model.
        name: The name of the LLMDeployment that would replace it; in ``world`` its GPUs belong to that name.
        telemetry: The measurements.
        world: The cluster's GPUs.
        gpus: Known products by label.
        now: Current time for the preview.
        question: The parameters of the audit.
    """
    load = telemetry.window(served)
    measured = _measured_power(load)
    if served.arguments is None:
        return Assessment(served, load, "Unread", served.unread, measured)
    if served.owner.is_planned:
        return Assessment(
            served, load, "Managed", "EnergyLens already plans this model: see `energylens status`", measured
        )
    if served.shared:
        reason = f"{served.shared}, so neither its power nor a plan can be determined"
        return Assessment(served, load, "NotPlanned", reason)
    if served.gpus == 0:
        return Assessment(served, load, "NoLoad", "none of its pods is running")
    if is_idle(load):
        minutes = (telemetry.end - telemetry.start) / 60
        watts = measured or _idle_power(served, gpus)
        return Assessment(served, load, "Idle", f"no token was generated in {minutes:.0f} minutes", watts)
    if load.output_tokens is None or load.output_tokens_per_second is None:
        return Assessment(served, load, "NoLoad", load.message, measured)
    if load.requests_per_second is None or prompt_and_output(load) is None:
        reason = "no request ended in the window, so the length of requests is unknown"
        return Assessment(served, load, "NoLoad", reason, measured)
    try:
        asked = with_load(served, name, load, load.requests_per_second)
    except NotPlannableError as error:
        return Assessment(served, load, "NotPlanned", str(error), measured, notes=served.notes)
    around = _Surroundings(telemetry, world, gpus, now, question)
    return _beside_today(Assessment(served, load, "Keep", "", measured), asked, load.requests_per_second, around)


@dataclass(frozen=True)
class _Surroundings:
    """The inputs of one assessment besides the served model."""

    telemetry: Telemetry
    world: World
    gpus: Mapping[str, GpuSpec]
    now: datetime
    question: AuditOptions

    def preview(self, deployment: LLMDeployment) -> PlanChoice:
        """Return the operator's plan for a deployment, or why there is none."""
        (answer,) = preview([deployment], self.world, self.now)
        return answer.planning


def _beside_today(found: Assessment, asked: LLMDeployment, rate: float, around: _Surroundings) -> Assessment:
    """Return an assessment with today's layout predicted, then with the plan that would serve the same load.

    Args:
        found: Assessment with the load and, if known, the measured power.
        asked: The served model as a deployment under the mean load.
        rate: Mean requests per second.
        around: The cluster, the clock and the question.
    """
    tokens, load, notes = found.load.output_tokens_per_second or 0.0, found.load, list(found.served.notes)
    predicted, why = _today(asked, found.served, around)
    if predicted is None and not found.served.layout_doubt:
        notes.append(f"today's layout cannot be predicted: {why}")
    power = found.now or (None if predicted is None else _predicted_power(predicted, tokens))
    if power is None:
        reason = f"its power now is neither measured ({load.message}) nor predicted"
        return replace(found, verdict="NotPlanned", reason=reason, notes=tuple(notes))
    if not power.is_measured:
        notes.append(f"its power now is predicted, not measured: {load.message}")
    elif predicted is not None:
        # The correction learned in the window for this model on this GPU also applies to the compared plans.
        pool = Pool()
        pool.learn(asked, predicted, measured_point(predicted, load))
        around = replace(around, world=replace(around.world, learned=pool))
    objectives = _objectives(load, predicted, around.question, notes)
    found = replace(found, now=power, predicted_now=predicted, objectives=objectives, notes=tuple(notes))
    return _beside_the_plan(found, asked, rate, power, around)


def _today(asked: LLMDeployment, served: ServedModel, around: _Surroundings) -> tuple[PlanStatus | None, str]:
    """Return the prediction of today's layout, or None and why there is none."""
    if served.layout_doubt:
        # A prediction of another layout must correct no plan.
        return None, served.layout_doubt
    today = around.preview(_as_it_runs(asked, served))
    return (today.plan, "") if today.good else (None, today.message)


def _beside_the_plan(
    found: Assessment, asked: LLMDeployment, mean: float, power: Power, around: _Surroundings
) -> Assessment:
    tokens = found.load.output_tokens_per_second or 0.0
    busiest = around.telemetry.busiest_tokens_per_second(found.served)
    share = busiest / tokens if busiest is not None and busiest > PEAK_SHARE * tokens else 1.0
    wanted = _under(with_objectives(asked, found.objectives), mean * share)
    answer = around.preview(wanted)
    found = replace(found, planned_requests_per_second=mean * share)
    if not answer.good or answer.plan is None or answer.model is None:
        if answer.result is None:
            notes = tuple(note for note in found.notes if not note.endswith(answer.message))
            return replace(found, verdict="NotPlanned", reason=answer.message, notes=notes)
        return replace(found, verdict="Keep", reason=f"no plan meets today's load and latencies: {answer.message}")
    plan = answer.plan if share == 1.0 else _at_mean_load(wanted, answer.plan, mean, around)
    then = _predicted_power(plan, tokens)
    cost = switch_cost(plan, float(weight_bytes(answer.model)), around.gpus[plan.gpu_product])
    saved = power.watts - then.watts
    verdict, reason = _verdict(power, then, plan, found.predicted_now)
    return replace(
        found,
        verdict=verdict,
        reason=reason,
        plan=plan,
        then=then,
        switch=cost,
        repay_hours=cost.joules / saved / 3600 if saved > 0 else None,
        deployment=wanted,
    )


def _verdict(power: Power, then: Power, plan: PlanStatus, predicted: PlanStatus | None) -> tuple[Verdict, str]:
    if predicted is not None and same_layout(plan, predicted):
        return "Keep", "today's layout uses the least energy at these latencies"
    if then.watts >= power.watts:
        return "Keep", "no plan that meets these latencies is predicted to draw less power"
    if then.high >= power.low:
        return (
            "WithinError",
            "the plan is predicted to draw less power, but the difference is within the prediction error",
        )
    if power.is_measured:
        return "Saves", "the plan draws less power even at the upper end of its 80 % interval"
    return (
        "Saves",
        "the plan is predicted to draw less power than today's layout, at the ends of both 80 % intervals too",
    )


def _as_it_runs(asked: LLMDeployment, served: ServedModel) -> LLMDeployment:
    """Return the deployment with every choice fixed to the running layout."""
    assert served.arguments is not None
    layout = served.arguments.layout
    overrides = Overrides(
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        expert_parallel=layout.expert_parallel,
        data_parallel=layout.data_parallel,
        replicas=max(served.replicas, 1),
        max_batch_size=layout.max_batch_size,
    )
    spec = asked.spec
    planning = spec.planning.model_copy(update={"overrides": overrides})
    hardware = spec.hardware.model_copy(update={"gpu_products": (served.product,)}) if served.product else spec.hardware
    return asked.model_copy(update={"spec": spec.model_copy(update={"planning": planning, "hardware": hardware})})


def _under(deployment: LLMDeployment, requests_per_second: float) -> LLMDeployment:
    workload = deployment.spec.workload.model_copy(update={"requests_per_second": format_milli(requests_per_second)})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"workload": workload})})


def _at_mean_load(wanted: LLMDeployment, plan: PlanStatus, mean: float, around: _Surroundings) -> PlanStatus:
    """Return a plan that was made for the busiest part of the window with its figures under the mean load."""
    pinned = pinned_to(_under(wanted, mean), plan, around.gpus)
    if isinstance(pinned, str):
        return plan
    found = around.preview(pinned)
    return found.plan if found.good and found.plan is not None else plan


def _objectives(
    load: WindowMeasurement, predicted: PlanStatus | None, question: AuditOptions, notes: list[str]
) -> dict[str, int]:
    """Return the latencies that a plan must meet, ms by field: the requested ones, otherwise today's."""
    found = measured_objectives(load.latency)
    if not found and predicted is not None:
        figures = predicted.predicted
        found = {name: getattr(figures, name) for name in _OBJECTIVES if getattr(figures, name, None)}
        notes.append("its latencies are not measured; a plan must meet the predicted latencies of today's layout")
    slack = 1.0 + question.slack_percent / 100.0
    return {name: round(value * slack) for name, value in found.items()} | dict(question.objectives)


def _measured_power(load: WindowMeasurement) -> Power | None:
    if load.power_watts is None:
        return None
    return Power(load.power_watts, load.power_watts, load.power_watts, is_measured=True)


def _predicted_power(plan: PlanStatus, tokens_per_second: float) -> Power:
    """Return the power of a plan at a rate of output tokens, from its energy per token."""
    figures = plan.predicted
    best, low, high = (
        float(parse_quantity(text)) * tokens_per_second
        for text in (
            figures.joules_per_output_token,
            figures.joules_per_output_token_low,
            figures.joules_per_output_token_high,
        )
    )
    return Power(best, low, high, is_measured=False)


def _idle_power(served: ServedModel, gpus: Mapping[str, GpuSpec]) -> Power | None:
    """Return the power of loaded but idle GPUs by product; None for unknown products."""
    if not served.products or any(product not in gpus for product in served.products):
        return None
    watts = sum(gpus[product].loaded_idle_watts * count for product, count in served.products.items())
    return Power(watts, watts, watts, is_measured=False)
