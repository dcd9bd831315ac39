"""The power limit that each GPU of a node should have. Pure.

Only GPUs of pods with the annotation are changed, and they get their default limit back when these pods are gone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from energylens.records import dataclass

POWER_LIMIT_ANNOTATION = "dynamo.nvidia.com/gpu-power-limit"
"""Annotation of a pod: the power limit of each of its GPUs in whole watts. NVIDIA Dynamo reads it, too."""


@dataclass(frozen=True)
class Gpu:
    """A GPU as NVML reports it."""

    uuid: str
    product: str
    limit_watts: float
    default_watts: float
    min_watts: float
    max_watts: float
    pods: frozenset[str]
    """UIDs of the pods whose processes run on the GPU."""


@dataclass(frozen=True)
class LimitChange:
    """A limit to set."""

    uuid: str
    watts: float
    restores: bool
    """Whether the default limit is set again and the GPU is no longer managed."""


@dataclass(frozen=True)
class Decision:
    """The limits to set on a node."""

    changes: tuple[LimitChange, ...]
    ours: frozenset[str]
    """UUIDs of the GPUs whose limits the agent manages afterwards."""
    refused: tuple[str, ...]
    """One sentence for each cap that is not set."""


def decide(gpus: Iterable[Gpu], caps: Mapping[str, str], ours: frozenset[str]) -> Decision:
    """Return the limits to set.

    A cap that is not in whole watts or outside the GPU's range is refused, and the GPU keeps or gets back its default
    limit. If pods share a GPU, the highest of their caps is set, or no cap if one of the pods has none, so that no pod
    is slowed down more than it asked for.

    Args:
        gpus: The node's GPUs.
        caps: The annotations of the node's pods by pod UID.
        ours: UUIDs of the GPUs whose limits the agent manages.
    """
    changes: list[LimitChange] = []
    refused: list[str] = []
    kept: set[str] = set()
    for gpu in gpus:
        wanted = _wanted(gpu, caps, refused)
        if wanted is None:
            if gpu.uuid in ours and round(gpu.limit_watts) != round(gpu.default_watts):
                changes.append(LimitChange(gpu.uuid, gpu.default_watts, True))
            continue
        kept.add(gpu.uuid)
        if round(gpu.limit_watts) != wanted:
            changes.append(LimitChange(gpu.uuid, float(wanted), False))
    return Decision(tuple(changes), frozenset(kept), tuple(refused))


def _wanted(gpu: Gpu, caps: Mapping[str, str], refused: list[str]) -> int | None:
    if not gpu.pods or not all(pod in caps for pod in gpu.pods):
        return None
    watts: list[int] = []
    for pod in sorted(gpu.pods):
        text = caps[pod]
        if not text.isascii() or not text.isdecimal():
            refused.append(f"pod {pod}: {POWER_LIMIT_ANNOTATION}={text!r} must be whole watts, such as 400")
            return None
        value = int(text)
        if not gpu.min_watts <= value <= gpu.max_watts:
            refused.append(
                f"pod {pod}: {POWER_LIMIT_ANNOTATION}={value} is outside of {gpu.min_watts:.0f} to "
                f"{gpu.max_watts:.0f} W of {gpu.product} ({gpu.uuid})"
            )
            return None
        watts.append(value)
    return max(watts)
