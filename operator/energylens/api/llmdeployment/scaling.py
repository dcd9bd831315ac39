"""How many replicas run: who decides, within which bounds, and what a start costs."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from energylens.api.base import ApiModel, Rule


def _min_within_max(scaling: Scaling) -> str | None:
    least, most = scaling.min_replicas, scaling.max_replicas
    if most is None or least <= most:
        return None
    return f"minReplicas ({least}) must be at most maxReplicas ({most})"


_MIN_WITHIN_MAX = Rule(
    summary="minReplicas is at most maxReplicas",
    cel="!has(self.maxReplicas) || self.minReplicas <= self.maxReplicas",
    message_cel="'minReplicas (%s) must be at most maxReplicas (%s)'.format([self.minReplicas, self.maxReplicas])",
    check=_min_within_max,
)


def _zero_is_external(scaling: Scaling) -> str | None:
    if scaling.min_replicas or scaling.mode == "External":
        return None
    return (
        f"minReplicas (0) needs mode External, and mode is {scaling.mode}; set minReplicas to 1 or more; "
        "suspend stops all replicas"
    )


_ZERO_IS_EXTERNAL = Rule(
    summary="minReplicas is 0 with mode External only",
    cel="self.minReplicas > 0 || self.mode == 'External'",
    message_cel="'minReplicas (0) needs mode External, and mode is %s; set minReplicas to 1 or more; suspend stops all "
    "replicas'.format([self.mode])",
    check=_zero_is_external,
)


class Scaling(ApiModel):
    """Who decides how many replicas run, and within which bounds."""

    rules: ClassVar[tuple[Rule, ...]] = (_MIN_WITHIN_MAX, _ZERO_IS_EXTERNAL)

    mode: Literal["Energy", "External", "Fixed"] = Field(
        default="Energy",
        description="Energy: the plan decides; spec.replicas must be absent. External: an autoscaler or a person sets "
        "spec.replicas through the scale subresource; the plan decides the layout and keeps it. Fixed: the plan is the "
        "best layout with spec.replicas replicas.",
    )
    min_replicas: int = Field(
        default=1,
        ge=0,
        le=10_000,
        description="Minimum number of replicas: in any hour of workload.profile, or in spec.replicas. 0, with mode "
        "External only: an autoscaler may stop all pods, and something must hold requests while a pod starts.",
    )
    max_replicas: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Maximum number of replicas: in any hour of workload.profile, or in spec.replicas. Default: as "
        "many as GPUs and budgets allow.",
    )
    start_seconds: int | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Measured time from the creation of a pod until it is ready, s. Default: an estimate from the "
        "weights' bytes; replicas are started earlier by the time that the last start took.",
    )
    start_joules: int | None = Field(
        default=None,
        ge=0,
        le=1_000_000_000,
        description="Measured GPU energy of the start of one replica, J. Default: an estimate from the start time and "
        "the idle power of the replica's GPUs.",
    )
