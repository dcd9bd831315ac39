"""A plan as status has it: layout, figures, alternatives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel
from energylens.api.quantity import Quantity

Confidence = Literal["Measured", "Interpolated", "Extrapolated"]


class PredictedFigures(ApiModel):
    """What the predictor expects, with the 80 % interval of the energy."""

    joules_per_output_token: Quantity = Field(description="GPU energy per generated token, all replicas, J.")
    joules_per_output_token_low: Quantity = Field(description="Lower end of the 80 % interval, J.")
    joules_per_output_token_high: Quantity = Field(description="Upper end of the 80 % interval, J.")
    power_watts: int = Field(description="Mean power of all GPUs of all replicas under the stated load, W.")
    idle_power_watts: int = Field(description="Power of the same GPUs while no request runs, W.")
    output_tokens_per_second: int = Field(description="Tokens generated per second by all replicas.")
    concurrency: int = Field(description="Requests in flight over all replicas in the steady state.")
    utilization_percent: int | None = Field(
        default=None,
        description="The load over what the replicas carry at most, %: arrival rates, or requests in flight over "
        "places in the batches; rounded up; absent in plans of releases that did not predict it.",
    )
    ttft_milliseconds: int = Field(description="Time to first token at the percentile of spec.slo, ms.")
    itl_milliseconds: int = Field(description="Inter-token latency at the percentile of spec.slo, ms, rounded up.")
    tpot_milliseconds: int | None = Field(
        default=None,
        description="Time per output token of a request at the percentile of spec.slo, ms, rounded up; absent in plans "
        "of releases that did not predict it.",
    )


def describe_layout(*, tensor: int, pipeline: int, expert: int, data: int) -> str:
    """Return a layout in the field's shorthand, without spaces: ``TP4``, ``TP8-PP2``, ``TP8-EP8``, ``TP1-EP8-DP8``."""
    rest = (("PP", pipeline), ("EP", expert), ("DP", data))
    return "-".join([f"TP{tensor}", *(f"{name}{size}" for name, size in rest if size > 1)])


class ReplicaLayout(ApiModel):
    """How a model is laid out over GPUs: the number of copies, and the parallelism and batch of each."""

    replicas: int = Field(description="Copies of the model.")
    tensor_parallel: int = Field(description="GPUs that split each layer.")
    pipeline_parallel: int = Field(description="Stages that the layers are split into.")
    expert_parallel: int = Field(
        description="GPUs that experts are split over; 1: experts are split like dense layers."
    )
    data_parallel: int = Field(description="Copies of the attention layers in one replica.")
    max_batch_size: int = Field(description="Maximum number of sequences running at once per data-parallel rank.")
    power_cap_watts_per_gpu: int | None = Field(
        default=None, description="Power limit of each GPU, W; absent: the product's default limit."
    )

    @property
    def degrees(self) -> str:
        """The four degrees in short, such as ``TP4`` or ``TP8-EP8``."""
        return describe_layout(
            tensor=self.tensor_parallel,
            pipeline=self.pipeline_parallel,
            expert=self.expert_parallel,
            data=self.data_parallel,
        )


class GpuChoice(ApiModel):
    """The GPUs that a plan takes."""

    gpu_product: str = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    gpus: int = Field(description="GPUs over all replicas.")
    nodes_per_replica: int = Field(default=1, description="Nodes that one replica spans.")


class PrefillReplicas(ReplicaLayout):
    """Replicas that process prompts, where those of a plan only generate tokens; batches are of prompts."""


class Alternative(ReplicaLayout, GpuChoice):
    """A plan of the Pareto frontier that was not chosen, and why."""

    joules_per_output_token: Quantity = Field(description="Predicted GPU energy per generated token, J.")
    power_watts: int = Field(description="Predicted mean power of all its GPUs, W.")
    utilization_percent: int | None = Field(
        default=None, description="The load over what its replicas carry at most, %."
    )
    ttft_milliseconds: int = Field(description="Predicted time to first token at the percentile of spec.slo, ms.")
    itl_milliseconds: int = Field(description="Predicted inter-token latency at the percentile of spec.slo, ms.")
    tpot_milliseconds: int | None = Field(
        default=None, description="Predicted time per output token of a request at the percentile of spec.slo, ms."
    )
    prefill: PrefillReplicas | None = Field(
        default=None,
        description="Present where prompts are processed by replicas of their own: these. The layout above is then "
        "that of the replicas that generate; GPUs, energy, power and latencies are those of both.",
    )
    reason: str = Field(description="Why the plan was not chosen.")


def _layout(data: dict[str, Any]) -> str:
    return describe_layout(
        tensor=data.get("tensor_parallel", 1),
        pipeline=data.get("pipeline_parallel", 1),
        expert=data.get("expert_parallel", 1),
        data=data.get("data_parallel", 1),
    )


class CorrectionFactors(ApiModel):
    """Factors on predictions; 1 leaves a prediction unchanged."""

    ttft: Quantity = Field(description="Factor on the predicted time to first token, which prefill determines.")
    itl: Quantity = Field(description="Factor on the predicted inter-token latency, which decode determines.")
    power: Quantity = Field(description="Factor on the predicted power.")
    energy: Quantity = Field(description="Factor on the predicted joules per output token.")


class ReplicaPower(ApiModel):
    """Predicted power of a plan with another number of replicas."""

    replicas: int = Field(description="Copies of the model.")
    power_watts: int = Field(
        description="Predicted power of all GPUs under the same load, or under the part of the load that these "
        "replicas carry, W."
    )


class PlanIdentity(ApiModel):
    """Identity of a plan, and the basis of its figures."""

    hash: str = Field(
        description="Identity of the plan: the hash of what the plan does (model, engine, GPU product, layout, "
        "replicas, batch, power cap). spec.planning.approvedPlanHash names this hash."
    )
    serving_hash: str = Field(
        default="", description="Hash of the model and of the engine with its settings, which are a part of hash."
    )
    inputs_hash: str | None = Field(
        default=None,
        description="Hash of the plan's inputs (spec, available GPUs, predictor) and of the plan itself; nothing is "
        "planned again while it stays the same.",
    )
    predictor_version: str = Field(description="Version of the predictor's code and coefficients.")
    confidence: Confidence = Field(
        description="Measured: this model was run in this layout on this GPU with this version of the engine. "
        "Interpolated: the model, or others of its kind, were run on this GPU with this engine. Extrapolated: less is "
        "known."
    )
    confidence_reason: str = Field(default="", description="Which parts of the plan were measured, and which were not.")
    binding_constraint: str = Field(description="The constraint that kept a plan of lower energy from being chosen.")


class PlanStatus(ReplicaLayout, GpuChoice, PlanIdentity):
    """The plan that the operator follows or recommends."""

    layout: str = Field(
        default_factory=_layout, description="The four degrees of parallelism in short, such as TP4 or TP8-EP8."
    )
    kv_cache_tokens: int | None = Field(
        default=None,
        description="Tokens that the KV caches of one replica hold, over its data-parallel ranks; absent where a "
        "model keeps nothing for each token, and in plans of releases that did not say it.",
    )
    longest_request_tokens: int | None = Field(
        default=None,
        description="Tokens of the longest request, prompt and output: the context, or the KV cache of one "
        "data-parallel rank where that is smaller.",
    )
    lowest_power_watts: int | None = Field(
        default=None, description="Minimum power of any plan that meets the spec, budgets aside, W."
    )
    fewer_replicas: Annotated[tuple[ReplicaPower, ...], Field(max_length=32, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(),
        description="Predicted power of the same pods with fewer replicas, down to spec.energy.minReplicas, most "
        "replicas first: the steps that a budget with action Shed can take.",
    )
    shed_from_power_watts: int | None = Field(
        default=None, description="Predicted power with the replicas that a budget took, W; absent: no budget took any."
    )
    shed_by: str | None = Field(
        default=None,
        description="The budget for which replicas were taken; the plan then carries less than the load.",
    )
    shed_from_replicas: int | None = Field(
        default=None, description="Replicas before the budget took some; hash is that of the plan with all of them."
    )
    predicted: PredictedFigures = Field(description="Predicted figures of the plan.")
    correction: CorrectionFactors | None = Field(
        default=None, description="Factors from measurement that are in the predicted figures; absent: none."
    )
    alternatives: Annotated[
        tuple[Alternative, ...],
        Field(max_length=5, json_schema_extra=ATOMIC_LIST),
    ] = Field(default=(), description="The next best plans, and why each was not chosen.")


def describe_replicas(layout: ReplicaLayout, product: str = "") -> str:
    """Return replicas in short: ``2 x NVIDIA-H200 TP4, max batch 64`` is two replicas of four GPUs each."""
    cap = "" if layout.power_cap_watts_per_gpu is None else f", {layout.power_cap_watts_per_gpu} W per GPU"
    where = f"{product} {layout.degrees}" if product else layout.degrees
    return f"{layout.replicas} x {where}, max batch {layout.max_batch_size}{cap}"


def describe_plan(plan: PlanStatus) -> str:
    """Return a plan in short, as :func:`describe_replicas` does."""
    return describe_replicas(plan, plan.gpu_product)
