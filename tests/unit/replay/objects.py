"""Plain Kubernetes objects as the API server returns them, no more than the replay reads."""

from __future__ import annotations

from typing import Any

from energylens_dev.replay.fleet import ClusterState

H100 = "NVIDIA-H100-80GB-HBM3"
MODEL = "meta-llama/Llama-3.1-70B-Instruct"


def node(name: str = "h100-0", product: str = H100, gpus: int = 8) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": product}},
        "status": {"allocatable": {"nvidia.com/gpu": str(gpus)}},
    }


def pod(
    name: str = "llama-0",
    *args: str,
    gpus: int = 4,
    node: str = "h100-0",
    ready: bool = True,
    deployment: str | None = "llama",
    created: str = "2026-01-01T00:00:00Z",
    command: tuple[str, ...] = ("vllm", "serve", MODEL),
    uid: str | None = None,
    phase: str = "Running",
) -> dict[str, Any]:
    arguments = args or (f"--tensor-parallel-size={gpus}", "--max-num-seqs", "128")
    return {
        "metadata": {
            "uid": uid or f"uid-{name}",
            "namespace": "team",
            "name": name,
            "creationTimestamp": created,
            "labels": {"energylens.dev/llmdeployment": deployment} if deployment else {},
        },
        "spec": {
            "nodeName": node,
            "containers": [
                {"name": "sidecar"},
                {
                    "name": "server",
                    "command": list(command),
                    "args": list(arguments),
                    "resources": {"limits": {"nvidia.com/gpu": gpus}, "requests": {"nvidia.com/gpu": gpus}},
                },
            ],
        },
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": "True" if ready else "False"}]},
    }


def deployment(name: str = "llama", **workload: Any) -> dict[str, Any]:
    shape = {"inputTokens": 300, "outputTokens": 800}
    return {
        "metadata": {"namespace": "team", "name": name},
        "spec": {"model": {"name": MODEL}, "workload": shape | workload},
    }


def cluster(*pods: dict[str, Any], deployments=None, nodes=None) -> ClusterState:
    return ClusterState(
        nodes=[node()] if nodes is None else nodes,
        pods=pods,
        deployments=[deployment(concurrency=128)] if deployments is None else deployments,
    )
