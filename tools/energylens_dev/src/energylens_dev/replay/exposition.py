"""Writing the counters the way that dcgm-exporter and vLLM do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from energylens_dev.replay.fleet import ITL_BOUNDS, LENGTH_BOUNDS, Engine, Fleet

Generation = Literal["old", "new"]
LabelStyle = Literal["plain", "exported", "pod-name"]


@dataclass(frozen=True)
class Row:
    """One GPU as an exporter reports it."""

    uuid: str
    labels: dict[str, str]
    """Device labels."""
    joules: float
    watts: float
    limit_watts: float
    pod: dict[str, str] = field(default_factory=dict)
    """``namespace``, ``pod`` and ``container``; empty when no pod holds the GPU."""


# generation -> name and unit factor of energy, power, power limit
NAMES: dict[Generation, tuple[tuple[str, str, float], ...]] = {
    "old": (
        ("DCGM_FI_DEV_POWER_USAGE", "gauge", 1.0),
        ("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter", 1000.0),
        ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "gauge", 1.0),
    ),
    "new": (
        ("DCGM_FI_DEV_BOARD_POWER_WATTS", "gauge", 1.0),
        ("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", "counter", 1.0),
        ("DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS", "gauge", 1.0),
    ),
}
_OWN = {"namespace": "monitoring", "pod": "dcgm-exporter-replay", "container": "exporter"}
_OLD_LABELS = {"namespace": "pod_namespace", "pod": "pod_name", "container": "container_name"}


def rows(fleet: Fleet) -> list[Row]:
    """Return what an exporter on every node would collect now; GPUs of pods without a measured run are left out."""
    return [
        Row(
            uuid=gpu.uuid,
            labels={
                "gpu": str(gpu.index),
                "device": f"nvidia{gpu.index}",
                "modelName": gpu.product.replace("-", " "),
                "node": gpu.node,
            },
            joules=gpu.joules,
            watts=gpu.watts,
            limit_watts=gpu.limit_watts,
            pod={} if gpu.pod is None else {"namespace": gpu.pod.namespace, "pod": gpu.pod.name, "container": "server"},
        )
        for gpu in fleet.gpus.values()
        if not gpu.silent
    ]


def dcgm(table: Iterable[Row], *, generation: Generation = "new", labels: LabelStyle = "plain") -> str:
    """Return dcgm-exporter's text: old names count millijoules, new ones joules."""
    table = list(table)
    lines = []
    for (name, kind, factor), quantity in zip(NAMES[generation], ("watts", "joules", "limit_watts"), strict=True):
        lines.append(f"# TYPE {name} {kind}")
        lines += [f"{name}{_labels(row, generation, labels)} {getattr(row, quantity) * factor:.3f}" for row in table]
    return "\n".join(lines) + "\n"


def _labels(row: Row, generation: Generation, style: LabelStyle) -> str:
    device = {key: value for key, value in row.labels.items() if key != "node"}
    host = "hostname" if generation == "new" else "Hostname"
    pod = row.pod
    if style == "exported":
        pod = {f"exported_{key}": value for key, value in row.pod.items()} | _OWN
    elif style == "pod-name":
        pod = {_OLD_LABELS[key]: value for key, value in row.pod.items()}
    uuid_label = "uuid" if style == "pod-name" else "UUID"
    text = {uuid_label: row.uuid, **device, host: row.labels["node"], **pod}
    return "{" + ",".join(f'{key}="{value}"' for key, value in text.items()) + "}"


def vllm(engine: Engine) -> str:
    """Return vLLM's text. The runs hold no time to first token, so none is served.

    All requests have the mean lengths of the run; that of prompts is an assumption of the source.
    """
    point = engine.point
    labels = f'engine="0",model_name="{point.model_id}"'
    itl = "vllm:inter_token_latency_seconds"
    tpot = "vllm:request_time_per_output_token_seconds"
    bounds = [*map(str, ITL_BOUNDS), "+Inf"]
    lines = [
        f"# replays {' and '.join(point.run_ids)} ({point.model_id}, {point.task}) at distance {point.distance:.2f}"
        + (f", the load is {point.clamped} what was measured" if point.clamped else ""),
        "# TYPE vllm:num_requests_running gauge",
        f"vllm:num_requests_running{{{labels}}} {point.concurrency:.3f}",
        "# TYPE vllm:num_requests_waiting gauge",
        f"vllm:num_requests_waiting{{{labels}}} 0",
        "# TYPE vllm:request_success_total counter",
        f'vllm:request_success_total{{{labels},finished_reason="stop"}} {engine.requests:.3f}',
        "# TYPE vllm:generation_tokens_total counter",
        f"vllm:generation_tokens_total{{{labels}}} {engine.tokens:.3f}",
        f"# TYPE {itl} histogram",
        *(f'{itl}_bucket{{{labels},le="{le}"}} {n:.3f}' for le, n in zip(bounds, engine.itl_counts, strict=True)),
        f"{itl}_count{{{labels}}} {engine.tokens:.3f}",
        f"# TYPE {tpot} histogram",
        *(f'{tpot}_bucket{{{labels},le="{le}"}} {n:.3f}' for le, n in zip(bounds, engine.tpot_counts, strict=True)),
        f"{tpot}_count{{{labels}}} {engine.requests:.3f}",
        "# TYPE vllm:prompt_tokens_total counter",
        f"vllm:prompt_tokens_total{{{labels}}} {engine.requests * point.input_tokens:.3f}",
        *_lengths("vllm:request_prompt_tokens", labels, engine.requests, point.input_tokens),
        *_lengths("vllm:request_generation_tokens", labels, engine.requests, point.output_tokens),
    ]
    return "\n".join(lines) + "\n"


def _lengths(name: str, labels: str, requests: float, tokens: float) -> list[str]:
    """Return a histogram of requests of one length."""
    bounds = [(str(bound), bound) for bound in LENGTH_BOUNDS] + [("+Inf", float("inf"))]
    return [
        f"# TYPE {name} histogram",
        *(f'{name}_bucket{{{labels},le="{le}"}} {requests * (tokens <= bound):.3f}' for le, bound in bounds),
        f"{name}_sum{{{labels}}} {requests * tokens:.3f}",
        f"{name}_count{{{labels}}} {requests:.3f}",
    ]
