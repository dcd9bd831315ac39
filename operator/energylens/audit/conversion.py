"""A served model as an equivalent LLMDeployment."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.api.quantity import format_milli
from energylens.audit.arguments import is_front_end
from energylens.audit.containers import TOKEN_VARIABLES
from energylens.audit.served import ServedModel
from energylens.audit.telemetry import prompt_and_output
from energylens.measure.types import LatencyQuantiles, WindowMeasurement
from energylens.planner.engines.versions import tag_version
from energylens.planner.inventory.products import GKE_LABEL, PRODUCT_LABEL
from energylens.serving.reserved import ENVIRONMENT

Object = dict[str, Any]

LONGEST_NAME = 52
PERCENTILE = "P95"
_PLACING = (
    PRODUCT_LABEL,
    GKE_LABEL,
    "nvidia.com/gpu.count",
    "kubernetes.io/hostname",
    "node.kubernetes.io/instance-type",
)
"""Node labels that select a pod's GPUs, which the plan decides instead."""


class NotPlannableError(ValueError):
    """A served model that cannot become an LLMDeployment; the message is one sentence."""


def deployment_name(served: ServedModel) -> str:
    """Return the name that the LLMDeployment of a served model would have."""
    name = re.sub(r"[^a-z0-9-]+", "-", served.owner.name.lower())
    return name[:LONGEST_NAME].strip("-") or "model"


def with_load(served: ServedModel, name: str, load: WindowMeasurement, requests_per_second: float) -> LLMDeployment:
    """Return the LLMDeployment of a served model under a load, without objectives.

    Args:
        served: The served model.
        name: Name of the object.
        load: Measured request shape, prefix cache hits and drafts.
        requests_per_second: Rate over all replicas.

    Raises:
        NotPlannableError: The engine is not supported, the model is unknown, prefill and decode are separate, or the
            request shape is unknown.
    """
    arguments = served.arguments
    if arguments is None:
        raise NotPlannableError(served.unread)
    assert served.invocation is not None
    engine = served.invocation.engine
    if engine not in ("VLLM", "SGLang"):
        raise NotPlannableError(f"plans support vLLM and SGLang, but this model runs {engine}")
    if arguments.apart:
        raise NotPlannableError("prefill and decode run in separate pods, which plans do not support")
    if not served.model:
        raise NotPlannableError(
            f"the model is {arguments.model or 'not named'}: name the model by --model "
            f"{served.owner.namespace}/{served.owner.name}=HUGGING_FACE_ID"
        )
    shape = prompt_and_output(load)
    if shape is None or requests_per_second <= 0:
        raise NotPlannableError("the number of tokens per request is unknown")
    spec: Object = {
        "model": _model(served),
        "engine": _engine(served),
        "workload": {
            "inputTokens": shape[0],
            "outputTokens": shape[1],
            "requestsPerSecond": format_milli(requests_per_second),
            **_hits_and_drafts(load),
        },
        "validation": {"onDrift": "Recalibrate"},
    }
    selector = {key: value for key, value in served.node_selector.items() if key not in _PLACING}
    tolerations = [t for t in map(_toleration, served.tolerations) if t is not None]
    hardware = {"nodeSelector": selector, "tolerations": tolerations}
    if any(hardware.values()):
        spec["hardware"] = {key: value for key, value in hardware.items() if value}
    return _parsed(served, name, spec)


def with_objectives(deployment: LLMDeployment, latency: Mapping[str, int]) -> LLMDeployment:
    """Return a deployment with latency objectives, ms by field of ``spec.slo``, at the 95th percentile."""
    slo = deployment.spec.slo.model_copy(update={"percentile": PERCENTILE, **latency})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"slo": slo})})


def measured_objectives(latency: LatencyQuantiles | None) -> dict[str, int]:
    """Return today's latencies as objectives, ms by field; a latency beyond the last bucket yields no objective."""
    found: dict[str, int] = {}
    for name in ("ttft", "itl", "tpot"):
        value = getattr(latency, f"{name}_ms", None)
        bucket = getattr(latency, f"{name}_bucket_ms", None)
        if value is not None and value > 0 and (bucket is None or math.isfinite(bucket[1])):
            found[f"{name}_milliseconds"] = max(math.ceil(value), 1)
    return found


def _model(served: ServedModel) -> Object:
    assert served.arguments is not None
    model: Object = {"name": served.model}
    if served.arguments.revision:
        model["revision"] = served.arguments.revision
    if served.arguments.quantization.lower().startswith("fp8") and "fp8" not in served.model.lower():
        model["quantization"] = "FP8"
    if served.environment.token_secret is not None:
        name, key = served.environment.token_secret
        model["tokenSecretRef"] = {"name": name, "key": key}
    return model


def _engine(served: ServedModel) -> Object:
    assert served.arguments is not None
    assert served.invocation is not None
    engine: Object = {"type": served.invocation.engine}
    # Plans start the engine's own program, which a front end's image may lack, and read the version in the tag.
    if not is_front_end(served.invocation) and (served.version is not None or tag_version(served.image) is None):
        engine["image"] = served.image
    if served.arguments.extra_args:
        engine["extraArgs"] = list(served.arguments.extra_args)
    kept = {
        name: value
        for name, value in served.environment.plain.items()
        if name not in ENVIRONMENT and name not in TOKEN_VARIABLES and not _is_secret(name)
    }
    if kept:
        engine["env"] = [{"name": name, "value": value} for name, value in sorted(kept.items())]
    return engine


def _is_secret(name: str) -> bool:
    return any(part in name.upper() for part in ("TOKEN", "SECRET", "PASSWORD", "API_KEY", "CREDENTIAL"))


def _hits_and_drafts(load: WindowMeasurement) -> Object:
    found: Object = {}
    hits = load.prefix_cache_hits
    if hits is not None and hits > 0.005:
        found["prefixCacheHitPercent"] = min(round(100 * hits), 100)
    if load.draft_tokens is not None and load.acceptance is not None:
        found["speculative"] = {
            "draftTokens": max(round(load.draft_tokens), 1),
            "acceptancePercent": min(max(round(100 * load.acceptance), 0), 100),
        }
    return found


def _toleration(given: Mapping[str, Any]) -> Object | None:
    """Return a toleration as a spec has it; None for a toleration that the API server adds to every pod."""
    if str(given.get("key") or "").startswith("node.kubernetes.io/"):
        return None
    names = ("key", "operator", "value", "effect", "tolerationSeconds")
    return {name: given[name] for name in names if given.get(name) not in (None, "")}


def _parsed(served: ServedModel, name: str, spec: Object) -> LLMDeployment:
    body = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": served.owner.namespace},
        "spec": spec,
    }
    try:
        return parse_llmdeployment(body, strict=True)
    except InvalidResourceError as error:
        raise NotPlannableError(f"the API server would reject the LLMDeployment: {error}") from error
