"""All reasons of conditions and events; docs/conditions.md has a row for each."""

from __future__ import annotations

from enum import StrEnum


class ConditionType(StrEnum):
    """The conditions of an LLMDeployment, in the order in which they are written."""

    READY = "Ready"
    PROGRESSING = "Progressing"
    PLAN_READY = "PlanReady"
    PLAN_VERIFIED = "PlanVerified"
    START_TIMED = "StartTimed"
    SLO_FEASIBLE = "SLOFeasible"
    SLO_MET = "SLOMet"
    WITHIN_ENERGY_BUDGET = "WithinEnergyBudget"
    ENERGY_METRICS_AVAILABLE = "EnergyMetricsAvailable"
    PREDICTION_ACCURATE = "PredictionAccurate"
    DEGRADED = "Degraded"


class Reason(StrEnum):
    """Reason for the status of a condition."""

    # PlanReady
    PLANNED = "Planned"
    KEEPING_RUNNING_PLAN = "KeepingRunningPlan"
    ROLLED_BACK = "RolledBack"
    SHED = "Shed"
    AWAITING_APPROVAL = "AwaitingApproval"
    ADVISORY = "Advisory"
    INVALID_SPEC = "InvalidSpec"
    MODEL_UNKNOWN = "ModelUnknown"
    MODEL_UNSUPPORTED = "ModelUnsupported"
    MODEL_CONFIG_MISSING = "ModelConfigMissing"
    PROFILE_MISSING = "ProfileMissing"
    PROFILE_INVALID = "ProfileInvalid"
    NO_MATCHING_GPUS = "NoMatchingGPUs"
    MODEL_TOO_LARGE = "ModelTooLarge"
    CONTEXT_TOO_SHORT = "ContextTooShort"
    INSUFFICIENT_GPUS = "InsufficientGPUs"
    SLO_INFEASIBLE = "SLOInfeasible"
    LOAD_TOO_HIGH = "LoadTooHigh"
    BUDGET_EXCEEDED = "BudgetExceeded"
    AWAITING_BUDGET = "AwaitingBudget"
    INVALID_OVERRIDE = "InvalidOverride"
    LEADER_WORKER_SET_MISSING = "LeaderWorkerSetMissing"
    INVALID_ENGINE_SETTINGS = "InvalidEngineSettings"
    CLAIM_NOT_SHAREABLE = "ClaimNotShareable"
    # PlanReady, PlanVerified
    VERIFYING = "Verifying"
    VERIFIED = "Verified"
    NOT_VERIFIED = "NotVerified"
    NO_ROOM_TO_VERIFY = "NoRoomToVerify"
    GIVEN_UP = "GivenUp"
    # PlanReady, Ready
    START_SCHEDULED = "StartScheduled"
    # StartTimed
    BEST_HOURS = "BestHours"
    BEST_KNOWN_HOURS = "BestKnownHours"
    NO_TIME_LEFT = "NoTimeLeft"
    ALREADY_RUNNING = "AlreadyRunning"
    FORECAST_MISSING = "ForecastMissing"
    FORECAST_INVALID = "ForecastInvalid"
    FORECAST_STALE = "ForecastStale"
    FORECAST_SHORT = "ForecastShort"
    # Ready, Progressing, Degraded
    PODS_READY = "PodsReady"
    NOT_STARTED = "NotStarted"
    PODS_NOT_READY = "PodsNotReady"
    UNSCHEDULABLE = "Unschedulable"
    QUEUED = "Queued"
    PODS_REFUSED = "PodsRefused"
    PODS_FAILING = "PodsFailing"
    SUSPENDED = "Suspended"
    SCALED_TO_ZERO = "ScaledToZero"
    STARTING = "Starting"
    ROLLING_SURGE = "RollingSurge"
    ROLLING_RECREATE = "RollingRecreate"
    COMPLETE = "Complete"
    PROGRESS_DEADLINE_EXCEEDED = "ProgressDeadlineExceeded"
    APPLY_REFUSED = "ApplyRefused"
    FIELD_MANAGER_CONFLICT = "FieldManagerConflict"
    CANNOT_ROLL_BACK = "CannotRollBack"
    # Every condition that a reconcile decides
    INTERNAL_ERROR = "InternalError"
    API_SERVER_ERROR = "APIServerError"
    AS_EXPECTED = "AsExpected"
    # SLOFeasible, SLOMet
    FEASIBLE = "Feasible"
    NO_PLAN = "NoPlan"
    NO_OBJECTIVE = "NoObjective"
    NOT_MEASURED = "NotMeasured"
    MET = "Met"
    VIOLATED = "Violated"
    # WithinEnergyBudget
    NO_BUDGET = "NoBudget"
    WITHIN_BUDGET = "WithinBudget"
    RUNS_OUT = "RunsOut"
    OVER_BUDGET = "OverBudget"
    BUDGET_UNREADABLE = "BudgetUnreadable"
    BUDGET_NOT_CHECKED = "BudgetNotChecked"
    GROWTH_DENIED = "GrowthDenied"
    POWER_TAKEN = "PowerTaken"
    # EnergyMetricsAvailable (with the reasons of energylens.measure.types.EnergyReason), PredictionAccurate
    MEASURED = "Measured"
    DISABLED = "Disabled"
    NOT_SERVING = "NotServing"
    WITHIN_TOLERANCE = "WithinTolerance"
    OUTSIDE_TOLERANCE = "OutsideTolerance"
    LOAD_DIFFERS = "LoadDiffers"


NO_PLAN_REASONS = tuple(
    reason.value
    for reason in (
        Reason.INVALID_SPEC,
        Reason.MODEL_UNKNOWN,
        Reason.MODEL_UNSUPPORTED,
        Reason.MODEL_CONFIG_MISSING,
        Reason.PROFILE_MISSING,
        Reason.PROFILE_INVALID,
        Reason.NO_MATCHING_GPUS,
        Reason.MODEL_TOO_LARGE,
        Reason.CONTEXT_TOO_SHORT,
        Reason.INSUFFICIENT_GPUS,
        Reason.SLO_INFEASIBLE,
        Reason.LOAD_TOO_HIGH,
        Reason.BUDGET_EXCEEDED,
        Reason.INVALID_OVERRIDE,
        Reason.INVALID_ENGINE_SETTINGS,
    )
)
"""Reasons why there is no plan for a spec."""


class BudgetConditionType(StrEnum):
    """The conditions of an EnergyBudget and a ClusterEnergyBudget."""

    READY = "Ready"
    WITHIN_ENERGY_BUDGET = "WithinEnergyBudget"
    SHEDDING = "Shedding"


class BudgetReason(StrEnum):
    """Reason for the status of a budget's condition; docs/budgets.md has a row for each."""

    # Ready
    CHECKED = "Checked"
    INVALID_SPEC = "InvalidSpec"
    METRICS_MISSING = "MetricsMissing"
    FORECAST_MISSING = "ForecastMissing"
    FORECAST_INVALID = "ForecastInvalid"
    INTERNAL_ERROR = "InternalError"
    API_SERVER_ERROR = "APIServerError"
    # WithinEnergyBudget
    WITHIN = "Within"
    RUNS_OUT = "RunsOut"
    EXCEEDED = "Exceeded"
    # Shedding
    NOTHING_TAKEN = "NothingTaken"
    TAKING = "PowerTaken"
    AT_THE_FLOOR = "AtTheFloor"


class EventReason(StrEnum):
    """Reason of an event."""

    PLAN_ADOPTED = "PlanAdopted"
    PLAN_PENDING = "PlanPending"
    PLAN_SHOWN = "PlanShown"
    PLAN_REJECTED = "PlanRejected"
    PLAN_ROLLED_BACK = "PlanRolledBack"
    VERIFICATION_STARTED = "VerificationStarted"
    PLAN_GIVEN_UP = "PlanGivenUp"
    LOAD_FOLLOWED = "LoadFollowed"
    REPLICAS_SCALED = "ReplicasScaled"
    START_PLANNED = "StartPlanned"
    ROLLOUT_STARTED = "RolloutStarted"
    STATUS_RESTORED = "StatusRestored"
    FIELD_MANAGER_CONFLICT = "FieldManagerConflict"
    BECAME_READY = "BecameReady"
    BECAME_UNREADY = "BecameUnready"
    RECONCILE_FAILED = "ReconcileFailed"
    BUDGET_EXCEEDED = "BudgetExceeded"
    BUDGET_HOLDS = "BudgetHolds"
