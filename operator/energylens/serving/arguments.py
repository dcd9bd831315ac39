"""The engine's command line as far as both engines share it, and the check of the user's own arguments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.requantize import with_quantization
from energylens.serving.errors import ServingError

HTTP_PORT = 8000
Env = Mapping[str, str]


@dataclass(frozen=True)
class EngineCommand:
    """How to start an engine in one kind of pod."""

    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Env = field(default_factory=dict)
    serves_http: bool = True
    """Whether the pod answers requests, health checks and metrics; followers of a multi-node replica do not."""


@dataclass(frozen=True)
class Launch:
    """What an engine needs to know to be started."""

    deployment: LLMDeployment
    plan: PlanStatus
    model: ModelSpec
    startup_seconds: int
    drain_seconds: int

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one pod."""
        return gpus_per_pod(self.plan)


def gpus_per_pod(plan: PlanStatus) -> int:
    """Return the GPUs that each pod of a plan requests."""
    per_replica = plan.tensor_parallel * plan.pipeline_parallel * plan.data_parallel
    return per_replica // plan.nodes_per_replica


def converts_to_fp8(deployment: LLMDeployment, model: ModelSpec) -> bool:
    """Return whether the engine must convert the checkpoint while loading it."""
    return with_quantization(model, deployment.spec.model.quantization) != model


def check_extra_args(extra_args: Sequence[str], reserved: Mapping[str, str]) -> None:
    """Check that the user's arguments do not repeat a flag that the plan sets.

    The last of two equal flags wins in both engines, so that a repeated flag would silently undo the plan.

    Args:
        extra_args: ``spec.engine.extraArgs``.
        reserved: Flags that are set here, to what the user should set instead.

    Raises:
        ServingError: Naming the argument and the field to use.
    """
    for argument in extra_args:
        if not argument.startswith("-"):
            continue
        name = argument.partition("=")[0]
        flag = name.replace("_", "-") if name.startswith("--") else name
        for taken, instead in reserved.items():
            # Python's argument parsers accept any unambiguous beginning of a long flag.
            if flag == taken or (flag.startswith("--") and len(flag) > 3 and taken.startswith(flag)):
                raise ServingError("spec.engine.extraArgs", f"{argument!r} is set by the operator; {instead}")


def has_flag(extra_args: Sequence[str], flag: str) -> bool:
    """Return whether a long flag is among the user's arguments, as ``--flag value`` or ``--flag=value``."""
    return any(argument.partition("=")[0].replace("_", "-") == flag for argument in extra_args)


def flags(pairs: Mapping[str, Any]) -> list[str]:
    """Return ``--flag=value`` for each pair; True stands for a bare flag, None and False for none."""
    return [
        flag if value is True else f"{flag}={value}"
        for flag, value in pairs.items()
        if value is not None and value is not False
    ]
