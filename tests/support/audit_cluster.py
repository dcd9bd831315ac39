"""A made-up cluster that serves models, and the answers of a Prometheus that scraped its pods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

START = 1_764_200_000.0
H100 = "NVIDIA-H100-80GB-HBM3"
ITL_BUCKETS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, float("inf"))
TTFT_BUCKETS = (0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, float("inf"))


def node(name: str, gpus: int = 8, product: str = H100) -> Object:
    """Return a node with GPUs."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "status": {
            "allocatable": {"nvidia.com/gpu": str(gpus)},
            "capacity": {"nvidia.com/gpu": str(gpus)},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(
    name: str,
    container: Object,
    *,
    gpus: int = 1,
    host: str = "node-0",
    namespace: str = "team",
    owner: tuple[str, str] = ("ReplicaSet", "chat-5d9f"),
    labels: Mapping[str, str] | None = None,
    phase: str = "Running",
    address: str = "",
    **spec: Any,
) -> Object:
    """Return a pod with one engine container."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"pod-template-hash": owner[1].rpartition("-")[2], **(labels or {})},
            "ownerReferences": [{"kind": owner[0], "name": owner[1], "controller": True}],
        },
        "spec": {
            "nodeName": host,
            "containers": [{"name": "engine", **container, "resources": {"limits": {"nvidia.com/gpu": str(gpus)}}}],
            **spec,
        },
        "status": {"phase": phase, "podIP": address},
    }


@dataclass(frozen=True)
class Served:
    """What one pod does, constant over time but for ``busy``."""

    pod: str
    namespace: str = "team"
    gpus: int = 1
    requests_per_second: float = 1.0
    input_tokens: float = 800.0
    output_tokens: float = 300.0
    watts_per_gpu: float = 350.0
    itl_seconds: float = 0.02
    ttft_seconds: float = 0.09
    running: float = 6.0
    engine: str = "vllm"
    cached_share: float = 0.0
    busy: Sequence[float] = field(default=(1.0,))
    """Factors on the load of equal parts of the time."""


def matrix(served: Sequence[Served], seconds: float = 3600.0, step: float = 60.0, energy: bool = True) -> Object:
    """Return what a Prometheus answers to a range of raw samples of all metrics that are read."""
    series: list[Object] = []
    times = [START + step * i for i in range(round(seconds / step) + 1)]
    for number, each in enumerate(served):
        labels = {"namespace": each.namespace, "pod": each.pod, "job": "engines"}
        done = _done(each, times)

        def add(name: str, values: Sequence[float], labels: Mapping[str, str] = labels, **more: str) -> None:
            pairs = [[time, repr(float(value))] for time, value in zip(times, values, strict=True)]
            series.append({"metric": {"__name__": name, **labels, **more}, "values": pairs})

        prefix = each.engine
        add(f"{prefix}:generation_tokens_total", [n * each.output_tokens for n in done])
        add(f"{prefix}:prompt_tokens_total", [n * each.input_tokens for n in done])
        add(
            "vllm:prompt_tokens_cached_total" if prefix == "vllm" else "sglang:cached_tokens_total",
            [n * each.input_tokens * each.cached_share for n in done],
        )
        add("vllm:request_success_total" if prefix == "vllm" else "sglang:num_requests_total", done)
        running = each.running if each.requests_per_second else 0.0
        add("vllm:num_requests_running" if prefix == "vllm" else "sglang:num_running_reqs", [running] * len(times))
        for metric, value, bounds, per in (
            ("inter_token_latency_seconds", each.itl_seconds, ITL_BUCKETS, each.output_tokens - 1),
            ("time_to_first_token_seconds", each.ttft_seconds, TTFT_BUCKETS, 1.0),
        ):
            for bound in bounds:
                # Even from half to one and a half times the value.
                share = min(max(bound / value - 0.5, 0.0), 1.0)
                text = "+Inf" if bound == float("inf") else repr(bound)
                add(f"{prefix}:{metric}_bucket", [n * per * share for n in done], le=text)
        if energy:
            for gpu in range(each.gpus):
                own = {"namespace": each.namespace, "pod": each.pod, "UUID": f"GPU-{number}-{gpu}", "job": "dcgm"}
                joules = [1e6 + each.watts_per_gpu * (time - START) for time in times]
                add("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", [1000.0 * j for j in joules], own)
                add("DCGM_FI_DEV_POWER_USAGE", [each.watts_per_gpu] * len(times), own)
    return {"status": "success", "data": {"resultType": "matrix", "result": series}}


def _done(each: Served, times: Sequence[float]) -> list[float]:
    """Return the requests that ended until each time."""
    parts = len(each.busy)
    whole = times[-1] - times[0]
    total, found, last = 0.0, [], times[0]
    for time in times:
        part = min(int((last - times[0]) / whole * parts), parts - 1)
        total += (time - last) * each.requests_per_second * each.busy[part]
        last = time
        found.append(total)
    return found
