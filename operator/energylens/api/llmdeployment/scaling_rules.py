"""Rules over a whole spec about its replicas: which load, which mode and which number go together."""

from __future__ import annotations

from typing import Any, Protocol

from energylens.api.base import Rule
from energylens.api.llmdeployment.exclusive import Use, exclusive
from energylens.api.llmdeployment.scaling import Scaling
from energylens.api.llmdeployment.workload import WorkloadSpec


class _ScaledSpec(Protocol):
    """What the rules read of a spec."""

    @property
    def workload(self) -> WorkloadSpec: ...
    @property
    def scaling(self) -> Scaling | None: ...
    @property
    def replicas(self) -> int | None: ...
    @property
    def planning(self) -> Any: ...
    @property
    def rollout(self) -> Any: ...
    @property
    def validation(self) -> Any: ...


FOLLOWS_ONE_LOAD: tuple[Use, ...] = (
    ("planning.followLoad Auto", "self.planning.followLoad == 'Auto'", lambda s: s.planning.follow_load == "Auto"),
    (
        "planning.disaggregation Compare or Follow",
        "self.planning.disaggregation != 'Never'",
        lambda s: s.planning.disaggregation != "Never",
    ),
    ("rollout.verify Measured", "self.rollout.verify == 'Measured'", lambda s: s.rollout.verify == "Measured"),
    (
        "rollout.rollbackOn",
        "has(self.rollout.rollbackOn) && size(self.rollout.rollbackOn) > 0",
        lambda s: bool(s.rollout.rollback_on),
    ),
    (
        "validation.onDrift Rollback",
        "self.validation.onDrift == 'Rollback'",
        lambda s: s.validation.on_drift == "Rollback",
    ),
)
"""Fields that judge or follow one load, each with the CEL and the Python of its use."""


EXTERNAL_MODE: Use = (
    "scaling.mode External",
    "has(self.scaling) && self.scaling.mode == 'External'",
    lambda spec: _mode(spec) == "External",
)
"""Replicas that an autoscaler or a person sets."""

_LISTED = "followLoad Auto, disaggregation Compare or Follow, verify Measured, rollbackOn or onDrift Rollback"
_EXTERNAL_ALONE = exclusive(
    EXTERNAL_MODE[0],
    f"!({EXTERNAL_MODE[1]})",
    EXTERNAL_MODE[2],
    FOLLOWS_ONE_LOAD,
    _LISTED,
)
_PROFILE_ALONE = exclusive(
    "workload.profile",
    "!has(self.workload.profile)",
    lambda spec: spec.workload.profile is not None,
    FOLLOWS_ONE_LOAD,
    _LISTED,
)


def _mode(spec: _ScaledSpec) -> str:
    return "Energy" if spec.scaling is None else spec.scaling.mode


def _energy_needs_a_profile(spec: _ScaledSpec) -> str | None:
    has_profile, mode = spec.workload.profile is not None, _mode(spec)
    if has_profile and mode != "Energy":
        return f"workload.profile needs scaling.mode Energy, and scaling.mode is {mode}; leave one of the two out"
    if spec.scaling is None or has_profile or mode != "Energy":
        return None
    return (
        "scaling.mode Energy needs workload.profile; fix the replicas of a constant load with "
        "planning.overrides.replicas, or set scaling.mode to External or Fixed"
    )


_EXTERNAL = "(has(self.scaling) && self.scaling.mode != 'Energy')"
_ENERGY_NEEDS_A_PROFILE = Rule(
    summary="scaling.mode Energy needs workload.profile, and workload.profile needs scaling.mode Energy",
    cel=f"has(self.workload.profile) ? !{_EXTERNAL} : (!has(self.scaling) || {_EXTERNAL})",
    message_cel="has(self.workload.profile) ? 'workload.profile needs scaling.mode Energy, and scaling.mode is %s; "
    "leave one of the two out'.format([has(self.scaling) ? self.scaling.mode : '']) : "
    "'scaling.mode Energy needs workload.profile; fix the replicas of a constant load with "
    "planning.overrides.replicas, or set scaling.mode to External or Fixed'",
    check=_energy_needs_a_profile,
)


def _replicas_by_mode(spec: _ScaledSpec) -> str | None:
    replicas, mode = spec.replicas, _mode(spec)
    if mode == "Energy":
        if replicas is None:
            return None
        return f"replicas ({replicas}) needs scaling.mode External or Fixed; with mode Energy the plan decides"
    if replicas is None:
        return f"scaling.mode {mode} needs replicas, the number to run"
    assert spec.scaling is not None
    least, most = spec.scaling.min_replicas, spec.scaling.max_replicas
    if replicas < least:
        return f"replicas ({replicas}) must be at least scaling.minReplicas ({least})"
    if most is not None and replicas > most:
        return f"replicas ({replicas}) must be at most scaling.maxReplicas ({most})"
    return None


_BELOW, _ABOVE = (
    "self.replicas < self.scaling.minReplicas",
    "has(self.scaling.maxReplicas) && self.replicas > self.scaling.maxReplicas",
)
_REPLICAS_BY_MODE = Rule(
    summary="replicas is set with scaling.mode External or Fixed only, within scaling.minReplicas and maxReplicas",
    cel=f"{_EXTERNAL} ? has(self.replicas) && !({_BELOW}) && !({_ABOVE}) : !has(self.replicas)",
    message_cel=f"!{_EXTERNAL} ? 'replicas (%s) needs scaling.mode External or Fixed; "
    "with mode Energy the plan decides'.format([has(self.replicas) ? self.replicas : 0]) : "
    "!has(self.replicas) ? 'scaling.mode %s needs replicas, the number to run'.format([self.scaling.mode]) : "
    f"{_BELOW} ? 'replicas (%s) must be at least scaling.minReplicas (%s)'.format("
    "[self.replicas, self.scaling.minReplicas]) : "
    "'replicas (%s) must be at most scaling.maxReplicas (%s)'.format([self.replicas, "
    "has(self.scaling.maxReplicas) ? self.scaling.maxReplicas : 0])",
    check=_replicas_by_mode,
)


def _one_number_of_replicas(spec: _ScaledSpec) -> str | None:
    fixed = spec.planning.overrides.replicas
    if fixed is None or spec.replicas is None:
        return None
    return (
        f"replicas ({spec.replicas}) and planning.overrides.replicas ({fixed}) are both set; leave "
        "planning.overrides.replicas out"
    )


_ONE_NUMBER_OF_REPLICAS = Rule(
    summary="replicas and planning.overrides.replicas are not both set",
    cel="!has(self.replicas) || !has(self.planning.overrides.replicas)",
    message_cel="'replicas (%s) and planning.overrides.replicas (%s) are both set; leave planning.overrides.replicas "
    "out'.format([has(self.replicas) ? self.replicas : 0, "
    "has(self.planning.overrides.replicas) ? self.planning.overrides.replicas : 0])",
    check=_one_number_of_replicas,
)


def _learning_needs_a_source(spec: _ScaledSpec) -> str | None:
    profile = spec.workload.profile
    if profile is None or profile.learned is None or spec.validation.source != "None":
        return None
    return (
        "workload.profile.learned needs measured windows, and validation.source is None; set validation.source to "
        "Auto, Prometheus or DCGMExporter, or write the hours"
    )


_LEARNING_NEEDS_A_SOURCE = Rule(
    summary="workload.profile.learned needs a validation.source other than None",
    cel="!(has(self.workload.profile) && has(self.workload.profile.learned)) || self.validation.source != 'None'",
    message_cel="'workload.profile.learned needs measured windows, and validation.source is None; set "
    "validation.source to Auto, Prometheus or DCGMExporter, or write the hours'",
    check=_learning_needs_a_source,
)


SCALING_RULES = (
    _LEARNING_NEEDS_A_SOURCE,
    _PROFILE_ALONE,
    _ENERGY_NEEDS_A_PROFILE,
    _EXTERNAL_ALONE,
    _REPLICAS_BY_MODE,
    _ONE_NUMBER_OF_REPLICAS,
)
"""In the order in which they are checked."""
