"""The part of the engines' command lines that both engines share, and the check of the user's own arguments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Any, Literal

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.engines import EngineSettings
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import with_quantization
from energylens.records import dataclass

HTTP_PORT = 8000
_LISTEN = 'case "$POD_IP" in *:*) host=::;; *) host=0.0.0.0;; esac; exec "$0" "$@" --host="$host"'
Env = Mapping[str, str]


@dataclass(frozen=True)
class EngineCommand:
    """How to start an engine in one kind of pod."""

    command: tuple[str, ...]
    args: tuple[str, ...]
    env: Env = field(default_factory=dict)
    serves_http: bool = True
    """Whether the pod answers requests and metrics; followers of a multi-node replica do not."""
    answers_health: bool = True
    """Whether the pod answers health checks: SGLang's followers do once their ranks are loaded, vLLM's do not."""


@dataclass(frozen=True)
class Launch:
    """Inputs of an engine's command line."""

    deployment: LLMDeployment
    plan: PlanStatus
    model: ModelSpec
    startup_seconds: int
    drain_seconds: int
    role: Literal["prefill", "decode"] | None = None
    """Role of the pod in a plan with separate prefill and decode; None in any other plan."""

    @cached_property
    def settings(self) -> EngineSettings:
        """The engine, its version, and what the user's arguments set."""
        return EngineSettings.of(self.deployment.spec.engine)

    @property
    def gpus_per_node(self) -> int:
        """GPUs of one pod."""
        return gpus_per_pod(self.plan)


def listening(*command: str) -> tuple[str, ...]:
    """Return a command whose server listens on every address of its pod, for probes and the Service.

    No value of ``--host`` achieves this everywhere. vLLM opens an IPv4 socket for its default and for 0.0.0.0, and an
    IPv6 socket for ``::`` (entrypoints/launchers/launcher.py, 0.33), which a node without IPv6 refuses. SGLang does the
    same, and its IPv6 socket takes no IPv4 (uvicorn, by asyncio). The address family is therefore that of the pod's own
    address. With ``exec`` the engine gets the signals.
    """
    return ("/bin/sh", "-c", _LISTEN, *command)


def gpus_per_pod(plan: PlanStatus) -> int:
    """Return the GPUs that each pod of a plan requests."""
    per_replica = plan.tensor_parallel * plan.pipeline_parallel * plan.data_parallel
    return per_replica // plan.nodes_per_replica


def converts_to_fp8(deployment: LLMDeployment, model: ModelSpec) -> bool:
    """Return whether the engine must convert the checkpoint while loading it."""
    return with_quantization(model, deployment.spec.model.quantization) != model


def flags(pairs: Mapping[str, Any]) -> list[str]:
    """Return ``--flag=value`` for each pair; True stands for a bare flag, None and False for none."""
    return [
        flag if value is True else f"{flag}={value}"
        for flag, value in pairs.items()
        if value is not None and value is not False
    ]
