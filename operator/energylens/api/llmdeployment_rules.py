"""Constraints over several fields of an LLMDeployment, as CEL and as Python.

Each stands on the smallest object that has all its fields, because an API server skips a failing rule whose object an
update did not change: objects that exist stay editable when a rule becomes stricter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from energylens.api.base import Rule

if TYPE_CHECKING:
    from energylens.api.llmdeployment import (
        DeploymentBudget,
        Hardware,
        LLMDeployment,
        LLMDeploymentSpec,
        ModelCache,
        Overrides,
        PowerCap,
        Speculative,
        Toleration,
        Workload,
    )

NAME_LIMIT = 52
"""Longest metadata.name: 63 (a label value, a Service's name) less the "-" and hash of 10 that controllers append."""
NAME_REGEX = "^[a-z]([-a-z0-9]*[a-z0-9])?$"


def _name_leaves_room(deployment: LLMDeployment) -> str | None:
    name = deployment.metadata.name
    if len(name) <= NAME_LIMIT and re.fullmatch(NAME_REGEX.strip("^$"), name):
        return None
    return f"metadata.name '{name}' ({len(name)} characters) {_NAME_ALLOWED}"


_NAME_ALLOWED = (
    f"must have at most {NAME_LIMIT} characters, start with a lower-case letter, end with a letter or digit, "
    "and hold only a-z, 0-9 and -"
)
NAME_LEAVES_ROOM = Rule(
    summary=f"metadata.name {_NAME_ALLOWED}",
    cel=f"size(self.metadata.name) <= {NAME_LIMIT} && self.metadata.name.matches('{NAME_REGEX}')",
    message_cel=f"\"metadata.name '%s' (%s characters) {_NAME_ALLOWED}\".format("
    "[self.metadata.name, size(self.metadata.name)])",
    check=_name_leaves_room,
    only_on_create=True,
)


def _one_cache(cache: ModelCache) -> str | None:
    if cache.persistent_volume_claim is not None and cache.host_path is not None:
        return (
            f"persistentVolumeClaim '{cache.persistent_volume_claim}' and hostPath '{cache.host_path}' are both set; "
            "set exactly one"
        )
    if cache.persistent_volume_claim is None and cache.host_path is None:
        return "neither persistentVolumeClaim nor hostPath is set; set exactly one"
    return None


ONE_CACHE = Rule(
    summary="set exactly one of persistentVolumeClaim and hostPath",
    cel="has(self.persistentVolumeClaim) != has(self.hostPath)",
    message_cel="has(self.hostPath) ? "
    "\"persistentVolumeClaim '%s' and hostPath '%s' are both set; set exactly one\".format("
    "[self.persistentVolumeClaim, self.hostPath]) : "
    "'neither persistentVolumeClaim nor hostPath is set; set exactly one'",
    check=_one_cache,
)


def _one_load(workload: Workload) -> str | None:
    rate, concurrency = workload.requests_per_second, workload.concurrency
    if rate is not None and concurrency is not None:
        return f"requestsPerSecond ({rate}) and concurrency ({concurrency}) are both set; set exactly one"
    if rate is None and concurrency is None:
        return "neither requestsPerSecond nor concurrency is set; set exactly one"
    return None


ONE_LOAD = Rule(
    summary="set exactly one of requestsPerSecond and concurrency",
    cel="has(self.requestsPerSecond) != has(self.concurrency)",
    message_cel="has(self.concurrency) ? "
    "'requestsPerSecond (%s) and concurrency (%s) are both set; set exactly one'.format("
    "[self.requestsPerSecond, self.concurrency]) : "
    "'neither requestsPerSecond nor concurrency is set; set exactly one'",
    check=_one_load,
)


def _budget_limits_something(budget: DeploymentBudget) -> str | None:
    if budget.power_watts is None and budget.energy_watt_hours is None:
        return "limits nothing: set powerWatts, energyWattHours or both"
    return None


BUDGET_LIMITS_SOMETHING = Rule(
    summary="set powerWatts, energyWattHours or both",
    cel="has(self.powerWatts) || has(self.energyWattHours)",
    message_cel="'limits nothing: set powerWatts, energyWattHours or both'",
    check=_budget_limits_something,
)


def _power_cap_watts(cap: PowerCap) -> str | None:
    if cap.mode == "Fixed" and cap.watts_per_gpu is None:
        return "mode Fixed needs wattsPerGPU; set it, or set mode to Never or Plan"
    if cap.mode != "Fixed" and cap.watts_per_gpu is not None:
        return (
            f"wattsPerGPU ({cap.watts_per_gpu}) is for mode Fixed, and mode is {cap.mode}; "
            "set mode to Fixed or leave it out"
        )
    return None


POWER_CAP_WATTS = Rule(
    summary="wattsPerGPU is set with mode Fixed, and only then",
    cel="(self.mode == 'Fixed') == has(self.wattsPerGPU)",
    message_cel="self.mode == 'Fixed' ? 'mode Fixed needs wattsPerGPU; set it, or set mode to Never or Plan' : "
    "'wattsPerGPU (%s) is for mode Fixed, and mode is %s; set mode to Fixed or leave it out'.format("
    "[self.wattsPerGPU, self.mode])",
    check=_power_cap_watts,
)


def _draft_model_size(speculative: Speculative) -> str | None:
    millions = speculative.draft_model_million_parameters
    if speculative.method == "DraftModel" and millions is None:
        return "method DraftModel needs draftModelMillionParameters: its parameters in millions"
    if speculative.method not in (None, "DraftModel") and millions is not None:
        return (
            f"draftModelMillionParameters ({millions}) is for method DraftModel, and method is {speculative.method}; "
            "leave it out"
        )
    return None


DRAFT_MODEL_SIZE = Rule(
    summary="draftModelMillionParameters is set with method DraftModel, and with no other method",
    cel="!has(self.method) || (self.method == 'DraftModel') == has(self.draftModelMillionParameters)",
    message_cel="self.method == 'DraftModel' ? "
    "'method DraftModel needs draftModelMillionParameters: its parameters in millions' : "
    "'draftModelMillionParameters (%s) is for method DraftModel, and method is %s; leave it out'.format("
    "[self.draftModelMillionParameters, self.method])",
    check=_draft_model_size,
)


def _toleration_value(toleration: Toleration) -> str | None:
    if toleration.operator == "Exists" and toleration.value:
        return f"value '{toleration.value}' is not used by operator Exists; leave it out or set operator to Equal"
    if toleration.operator == "Equal" and not toleration.key:
        return "operator Equal needs key; set it, or set operator to Exists to tolerate every taint"
    return None


TOLERATION_VALUE = Rule(
    summary="operator Exists takes no value, operator Equal needs a key",
    cel="self.operator == 'Exists' ? !has(self.value) || self.value == '' : has(self.key) && self.key != ''",
    message_cel="self.operator == 'Exists' ? "
    "\"value '%s' is not used by operator Exists; leave it out or set operator to Equal\".format([self.value]) : "
    "'operator Equal needs key; set it, or set operator to Exists to tolerate every taint'",
    check=_toleration_value,
)


def _toleration_seconds(toleration: Toleration) -> str | None:
    if toleration.toleration_seconds is None or toleration.effect == "NoExecute":
        return None
    return f"tolerationSeconds ({toleration.toleration_seconds}) needs effect NoExecute"


TOLERATION_SECONDS = Rule(
    summary="tolerationSeconds needs effect NoExecute",
    cel="!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
    message_cel="'tolerationSeconds (%s) needs effect NoExecute'.format([self.tolerationSeconds])",
    check=_toleration_seconds,
)


def _replica_within_max_gpus(hardware: Hardware) -> str | None:
    if hardware.max_gpus is None or hardware.max_gpus_per_replica is None:
        return None
    if hardware.max_gpus_per_replica <= hardware.max_gpus:
        return None
    return (
        f"maxGPUsPerReplica ({hardware.max_gpus_per_replica}) is more than maxGPUs ({hardware.max_gpus}); "
        f"set it to {hardware.max_gpus} or less, or raise maxGPUs"
    )


REPLICA_WITHIN_MAX_GPUS = Rule(
    summary="maxGPUsPerReplica is at most maxGPUs",
    cel="!has(self.maxGPUs) || !has(self.maxGPUsPerReplica) || self.maxGPUsPerReplica <= self.maxGPUs",
    message_cel="'maxGPUsPerReplica (%s) is more than maxGPUs (%s); set it to %s or less, or raise maxGPUs'.format("
    "[self.maxGPUsPerReplica, self.maxGPUs, self.maxGPUs])",
    check=_replica_within_max_gpus,
)


def _experts_within_replica(overrides: Overrides) -> str | None:
    expert, tensor, data = overrides.expert_parallel, overrides.tensor_parallel, overrides.data_parallel
    if expert is None or tensor is None or data is None or expert <= tensor * data:
        return None
    return (
        f"expertParallel ({expert}) is more than tensorParallel ({tensor}) x dataParallel ({data}) = {tensor * data} "
        f"GPUs; set it to {tensor * data} or less"
    )


EXPERTS_WITHIN_REPLICA = Rule(
    summary="expertParallel is at most tensorParallel x dataParallel where all three are set",
    cel="!has(self.expertParallel) || !has(self.tensorParallel) || !has(self.dataParallel) || "
    "self.expertParallel <= self.tensorParallel * self.dataParallel",
    message_cel="'expertParallel (%s) is more than tensorParallel (%s) x dataParallel (%s) = %s GPUs; "
    "set it to %s or less'.format([self.expertParallel, self.tensorParallel, self.dataParallel, "
    "self.tensorParallel * self.dataParallel, self.tensorParallel * self.dataParallel])",
    check=_experts_within_replica,
)


def _degrees(overrides: Overrides) -> tuple[int, int, int]:
    return overrides.tensor_parallel or 1, overrides.pipeline_parallel or 1, overrides.data_parallel or 1


def _overrides_within_replica(spec: LLMDeploymentSpec) -> str | None:
    tensor, pipeline, data = _degrees(spec.planning.overrides)
    limit = spec.hardware.max_gpus_per_replica
    if limit is None or tensor * pipeline * data <= limit:
        return None
    return (
        f"planning.overrides ask for tensorParallel {tensor} x pipelineParallel {pipeline} x dataParallel {data} = "
        f"{tensor * pipeline * data} GPUs per replica, more than hardware.maxGPUsPerReplica ({limit}); "
        f"lower them or raise maxGPUsPerReplica"
    )


def _degree(name: str) -> str:
    return f"(has(self.planning.overrides.{name}) ? self.planning.overrides.{name} : 1)"


_TP, _PP, _DP, _REPLICAS = map(_degree, ("tensorParallel", "pipelineParallel", "dataParallel", "replicas"))
_PER_REPLICA = f"{_TP} * {_PP} * {_DP}"

OVERRIDES_WITHIN_REPLICA = Rule(
    summary="tensorParallel x pipelineParallel x dataParallel of planning.overrides "
    "is at most hardware.maxGPUsPerReplica",
    cel=f"!has(self.hardware.maxGPUsPerReplica) || {_PER_REPLICA} <= self.hardware.maxGPUsPerReplica",
    message_cel="'planning.overrides ask for tensorParallel %s x pipelineParallel %s x dataParallel %s = "
    "%s GPUs per replica, more than hardware.maxGPUsPerReplica (%s); lower them or raise maxGPUsPerReplica'.format("
    f"[{_TP}, {_PP}, {_DP}, {_PER_REPLICA}, self.hardware.maxGPUsPerReplica])",
    check=_overrides_within_replica,
)


def _overrides_within_max_gpus(spec: LLMDeploymentSpec) -> str | None:
    tensor, pipeline, data = _degrees(spec.planning.overrides)
    per_replica, replicas = tensor * pipeline * data, spec.planning.overrides.replicas or 1
    limit = spec.hardware.max_gpus
    if limit is None or per_replica * replicas <= limit:
        return None
    return (
        f"planning.overrides ask for {per_replica} GPUs per replica x replicas {replicas} = {per_replica * replicas} "
        f"GPUs, more than hardware.maxGPUs ({limit}); lower them or raise maxGPUs"
    )


OVERRIDES_WITHIN_MAX_GPUS = Rule(
    summary="tensorParallel x pipelineParallel x dataParallel x replicas of planning.overrides "
    "is at most hardware.maxGPUs",
    cel=f"!has(self.hardware.maxGPUs) || {_PER_REPLICA} * {_REPLICAS} <= self.hardware.maxGPUs",
    message_cel="'planning.overrides ask for %s GPUs per replica x replicas %s = %s GPUs, "
    "more than hardware.maxGPUs (%s); lower them or raise maxGPUs'.format("
    f"[{_PER_REPLICA}, {_REPLICAS}, {_PER_REPLICA} * {_REPLICAS}, self.hardware.maxGPUs])",
    check=_overrides_within_max_gpus,
)


def _needs_a_rate(spec: LLMDeploymentSpec, field: str, value: str) -> str | None:
    if value == "Never" or spec.workload.requests_per_second is not None:
        return None
    return (
        f"planning.{field} {value} needs workload.requestsPerSecond, and workload has concurrency "
        f"({spec.workload.concurrency}); set {field} to Never or give a rate"
    )


def _rate_rule(field: str, value: str, check: Callable[[LLMDeploymentSpec], str | None]) -> Rule:
    return Rule(
        summary=f"planning.{field} {value} needs workload.requestsPerSecond",
        cel=f"self.planning.{field} == 'Never' || has(self.workload.requestsPerSecond)",
        message_cel=f"'planning.{field} {value} needs workload.requestsPerSecond, and workload has concurrency (%s); "
        f"set {field} to Never or give a rate'.format("
        "[has(self.workload.concurrency) ? self.workload.concurrency : 0])",
        check=check,
    )


FOLLOWED_LOAD_IS_A_RATE = _rate_rule(
    "followLoad", "Auto", lambda spec: _needs_a_rate(spec, "followLoad", spec.planning.follow_load)
)
DISAGGREGATION_NEEDS_A_RATE = _rate_rule(
    "disaggregation", "Compare", lambda spec: _needs_a_rate(spec, "disaggregation", spec.planning.disaggregation)
)
