"""The plans in the status that run, or ran before: what is known of each, and its energy per token."""

from __future__ import annotations

from pydantic import Field

from energylens.api.base import ApiModel
from energylens.api.quantity import Quantity


class WorkloadRef(ApiModel):
    """The workload object that runs the pods."""

    api_version: str = Field(description="API group and version, such as apps/v1.")
    kind: str = Field(description="Deployment or LeaderWorkerSet.")
    name: str = Field(description="Name, in the namespace of the LLMDeployment.")


class PrefillRevision(ApiModel):
    """The prefill replicas of the plan that runs now."""

    replicas: int = Field(description="Prefill replicas in this plan.")
    layout: str = Field(description="Parallelism of one prefill replica, such as TP2.")
    workload_ref: WorkloadRef = Field(description="The workload object that runs the prefill pods.")
    ready_replicas: int = Field(default=0, description="Prefill replicas that are ready.")
    updated_replicas: int = Field(
        default=0, description="Prefill replicas of the newest revision that exist, ready or not."
    )


class Revision(ApiModel):
    """A plan that runs, or ran before."""

    plan_hash: str = Field(description="hash of the plan from which the workload was created.")
    model: str | None = Field(default=None, description="spec.model.name of this plan.")
    gpu_product: str | None = Field(default=None, description="GPU product of this plan.")
    gpus: int | None = Field(default=None, description="GPUs of this plan over all replicas.")
    replicas: int | None = Field(default=None, description="Copies of the model in this plan.")
    layout: str | None = Field(default=None, description="Parallelism of one replica, such as TP4 or TP8-EP8.")
    max_batch_size: int | None = Field(
        default=None, description="Maximum number of sequences at once per data-parallel rank."
    )
    max_batched_tokens: int | None = Field(
        default=None,
        description="Maximum number of tokens of a step per data-parallel rank; absent: the default of the engine.",
    )
    joules_per_output_token: Quantity | None = Field(
        default=None, description="Predicted GPU energy per generated token of this plan, J."
    )
    output_tokens_per_second: int | None = Field(
        default=None, description="Load that this plan was made for, tokens generated per second."
    )
    measured_joules_per_output_token: Quantity | None = Field(
        default=None,
        description="Mean of the measured windows of this plan with exponential forgetting, J; restarts when the "
        "load changes by more than a third. Absent: nothing was measured.",
    )
    measured_output_tokens_per_second: int | None = Field(
        default=None, description="Mean load of these windows, tokens generated per second."
    )


class ActiveRevision(Revision):
    """The plan that runs now."""

    prefill: PrefillRevision | None = Field(
        default=None,
        description="Prefill replicas of this plan, if it separates prefill and decode; replicas, readyReplicas and "
        "updatedReplicas then count the decode replicas.",
    )
    itl_milliseconds: int | None = Field(default=None, description="Predicted inter-token latency of this plan, ms.")
    workload_ref: WorkloadRef = Field(description="The workload object that runs the pods.")
    ready_replicas: int = Field(default=0, description="Replicas of this plan that are ready.")
    updated_replicas: int = Field(default=0, description="Replicas of this plan that exist, ready or not.")
    power_watts: int | None = Field(
        default=None, description="Predicted power of this plan, W; stays committed while another plan waits."
    )


class PreviousRevision(Revision):
    """The plan that the running plan replaced."""

    replaced_by: str = Field(
        description="hash of the plan that replaced it; if only the replicas followed another load since, the hash of "
        "the last such plan."
    )
    replaced_time: str = Field(description="Time of the replacement; RFC 3339, UTC.")
