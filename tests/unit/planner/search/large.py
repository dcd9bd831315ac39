"""A cluster with more GPUs than one plan can be about."""

from __future__ import annotations

from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_llmdeployment
from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner.planning import problem_for
from energylens.planner.search.problem import Problem
from energylens.planner.types import ClusterSnapshot, GpuNode

MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B")
PRODUCTS = (("NVIDIA-H100-80GB-HBM3", 8), ("NVIDIA-L40S", 4))


def cluster(nodes: int) -> ClusterSnapshot:
    """Return so many nodes of each product."""
    found = (
        GpuNode(f"{product.lower()}-{index:03d}", product, gpus) for product, gpus in PRODUCTS for index in range(nodes)
    )
    return ClusterSnapshot(tuple(sorted(found, key=lambda node: node.name)))


def asked(name: str = "llama", model: str = MODELS[0], **parts: Any) -> LLMDeployment:
    """Return an LLMDeployment of a small load."""
    spec = {
        "model": {"name": model},
        "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "2"},
        "slo": {"itlMilliseconds": 50},
        **parts,
    }
    metadata = {"name": name, "namespace": "team", "uid": name}
    body = {"apiVersion": "energylens.dev/v1alpha1", "kind": "LLMDeployment", "metadata": metadata, "spec": spec}
    return parse_llmdeployment(body, strict=True)


def problem(model: str, nodes: int, **parts: Any) -> Problem:
    """Return what planning solves for such a deployment on so many nodes of each product."""
    deployment = asked(model=model, **parts)
    return problem_for(deployment, load_model(model), cluster(nodes), load_gpus(), load_predictor(), None, None)
