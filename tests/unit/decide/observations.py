"""Observations built by hand, for tests of what is decided from them."""

from __future__ import annotations

import functools
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, PredictedFigures
from energylens.api.parse import parse_llmdeployment
from energylens.data import load_gpus, load_model
from energylens.decide.deployment.observed.observation import BudgetView, Observation, PlanChoice, PodState
from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.decide.reasons import Reason
from energylens.measure.types import EnergyReason, LatencyQuantiles, WindowMeasurement
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import Placement, Strategy, manifests

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
HASH, OTHER = "a" * 16, "b" * 16
OLD = "0" * 16
"""The revision of pods that another template made."""
PRODUCT = "NVIDIA-H100-80GB-HBM3"
SURGE, RECREATE = Strategy("Surge", 1, 0), Strategy("Recreate", 0, 1)
MODEL = "meta-llama/Llama-3.1-8B-Instruct"


@functools.cache
def model() -> ModelSpec:
    return load_model(MODEL)


def plan(plan_hash: str = HASH, **changes: Any) -> PlanStatus:
    """Return a plan of two replicas of one GPU, 0.4 J per output token."""
    figures = PredictedFigures(
        joules_per_output_token="400m",
        joules_per_output_token_low="350m",
        joules_per_output_token_high="450m",
        power_watts=800,
        idle_power_watts=200,
        output_tokens_per_second=2000,
        concurrency=16,
        ttft_milliseconds=100,
        itl_milliseconds=20,
    )
    fields: dict[str, Any] = {
        "hash": plan_hash,
        "predictor_version": "1+test",
        "confidence": "Interpolated",
        "binding_constraint": "none",
        "gpu_product": PRODUCT,
        "gpus": 2,
        "replicas": 2,
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "expert_parallel": 1,
        "data_parallel": 1,
        "max_batch_size": 32,
        "predicted": figures,
    }
    return PlanStatus(**{**fields, **changes})


def deployment(status: dict[str, Any] | None = None, generation: int = 3, **spec: Any) -> LLMDeployment:
    body = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "llama", "namespace": "team", "uid": "u1", "generation": generation},
        "spec": {
            "model": {"name": MODEL},
            "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 2},
            **spec,
        },
        "status": status or {},
    }
    return parse_llmdeployment(body, strict=False)


def workload(
    made_from: PlanStatus | None = None,
    *,
    strategy: Strategy = SURGE,
    ready: int = 2,
    updated: int = 2,
    replicas: int = 2,
    seen: bool = True,
    conditions: tuple[dict[str, Any], ...] = (),
    **spec: Any,
) -> dict[str, Any]:
    """Return a live Deployment of a plan."""
    served = made_from or plan()
    gpu = load_gpus().get(served.gpu_product)
    body: dict[str, Any] = dict(
        manifests(deployment(**spec), served, model(), strategy=strategy, placement=Placement(gpu))[0]
    )
    body["metadata"] = {**body["metadata"], "generation": 2, "uid": "d1"}
    body["status"] = {
        "observedGeneration": 2 if seen else 1,
        "replicas": replicas,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "conditions": list(conditions),
    }
    return body


@functools.cache
def revision() -> str:
    """Return the revision of the pods of ``workload()``."""
    return workload_revision(workload())


def pod(
    name: str = "p0",
    revised: str | None = None,
    *,
    ready: bool = True,
    unschedulable: str = "",
    waiting: str = "",
    **changes: Any,
) -> PodState:
    """Return a pod of ``workload()``, or of another revision."""
    since = "2026-03-01T11:00:00Z" if ready else ""
    node = changes.pop("node", "" if unschedulable else "h100-0")
    made = revision() if revised is None else revised
    return PodState(name, made, ready, since, unschedulable, waiting, node, **changes)


def measured(reason: EnergyReason = "Measured", **changes: Any) -> WindowMeasurement:
    """Return a window of 600 s; 0.4 J per output token, P95 TTFT 90 ms and ITL 19 ms when measured."""
    found = WindowMeasurement(reason=reason, message=f"it is {reason}", window_start=1000.0, window_end=1600.0)
    if reason == "Measured":
        found = replace(
            found,
            coverage_percent=100.0,
            energy_joules=480_000.0,
            output_tokens=1_200_000.0,
            power_watts=800.0,
            output_tokens_per_second=2000.0,
            joules_per_output_token=0.4,
            latency=LatencyQuantiles(ttft_ms=90.0, itl_ms=19.0),
        )
    return replace(found, **changes)


def snapshot(free: int = 8) -> ClusterSnapshot:
    return ClusterSnapshot((GpuNode("h100-0", PRODUCT, free),))


def observation(**changes: Any) -> Observation:
    """Return a deployment that serves its plan with all pods ready and nothing measured."""
    fields: dict[str, Any] = {
        "deployment": deployment(),
        "planning": PlanChoice(plan(), model(), True, Reason.PLANNED, "2 x H100 TP1"),
        "workload": workload(),
        "pods": (pod("p0"), pod("p1")),
        "snapshot": snapshot(),
        "serves_lws": False,
        "budget": BudgetView("True", Reason.NO_BUDGET, "no budget"),
        "measurement": None,
        "now": NOW,
    }
    return Observation(**{**fields, **changes})


def without_plan(reason: Reason, current: PlanStatus | None = None) -> PlanChoice:
    return PlanChoice(current, model(), False, reason, f"it is {reason.value}")
