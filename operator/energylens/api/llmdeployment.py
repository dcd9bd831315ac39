"""The LLMDeployment resource: what a team asks for, and what the operator found and did.

No floats anywhere: integers with the unit in the name, or Kubernetes quantities kept as strings.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from energylens.api.base import ApiModel, Condition
from energylens.api.quantity import PositiveQuantity, Quantity

Objective = Literal["MinimizeEnergy", "MinimizePower", "MinimizeGPUs"]
PlanningMode = Literal["Auto", "Manual", "Advisory"]
Percentile = Literal["P50", "P95", "P99"]
Confidence = Literal["Interpolated", "Extrapolated"]


class ConfigMapKeyRef(ApiModel):
    """A key of a ConfigMap in the object's namespace."""

    name: str
    key: str = "config.json"


class SecretKeyRef(ApiModel):
    """A key of a Secret in the object's namespace."""

    name: str
    key: str = "HF_TOKEN"


class ModelCache(ApiModel):
    """Where weights are kept between pod restarts."""

    persistent_volume_claim: str | None = None
    host_path: str | None = None
    path: str = "/models"


class Model(ApiModel):
    """The model to serve."""

    name: str = Field(min_length=1, max_length=253)
    revision: str | None = None
    quantization: Literal["None", "FP8", "MXFP4", "NVFP4", "INT8", "INT4"] | None = None
    config_ref: ConfigMapKeyRef | None = None
    token_secret_ref: SecretKeyRef | None = None
    cache: ModelCache | None = None


class EnvVar(ApiModel):
    """A plain environment variable of the engine's container."""

    name: str
    value: str = ""


class Engine(ApiModel):
    """The serving engine."""

    type: Literal["VLLM", "SGLang"] = "VLLM"
    image: str | None = None
    extra_args: tuple[str, ...] = ()
    env: tuple[EnvVar, ...] = ()


class Workload(ApiModel):
    """The load: mean request shape and either an arrival rate or a number of concurrent requests."""

    input_tokens: int = Field(ge=1, le=10_000_000)
    output_tokens: int = Field(ge=1, le=1_000_000)
    requests_per_second: PositiveQuantity | None = None
    concurrency: int | None = Field(default=None, ge=1, le=100_000)


class Slo(ApiModel):
    """What the deployment must hold at the given percentile."""

    percentile: Percentile = "P95"
    ttft_milliseconds: int | None = Field(default=None, ge=1)
    itl_milliseconds: int | None = Field(default=None, ge=1)
    joules_per_output_token: PositiveQuantity | None = None


class DeploymentBudget(ApiModel):
    """The deployment's own budget; platform teams govern with EnergyBudget."""

    power_watts: int | None = Field(default=None, ge=1)
    energy_watt_hours: int | None = Field(default=None, ge=1)
    period: Literal["Hour", "Day", "Week", "Month"] = "Month"
    action: Literal["Warn", "Enforce"] = "Warn"


class PowerCap(ApiModel):
    """Whether GPUs run under a power limit below the product's default."""

    mode: Literal["Never", "Fixed", "Plan"] = "Never"
    watts_per_gpu: int | None = Field(default=None, ge=1)


class Energy(ApiModel):
    """What to minimise, and within which budget."""

    objective: Objective = "MinimizeEnergy"
    budget: DeploymentBudget | None = None
    power_cap: PowerCap = PowerCap()


class Toleration(ApiModel):
    """A pod toleration."""

    key: str | None = None
    operator: Literal["Exists", "Equal"] = "Equal"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    toleration_seconds: int | None = None


class Hardware(ApiModel):
    """The GPUs that the planner may use."""

    gpu_products: tuple[str, ...] = ()
    max_gpus: int | None = Field(default=None, ge=1)
    max_gpus_per_replica: int | None = Field(default=None, ge=1)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()


class Overrides(ApiModel):
    """Choices taken from the planner; each one set is a constraint."""

    tensor_parallel: int | None = Field(default=None, ge=1)
    pipeline_parallel: int | None = Field(default=None, ge=1)
    expert_parallel: int | None = Field(default=None, ge=1)
    data_parallel: int | None = Field(default=None, ge=1)
    replicas: int | None = Field(default=None, ge=1)
    max_batch_size: int | None = Field(default=None, ge=1)


class Replan(ApiModel):
    """When a better plan is worth a restart."""

    min_energy_saving_percent: int = Field(default=10, ge=0, le=100)
    cooldown_seconds: int = Field(default=3600, ge=0)


class Planning(ApiModel):
    """How plans are made and adopted."""

    mode: PlanningMode = "Auto"
    approved_plan_hash: str | None = None
    overrides: Overrides = Overrides()
    replan: Replan = Replan()


class Rollout(ApiModel):
    """How a new plan replaces the running one."""

    strategy: Literal["Auto", "Surge", "Recreate"] = "Auto"
    progress_deadline_seconds: int = Field(default=3600, ge=60)
    revision_history_limit: int = Field(default=3, ge=0, le=20)
    rollback_on: tuple[Literal["SLOViolation", "HigherEnergy", "ProgressDeadline"], ...] = ()


class Validation(ApiModel):
    """How predictions are checked against measurement."""

    source: Literal["Auto", "Prometheus", "DCGMExporter", "None"] = "Auto"
    warmup_seconds: int = Field(default=120, ge=0)
    window_seconds: int = Field(default=600, ge=10)
    tolerance_percent: int = Field(default=15, ge=1, le=100)
    on_drift: Literal["Report", "Recalibrate", "Rollback"] = "Report"


class LLMDeploymentSpec(ApiModel):
    """What a team asks for."""

    model: Model
    engine: Engine = Engine()
    workload: Workload
    slo: Slo = Slo()
    energy: Energy = Energy()
    hardware: Hardware = Hardware()
    planning: Planning = Planning()
    rollout: Rollout = Rollout()
    validation: Validation = Validation()
    pod_template: dict[str, Any] | None = None
    suspend: bool = False


class PredictedFigures(ApiModel):
    """What the predictor expects, with the 80 % interval of the energy."""

    joules_per_output_token: Quantity
    joules_per_output_token_low: Quantity
    joules_per_output_token_high: Quantity
    power_watts: int
    idle_power_watts: int
    output_tokens_per_second: int
    concurrency: int
    ttft_milliseconds: int
    itl_milliseconds: int
    """TTFT and ITL at the SLO's percentile; the ITL rounded up."""


class Alternative(ApiModel):
    """A plan of the Pareto frontier that was not chosen, and why."""

    gpu_product: str
    gpus: int
    replicas: int
    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: int
    data_parallel: int
    max_batch_size: int
    joules_per_output_token: Quantity
    power_watts: int
    ttft_milliseconds: int
    itl_milliseconds: int
    reason: str


class PlanStatus(ApiModel):
    """The plan that the operator follows or recommends."""

    hash: str
    predictor_version: str
    confidence: Confidence
    binding_constraint: str
    gpu_product: str
    gpus: int = Field(description="Total over all replicas.")
    replicas: int
    nodes_per_replica: int = 1
    tensor_parallel: int
    pipeline_parallel: int
    expert_parallel: int
    data_parallel: int
    max_batch_size: int
    power_cap_watts_per_gpu: int | None = None
    predicted: PredictedFigures
    alternatives: tuple[Alternative, ...] = Field(default=(), max_length=5)


class WorkloadRef(ApiModel):
    """The workload object that runs the pods."""

    api_version: str
    kind: str
    name: str


class ActiveRevision(ApiModel):
    """What runs now."""

    plan_hash: str
    workload_ref: WorkloadRef
    ready_replicas: int = 0
    updated_replicas: int = 0


class Measured(ApiModel):
    """What the counters say over the last full window."""

    window_start: str
    window_end: str
    coverage_percent: int
    power_watts: int | None = None
    idle_power_watts: int | None = None
    output_tokens_per_second: int | None = None
    joules_per_output_token: Quantity | None = None
    energy_watt_hours_this_period: int | None = None
    ttft_milliseconds: int | None = None
    itl_milliseconds: int | None = None


class PredictionStatus(ApiModel):
    """How far the prediction was off: 100 x (predicted - measured) / measured, whole percents."""

    energy_error_percent: int | None = None
    power_error_percent: int | None = None
    itl_error_percent: int | None = None
    ttft_error_percent: int | None = None
    samples: int = 0
    correction: dict[str, Quantity] | None = None


class BudgetStatus(ApiModel):
    """The deployment's share of its budgets."""

    used_percent: int | None = None
    remaining_watt_hours: int | None = None
    reset_time: str | None = None


class LLMDeploymentStatus(ApiModel):
    """What the operator found and did."""

    observed_generation: int | None = None
    plan: PlanStatus | None = None
    active_revision: ActiveRevision | None = None
    measured: Measured | None = None
    prediction: PredictionStatus | None = None
    budget: BudgetStatus | None = None
    conditions: tuple[Condition, ...] = ()


class ObjectMeta(ApiModel):
    """The part of object metadata that deciding needs."""

    model_config = ApiModel.model_config | {"extra": "ignore"}

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 1
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class LLMDeployment(ApiModel):
    """A served model."""

    api_version: Literal["energylens.dev/v1alpha1"] = "energylens.dev/v1alpha1"
    kind: Literal["LLMDeployment"] = "LLMDeployment"
    metadata: ObjectMeta
    spec: LLMDeploymentSpec
    status: LLMDeploymentStatus = LLMDeploymentStatus()
