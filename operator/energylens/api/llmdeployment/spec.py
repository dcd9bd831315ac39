"""What a team asks for: how plans are made, rolled out and checked, and the spec as a whole.

No floats anywhere: integers with the unit in the name, or Kubernetes quantities kept as strings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from energylens.api.base import DISTINCT, SET_LIST, ApiModel, Rule
from energylens.api.llmdeployment.disaggregation_rules import DISAGGREGATION_RULES
from energylens.api.llmdeployment.energy import Energy
from energylens.api.llmdeployment.engine import Engine, Model
from energylens.api.llmdeployment.hardware import Hardware
from energylens.api.llmdeployment.job_rules import JOB_ALONE
from energylens.api.llmdeployment.routing import Routing
from energylens.api.llmdeployment.scaling import Scaling
from energylens.api.llmdeployment.scaling_rules import SCALING_RULES
from energylens.api.llmdeployment.scheduling import Scheduling
from energylens.api.llmdeployment.validation import Validation
from energylens.api.llmdeployment.workload import Slo, WorkloadSpec

PlanningMode = Literal["Auto", "Manual", "Advisory"]


def _experts_within_replica(overrides: Overrides) -> str | None:
    expert, tensor, data = overrides.expert_parallel, overrides.tensor_parallel, overrides.data_parallel
    if expert is None or tensor is None or data is None or expert <= tensor * data:
        return None
    return (
        f"expertParallel ({expert}) is more than tensorParallel ({tensor}) x dataParallel ({data}) = {tensor * data} "
        f"GPUs; set expertParallel to {tensor * data} or less"
    )


_EXPERTS_WITHIN_REPLICA = Rule(
    summary="expertParallel is at most tensorParallel x dataParallel where all three are set",
    cel="!has(self.expertParallel) || !has(self.tensorParallel) || !has(self.dataParallel) || "
    "self.expertParallel <= self.tensorParallel * self.dataParallel",
    message_cel="'expertParallel (%s) is more than tensorParallel (%s) x dataParallel (%s) = %s GPUs; "
    "set expertParallel to %s or less'.format([self.expertParallel, self.tensorParallel, self.dataParallel, "
    "self.tensorParallel * self.dataParallel, self.tensorParallel * self.dataParallel])",
    check=_experts_within_replica,
)


def _batch_within_step(overrides: Overrides) -> str | None:
    batch, tokens = overrides.max_batch_size, overrides.max_batched_tokens
    if batch is None or not tokens or batch <= tokens:
        return None
    return (
        f"maxBatchSize ({batch}) is more than maxBatchedTokens ({tokens}), and every sequence takes a token of a step; "
        f"set maxBatchedTokens to {batch} or more"
    )


_BATCH_WITHIN_STEP = Rule(
    summary="maxBatchSize is at most maxBatchedTokens where both are set",
    cel="!has(self.maxBatchSize) || !has(self.maxBatchedTokens) || self.maxBatchedTokens == 0 || "
    "self.maxBatchSize <= self.maxBatchedTokens",
    message_cel="'maxBatchSize (%s) is more than maxBatchedTokens (%s), and every sequence takes a token of a step; "
    "set maxBatchedTokens to %s or more'.format([self.maxBatchSize, self.maxBatchedTokens, self.maxBatchSize])",
    check=_batch_within_step,
)


class Overrides(ApiModel):
    """Choices that are fixed instead of planned; each field that is set is a constraint."""

    rules: ClassVar[tuple[Rule, ...]] = (_EXPERTS_WITHIN_REPLICA, _BATCH_WITHIN_STEP)

    tensor_parallel: int | None = Field(default=None, ge=1, le=1024, description="GPUs that split each layer.")
    pipeline_parallel: int | None = Field(default=None, ge=1, le=1024, description="Stages of layers.")
    expert_parallel: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="GPUs over which the experts are split, at most tensorParallel x dataParallel.",
    )
    data_parallel: int | None = Field(
        default=None, ge=1, le=1024, description="Copies of the attention layers in one replica."
    )
    replicas: int | None = Field(default=None, ge=1, le=10_000, description="Copies of the model.")
    max_batch_size: int | None = Field(
        default=None, ge=1, le=65_536, description="Maximum number of sequences running at once per data-parallel rank."
    )
    max_batched_tokens: int | None = Field(
        default=None,
        ge=0,
        le=1_048_576,
        description="Maximum number of tokens that a step computes per data-parallel rank, prompts and outputs "
        "together (--max-num-batched-tokens of vLLM, --chunked-prefill-size of SGLang); at least maxBatchSize. 0: the "
        "default of the engine.",
    )


def _spare_below_replicas(planning: Planning) -> str | None:
    replicas, spare = planning.overrides.replicas, planning.spare_replicas
    if replicas is None or spare < replicas:
        return None
    return (
        f"overrides.replicas ({replicas}) must be more than spareReplicas ({spare}): the others sustain the load when "
        f"these fail; set overrides.replicas to {spare + 1} or more"
    )


_SPARE_BELOW_REPLICAS = Rule(
    summary="overrides.replicas is more than spareReplicas",
    cel="!has(self.overrides) || !has(self.overrides.replicas) || !has(self.spareReplicas) || "
    "self.spareReplicas < self.overrides.replicas",
    message_cel="'overrides.replicas (%s) must be more than spareReplicas (%s): the others sustain the load when these "
    "fail; set overrides.replicas to %s or more'.format([self.overrides.replicas, self.spareReplicas, "
    "self.spareReplicas + 1])",
    check=_spare_below_replicas,
)


class Replan(ApiModel):
    """When a better plan is worth a restart."""

    min_energy_saving_percent: int = Field(
        default=10, ge=0, le=100, description="Minimum energy that a new plan must save, %."
    )
    cooldown_seconds: int = Field(
        default=3600, ge=0, le=31_536_000, description="Minimum time between two changes of the plan, s."
    )


def _lengths_follow_the_load(planning: Planning) -> str | None:
    if planning.follow_lengths == "Never" or planning.follow_load == "Auto":
        return None
    return "followLengths Auto needs followLoad Auto; set followLoad to Auto or followLengths to Never"


_LENGTHS_FOLLOW_THE_LOAD = Rule(
    summary="followLengths Auto needs followLoad Auto",
    cel="self.followLengths == 'Never' || self.followLoad == 'Auto'",
    message_cel="'followLengths Auto needs followLoad Auto; set followLoad to Auto or followLengths to Never'",
    check=_lengths_follow_the_load,
)


class Planning(ApiModel):
    """How plans are made and adopted."""

    rules: ClassVar[tuple[Rule, ...]] = (_SPARE_BELOW_REPLICAS, _LENGTHS_FOLLOW_THE_LOAD)

    mode: PlanningMode = Field(
        default="Auto",
        description="Auto: adopt the best plan. Manual: adopt only the plan whose hash is approvedPlanHash. "
        "Advisory: show the plan and run nothing.",
    )
    approved_plan_hash: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-z]+$")] | None = Field(
        default=None, description="status.plan.hash of the plan that is approved in mode Manual."
    )
    overrides: Overrides = Field(default=Overrides(), description="Values that replace the planner's choices.")
    safety_margin_percent: int = Field(
        default=100,
        ge=0,
        le=300,
        description="Size of the prediction errors that spec.slo is checked against, % of the errors of measured runs. "
        "100: a plan that may break a latency with a chance above 25 % is rejected, and each percent of that chance "
        "counts as 3 % of energy. 200: as if errors were twice as large. 0: predictions count as certain.",
    )
    headroom_percent: int | None = Field(
        default=None,
        ge=0,
        le=90,
        description="Capacity that a plan for workload.requestsPerSecond leaves free, % of the highest rate that its "
        "replicas sustain; for workload.job, % of the time between start and deadline. Default: the error of the "
        "predicted throughput, down to the lower end of its 80 % interval, above which nine of ten measurements stay.",
    )
    spare_replicas: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Replicas that may fail while the others still sustain the load, including the headroom. Latency "
        "objectives need not hold while a replica is missing. Spare replicas serve requests, too, and count in GPUs, "
        "power, energy and budgets.",
    )
    replan: Replan = Field(default=Replan(), description="When a better plan is worth a restart.")
    disaggregation: Literal["Never", "Compare", "Follow"] = Field(
        default="Never",
        description="Compare: also evaluate separate replicas for prefill and decode, and show the best such plan "
        "among the alternatives. Follow: also adopt such a plan where it beats every other plan by more than the "
        "prediction error; needs routing.disaggregation.",
    )
    follow_load: Literal["Never", "Auto"] = Field(
        default="Never",
        description="Never: plans are made for workload.requestsPerSecond. Auto: plans are made for the measured rate: "
        "at once if the rate rises, after cooldownSeconds if it falls. The rules of replan apply, too.",
    )
    follow_lengths: Literal["Never", "Auto"] = Field(
        default="Never",
        description="Never: plans are made for the request lengths of workload. Auto, with followLoad Auto: plans are "
        "made for the measured mean lengths of prompts and outputs, by the same rules as for the rate; with classes, "
        "the lengths of all classes change by the same factor.",
    )


class Rollout(ApiModel):
    """How a new plan replaces the running one."""

    strategy: Literal["Auto", "Surge", "Recreate"] = Field(
        default="Auto",
        description="Surge: start new replicas before old replicas stop. Recreate: replace replicas one by one. "
        "Auto: Surge if enough GPUs are free, otherwise Recreate.",
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=60,
        le=604_800,
        description="Maximum time without progress of a rollout, s. Default: 3600, or the start-up budget of the model "
        "plus 60 s if that is longer.",
    )
    revision_history_limit: int = Field(default=3, ge=0, le=20, description="Number of old revisions to keep.")
    rollback_on: Annotated[
        tuple[Literal["SLOViolation", "HigherEnergy", "ProgressDeadline"], ...],
        Field(max_length=3, json_schema_extra=SET_LIST),
        DISTINCT,
    ] = Field(default=(), description="Events that return the deployment to the previous plan; empty: none.")
    verify: Literal["Never", "Measured"] = Field(
        default="Never",
        description="Measured: one canary replica of a new plan first serves beside the running replicas. The plan is "
        "rolled out after two consecutive windows that meet spec.slo and, if the new plan predicts less energy than "
        "the running plan, do not exceed the running plan's energy. Otherwise the plan is rejected. Never: a new plan "
        "replaces the running plan at once.",
    )


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
