"""The inputs of a plan as one frozen value, so that planning can run in a thread."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.timestamp import moment_of
from energylens.decide.deployment.loads.learned_hours import LearnedHours
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.observed.profile_hours import NoHours
from energylens.decide.deployment.pods.job_hours import JobHours
from energylens.decide.deployment.trials.verification import Beside
from energylens.planner.search.corrections import Corrections
from energylens.planner.types import ClusterSnapshot, PowerAllowance
from energylens.records import dataclass


@dataclass(frozen=True)
class Inputs:
    """All inputs of planning one LLMDeployment."""

    deployment: LLMDeployment
    config: Mapping[str, Any] | None
    """The model's config.json from ``spec.model.configRef``; None if it is missing, or if the catalogue is used."""
    snapshot: ClusterSnapshot
    allowance: PowerAllowance | None
    serves_lws: bool
    adopted_at: datetime | None
    now: datetime
    want_table: bool
    """Whether the ConfigMap with the table of plans is missing."""
    standing: PlanStatus | None = None
    """The running plan while the plan in the status waits for approval."""
    corrections: Corrections | None = None
    """Factors learned from measurement."""
    late: str = ""
    """Why the rollout of the plan in the status missed its deadline; "" if it did not."""
    load: FollowedLoad | None = None
    """The load to plan for; None for the load of the spec."""
    beside: Beside | None = None
    """The running plan beside which new plans are verified; None if the spec does not ask for verification."""
    missing: PlanChoice | None = None
    """Why the config.json that the spec names is missing, so that nothing can be planned."""
    no_hours: NoHours | None = None
    """Why the ConfigMap with the hours of the profile has none, so that no week can be planned."""
    job_hours: JobHours | None = None
    """What weighs the hours of a job; None if the job starts at once."""
    runs: bool = False
    """Whether pods of the deployment exist."""
    learned: LearnedHours | None = None
    """The measured rates of the hours; None if the profile is not learned."""


def adopted_at(deployment: LLMDeployment) -> datetime | None:
    """Time at which the followed plan was adopted; None if the status has no such time."""
    return moment_of(deployment.status.plan_adoption_time)
