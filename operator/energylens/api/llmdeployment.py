"""The LLMDeployment resource: what a team asks for.

No floats anywhere: integers with the unit in the name, or Kubernetes quantities kept as strings.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, WithJsonSchema

from energylens.api import llmdeployment_rules as rules
from energylens.api.base import (
    ATOMIC_LIST,
    DISTINCT,
    SET_LIST,
    AbsolutePath,
    ApiModel,
    DataKey,
    Labels,
    ObjectMeta,
    ObjectName,
    Rule,
    distinct_by,
    map_list,
)
from energylens.api.llmdeployment_status import (
    ActiveRevision,
    Alternative,
    BudgetStatus,
    Confidence,
    EnergyAccount,
    LLMDeploymentStatus,
    LoadStatus,
    Measured,
    PlanStatus,
    PredictedFigures,
    PredictionStatus,
    PrefillReplicas,
    RelaxationStatus,
    WorkloadRef,
    describe_layout,
)
from energylens.api.quantity import PositiveQuantity
from energylens.api.time_zone import KNOWN_TIME_ZONE, Period, TimeZone

__all__ = [
    "ActiveRevision",
    "Alternative",
    "BudgetStatus",
    "Confidence",
    "ConfigMapKeyRef",
    "DeploymentBudget",
    "Energy",
    "EnergyAccount",
    "Engine",
    "EnvVar",
    "Hardware",
    "LLMDeployment",
    "LLMDeploymentSpec",
    "LLMDeploymentStatus",
    "LoadStatus",
    "Measured",
    "Model",
    "ModelCache",
    "ObjectMeta",
    "Objective",
    "Overrides",
    "Percentile",
    "PlanStatus",
    "Planning",
    "PlanningMode",
    "PowerCap",
    "PredictedFigures",
    "PredictionStatus",
    "PrefillReplicas",
    "RelaxationStatus",
    "Replan",
    "Rollout",
    "SecretKeyRef",
    "Slo",
    "SpeculationMethod",
    "Speculative",
    "Toleration",
    "Validation",
    "Workload",
    "WorkloadRef",
    "describe_layout",
]

Objective = Literal["MinimizeEnergy", "MinimizePower", "MinimizeGPUs"]
PlanningMode = Literal["Auto", "Manual", "Advisory"]
Percentile = Literal["P50", "P95", "P99"]
SpeculationMethod = Literal["NGram", "EAGLE", "MTP", "DraftModel"]

_MAX_GPUS = 100_000
_MAX_MILLISECONDS = 3_600_000
_MAX_WATTS = 1_000_000_000
_MAX_WATT_HOURS = 1_000_000_000_000


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap in the object's namespace."""

    name: ObjectName = Field(description="Name of the ConfigMap.")
    key: DataKey = Field(default="config.json", description="Key that holds the model's Hugging Face config.json.")


class SecretKeyRef(ApiModel):
    """A key of a Secret in the object's namespace."""

    name: ObjectName = Field(description="Name of the Secret.")
    key: DataKey = Field(default="HF_TOKEN", description="Key that holds the token.")


class ModelCache(ApiModel):
    """Where weights are kept between pod restarts."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.ONE_CACHE,)

    persistent_volume_claim: ObjectName | None = Field(
        default=None, description="A PersistentVolumeClaim of the namespace. Set this or hostPath."
    )
    host_path: AbsolutePath | None = Field(
        default=None, description="A directory on every GPU node. Set this or persistentVolumeClaim."
    )
    path: AbsolutePath = Field(default="/models", description="Where the cache is mounted in the engine's container.")


class Model(ApiModel):
    """The model to serve."""

    name: str = Field(
        min_length=1,
        max_length=253,
        pattern=r"^[A-Za-z0-9._/-]+$",
        description="Hugging Face id, such as meta-llama/Llama-3.1-70B-Instruct. "
        "A model that the operator's catalogue does not have needs configRef.",
    )
    revision: Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[A-Za-z0-9._/-]+$")] | None = Field(
        default=None, description="Branch, tag or commit of the model's repository; absent: its main branch."
    )
    quantization: Literal["None", "FP8", "MXFP4", "NVFP4", "INT8", "INT4"] | None = Field(
        default=None,
        description="Number format of the weights. Absent: the one that the model's repository has. None: 16 bits.",
    )
    config_ref: ConfigMapKeyRef | None = Field(
        default=None, description="ConfigMap with the model's config.json, for models that the catalogue does not have."
    )
    token_secret_ref: SecretKeyRef | None = Field(
        default=None, description="Secret with the Hugging Face token, for models that need one to be downloaded."
    )
    cache: ModelCache | None = Field(
        default=None, description="Where weights are kept between pod restarts; absent: every pod downloads them."
    )


class EnvVar(ApiModel):
    """A plain environment variable of the engine's container."""

    name: str = Field(min_length=1, max_length=253, pattern=r"^[^=\s]+$", description="Name of the variable.")
    value: str = Field(default="", max_length=32_768, description="Value of the variable.")


class Engine(ApiModel):
    """The serving engine."""

    type: Literal["VLLM", "SGLang"] = Field(default="VLLM", description="Which engine serves the model.")
    image: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^\S+$")] | None = Field(
        default=None,
        description="Container image of the engine; absent: the version that this operator was tested with.",
    )
    extra_args: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=4096)], ...],
        Field(max_length=128, json_schema_extra=ATOMIC_LIST),
    ] = Field(
        default=(),
        description="Arguments added to the engine's command line. Parallelism and batch size belong to the plan: "
        "set them in spec.planning.overrides.",
    )
    env: Annotated[
        tuple[EnvVar, ...], Field(max_length=128, json_schema_extra=map_list("name")), distinct_by("name")
    ] = Field(default=(), description="Environment variables of the engine's container.")


class Speculative(ApiModel):
    """Speculative decoding as spec.engine.extraArgs ask the engine for it: a chain of drafted tokens per step."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.DRAFT_MODEL_SIZE,)

    method: SpeculationMethod | None = Field(
        default=None,
        description="What drafts. NGram: n-grams of the prompt, without a model. EAGLE: a head of one layer. MTP: the "
        "model's own layer for it. DraftModel: a small model. Absent: what spec.engine.extraArgs ask for, else EAGLE.",
    )
    draft_tokens: int = Field(
        ge=1, le=64, description="Tokens drafted per sequence and step; each step verifies them with one more."
    )
    acceptance_percent: int = Field(
        ge=0, le=100, description="Accepted tokens over drafted ones, %, as the engines count them."
    )
    draft_model_million_parameters: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Parameters of the draft model without its embeddings, in millions; needed by method DraftModel.",
    )


class Workload(ApiModel):
    """The load: mean request shape and either an arrival rate or a number of concurrent requests."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.ONE_LOAD,)

    input_tokens: int = Field(ge=1, le=10_000_000, description="Mean tokens of a prompt.")
    output_tokens: int = Field(ge=1, le=1_000_000, description="Mean tokens generated per request.")
    requests_per_second: PositiveQuantity | None = Field(
        default=None,
        description='Mean arrival rate over all replicas, above 0: a whole number (2) or a string ("0.5", 500m). '
        "A number with a fraction (0.5 without quotes) is refused. Set this or concurrency.",
    )
    concurrency: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Requests in flight over all replicas. Set this or requestsPerSecond.",
    )
    prefix_cache_hit_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Prompt tokens that the engine's prefix cache has, %: they cost no prefill. Taken as the beginning "
        "of every prompt, shared by all.",
    )
    speculative: Speculative | None = Field(
        default=None, description="Speculative decoding; absent: every step generates one token per request."
    )


class Slo(ApiModel):
    """What the deployment must hold at the given percentile. An absent objective does not constrain the plan."""

    percentile: Percentile = Field(default="P95", description="Share of requests that must meet the latencies.")
    ttft_milliseconds: int | None = Field(
        default=None, ge=1, le=_MAX_MILLISECONDS, description="Maximum time to first token, ms."
    )
    itl_milliseconds: int | None = Field(
        default=None, ge=1, le=_MAX_MILLISECONDS, description="Maximum inter-token latency, ms."
    )
    tpot_milliseconds: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_MILLISECONDS,
        description="Maximum time per output token of a request, the mean over its tokens after the first, ms. The "
        "prefill of other requests is part of it, which a median inter-token latency leaves out.",
    )
    joules_per_output_token: PositiveQuantity | None = Field(
        default=None, description='Most GPU energy per generated token, J, greater than 0, such as "0.4" or 400m.'
    )


class DeploymentBudget(ApiModel):
    """The deployment's own budget; platform teams govern with EnergyBudget."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.BUDGET_LIMITS_SOMETHING, KNOWN_TIME_ZONE)

    power_watts: int | None = Field(
        default=None, ge=1, le=_MAX_WATTS, description="Maximum power that all GPUs of the deployment may draw, W."
    )
    energy_watt_hours: int | None = Field(
        default=None, ge=1, le=_MAX_WATT_HOURS, description="Maximum GPU energy in one period, Wh."
    )
    period: Period = Field(default="Month", description="Period over which energyWattHours counts.")
    time_zone: TimeZone = "UTC"
    action: Literal["Warn", "Enforce"] = Field(
        default="Warn",
        description="Warn: condition WithinEnergyBudget and an event say that the budget is exceeded, and nothing else "
        "happens. Enforce: a plan must also stay within powerWatts, and energyWattHours over a whole period; "
        "a new or larger "
        "plan must also hold the energy that is left. Running pods are not stopped.",
    )


class PowerCap(ApiModel):
    """Whether GPUs run under a power limit below the product's default."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.POWER_CAP_WATTS,)

    mode: Literal["Never", "Fixed", "Plan"] = Field(
        default="Never",
        description="Never: the product's default limit. Fixed: wattsPerGPU. Plan: the planner picks the limit.",
    )
    watts_per_gpu: int | None = Field(
        default=None, ge=1, le=10_000, description="Power limit of each GPU, W; needed by mode Fixed, and only by it."
    )


class Energy(ApiModel):
    """Objective, and the deployment's own budget."""

    objective: Objective = Field(
        default="MinimizeEnergy",
        description="MinimizeEnergy: joules per output token. MinimizePower: watts. MinimizeGPUs: GPUs, then energy.",
    )
    budget: DeploymentBudget | None = Field(default=None, description="The deployment's own budget.")
    power_cap: PowerCap = Field(default=PowerCap(), description="Power limit of the GPUs.")
    priority: int = Field(
        default=0,
        ge=-1_000_000,
        le=1_000_000,
        description="Under an EnergyBudget with action Shed, members of lower priority give power first.",
    )
    min_replicas: int = Field(
        default=1, ge=1, le=10_000, description="Replicas that an EnergyBudget with action Shed leaves at least."
    )


class Toleration(ApiModel):
    """A pod toleration."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.TOLERATION_VALUE, rules.TOLERATION_SECONDS)

    key: Annotated[str, Field(max_length=317)] | None = Field(
        default=None, description="Taint key; absent with operator Exists: every taint."
    )
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Equal: the taint has this value. Exists: any value."
    )
    value: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Taint value, for operator Equal."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent: all of them."
    )
    toleration_seconds: int | None = Field(
        default=None,
        description="How long a NoExecute taint is tolerated, s; absent: for ever. Nodes with a taint that is "
        "tolerated for a time only are not planned for.",
    )


class Hardware(ApiModel):
    """The GPUs that the planner may use. Empty: every GPU of the cluster."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.REPLICA_WITHIN_MAX_GPUS,)

    gpu_products: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
        Field(max_length=32, json_schema_extra=SET_LIST),
        DISTINCT,
    ] = Field(
        default=(),
        description="GPU products allowed, as in the node label nvidia.com/gpu.product (NVIDIA-H100-80GB-HBM3); short "
        "names (H100), labels of older drivers and GKE accelerator names are understood. Empty: all "
        "available products.",
    )
    max_gpus: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_GPUS,
        description="Maximum number of GPUs over all replicas; checked again after planning.",
    )
    max_gpus_per_replica: int | None = Field(
        default=None, ge=1, le=_MAX_GPUS, description="Maximum number of GPUs of one replica; at most maxGPUs."
    )
    node_selector: Labels = Field(default_factory=dict, description="Labels that nodes must carry.")
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="Taints of nodes that pods tolerate."
    )


class Overrides(ApiModel):
    """Choices taken from the planner; each one set is a constraint."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.EXPERTS_WITHIN_REPLICA,)

    tensor_parallel: int | None = Field(default=None, ge=1, le=1024, description="GPUs that split each layer.")
    pipeline_parallel: int | None = Field(default=None, ge=1, le=1024, description="Stages of layers.")
    expert_parallel: int | None = Field(
        default=None,
        ge=1,
        le=1024,
        description="GPUs that experts are split over, at most tensorParallel x dataParallel.",
    )
    data_parallel: int | None = Field(
        default=None, ge=1, le=1024, description="Copies of the attention layers in one replica."
    )
    replicas: int | None = Field(default=None, ge=1, le=10_000, description="Copies of the model.")
    max_batch_size: int | None = Field(
        default=None, ge=1, le=65_536, description="Maximum number of sequences running at once per data-parallel rank."
    )


class Replan(ApiModel):
    """When a better plan is worth a restart."""

    min_energy_saving_percent: int = Field(
        default=10, ge=0, le=100, description="Minimum energy that a new plan must save, %."
    )
    cooldown_seconds: int = Field(
        default=3600, ge=0, le=31_536_000, description="Minimum time between two changes of the plan, s."
    )


class Planning(ApiModel):
    """How plans are made and adopted."""

    mode: PlanningMode = Field(
        default="Auto",
        description="Auto: follow the best plan. Manual: follow only the plan whose hash is approvedPlanHash. "
        "Advisory: show the plan and run nothing.",
    )
    approved_plan_hash: Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[0-9a-z]+$")] | None = Field(
        default=None, description="status.plan.hash of the plan that mode Manual may follow."
    )
    overrides: Overrides = Field(default=Overrides(), description="Values that replace the planner's choice.")
    safety_margin_percent: int = Field(
        default=100,
        ge=0,
        le=300,
        description="How far above the prediction spec.slo is checked, in percent of the way to the upper end of its "
        "80 % interval. 100: at that end, which nine of ten measurements stay below. 0: at the prediction itself.",
    )
    replan: Replan = Field(default=Replan(), description="When a better plan is worth a restart.")
    disaggregation: Literal["Never", "Compare"] = Field(
        default="Never",
        description="Compare: also evaluate prefill and decode on replicas of their own, and show the best such plan "
        "among the alternatives. It is never followed: serving it takes a router that knows the two roles.",
    )
    follow_load: Literal["Never", "Auto"] = Field(
        default="Never",
        description="Never: plans are made for workload.requestsPerSecond. Auto: for the measured rate where it "
        "differs: at once where it is higher, after cooldownSeconds where it is lower. The rules of replan apply, too.",
    )


class Rollout(ApiModel):
    """How a new plan replaces the running one."""

    strategy: Literal["Auto", "Surge", "Recreate"] = Field(
        default="Auto",
        description="Surge: start new replicas before old ones stop. Recreate: replace one by one. "
        "Auto: Surge when enough GPUs are free, else Recreate.",
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=60,
        le=604_800,
        description="How long a rollout may make no progress, s. Default: 3600, or 60 s more than the model may "
        "take to start where that is longer.",
    )
    revision_history_limit: int = Field(default=3, ge=0, le=20, description="Old revisions kept.")
    rollback_on: Annotated[
        tuple[Literal["SLOViolation", "HigherEnergy", "ProgressDeadline"], ...],
        Field(max_length=3, json_schema_extra=SET_LIST),
        DISTINCT,
    ] = Field(default=(), description="Events that return the deployment to the previous plan; empty: none.")


class Validation(ApiModel):
    """How predictions are checked against measurement."""

    source: Literal["Auto", "Prometheus", "DCGMExporter", "None"] = Field(
        default="Auto", description="Where energy counters are read. None: not measured."
    )
    warmup_seconds: int = Field(
        default=120, ge=0, le=86_400, description="Time after pods became ready that is not measured, s."
    )
    window_seconds: int = Field(default=600, ge=10, le=7200, description="Time that one measurement covers, s.")
    tolerance_percent: int = Field(
        default=15, ge=1, le=100, description="Largest error of the predicted energy that counts as accurate, %."
    )
    on_drift: Literal["Report", "Recalibrate", "Rollback"] = Field(
        default="Report",
        description="Reaction to an error above tolerancePercent. Report: a condition reports the error. "
        "Recalibrate: correct the predictor by what is measured. Rollback: return to the last good plan when a new one "
        "breaks the SLO or measures more energy.",
    )


PodTemplate = Annotated[
    dict[str, Any], WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
]


class LLMDeploymentSpec(ApiModel):
    """What a team asks for."""

    rules: ClassVar[tuple[Rule, ...]] = (
        rules.OVERRIDES_WITHIN_REPLICA,
        rules.OVERRIDES_WITHIN_MAX_GPUS,
        rules.FOLLOWED_LOAD_IS_A_RATE,
        rules.DISAGGREGATION_NEEDS_A_RATE,
    )

    model: Model = Field(description="The model to serve.")
    engine: Engine = Field(default=Engine(), description="The serving engine.")
    workload: Workload = Field(description="The load: mean request shape and arrival rate or concurrency.")
    slo: Slo = Field(default=Slo(), description="Service level objectives; absent ones do not constrain the plan.")
    energy: Energy = Field(default=Energy(), description="Objective, and the deployment's own budget.")
    hardware: Hardware = Field(default=Hardware(), description="The GPUs that the planner may use.")
    planning: Planning = Field(default=Planning(), description="How plans are made and adopted.")
    rollout: Rollout = Field(default=Rollout(), description="How a new plan replaces the running one.")
    validation: Validation = Field(default=Validation(), description="How predictions are checked against measurement.")
    pod_template: PodTemplate | None = Field(
        default=None,
        description="A PodTemplateSpec merged into the serving pods by strategic merge; the plan's own fields win.",
    )
    suspend: bool = Field(default=False, description="Stop all replicas, and keep the plan.")


class LLMDeployment(ApiModel):
    """An LLM served with the least energy that meets its latency objectives."""

    rules: ClassVar[tuple[Rule, ...]] = (rules.NAME_LEAVES_ROOM,)

    api_version: Literal["energylens.dev/v1alpha1"] = Field(
        default="energylens.dev/v1alpha1", description="API group and version."
    )
    kind: Literal["LLMDeployment"] = Field(default="LLMDeployment", description="LLMDeployment.")
    metadata: ObjectMeta = Field(description="Name, namespace, labels; metadata.name has at most 52 characters.")
    spec: LLMDeploymentSpec = Field(description="What a team asks for.")
    status: LLMDeploymentStatus = Field(default=LLMDeploymentStatus(), description="What the operator found and did.")
