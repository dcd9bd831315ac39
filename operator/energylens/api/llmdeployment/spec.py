"""What a team asks for: the spec as a whole, and the rules between its sections.

No floats anywhere: integers with the unit in the name, or Kubernetes quantities kept as strings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import Field, WithJsonSchema

from energylens.api.base import ApiModel, Rule
from energylens.api.llmdeployment.disaggregation_rules import DISAGGREGATION_RULES
from energylens.api.llmdeployment.energy import Energy
from energylens.api.llmdeployment.engine import Engine, Model
from energylens.api.llmdeployment.hardware import Hardware
from energylens.api.llmdeployment.job_rules import JOB_ALONE
from energylens.api.llmdeployment.planning import Overrides, Planning
from energylens.api.llmdeployment.rollout import Rollout
from energylens.api.llmdeployment.routing import Routing
from energylens.api.llmdeployment.scaling import Scaling
from energylens.api.llmdeployment.scaling_rules import SCALING_RULES
from energylens.api.llmdeployment.scheduling import Scheduling
from energylens.api.llmdeployment.validation import Validation
from energylens.api.llmdeployment.workload import Slo, WorkloadSpec


def _degrees(overrides: Overrides) -> tuple[int, int, int]:
    return overrides.tensor_parallel or 1, overrides.pipeline_parallel or 1, overrides.data_parallel or 1


def _overrides_within_replica(spec: LLMDeploymentSpec) -> str | None:
    tensor, pipeline, data = _degrees(spec.planning.overrides)
    limit = spec.hardware.max_gpus_per_replica
    if limit is None or tensor * pipeline * data <= limit:
        return None
    return (
        f"planning.overrides ask for tensorParallel {tensor} x pipelineParallel {pipeline} x dataParallel {data} = "
        f"{tensor * pipeline * data} GPUs per replica, more than hardware.maxGPUsPerReplica ({limit}); "
        f"lower them or raise maxGPUsPerReplica"
    )


def _degree(name: str) -> str:
    return f"(has(self.planning.overrides.{name}) ? self.planning.overrides.{name} : 1)"


_TP, _PP, _DP, _REPLICAS = map(_degree, ("tensorParallel", "pipelineParallel", "dataParallel", "replicas"))
_PER_REPLICA = f"{_TP} * {_PP} * {_DP}"

_OVERRIDES_WITHIN_REPLICA = Rule(
    summary="tensorParallel x pipelineParallel x dataParallel of planning.overrides "
    "is at most hardware.maxGPUsPerReplica",
    cel=f"!has(self.hardware.maxGPUsPerReplica) || {_PER_REPLICA} <= self.hardware.maxGPUsPerReplica",
    message_cel="'planning.overrides ask for tensorParallel %s x pipelineParallel %s x dataParallel %s = "
    "%s GPUs per replica, more than hardware.maxGPUsPerReplica (%s); lower them or raise maxGPUsPerReplica'.format("
    f"[{_TP}, {_PP}, {_DP}, {_PER_REPLICA}, self.hardware.maxGPUsPerReplica])",
    check=_overrides_within_replica,
)


def _overrides_within_max_gpus(spec: LLMDeploymentSpec) -> str | None:
    tensor, pipeline, data = _degrees(spec.planning.overrides)
    per_replica, replicas = tensor * pipeline * data, spec.planning.overrides.replicas or 1
    limit = spec.hardware.max_gpus
    if limit is None or per_replica * replicas <= limit:
        return None
    return (
        f"planning.overrides ask for {per_replica} GPUs per replica x replicas {replicas} = {per_replica * replicas} "
        f"GPUs, more than hardware.maxGPUs ({limit}); lower them or raise maxGPUs"
    )


_OVERRIDES_WITHIN_MAX_GPUS = Rule(
    summary="tensorParallel x pipelineParallel x dataParallel x replicas of planning.overrides "
    "is at most hardware.maxGPUs",
    cel=f"!has(self.hardware.maxGPUs) || {_PER_REPLICA} * {_REPLICAS} <= self.hardware.maxGPUs",
    message_cel="'planning.overrides ask for %s GPUs per replica x replicas %s = %s GPUs, "
    "more than hardware.maxGPUs (%s); lower them or raise maxGPUs'.format("
    f"[{_PER_REPLICA}, {_REPLICAS}, {_PER_REPLICA} * {_REPLICAS}, self.hardware.maxGPUs])",
    check=_overrides_within_max_gpus,
)


def _needs_a_rate(spec: LLMDeploymentSpec, field: str, value: str) -> str | None:
    if value == "Never" or spec.workload.requests_per_second is not None:
        return None
    load = "a job" if spec.workload.concurrency is None else f"concurrency ({spec.workload.concurrency})"
    return (
        f"planning.{field} {value} needs workload.requestsPerSecond, and workload has {load}; set {field} to Never or "
        "give a rate"
    )


def _rate_rule(field: str, value: str, check: Callable[[LLMDeploymentSpec], str | None]) -> Rule:
    return Rule(
        summary=f"planning.{field} {value} needs workload.requestsPerSecond",
        cel=f"self.planning.{field} == 'Never' || has(self.workload.requestsPerSecond)",
        message_cel="has(self.workload.job) ? "
        f"'planning.{field} {value} needs workload.requestsPerSecond, and workload has a job; set {field} to Never or "
        "give a rate' : "
        f"'planning.{field} {value} needs workload.requestsPerSecond, and workload has concurrency (%s); "
        f"set {field} to Never or give a rate'.format("
        "[has(self.workload.concurrency) ? self.workload.concurrency : 0])",
        check=check,
    )


_FOLLOWED_LOAD_IS_A_RATE = _rate_rule(
    "followLoad", "Auto", lambda spec: _needs_a_rate(spec, "followLoad", spec.planning.follow_load)
)
_APART = "Compare or Follow"
_DISAGGREGATION_NEEDS_A_RATE = _rate_rule(
    "disaggregation",
    _APART,
    lambda spec: _needs_a_rate(spec, "disaggregation", "Never" if spec.planning.disaggregation == "Never" else _APART),
)


def _verifying_needs_a_source(spec: LLMDeploymentSpec) -> str | None:
    if spec.rollout.verify == "Never" or spec.validation.source != "None":
        return None
    return (
        f"rollout.verify {spec.rollout.verify} needs measured windows, and validation.source is None; "
        "set rollout.verify to Never, or validation.source to Auto, Prometheus or DCGMExporter"
    )


_VERIFYING_NEEDS_A_SOURCE = Rule(
    summary="rollout.verify Measured needs a validation.source other than None",
    cel="self.rollout.verify == 'Never' || self.validation.source != 'None'",
    message_cel="'rollout.verify %s needs measured windows, and validation.source is None; set rollout.verify to "
    "Never, or validation.source to Auto, Prometheus or DCGMExporter'.format([self.rollout.verify])",
    check=_verifying_needs_a_source,
)


PodTemplate = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]


class LLMDeploymentSpec(ApiModel):
    """The deployment that a team declares."""

    rules: ClassVar[tuple[Rule, ...]] = (
        _OVERRIDES_WITHIN_REPLICA,
        _OVERRIDES_WITHIN_MAX_GPUS,
        _FOLLOWED_LOAD_IS_A_RATE,
        _DISAGGREGATION_NEEDS_A_RATE,
        _VERIFYING_NEEDS_A_SOURCE,
        *SCALING_RULES,
        *DISAGGREGATION_RULES,
        JOB_ALONE,
    )

    model: Model = Field(description="The model to serve.")
    engine: Engine = Field(default=Engine(), description="The serving engine.")
    workload: WorkloadSpec = Field(description="The load: request lengths, and an arrival rate or a concurrency.")
    slo: Slo = Field(
        default=Slo(), description="Service level objectives; an absent objective does not constrain the plan."
    )
    energy: Energy = Field(default=Energy(), description="Objective, and the deployment's own budget.")
    hardware: Hardware = Field(default=Hardware(), description="The GPUs that the planner may use.")
    planning: Planning = Field(default=Planning(), description="How plans are made and adopted.")
    replicas: int | None = Field(
        default=None,
        ge=0,
        le=10_000,
        description="Replicas to run, with scaling.mode External or Fixed; the scale subresource sets this field.",
    )
    scaling: Scaling | None = Field(
        default=None,
        description="Who decides how many replicas run, the bounds, and the cost of a start. Absent: the plan decides.",
    )
    rollout: Rollout = Field(default=Rollout(), description="How a new plan replaces the running one.")
    validation: Validation = Field(default=Validation(), description="How predictions are checked against measurement.")
    scheduling: Scheduling = Field(default=Scheduling(), description="Scheduler and priority of the serving pods.")
    routing: Routing = Field(default=Routing(), description="How requests reach the pods, besides the Service.")
    pod_template: PodTemplate | None = Field(
        default=None,
        description="A PodTemplateSpec merged into the serving pods by strategic merge; the plan's own fields win.",
    )
    suspend: bool = Field(default=False, description="Stops all replicas and keeps the plan.")

    @property
    def is_stopped(self) -> bool:
        """Whether no pods are to run: the deployment is suspended, or scaled to zero from outside."""
        return self.suspend or self.is_at_zero

    @property
    def is_at_zero(self) -> bool:
        """Whether an autoscaler or a person set ``replicas`` to 0."""
        return self.scaling is not None and self.scaling.mode == "External" and self.replicas == 0
