"""How plans are made and adopted: modes, fixed choices, margins, and when a new plan pays."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from energylens.api.base import ApiModel, Rule

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
