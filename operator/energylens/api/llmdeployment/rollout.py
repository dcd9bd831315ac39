"""How a new plan replaces the running one."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from energylens.api.base import DISTINCT, SET_LIST, ApiModel


class Rollout(ApiModel):
    """How a new plan replaces the running one."""

    strategy: Literal["Auto", "Surge", "Recreate"] = Field(
        default="Auto",
        description="Surge: start new replicas before old replicas stop. Recreate: replace replicas one by one. "
        "Auto: Surge if enough GPUs are free, otherwise Recreate.",
    )
    progress_deadline_seconds: int | None = Field(
        default=None,
        ge=60,
        le=604_800,
        description="Maximum time without progress of a rollout, s. Default: 3600, or the start-up budget of the model "
        "plus 60 s if that is longer.",
    )
    revision_history_limit: int = Field(default=3, ge=0, le=20, description="Number of old revisions to keep.")
    rollback_on: Annotated[
        tuple[Literal["SLOViolation", "HigherEnergy", "ProgressDeadline"], ...],
        Field(max_length=3, json_schema_extra=SET_LIST),
        DISTINCT,
    ] = Field(default=(), description="Events that return the deployment to the previous plan; empty: none.")
    verify: Literal["Never", "Measured"] = Field(
        default="Never",
        description="Measured: one canary replica of a new plan first serves beside the running replicas. The plan is "
        "rolled out after two consecutive windows that meet spec.slo and, if the new plan predicts less energy than "
        "the running plan, do not exceed the running plan's energy. Otherwise the plan is rejected. Never: a new plan "
        "replaces the running plan at once.",
    )
