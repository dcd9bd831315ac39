"""Keep the running plan or adopt a new one: a restart costs energy and minutes, so a new plan must be worth both.

A plan that no longer meets the spec is replaced at once. A better plan is adopted when it saves at least
``minEnergySavingPercent``, the last change is at least ``cooldownSeconds`` ago, and the saving exceeds the cost of the
switch. The saving is counted over the cooldown, the only period for which the new plan is certain to stay.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from energylens.api.llmdeployment import (
    LLMDeployment,
    LLMDeploymentSpec,
    Objective,
    Overrides,
    PlanStatus,
    PowerCap,
    RejectedPlan,
    Replan,
    describe_plan,
)
from energylens.api.quantity import parse_quantity
from energylens.api.words import counted
from energylens.planner.engines import EngineSettings
from energylens.planner.inventory.products import resolve_products
from energylens.planner.search import describe
from energylens.planner.search.identity import LAYOUT_FIELDS
from energylens.planner.search.starts import LOAD_BYTES_PER_SECOND
from energylens.planner.types import Feasible, Infeasible, PlanningResult
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

COMPILE_SECONDS = 180.0
"""Compilation, kernel tuning and graph capture: reports for a 70B model on current vLLM are 1 to 4 minutes
(https://github.com/vllm-project/vllm/issues/19824)."""
MIN_EXPECTED_SECONDS = 3600.0
"""Least time for which a plan is expected to stay, for deployments without a cooldown."""

AdoptionReason = Literal[
    "FirstPlan",
    "SameLayout",
    "NoLongerValid",
    "SavingTooSmall",
    "Cooldown",
    "DoesNotPayBack",
    "EnergySaving",
    "NothingBetter",
    "RolledBack",
]


@dataclass(frozen=True)
class SwitchCost:
    """Cost of starting a new plan beside the running plan, or in its place."""

    joules: float
    seconds: float


@dataclass(frozen=True)
class Adoption:
    """The plan to follow, and the reason."""

    adopt: bool
    reason: AdoptionReason
    message: str
    plan: PlanStatus
    """The plan to follow: the candidate if it is adopted or has the same layout, otherwise the current plan with
    figures under the current inputs."""


def switch_cost(candidate: PlanStatus, weight_bytes: float, gpu: GpuSpec) -> SwitchCost:
    """Return the energy and time until the candidate's replicas are ready.

    Until then every GPU of the new plan idles with its weights partly loaded, while the old plan keeps serving (or,
    without free GPUs, while those GPUs serve nobody). All of that energy is the cost of the switch.

    Args:
        candidate: The plan to switch to.
        weight_bytes: Bytes of all weights of one replica.
        gpu: Its GPU product.
    """
    seconds = weight_bytes / LOAD_BYTES_PER_SECOND + COMPILE_SECONDS
    return SwitchCost(candidate.gpus * gpu.loaded_idle_watts * seconds, seconds)


def same_layout(a: PlanStatus | RejectedPlan, b: PlanStatus | RejectedPlan) -> bool:
    """Return whether two plans run the same pods: product, parallelism, replicas, batch and power cap agree."""
    roles = [getattr(plan, "prefill", None) for plan in (a, b)]
    return roles[0] == roles[1] and all(
        getattr(a, field) == getattr(b, field) for field in ("replicas", *LAYOUT_FIELDS)
    )


def pinned_to(
    deployment: LLMDeployment, running: PlanStatus, gpus: Mapping[str, GpuSpec], called: str = "the running plan"
) -> LLMDeployment | str:
    """Return the deployment pinned to the running plan in every choice, or the field that forbids that plan as a text.

    Planning the returned deployment shows whether the running plan still meets the spec, and its cost under the current
    load.

    Args:
        deployment: The deployment with the current spec.
        running: The running plan.
        gpus: Known GPU products, for the names in ``spec.hardware.gpuProducts``.
        called: The plan in the text.
    """
    spec = deployment.spec
    if running.prefill is not None:
        return f"{apart(spec)}, and {called} separates prefill and decode"
    choices = {name: getattr(running, name) for name in Overrides.model_fields}
    settings, steps = EngineSettings.of(spec.engine), running.max_batched_tokens
    if settings.fixes_steps and steps is not None:
        given = settings.arguments.written(settings.names.step)
        return f"spec.engine.extraArgs has {given!r}, and {called} has steps of {steps} tokens"
    choices["max_batched_tokens"] = _steps_of(running, spec.planning.overrides, settings, gpus)
    for name, wanted in spec.planning.overrides.model_dump(exclude_none=True).items():
        if choices[name] != wanted:
            field = f"spec.planning.overrides.{Overrides.model_fields[name].alias}"
            return f"{field}={wanted}, and {called} has {choices[name]}"
    allowed = spec.hardware.gpu_products
    if allowed and not resolve_products(allowed, [running.gpu_product], gpus):
        return f"spec.hardware.gpuProducts=[{', '.join(allowed)}], and {called} uses {running.gpu_product}"
    cap, watts = spec.energy.power_cap, running.power_cap_watts_per_gpu
    if cap.mode != "Plan" and cap.watts_per_gpu != watts:
        asked = "Never" if cap.watts_per_gpu is None else f"Fixed at {cap.watts_per_gpu} W"
        return f"spec.energy.powerCap is {asked}, and {called} has {watts or 'no'} W"
    pinned_cap = PowerCap() if watts is None else PowerCap(mode="Fixed", watts_per_gpu=watts)
    # Separate prefill and decode would not change how the running plan is evaluated.
    planning = spec.planning.model_copy(update={"overrides": Overrides(**choices), "disaggregation": "Never"})
    hardware = spec.hardware.model_copy(update={"gpu_products": (running.gpu_product,)})
    energy = spec.energy.model_copy(update={"power_cap": pinned_cap})
    pinned = spec.model_copy(update={"planning": planning, "hardware": hardware, "energy": energy})
    return deployment.model_copy(update={"spec": pinned})


def apart(spec: LLMDeploymentSpec) -> str:
    """Return the value of ``spec.planning.disaggregation`` as messages name it."""
    return f"spec.planning.disaggregation is {spec.planning.disaggregation}"


def _steps_of(
    running: PlanStatus, overrides: Overrides, settings: EngineSettings, gpus: Mapping[str, GpuSpec]
) -> int | None:
    """Return the tokens of a step to fix a running plan to: 0 for the engine's default, unless an override names it."""
    if settings.fixes_steps or running.max_batched_tokens is not None:
        return running.max_batched_tokens
    own = settings.own_steps(gpus.get(running.gpu_product), running.data_parallel)
    return own if overrides.max_batched_tokens == own else 0


def decide(
    current: PlanStatus | None,
    candidate: Feasible,
    *,
    running: PlanningResult | str | None = None,
    objective: Objective = "MinimizeEnergy",
    replan: Replan | None = None,
    seconds_since_adoption: float | None = None,
    cost: SwitchCost | None = None,
    rejected: Sequence[RejectedPlan] = (),
    interrupts: str = "",
) -> Adoption:
    """Return whether to adopt a candidate.

    Args:
        current: The plan followed now; None when there is none.
        candidate: The best plan under the current inputs.
        running: The current plan evaluated under the current inputs (by planning the result of :func:`pinned_to`), or
            the text that :func:`pinned_to` returned. None when the plan could not be evaluated; it then counts as
            valid, with its old figures.
        objective: The quantity to minimise.
        replan: Thresholds; the API's defaults when None.
        seconds_since_adoption: Time since the current plan was adopted; None when unknown, which counts as long ago.
        cost: Energy and time of the switch; None counts as free.
        rejected: Plans for this spec that measurement showed to be worse; they are not adopted again.
        interrupts: Why the switch interrupts serving; "" if it does not. No saving repays that.
    """
    new = candidate.plan
    if current is None:
        return Adoption(True, "FirstPlan", f"first plan: {describe_plan(new)}", new)
    if new.hash == current.hash:
        message = f"the inputs changed, the best plan is still {describe_plan(new)}"
        return Adoption(False, "SameLayout", message, new)
    known = next((plan for plan in rejected if same_layout(plan, new)), None)
    if known is not None:
        message = f"{describe_plan(new)} was rolled back at {known.time} and is not tried again for this spec"
        return Adoption(False, "RolledBack", f"{message}: {known.message}", current)
    if isinstance(running, str):
        return Adoption(True, "NoLongerValid", f"{running}; new plan: {describe_plan(new)}{_priced(cost)}", new)
    if isinstance(running, Infeasible):
        message = (
            f"the running plan no longer meets the spec: {running.message}; "
            f"new plan: {describe_plan(new)}{_priced(cost)}"
        )
        return Adoption(True, "NoLongerValid", message, new)
    old = running.plan if isinstance(running, Feasible) else current
    kept = _as_of_today(current, old)
    if interrupts:
        return Adoption(False, "DoesNotPayBack", f"{describe_plan(new)} is not followed: {interrupts}", kept)
    return _compare(kept, old, new, objective, replan or Replan(), seconds_since_adoption, cost or SwitchCost(0, 0))


def _as_of_today(current: PlanStatus, evaluated: PlanStatus) -> PlanStatus:
    """Return the current plan with the figures that it has under the current inputs."""
    fields = ("predicted", "confidence", "confidence_reason", "predictor_version", "correction")
    return current.model_copy(update={field: getattr(evaluated, field) for field in fields})


def _compare(
    current: PlanStatus,
    old: PlanStatus,
    new: PlanStatus,
    objective: Objective,
    replan: Replan,
    seconds_since_adoption: float | None,
    cost: SwitchCost,
) -> Adoption:
    before, after = _objective(old, objective), _objective(new, objective)
    saving = 100.0 * (1 - after / before)
    needed = replan.min_energy_saving_percent
    if saving <= 0:
        return Adoption(False, "NothingBetter", f"the running plan is the best: {describe_plan(old)}", current)
    if saving < needed:
        message = f"{describe_plan(new)} would save {saving:.1f} %, less than minEnergySavingPercent={needed}"
        return Adoption(False, "SavingTooSmall", message, current)
    if seconds_since_adoption is not None and seconds_since_adoption < replan.cooldown_seconds:
        # The message has no countdown: it goes into a condition, which would then be rewritten in every reconcile.
        message = (
            f"{describe_plan(new)} would save {saving:.1f} %; cooldownSeconds={replan.cooldown_seconds} has not passed"
        )
        return Adoption(False, "Cooldown", message, current)
    expected = max(float(replan.cooldown_seconds), MIN_EXPECTED_SECONDS)
    saved_watts = _watts(old) - _watts(new, at=old)
    saved = saved_watts * expected
    if objective == "MinimizeGPUs":
        # The objective is to save GPUs, whatever energy that takes.
        energy = f"{'saves' if saved >= 0 else 'takes another'} {describe.watt_hours(abs(saved))}"
        message = (
            f"{describe_plan(new)} uses {counted(old.gpus - new.gpus, 'fewer GPU')} and {energy} in "
            f"{expected / 3600:.1f} h{_priced(cost)}"
        )
        return Adoption(True, "EnergySaving", message, new)
    numbers = (
        f"switching costs {describe.watt_hours(cost.joules)}, the saving of {saving:.1f} % is worth "
        f"{describe.watt_hours(saved)} in {expected / 3600:.1f} h"
    )
    if saved <= cost.joules:
        return Adoption(False, "DoesNotPayBack", f"{describe_plan(new)}: {numbers}", current)
    return Adoption(True, "EnergySaving", f"{describe_plan(new)}: {numbers}", new)


def _priced(cost: SwitchCost | None) -> str:
    return "" if cost is None else f"; switching costs {describe.watt_hours(cost.joules)}"


def _objective(plan: PlanStatus, objective: Objective) -> float:
    if objective == "MinimizePower":
        return float(plan.predicted.power_watts)
    if objective == "MinimizeGPUs":
        return float(plan.gpus)
    return float(parse_quantity(plan.predicted.joules_per_output_token))


def _watts(plan: PlanStatus, at: PlanStatus | None = None) -> float:
    """Return the power that a plan draws at another plan's token rate, W: at a lower rate a plan draws less."""
    tokens = (at or plan).predicted.output_tokens_per_second
    return float(parse_quantity(plan.predicted.joules_per_output_token)) * tokens
