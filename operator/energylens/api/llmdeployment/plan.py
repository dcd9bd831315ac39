"""A plan in the status: layout, figures, alternatives."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel
from energylens.api.quantity import Quantity

Confidence = Literal["Measured", "Interpolated", "Extrapolated"]


class PredictedFigures(ApiModel):
    """Predicted figures, with the 80 % interval of the energy."""

    joules_per_output_token: Quantity = Field(description="GPU energy per generated token, all replicas, J.")
    joules_per_output_token_low: Quantity = Field(description="Lower end of the 80 % interval, J.")
    joules_per_output_token_high: Quantity = Field(description="Upper end of the 80 % interval, J.")
    power_watts: int = Field(description="Mean power of all GPUs of all replicas under the stated load, W.")
    idle_power_watts: int = Field(description="Power of the same GPUs while no request runs, W.")
    output_tokens_per_second: int = Field(description="Tokens generated per second by all replicas.")
    concurrency: int = Field(description="Requests in flight over all replicas in the steady state.")
    utilization_percent: int | None = Field(
        default=None,
        description="The load as a share of the highest load that the replicas sustain, %, rounded up: a ratio of "
        "arrival rates, or requests in flight over places in the batches. Absent in plans of older releases.",
    )
    ttft_milliseconds: int = Field(description="Time to first token at the percentile of spec.slo, ms.")
    itl_milliseconds: int = Field(description="Inter-token latency at the percentile of spec.slo, ms, rounded up.")
    tpot_milliseconds: int | None = Field(
        default=None,
        description="Time per output token of a request at the percentile of spec.slo, ms, rounded up; absent in plans "
        "of older releases.",
    )
    breach_percent: int | None = Field(
        default=None,
        description="Chance that a latency exceeds its bound in spec.slo, from the errors of predictions of measured "
        "runs, %, rounded up; absent if the plan does not depend on it: without such a bound, with energy.objective "
        "MinimizeGPUs, with planning.safetyMarginPercent 0, and with separate prefill.",
    )
    end_to_end_milliseconds: int | None = Field(
        default=None,
        description="From a request's arrival to its last token at the percentile of spec.slo, ms, rounded up; absent "
        "in plans of older releases.",
    )


def describe_layout(*, tensor: int, pipeline: int, expert: int, data: int) -> str:
    """Return a layout in the field's shorthand, without spaces: ``TP4``, ``TP8-PP2``, ``TP8-EP8``, ``TP1-EP8-DP8``."""
    rest = (("PP", pipeline), ("EP", expert), ("DP", data))
    return "-".join([f"TP{tensor}", *(f"{name}{size}" for name, size in rest if size > 1)])


class ReplicaLayout(ApiModel):
    """How a model is laid out over GPUs: the number of copies, and the parallelism and batch of each."""

    replicas: int = Field(description="Copies of the model.")
    tensor_parallel: int = Field(description="GPUs that split each layer.")
    pipeline_parallel: int = Field(description="Stages into which the layers are split.")
    expert_parallel: int = Field(
        description="GPUs over which the experts are split; 1: experts are split like dense layers."
    )
    data_parallel: int = Field(description="Copies of the attention layers in one replica.")
    max_batch_size: int = Field(description="Maximum number of sequences running at once per data-parallel rank.")
    max_batched_tokens: int | None = Field(
        default=None,
        description="Maximum number of tokens that a step computes per data-parallel rank; absent: the default of the "
        "engine, or the value in spec.engine.extraArgs.",
    )
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
    """The GPUs of a plan."""

    gpu_product: str = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    gpus: int = Field(description="GPUs over all replicas.")
    nodes_per_replica: int = Field(default=1, description="Nodes that one replica spans.")


class PrefillReplicas(ReplicaLayout):
    """Replicas that only process prompts, beside replicas that only generate tokens; batches are of prompts."""

    @property
    def gpus_per_replica(self) -> int:
        """GPUs of one replica, all of them on one node if the plan is adopted."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


class Alternative(ReplicaLayout, GpuChoice):
    """A plan of the Pareto frontier that was not chosen, and why."""

    joules_per_output_token: Quantity = Field(description="Predicted GPU energy per generated token, J.")
    power_watts: int = Field(description="Predicted mean power of all GPUs of the plan, W.")
    utilization_percent: int | None = Field(
        default=None, description="The load as a share of the highest load that the replicas sustain, %."
    )
    ttft_milliseconds: int = Field(description="Predicted time to first token at the percentile of spec.slo, ms.")
    itl_milliseconds: int = Field(description="Predicted inter-token latency at the percentile of spec.slo, ms.")
    tpot_milliseconds: int | None = Field(
        default=None, description="Predicted time per output token of a request at the percentile of spec.slo, ms."
    )
    end_to_end_milliseconds: int | None = Field(
        default=None,
        description="Predicted time from a request's arrival to its last token at the percentile of spec.slo, ms.",
    )
    prefill: PrefillReplicas | None = Field(
        default=None,
        description="Prefill replicas, if the plan separates prefill and decode. The other layout fields then describe "
        "the decode replicas; GPUs, energy, power and latencies are the figures of both roles.",
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
        "replicas sustain, W."
    )


class PlanIdentity(ApiModel):
    """Identity of a plan, and the basis of its figures."""

    hash: str = Field(
        description="Identity of the plan: the hash of its effect (model, engine, GPU product, layout, replicas, "
        "batch, power cap). spec.planning.approvedPlanHash refers to this hash."
    )
    serving_hash: str = Field(
        default="",
        description="Hash of the model and of the engine with its settings, both of which are also part of hash.",
    )
    inputs_hash: str | None = Field(
        default=None,
        description="Hash of the plan's inputs (spec, available GPUs, predictor) and of the plan itself; nothing is "
        "planned again while it stays the same.",
    )
    predictor_version: str = Field(description="Version of the predictor's code and coefficients.")
    confidence: Confidence = Field(
        description="Measured: there are measured runs of this model in this layout on this GPU with this version of "
        "the engine. Interpolated: there are runs of this model or of similar models on this GPU with this engine. "
        "Extrapolated: otherwise."
    )
    confidence_reason: str = Field(
        default="", description="The parts of the plan that were measured, and the parts that were not."
    )
    binding_constraint: str = Field(description="The constraint that excludes a plan of lower energy.")


class PlannedJob(ApiModel):
    """When the batch job of a plan is expected to end, and the energy that it takes."""

    completion_seconds: int = Field(
        description="Time from the creation of the pods to the last answer, loading of the model included, s."
    )
    start_seconds: int | None = Field(
        default=None,
        description="Time from the creation of the pods until they are ready, included in completionSeconds, s. Absent "
        "in plans of older releases.",
    )
    longest_seconds: int | None = Field(
        default=None,
        description="Time from the creation of the pods to the last answer if the throughput is lower than predicted "
        "by the headroom, s. Absent in plans of older releases.",
    )
    energy_watt_hours: int = Field(
        description="GPU energy of the whole job: start, requests, and idle power until the deadline with "
        "afterCompletion Idle, Wh, rounded up."
    )


class PlanStatus(ReplicaLayout, GpuChoice, PlanIdentity):
    """The plan that the operator has adopted or recommends."""

    prefill: PrefillReplicas | None = Field(
        default=None,
        description="Prefill replicas, if the plan separates prefill and decode. The other layout fields then describe "
        "the decode replicas; gpus and predicted are of both roles.",
    )
    layout: str = Field(
        default_factory=_layout, description="The four degrees of parallelism in short, such as TP4 or TP8-EP8."
    )
    kv_cache_tokens: int | None = Field(
        default=None,
        description="Capacity of the KV caches of one replica, over all data-parallel ranks, in tokens. Absent if the "
        "model has no state per token, and in plans of older releases.",
    )
    longest_request_tokens: int | None = Field(
        default=None,
        description="Tokens of the longest possible request, prompt and output: the context, or the KV cache of one "
        "data-parallel rank if that is smaller.",
    )
    inter_node_network: str | None = Field(
        default=None,
        description="Network speed between the nodes of a replica that the figures assume, and its source; absent for "
        "replicas on one node.",
    )
    lowest_power_watts: int | None = Field(
        default=None, description="Minimum power of any plan that meets the spec, budgets aside, W."
    )
    fewer_replicas: Annotated[tuple[ReplicaPower, ...], Field(max_length=32, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(),
        description="Predicted power of the same pods with fewer replicas, from most replicas down to "
        "spec.energy.minReplicas: the steps available to a budget with action Shed.",
    )
    shed_from_power_watts: int | None = Field(
        default=None,
        description="Predicted power including the replicas that a budget removed, W; absent: none were removed.",
    )
    shed_by: str | None = Field(
        default=None,
        description="The budget that removed replicas; the plan then sustains less than the load.",
    )
    shed_from_replicas: int | None = Field(
        default=None, description="Replicas before the budget removed some; hash identifies the plan with all replicas."
    )
    planned_replicas: int | None = Field(
        default=None,
        description="Number of replicas in hash: with workload.profile the highest number of any hour, with "
        "scaling.mode External the number for the stated load. replicas and predicted describe the present replicas.",
    )
    peak_power_watts: int | None = Field(
        default=None,
        description="Highest predicted power of any hour, with workload.profile, W; budgets keep this power for the "
        "deployment.",
    )
    predicted: PredictedFigures = Field(description="Predicted figures of the plan.")
    job: PlannedJob | None = Field(default=None, description="Expected end and energy of workload.job.")
    correction: CorrectionFactors | None = Field(
        default=None, description="Learned correction factors in the predicted figures; absent without a correction."
    )
    alternatives: Annotated[
        tuple[Alternative, ...],
        Field(max_length=5, json_schema_extra=ATOMIC_LIST),
    ] = Field(default=(), description="The next best plans, each with the reason why it was not chosen.")


def describe_replicas(layout: ReplicaLayout, product: str = "") -> str:
    """Return replicas in short: ``2 x NVIDIA-H200 TP4, max batch 64`` is two replicas of four GPUs each."""
    cap = "" if layout.power_cap_watts_per_gpu is None else f", {layout.power_cap_watts_per_gpu} W per GPU"
    where = f"{product} {layout.degrees}" if product else layout.degrees
    steps = "" if layout.max_batched_tokens is None else f", steps of {layout.max_batched_tokens} tokens"
    return f"{layout.replicas} x {where}, max batch {layout.max_batch_size}{steps}{cap}"


def describe_plan(plan: PlanStatus) -> str:
    """Return a plan in short, as :func:`describe_replicas` does, with its prefill replicas if it has any."""
    text = describe_replicas(plan, plan.gpu_product)
    return text if plan.prefill is None else f"{text}; prompts on {describe_replicas(plan.prefill)}"
