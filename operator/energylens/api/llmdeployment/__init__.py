"""The LLMDeployment resource: what a team asks for, and what the operator found and did."""

from __future__ import annotations

from energylens.api.base import ObjectMeta
from energylens.api.llmdeployment.energy import (
    DeploymentBudget,
    Energy,
    Objective,
    PowerCap,
)
from energylens.api.llmdeployment.engine import (
    ConfigMapKeyRef,
    Engine,
    EnvVar,
    Model,
    ModelCache,
    SecretKeyRef,
)
from energylens.api.llmdeployment.hardware import Hardware, Toleration
from energylens.api.llmdeployment.job import BatchJob, JobStart
from energylens.api.llmdeployment.learned_load import LearnedLoadStatus
from energylens.api.llmdeployment.measured import ItlPercentiles, LengthPercentiles, Measured
from energylens.api.llmdeployment.plan import (
    Alternative,
    Confidence,
    CorrectionFactors,
    PlannedJob,
    PlanStatus,
    PredictedFigures,
    PrefillReplicas,
    ReplicaLayout,
    ReplicaPower,
    describe_layout,
    describe_plan,
    describe_replicas,
)
from energylens.api.llmdeployment.planning import Overrides, Planning, PlanningMode, Replan
from energylens.api.llmdeployment.profile import WEEKDAYS, LoadProfile, ProfileHours, Weekday
from energylens.api.llmdeployment.resource import LLMDeployment
from energylens.api.llmdeployment.revision import ActiveRevision, PrefillRevision, PreviousRevision, WorkloadRef
from energylens.api.llmdeployment.rollout import Rollout
from energylens.api.llmdeployment.routing import Disaggregation, EndpointPicker, InferencePool, Routing
from energylens.api.llmdeployment.scaling import Scaling
from energylens.api.llmdeployment.schedule import ScheduledReplicas, ScheduleStatus
from energylens.api.llmdeployment.scheduling import Scheduling
from energylens.api.llmdeployment.shapes import RequestShape
from energylens.api.llmdeployment.spec import LLMDeploymentSpec
from energylens.api.llmdeployment.status import (
    BudgetStatus,
    EnergyAccount,
    FollowedLength,
    FollowedPlan,
    GivenUpPlan,
    JobStartStatus,
    LastGoodPlan,
    LearnedCorrection,
    LLMDeploymentStatus,
    LoadStatus,
    PlanTrial,
    PredictionStatus,
    RejectedPlan,
    RelaxationStatus,
    RollbackReason,
    RollbackStatus,
    VerdictReason,
    VerificationStatus,
)
from energylens.api.llmdeployment.validation import Validation
from energylens.api.llmdeployment.workload import (
    Percentile,
    Slo,
    SpeculationMethod,
    Speculative,
    WorkloadSpec,
)

__all__ = [
    "WEEKDAYS",
    "ActiveRevision",
    "Alternative",
    "BatchJob",
    "BudgetStatus",
    "Confidence",
    "ConfigMapKeyRef",
    "CorrectionFactors",
    "DeploymentBudget",
    "Disaggregation",
    "EndpointPicker",
    "Energy",
    "EnergyAccount",
    "Engine",
    "EnvVar",
    "FollowedLength",
    "FollowedPlan",
    "GivenUpPlan",
    "Hardware",
    "InferencePool",
    "ItlPercentiles",
    "JobStart",
    "JobStartStatus",
    "LLMDeployment",
    "LLMDeploymentSpec",
    "LLMDeploymentStatus",
    "LastGoodPlan",
    "LearnedCorrection",
    "LearnedLoadStatus",
    "LengthPercentiles",
    "LoadProfile",
    "LoadStatus",
    "Measured",
    "Model",
    "ModelCache",
    "ObjectMeta",
    "Objective",
    "Overrides",
    "Percentile",
    "PlanStatus",
    "PlanTrial",
    "PlannedJob",
    "Planning",
    "PlanningMode",
    "PowerCap",
    "PredictedFigures",
    "PredictionStatus",
    "PrefillReplicas",
    "PrefillRevision",
    "PreviousRevision",
    "ProfileHours",
    "RejectedPlan",
    "RelaxationStatus",
    "Replan",
    "ReplicaLayout",
    "ReplicaPower",
    "RequestShape",
    "RollbackReason",
    "RollbackStatus",
    "Rollout",
    "Routing",
    "Scaling",
    "ScheduleStatus",
    "ScheduledReplicas",
    "Scheduling",
    "SecretKeyRef",
    "Slo",
    "SpeculationMethod",
    "Speculative",
    "Toleration",
    "Validation",
    "VerdictReason",
    "VerificationStatus",
    "Weekday",
    "WorkloadRef",
    "WorkloadSpec",
    "describe_layout",
    "describe_plan",
    "describe_replicas",
]
