"""What the operator found and did about an LLMDeployment.

Counts, milliseconds, watts and percents are whole numbers; energies are Kubernetes quantities in joules.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel, Condition, map_list
from energylens.api.energybudget_status import Time
from energylens.api.llmdeployment.plan import CorrectionFactors, PlanStatus, ReplicaLayout
from energylens.api.quantity import Quantity


class RelaxationStatus(ApiModel):
    """The smallest change that would make a plan possible, where there is none."""

    field: str = Field(description="Field to change, such as spec.slo.itlMilliseconds, or what the cluster lacks.")
    value: str = Field(description="Its value now.")
    allowed: str = Field(description="The nearest value that works.")
    with_field: str | None = Field(
        default=None, description="A second field to change along with it, where no single change is enough."
    )
    with_value: str | None = Field(default=None, description="Value of the second field now.")
    with_allowed: str | None = Field(default=None, description="The nearest value of the second field that works.")
    joules_per_output_token: Quantity = Field(
        description="Predicted GPU energy per generated token of the best plan after the change, J."
    )


class WorkloadRef(ApiModel):
    """The workload object that runs the pods."""

    api_version: str = Field(description="API group and version, such as apps/v1.")
    kind: str = Field(description="Deployment or LeaderWorkerSet.")
    name: str = Field(description="Name, in the namespace of the LLMDeployment.")


class ActiveRevision(ApiModel):
    """The plan that runs now."""

    plan_hash: str = Field(description="hash of the plan that the workload was made from.")
    gpu_product: str | None = Field(default=None, description="GPU product of this plan.")
    gpus: int | None = Field(default=None, description="GPUs of this plan over all replicas.")
    replicas: int | None = Field(default=None, description="Copies of the model in this plan.")
    layout: str | None = Field(default=None, description="Parallelism of one replica, such as TP4 or TP8-EP8.")
    max_batch_size: int | None = Field(
        default=None, description="Maximum number of sequences at once per data-parallel rank."
    )
    joules_per_output_token: Quantity | None = Field(
        default=None, description="Predicted GPU energy per generated token of this plan, J."
    )
    itl_milliseconds: int | None = Field(default=None, description="Predicted inter-token latency of this plan, ms.")
    workload_ref: WorkloadRef = Field(description="The workload object that runs the pods.")
    ready_replicas: int = Field(default=0, description="Replicas of this plan that are ready.")
    updated_replicas: int = Field(default=0, description="Replicas of this plan that exist, ready or not.")
    power_watts: int | None = Field(
        default=None, description="Predicted power of this plan, W; committed while another plan waits."
    )


class ItlPercentiles(ApiModel):
    """Inter-token latency, ms, from the engine's histogram, which knows no more than the bucket."""

    p50: Quantity = Field(description="Median, ms.")
    p90: Quantity = Field(description="90th percentile, ms.")
    p95: Quantity = Field(description="95th percentile, ms.")
    p99: Quantity = Field(description="99th percentile, ms.")


class Measured(ApiModel):
    """Figures from the counters over the last full window. A figure that was not measured is absent, never zero."""

    window_start: str = Field(description="RFC 3339, UTC.")
    window_end: str = Field(description="RFC 3339, UTC.")
    source: Literal["Prometheus", "DCGMExporter"] | None = Field(
        default=None, description="Where the energy counters were read."
    )
    coverage_percent: int = Field(description="GPUs with samples over the whole window, of the GPUs owned, %.")
    power_watts: int | None = Field(default=None, description="Mean power of all GPUs owned, W.")
    idle_power_watts: int | None = Field(default=None, description="Mean power while no request ran, W.")
    output_tokens_per_second: int | None = Field(default=None, description="Tokens generated per second.")
    requests_per_second: Quantity | None = Field(default=None, description="Requests that ended per second.")
    input_tokens: int | None = Field(default=None, description="Mean prompt tokens of a request, cached ones included.")
    output_tokens: int | None = Field(default=None, description="Mean generated tokens of a request.")
    running_requests: Quantity | None = Field(default=None, description="Mean number of requests that run.")
    waiting_requests: Quantity | None = Field(
        default=None, description="Mean number of requests that wait in the engines."
    )
    kv_cache_percent: int | None = Field(
        default=None, description="Largest part of the KV cache in use in any replica, %."
    )
    prefix_cache_hit_percent: int | None = Field(
        default=None, description="Share of prompt tokens found in the prefix cache, by the engine's counters, %."
    )
    draft_tokens: Quantity | None = Field(
        default=None, description="Mean tokens drafted per sequence and step; absent without speculative decoding."
    )
    acceptance_percent: int | None = Field(default=None, description="Accepted tokens over drafted ones, %.")
    joules_per_output_token: Quantity | None = Field(default=None, description="GPU energy per generated token, J.")
    energy_bound_percent: int | None = Field(
        default=None, description="Largest error that the window's edges and counter resets leave in the energy, %."
    )
    energy_watt_hours_this_period: int | None = Field(
        default=None,
        description="GPU energy measured since the period of spec.energy.budget began, Wh; absent without "
        "energyWattHours there.",
    )
    ttft_milliseconds: int | None = Field(
        default=None, description="Time to first token at the percentile of spec.slo, from the engine's histogram, ms."
    )
    itl_milliseconds: int | None = Field(
        default=None, description="Inter-token latency at the percentile of spec.slo, from the engine's histogram, ms."
    )
    tpot_milliseconds: int | None = Field(
        default=None,
        description="Time per output token of a request at the percentile of spec.slo, from the engine's histogram, "
        "ms.",
    )
    itl_percentiles: ItlPercentiles | None = Field(default=None, description="Inter-token latency by percentile.")


class LearnedCorrection(CorrectionFactors):
    """Factors learned from measured windows, older ones forgotten exponentially."""

    gpu_product: str = Field(description="GPU product that they are for.")
    layout: str = Field(description="Layout that they are for, such as TP4.")
    windows: int = Field(
        description="Number of windows behind the factors, old ones counted with their remaining weight."
    )


class LoadStatus(ApiModel):
    """The load that plans are made for, with spec.planning.followLoad Auto."""

    requests_per_second: Quantity = Field(description="Arrival rate that is planned for, over all replicas.")
    declared_requests_per_second: Quantity = Field(
        description="workload.requestsPerSecond when following began; a change of the spec restarts following."
    )
    change_time: str | None = Field(default=None, description="When the rate last changed; RFC 3339, UTC.")
    window_end: str | None = Field(
        default=None, description="End of the last window that was looked at; RFC 3339, UTC."
    )
    below_since: str | None = Field(
        default=None,
        description="Start of the time in which a lower rate is measured; the lower rate is followed after "
        "cooldownSeconds.",
    )
    highest_below_requests_per_second: Quantity | None = Field(
        default=None, description="Highest rate measured since belowSince."
    )


class PredictionStatus(ApiModel):
    """How far the prediction was off: 100 x (predicted - measured) / measured, whole percents."""

    energy_error_percent: int | None = Field(
        default=None, description="Error of the predicted joules per output token, %."
    )
    power_error_percent: int | None = Field(default=None, description="Error of the predicted power, %.")
    itl_error_percent: int | None = Field(default=None, description="Error of the predicted inter-token latency, %.")
    tpot_error_percent: int | None = Field(default=None, description="Error of the predicted time per output token, %.")
    ttft_error_percent: int | None = Field(default=None, description="Error of the predicted time to first token, %.")
    samples: int = Field(default=0, description="Windows that the errors rest on.")
    correction: LearnedCorrection | None = Field(
        default=None, description="What onDrift: Recalibrate learned of this model, GPU product and layout."
    )


RollbackReason = Literal["SLOViolation", "HigherEnergy", "ProgressDeadline"]


class LastGoodPlan(ApiModel):
    """The plan that a rollback returns to: the last one that was measured and held spec.slo."""

    plan: PlanStatus = Field(description="The plan, without its alternatives.")
    joules_per_output_token: Quantity = Field(description="Mean over the measured windows of the plan, J.")
    output_tokens_per_second: int = Field(description="Mean load of these windows, tokens generated per second.")


class PlanTrial(ApiModel):
    """A new plan that is measured against the last good one."""

    plan_hash: str = Field(description="status.plan.hash of the new plan.")
    good_windows: int = Field(default=0, description="Windows in a row that are as good as the last good plan.")
    bad_windows: int = Field(default=0, description="Windows in a row that are worse.")
    reason: RollbackReason | None = Field(default=None, description="What was worse in the last bad window.")
    message: str | None = Field(default=None, description="The figures of the last bad window.")


class RejectedPlan(ReplicaLayout):
    """A plan that was rolled back. It is not adopted again for the same spec."""

    hash: str = Field(description="hash of the plan.")
    gpu_product: str = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    nodes_per_replica: int = Field(description="Nodes that one replica spans.")
    inputs: str = Field(description="Hash of the part of the spec that the plan was made for.")
    reason: RollbackReason = Field(description="Why the plan was rolled back.")
    message: str = Field(description="The figures.")
    time: str = Field(description="When; RFC 3339, UTC.")


class RollbackStatus(ApiModel):
    """State of onDrift: Rollback and of spec.rollout.rollbackOn."""

    last_good_plan: LastGoodPlan | None = Field(default=None, description="The plan that a rollback returns to.")
    trial: PlanTrial | None = Field(default=None, description="The new plan that is compared with the last good plan.")
    rejected_plans: Annotated[tuple[RejectedPlan, ...], Field(max_length=10, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="Plans that were rolled back, the last ten."
    )


VerdictReason = Literal["SLOViolation", "HigherEnergy", "ProgressDeadline", "NotMeasured", "Unschedulable"]


class GivenUpPlan(ApiModel):
    """A plan whose one replica broke, or could not be judged."""

    hash: str = Field(description="hash of the plan.")
    gpu_product: str = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    replicas: int = Field(description="Copies of the model.")
    layout: str = Field(description="Parallelism of one replica, such as TP4 or TP8-EP8.")
    max_batch_size: int = Field(description="Maximum number of sequences at once per data-parallel rank.")
    inputs: str = Field(
        description="Hash of the spec, the model, the GPU products of the cluster and the predictor: the plan is tried "
        "again once it is another."
    )
    reason: VerdictReason = Field(
        description="Why. After NotMeasured and Unschedulable the plan is tried again when "
        "spec.planning.replan.cooldownSeconds are over."
    )
    message: str = Field(description="The figures.")
    time: str = Field(description="When; RFC 3339, UTC.")


class FollowedPlan(ApiModel):
    """The last plan that all replicas were moved to."""

    plan_hash: str = Field(description="hash of the plan.")
    verified: bool = Field(description="Whether one replica of it was measured first.")
    message: str = Field(description="The figures, or why none was measured.")
    time: str = Field(description="When; RFC 3339, UTC.")


class VerificationStatus(ApiModel):
    """What rollout.verify: Measured goes by."""

    plan: PlanStatus | None = Field(
        default=None, description="The new plan of which one replica serves beside the running ones; absent: none."
    )
    inputs: str | None = Field(
        default=None, description="Hash of the spec, the model, the GPU products and the predictor that it is for."
    )
    start_time: str | None = Field(default=None, description="Since when; RFC 3339, UTC.")
    ready_time: str | None = Field(default=None, description="When the replica was first ready; RFC 3339, UTC.")
    window_end: str | None = Field(
        default=None, description="End of the last window that was looked at; RFC 3339, UTC."
    )
    good_windows: int = Field(default=0, description="Windows in a row that hold what was asked for.")
    bad_windows: int = Field(default=0, description="Windows in a row that broke it.")
    reason: VerdictReason | None = Field(default=None, description="What the last bad window broke.")
    message: str | None = Field(default=None, description="What is known of the replica so far.")
    given_up: Annotated[tuple[GivenUpPlan, ...], Field(max_length=10, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="Plans that were given up, the last ten."
    )
    followed: FollowedPlan | None = Field(default=None, description="The last plan that all replicas were moved to.")


class EnergyAccount(ApiModel):
    """Energy of the deployment in the present period of spec.energy.budget, up to a moment."""

    period_start: Time = Field(description="When this period began; RFC 3339, UTC.")
    reset_time: Time = Field(description="When the next period begins; RFC 3339, UTC.")
    measured_joules: int = Field(default=0, ge=0, description="Energy measured, J.")
    predicted_joules: int = Field(
        default=0, ge=0, description="Energy predicted for the time that was not measured, J."
    )
    predicted_watts: int = Field(
        default=0, ge=0, description="Predicted power of the pods at accountedUntil, W; 0: no pod held a GPU."
    )
    accounted_until: Time = Field(description="Energy up to this time is counted; RFC 3339, UTC.")
    not_measured_since: Time | None = Field(
        default=None,
        description="Start of the time in which pods that hold GPUs are not measured; absent: energy is measured.",
    )


class BudgetStatus(ApiModel):
    """The deployment's share of the binding budget."""

    name: str | None = Field(
        default=None,
        description="The binding budget: its kind, namespace and name, or spec.energy.budget.",
    )
    action: Literal["Report", "Deny", "Shed"] | None = Field(
        default=None,
        description="What a shared budget does; its own status says what its members commit, use and have left.",
    )
    allowed_power_watts: int | None = Field(
        default=None,
        description="Maximum power that budgets let the deployment draw, W; of a shared one only while power is taken "
        "from the deployment, or while the budget cannot be checked.",
    )
    used_percent: int | None = Field(
        default=None, description="Of the energy that the deployment's own budget allows in this period, %."
    )
    remaining_watt_hours: int | None = Field(
        default=None, description="Energy that the deployment's own budget has left in this period, Wh."
    )
    reset_time: str | None = Field(
        default=None, description="When the next period of the deployment's own budget begins; RFC 3339, UTC."
    )


class LLMDeploymentStatus(ApiModel):
    """Findings and actions of the operator."""

    observed_generation: int | None = Field(default=None, description="metadata.generation that status is about.")
    plan: PlanStatus | None = Field(
        default=None,
        description="The plan that the operator follows, recommends (mode Advisory) or waits for the approval of (mode "
        "Manual); activeRevision says what runs.",
    )
    plan_adoption_time: str | None = Field(
        default=None,
        description="When the followed plan last changed; spec.planning.replan.cooldownSeconds counts from this time. "
        "RFC 3339, UTC.",
    )
    load: LoadStatus | None = Field(
        default=None, description="The load that plans are made for, with spec.planning.followLoad Auto."
    )
    relaxations: Annotated[tuple[RelaxationStatus, ...], Field(max_length=20, json_schema_extra=ATOMIC_LIST)] | None = (
        Field(
            default=None,
            description="While no plan meets the spec: for each constraint the nearest change that alone would allow "
            "one, or the pairs of changes that would where no single one is enough.",
        )
    )
    active_revision: ActiveRevision | None = Field(default=None, description="The plan that runs now.")
    measured: Measured | None = Field(default=None, description="Figures from the counters over the last full window.")
    prediction: PredictionStatus | None = Field(default=None, description="Errors of the prediction.")
    rollback: RollbackStatus | None = Field(
        default=None, description="State of rollbacks; absent if the spec asks for none."
    )
    verification: VerificationStatus | None = Field(
        default=None, description="State of rollout.verify: Measured; absent if the spec does not ask for it."
    )
    budget: BudgetStatus | None = Field(default=None, description="The deployment's share of its budgets.")
    energy_account: EnergyAccount | None = Field(
        default=None,
        description="Energy counted against spec.energy.budget.energyWattHours; absent where that field is not set.",
    )
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=map_list("type"))] = Field(
        default=(),
        description="Ready, Progressing, PlanReady, PlanVerified (with rollout.verify: Measured), SLOFeasible, SLOMet, "
        "WithinEnergyBudget, EnergyMetricsAvailable, PredictionAccurate and Degraded.",
    )
