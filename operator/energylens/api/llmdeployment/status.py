"""The status of an LLMDeployment: findings and actions of the operator.

Counts, milliseconds, watts and percents are whole numbers; energies are Kubernetes quantities in joules.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel, Condition, map_list
from energylens.api.energybudget_status import Time
from energylens.api.llmdeployment.learned_load import LearnedLoadStatus
from energylens.api.llmdeployment.measured import Measured
from energylens.api.llmdeployment.plan import CorrectionFactors, PlanStatus, ReplicaLayout
from energylens.api.llmdeployment.revision import ActiveRevision, PreviousRevision
from energylens.api.llmdeployment.schedule import ScheduleStatus
from energylens.api.quantity import Quantity


class RelaxationStatus(ApiModel):
    """The smallest change that would make a plan possible."""

    field: str = Field(description="Field to change, such as spec.slo.itlMilliseconds, or the missing resource.")
    value: str = Field(description="Current value of the field.")
    allowed: str = Field(description="The nearest value that works.")
    with_field: str | None = Field(default=None, description="A second field to change, if no single change is enough.")
    with_value: str | None = Field(default=None, description="Current value of the second field.")
    with_allowed: str | None = Field(default=None, description="The nearest value of the second field that works.")
    joules_per_output_token: Quantity = Field(
        description="Predicted GPU energy per generated token of the best plan after the change, J."
    )


class LearnedCorrection(CorrectionFactors):
    """Factors learned from measured windows, with exponential forgetting."""

    gpu_product: str = Field(description="GPU product of the factors.")
    layout: str = Field(description="Layout of the factors, such as TP4.")
    windows: int = Field(
        description="Number of windows behind the factors; old windows count with their remaining weight."
    )


class FollowedLength(ApiModel):
    """The mean length of requests that plans are made for, with spec.planning.followLengths Auto."""

    tokens: int = Field(description="Mean tokens that plans are made for, over all classes of requests.")
    declared_tokens: int = Field(
        description="Mean tokens of spec.workload when following began; a change restarts following."
    )
    steps: int = Field(description="Steps of 25 % above (below: negative) the declared mean.")
    change_time: str | None = Field(default=None, description="Time of the last change of tokens; RFC 3339, UTC.")
    below_since: str | None = Field(
        default=None, description="Time since which the mean has been lower; followed after cooldownSeconds."
    )
    highest_below_tokens: int | None = Field(default=None, description="Highest mean measured since belowSince.")


class LoadStatus(ApiModel):
    """The load that plans are made for, with spec.planning.followLoad Auto."""

    requests_per_second: Quantity = Field(description="Arrival rate that plans are made for, over all replicas.")
    declared_requests_per_second: Quantity = Field(
        description="workload.requestsPerSecond when following began; a change of that field restarts following."
    )
    change_time: str | None = Field(default=None, description="Time of the last change of the rate; RFC 3339, UTC.")
    window_end: str | None = Field(default=None, description="End of the last evaluated window; RFC 3339, UTC.")
    below_since: str | None = Field(
        default=None,
        description="Time since which a lower rate has been measured; after cooldownSeconds plans are made for the "
        "lower rate.",
    )
    highest_below_requests_per_second: Quantity | None = Field(
        default=None, description="Highest rate measured since belowSince."
    )
    input_tokens: FollowedLength | None = Field(
        default=None, description="Prompt lengths that plans are made for; absent unless lengths are followed."
    )
    output_tokens: FollowedLength | None = Field(
        default=None, description="Output lengths that plans are made for; absent unless lengths are followed."
    )


class PredictionStatus(ApiModel):
    """Errors of the prediction: 100 x (predicted - measured) / measured, in whole percent."""

    energy_error_percent: int | None = Field(
        default=None, description="Error of the predicted joules per output token, %."
    )
    power_error_percent: int | None = Field(default=None, description="Error of the predicted power, %.")
    itl_error_percent: int | None = Field(default=None, description="Error of the predicted inter-token latency, %.")
    tpot_error_percent: int | None = Field(default=None, description="Error of the predicted time per output token, %.")
    end_to_end_error_percent: int | None = Field(
        default=None, description="Error of the predicted end-to-end latency, %."
    )
    ttft_error_percent: int | None = Field(default=None, description="Error of the predicted time to first token, %.")
    samples: int = Field(default=0, description="Number of windows behind the errors.")
    correction: LearnedCorrection | None = Field(
        default=None, description="Factors learned by onDrift: Recalibrate for this model, GPU product and layout."
    )


RollbackReason = Literal["SLOViolation", "HigherEnergy", "ProgressDeadline"]


class LastGoodPlan(ApiModel):
    """The plan that a rollback returns to: the last measured plan that met spec.slo."""

    plan: PlanStatus = Field(description="The plan, without its alternatives.")
    joules_per_output_token: Quantity = Field(description="Mean over the measured windows of the plan, J.")
    output_tokens_per_second: int = Field(description="Mean load of these windows, tokens generated per second.")


class PlanTrial(ApiModel):
    """A new plan that is compared with the last good plan."""

    plan_hash: str = Field(description="status.plan.hash of the new plan.")
    good_windows: int = Field(default=0, description="Consecutive windows as good as the last good plan.")
    bad_windows: int = Field(default=0, description="Consecutive windows that are worse.")
    reason: RollbackReason | None = Field(default=None, description="Why the last bad window was worse.")
    message: str | None = Field(default=None, description="Figures of the last bad window.")


class RejectedPlan(ReplicaLayout):
    """A plan that was rolled back; the plan is not adopted again for the same spec."""

    hash: str = Field(description="hash of the plan.")
    gpu_product: str = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    nodes_per_replica: int = Field(description="Nodes that one replica spans.")
    inputs: str = Field(description="Hash of the planning fields of the spec for which the plan was made.")
    reason: RollbackReason = Field(description="Why the plan was rolled back.")
    message: str = Field(description="Measured figures of the plan, or the state of its pods.")
    time: str = Field(description="Time of the rollback; RFC 3339, UTC.")


class RollbackStatus(ApiModel):
    """State of onDrift: Rollback and of spec.rollout.rollbackOn."""

    last_good_plan: LastGoodPlan | None = Field(default=None, description="The plan that a rollback returns to.")
    trial: PlanTrial | None = Field(default=None, description="The new plan that is compared with the last good plan.")
    rejected_plans: Annotated[tuple[RejectedPlan, ...], Field(max_length=10, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="The last ten plans that were rolled back."
    )


VerdictReason = Literal["SLOViolation", "HigherEnergy", "ProgressDeadline", "NotMeasured", "Unschedulable"]


class GivenUpPlan(ApiModel):
    """A plan whose canary replica failed or could not be judged."""

    hash: str = Field(description="hash of the plan.")
    gpu_product: str = Field(description="GPU product, as in the node label nvidia.com/gpu.product.")
    replicas: int = Field(description="Copies of the model.")
    layout: str = Field(description="Parallelism of one replica, such as TP4 or TP8-EP8.")
    max_batch_size: int = Field(description="Maximum number of sequences at once per data-parallel rank.")
    inputs: str = Field(
        description="Hash of the spec, the model, the GPU products of the cluster and the predictor; the plan is tried "
        "again once the hash changes."
    )
    reason: VerdictReason = Field(
        description="Reason of the verdict. After NotMeasured and Unschedulable, the plan is tried again after "
        "spec.planning.replan.cooldownSeconds."
    )
    message: str = Field(description="Measured figures of the plan, or the state of its canary.")
    time: str = Field(description="Time of the verdict; RFC 3339, UTC.")


class FollowedPlan(ApiModel):
    """The last plan that was rolled out to all replicas."""

    plan_hash: str = Field(description="hash of the plan.")
    verified: bool = Field(description="Whether a canary replica of the plan was measured first.")
    message: str = Field(description="Measured figures, or the reason why the plan was not verified.")
    time: str = Field(description="Time of the decision; RFC 3339, UTC.")


class VerificationStatus(ApiModel):
    """State of rollout.verify: Measured."""

    plan: PlanStatus | None = Field(
        default=None, description="The new plan whose canary replica serves beside the running replicas; absent: none."
    )
    inputs: str | None = Field(
        default=None, description="Hash of the spec, the model, the GPU products and the predictor of the verification."
    )
    start_time: str | None = Field(default=None, description="Start of the verification; RFC 3339, UTC.")
    ready_time: str | None = Field(default=None, description="Time at which the canary was first ready; RFC 3339, UTC.")
    window_end: str | None = Field(default=None, description="End of the last evaluated window; RFC 3339, UTC.")
    good_windows: int = Field(default=0, description="Consecutive good windows.")
    bad_windows: int = Field(default=0, description="Consecutive bad windows.")
    reason: VerdictReason | None = Field(default=None, description="Why the last bad window was bad.")
    message: str | None = Field(default=None, description="State of the canary.")
    given_up: Annotated[tuple[GivenUpPlan, ...], Field(max_length=10, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="The last ten plans that failed their verification."
    )
    followed: FollowedPlan | None = Field(default=None, description="The last plan rolled out to all replicas.")


class EnergyAccount(ApiModel):
    """Energy of the deployment in the current period of spec.energy.budget, up to accountedUntil."""

    period_start: Time = Field(description="Start of this period; RFC 3339, UTC.")
    reset_time: Time = Field(description="Start of the next period; RFC 3339, UTC.")
    measured_joules: int = Field(default=0, ge=0, description="Energy measured, J.")
    predicted_joules: int = Field(default=0, ge=0, description="Energy predicted for unmeasured time, J.")
    predicted_watts: int = Field(
        default=0, ge=0, description="Predicted power of the pods at accountedUntil, W; 0: no pod held a GPU."
    )
    accounted_until: Time = Field(description="Energy up to this time is counted; RFC 3339, UTC.")
    not_measured_since: Time | None = Field(
        default=None,
        description="Time since which pods that hold GPUs have not been measured; absent: energy is measured.",
    )


class BudgetStatus(ApiModel):
    """The deployment's share of the binding budget."""

    name: str | None = Field(
        default=None,
        description="The binding budget: its kind, namespace and name, or spec.energy.budget.",
    )
    action: Literal["Report", "Deny", "Shed"] | None = Field(
        default=None,
        description="Action of a shared budget; the budget's own status has the committed, used and remaining figures.",
    )
    allowed_power_watts: int | None = Field(
        default=None,
        description="Maximum power that budgets allow the deployment, W. Of a shared budget, present only while power "
        "is taken from the deployment or the budget cannot be checked.",
    )
    used_percent: int | None = Field(
        default=None, description="Used share of the energy that the deployment's own budget allows in this period, %."
    )
    remaining_watt_hours: int | None = Field(
        default=None, description="Remaining energy of the deployment's own budget in this period, Wh."
    )
    reset_time: str | None = Field(
        default=None, description="Start of the next period of the deployment's own budget; RFC 3339, UTC."
    )


class JobStartStatus(ApiModel):
    """When the pods of a batch job start."""

    state: Literal["Waiting", "Starting", "Started", "Suspended"] = Field(
        description="Waiting: the pods do not exist yet. Starting: they exist. Started: all of them were ready. "
        "Suspended: spec.suspend is true."
    )
    start_time: str | None = Field(
        default=None,
        description="When the operator creates the pods; once they exist, when it did. Absent while budgets have no "
        "room for the job at any start. RFC 3339, UTC.",
    )
    end_time: str | None = Field(default=None, description="When the last answer is expected; RFC 3339, UTC.")
    latest_start_time: str | None = Field(
        default=None,
        description="The last start that ends by completeBy, even if the throughput is lower than predicted by the "
        "headroom; RFC 3339, UTC.",
    )
    saving_percent: int | None = Field(
        default=None,
        description="Carbon or cost saved against a start at the time of the decision, %. Absent without a forecast.",
    )
    reason: str = Field(
        description="Why the job starts then, as one CamelCase word; as in condition StartTimed, or AtOnce without "
        "workload.job.start."
    )
    message: str = Field(description="The same in words, with the carbon or the cost of both starts.")
    start_seconds: int | None = Field(
        default=None, description="Measured time from the creation of the pods until all were ready, s."
    )
    start_hash: str = Field(
        default="",
        description="Hash of the model, the engine, the GPU product and the layout with which startSeconds was "
        "measured.",
    )
    inputs_hash: str = Field(default="", description="Hash of the forecast, the job and its plan.")


class LLMDeploymentStatus(ApiModel):
    """Findings and actions of the operator."""

    observed_generation: int | None = Field(default=None, description="metadata.generation that the status describes.")
    replicas: int | None = Field(
        default=None, description="Replicas that exist, ready or not; the scale subresource shows this figure."
    )
    selector: str | None = Field(
        default=None,
        description="Labels of the pods that answer requests, one per replica, as a selector; autoscalers read metrics "
        "of these pods.",
    )
    plan: PlanStatus | None = Field(
        default=None,
        description="The plan that the operator has adopted, recommends (mode Advisory) or wants approved (mode "
        "Manual); activeRevision has the running plan.",
    )
    plan_adoption_time: str | None = Field(
        default=None,
        description="Time at which the adopted plan last changed; spec.planning.replan.cooldownSeconds counts from "
        "this time. RFC 3339, UTC.",
    )
    load: LoadStatus | None = Field(
        default=None, description="The load that plans are made for, with spec.planning.followLoad Auto."
    )
    schedule: ScheduleStatus | None = Field(default=None, description="Replicas over the week, with workload.profile.")
    learned_load: LearnedLoadStatus | None = Field(
        default=None, description="Measured rates of the hours of a week, with workload.profile.learned."
    )
    job_start: JobStartStatus | None = Field(default=None, description="When the pods of the batch job start, or did.")
    relaxations: Annotated[tuple[RelaxationStatus, ...], Field(max_length=20, json_schema_extra=ATOMIC_LIST)] | None = (
        Field(
            default=None,
            description="While no plan meets the spec: for each constraint, the nearest change that alone would allow "
            "a plan; if no single change is enough, the nearest pairs of changes.",
        )
    )
    active_revision: ActiveRevision | None = Field(default=None, description="The plan that runs now.")
    previous_revision: PreviousRevision | None = Field(
        default=None,
        description="The plan that the running plan replaced, to compare energy with. Absent: none was replaced, the "
        "model is another one, or the running plan is a return to the previous plan.",
    )
    measured: Measured | None = Field(default=None, description="Figures from the counters over the last full window.")
    prediction: PredictionStatus | None = Field(default=None, description="Errors of the prediction.")
    rollback: RollbackStatus | None = Field(
        default=None, description="State of rollbacks; absent if the spec does not ask for rollbacks."
    )
    verification: VerificationStatus | None = Field(
        default=None, description="State of rollout.verify: Measured; absent without this setting."
    )
    budget: BudgetStatus | None = Field(default=None, description="The deployment's share of its budgets.")
    energy_account: EnergyAccount | None = Field(
        default=None,
        description="Energy counted against spec.energy.budget.energyWattHours; absent if that field is not set.",
    )
    conditions: Annotated[tuple[Condition, ...], Field(json_schema_extra=map_list("type"))] = Field(
        default=(),
        description="Ready, Progressing, PlanReady, PlanVerified (with rollout.verify: Measured), SLOFeasible, SLOMet, "
        "WithinEnergyBudget, EnergyMetricsAvailable, PredictionAccurate and Degraded.",
    )
