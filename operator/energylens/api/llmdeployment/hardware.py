"""The GPUs that the planner may use."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, DISTINCT, SET_LIST, ApiModel, Labels, Rule

_MAX_GPUS = 100_000


def _toleration_value(toleration: Toleration) -> str | None:
    if toleration.operator == "Exists" and toleration.value:
        return f"value '{toleration.value}' is not used by operator Exists; leave value out or set operator to Equal"
    if toleration.operator == "Equal" and not toleration.key:
        return "operator Equal needs key; set key, or set operator to Exists to tolerate every taint"
    return None


_TOLERATION_VALUE = Rule(
    summary="operator Exists takes no value, operator Equal needs a key",
    cel="self.operator == 'Exists' ? !has(self.value) || self.value == '' : has(self.key) && self.key != ''",
    message_cel="self.operator == 'Exists' ? "
    "\"value '%s' is not used by operator Exists; leave value out or set operator to Equal\".format([self.value]) : "
    "'operator Equal needs key; set key, or set operator to Exists to tolerate every taint'",
    check=_toleration_value,
)


def _toleration_seconds(toleration: Toleration) -> str | None:
    if toleration.toleration_seconds is None or toleration.effect == "NoExecute":
        return None
    return f"tolerationSeconds ({toleration.toleration_seconds}) needs effect NoExecute"


_TOLERATION_SECONDS = Rule(
    summary="tolerationSeconds needs effect NoExecute",
    cel="!has(self.tolerationSeconds) || has(self.effect) && self.effect == 'NoExecute'",
    message_cel="'tolerationSeconds (%s) needs effect NoExecute'.format([self.tolerationSeconds])",
    check=_toleration_seconds,
)


class Toleration(ApiModel):
    """A pod toleration."""

    rules: ClassVar[tuple[Rule, ...]] = (_TOLERATION_VALUE, _TOLERATION_SECONDS)

    key: Annotated[str, Field(max_length=317)] | None = Field(
        default=None, description="Taint key; absent with operator Exists: every taint."
    )
    operator: Literal["Exists", "Equal"] = Field(
        default="Equal", description="Equal: the taint has this value. Exists: any value."
    )
    value: Annotated[str, Field(max_length=63)] | None = Field(
        default=None, description="Taint value, for operator Equal."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect; absent: all effects."
    )
    toleration_seconds: int | None = Field(
        default=None,
        description="Time for which a NoExecute taint is tolerated, s; absent: without limit. The planner excludes "
        "nodes with a taint that is tolerated only for a limited time.",
    )


def _replica_within_max_gpus(hardware: Hardware) -> str | None:
    if hardware.max_gpus is None or hardware.max_gpus_per_replica is None:
        return None
    if hardware.max_gpus_per_replica <= hardware.max_gpus:
        return None
    return (
        f"maxGPUsPerReplica ({hardware.max_gpus_per_replica}) is more than maxGPUs ({hardware.max_gpus}); "
        f"set maxGPUsPerReplica to {hardware.max_gpus} or less, or raise maxGPUs"
    )


_REPLICA_WITHIN_MAX_GPUS = Rule(
    summary="maxGPUsPerReplica is at most maxGPUs",
    cel="!has(self.maxGPUs) || !has(self.maxGPUsPerReplica) || self.maxGPUsPerReplica <= self.maxGPUs",
    message_cel="'maxGPUsPerReplica (%s) is more than maxGPUs (%s); "
    "set maxGPUsPerReplica to %s or less, or raise maxGPUs'.format(["
    "self.maxGPUsPerReplica, self.maxGPUs, self.maxGPUs])",
    check=_replica_within_max_gpus,
)


class Hardware(ApiModel):
    """The GPUs that the planner may use. Empty: every GPU of the cluster."""

    rules: ClassVar[tuple[Rule, ...]] = (_REPLICA_WITHIN_MAX_GPUS,)

    gpu_products: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...],
        Field(max_length=32, json_schema_extra=SET_LIST),
        DISTINCT,
    ] = Field(
        default=(),
        description="Allowed GPU products, as in the node label nvidia.com/gpu.product (NVIDIA-H100-80GB-HBM3); short "
        "names (H100), labels of older drivers and GKE accelerator names are accepted, too. Empty: all available "
        "products.",
    )
    max_gpus: int | None = Field(
        default=None,
        ge=1,
        le=_MAX_GPUS,
        description="Maximum number of GPUs over all replicas; checked again after planning.",
    )
    max_gpus_per_replica: int | None = Field(
        default=None, ge=1, le=_MAX_GPUS, description="Maximum number of GPUs of one replica; at most maxGPUs."
    )
    inter_node_gigabits_per_second: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Network speed of a node in one direction over all adapters for GPU traffic, Gbit/s, for replicas "
        "that span nodes. Absent: the lowest speed that the nodes state by the label "
        "energylens.dev/inter-node-gigabits-per-second or by the cloud's machine type; else the PCIe speed of one GPU.",
    )
    node_selector: Labels = Field(default_factory=dict, description="Labels that nodes must have.")
    tolerations: Annotated[tuple[Toleration, ...], Field(max_length=32, json_schema_extra=ATOMIC_LIST)] = Field(
        default=(), description="Tolerations of the serving pods for taints of nodes."
    )
