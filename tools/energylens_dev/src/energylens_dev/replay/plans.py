"""What a serving pod runs, read from plain Kubernetes objects. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from energylens.api.quantity import parse_quantity
from energylens_dev.replay.runs import Load, NoRunError, Plan

GPU_RESOURCE = "nvidia.com/gpu"
PRODUCT_LABEL = "nvidia.com/gpu.product"
DEPLOYMENT_LABEL = "energylens.dev/llmdeployment"

# The spellings of vLLM and SGLang.
_MODEL = ("--model", "--model-path")
_TENSOR = ("--tensor-parallel-size", "-tp", "--tp-size")
_PIPELINE = ("--pipeline-parallel-size", "-pp", "--pp-size")
_DATA = ("--data-parallel-size", "-dp", "--dp-size")
_BATCH = ("--max-num-seqs", "--max-running-requests")
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_QUANTIZATION = ("--quantization", "-q")


@dataclass(frozen=True)
class Pod:
    """A pod that holds GPUs."""

    uid: str
    namespace: str
    name: str
    node: str
    gpus: int
    created: str
    ready: bool
    deployment: str | None
    """Name of its LLMDeployment."""
    arguments: tuple[str, ...]
    """Of the container that holds the GPUs, command first."""


def gpu_pods(pods: Sequence[Mapping[str, Any]]) -> list[Pod]:
    """Return the pods that hold GPUs of a node now, oldest first."""
    found = []
    for pod in pods:
        spec, status, metadata = pod["spec"], pod.get("status", {}), pod["metadata"]
        holders = [container for container in spec["containers"] if _gpus(container)]
        if not holders or not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
            continue
        conditions = {each["type"]: each["status"] for each in status.get("conditions", ())}
        found.append(
            Pod(
                uid=metadata["uid"],
                namespace=metadata["namespace"],
                name=metadata["name"],
                node=spec["nodeName"],
                gpus=sum(_gpus(container) for container in holders),
                created=metadata.get("creationTimestamp", ""),
                ready=conditions.get("Ready") == "True" and not metadata.get("deletionTimestamp"),
                deployment=metadata.get("labels", {}).get(DEPLOYMENT_LABEL),
                arguments=(*holders[0].get("command", ()), *holders[0].get("args", ())),
            )
        )
    return sorted(found, key=lambda pod: (pod.created, pod.namespace, pod.name))


def _gpus(container: Mapping[str, Any]) -> int:
    resources = container.get("resources", {})
    asked = {**resources.get("requests", {}), **resources.get("limits", {})}
    return int(asked.get(GPU_RESOURCE, 0))


def plan_of(pod: Pod, product: str, deployment: Mapping[str, Any] | None) -> Plan:
    """Return the plan that a pod's arguments carry; the request shape comes from its LLMDeployment.

    Raises:
        NoRunError: the arguments name no model, or the replica is spread over several pods.
    """
    workload = (deployment or {}).get("spec", {}).get("workload", {})
    model = _value(pod.arguments, _MODEL) or _served(pod.arguments)
    if model is None or model.startswith(("/", ".")):
        model = (deployment or {}).get("spec", {}).get("model", {}).get("name")
    if model is None:
        raise NoRunError(f"the arguments of {pod.namespace}/{pod.name} name no model")
    plan = Plan(
        model=model,
        precision=_value(pod.arguments, _QUANTIZATION),
        gpu_product=product,
        tensor_parallel=int(_value(pod.arguments, _TENSOR) or 1),
        pipeline_parallel=int(_value(pod.arguments, _PIPELINE) or 1),
        data_parallel=int(_value(pod.arguments, _DATA) or 1),
        expert_parallel=any(flag in pod.arguments for flag in ("--enable-expert-parallel", "-ep", "--ep-size")),
        max_num_seqs=_count(_value(pod.arguments, _BATCH)),
        input_tokens=workload.get("inputTokens"),
        output_tokens=workload.get("outputTokens"),
    )
    if plan.gpus != pod.gpus:
        raise NoRunError(
            f"{pod.namespace}/{pod.name} holds {pod.gpus} GPUs of a replica of {plan.gpus}; "
            "no replica over several nodes was measured"
        )
    return plan


def load_of(deployment: Mapping[str, Any] | None, replicas: int, now: datetime) -> Load:
    """Return one replica's share of an LLMDeployment's load at a moment; without a deployment it is saturated."""
    workload = (deployment or {}).get("spec", {}).get("workload", {})
    if workload.get("concurrency"):
        return Load(concurrency=workload["concurrency"] / replicas)
    if workload.get("requestsPerSecond"):
        rate = float(parse_quantity(_rate_at(workload, now))) * workload["outputTokens"]
        return Load(output_tokens_per_second=rate / replicas)
    return Load()


def _rate_at(workload: Mapping[str, Any], now: datetime) -> Any:
    """Return the arrival rate of the hour, as a quantity."""
    rate, profile = workload["requestsPerSecond"], workload.get("profile") or {}
    local = now.astimezone(ZoneInfo(profile.get("timeZone") or "UTC"))
    for entry in profile.get("hours", ()):
        is_day = "days" not in entry or _DAYS[local.weekday()] in entry["days"]
        if is_day and entry.get("fromHour", 0) <= local.hour < entry.get("toHour", 24):
            rate = entry["requestsPerSecond"]
    return rate


def _value(arguments: Sequence[str], names: Sequence[str]) -> str | None:
    for index, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name in names:
            return value if equals else next(iter(arguments[index + 1 :]), None)
    return None


def _served(arguments: Sequence[str]) -> str | None:
    """The model of ``vllm serve MODEL``."""
    following = arguments[list(arguments).index("serve") + 1 :] if "serve" in arguments else ()
    return next((argument for argument in following[:1] if not argument.startswith("-")), None)


def _count(text: str | None) -> int | None:
    return None if text is None else int(text)
