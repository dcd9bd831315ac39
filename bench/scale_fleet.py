"""The fleet of scale.py: many LLMDeployments of few distinct specs, their budgets and the nodes beneath them. Pure."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from energylens_dev.devcluster import NodePool
from energylens_dev.devcluster.nodes import NODE_LABEL, node_manifests

Object = dict[str, Any]
API = "energylens.dev/v1alpha1"
PREFIX = "bench-"
PER_NAMESPACE = 100
"""LLMDeployments of one namespace, which has one EnergyBudget."""
PER_NODE = 5
POOLS = (
    ("NVIDIA-H100-80GB-HBM3", 8),
    ("NVIDIA-H200", 8),
    ("NVIDIA-B200", 8),
    ("NVIDIA-A100-SXM4-80GB", 8),
    ("NVIDIA-L40S", 4),
)
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-14B",
    "google/gemma-3-27b-it",
    "Qwen/Qwen3-30B-A3B",
)
RATES = ("200m", "500m", "1", "2")
TOKENS = ((256, 128), (512, 256), (1024, 256), (2048, 512), (512, 512))
ITL_MILLISECONDS = (50, 100)


PER_NODE_BESIDES = 2
"""Objects for one node among those that are made beside the fleet: their plans must not lack GPUs."""


def pools(objects: int, besides: int = 0) -> tuple[NodePool, ...]:
    """Return one node for every five objects, of five GPU products, and more for objects beside them."""
    nodes = max(len(POOLS), objects // PER_NODE) + besides // PER_NODE_BESIDES
    return tuple(
        NodePool(product, nodes // len(POOLS) + (index < nodes % len(POOLS)), gpus)
        for index, (product, gpus) in enumerate(POOLS)
    )


def few(every: tuple[NodePool, ...]) -> tuple[NodePool, ...]:
    """Return one node of each pool, which the development control plane creates and waits for one by one."""
    return tuple(replace(pool, count=1) for pool in every)


def more_nodes(every: tuple[NodePool, ...]) -> Iterator[Object]:
    """Yield the other nodes of these pools, without the label by which the control plane would remove them again."""
    known = {node["metadata"]["name"] for node in node_manifests(few(every))}
    for node in node_manifests(every):
        if node["metadata"]["name"] not in known:
            labels = {name: value for name, value in node["metadata"]["labels"].items() if name != NODE_LABEL}
            yield {**node, "metadata": {**node["metadata"], "labels": labels}}


def specs(distinct: int) -> list[Object]:
    """Return as many distinct specs, at most 200; nothing is measured of them, so that no write is about a window."""
    every = itertools.product(TOKENS, RATES, ITL_MILLISECONDS, MODELS)
    return [
        {
            "model": {"name": model},
            "workload": {"inputTokens": prompt, "outputTokens": answer, "requestsPerSecond": rate},
            "slo": {"itlMilliseconds": itl},
            "validation": {"source": "None"},
        }
        for (prompt, answer), rate, itl, model in itertools.islice(every, distinct)
    ]


def namespaces(objects: int) -> list[str]:
    """Return the names of the namespaces of a fleet."""
    return [f"{PREFIX}{index:03d}" for index in range(-(-objects // PER_NAMESPACE))]


def deployment(name: str, namespace: str, spec: Object) -> Object:
    """Return an LLMDeployment."""
    return {
        "apiVersion": API,
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def fleet(objects: int, distinct: int) -> Iterator[Object]:
    """Yield the LLMDeployments, namespace by namespace."""
    choices = specs(distinct)
    for index in range(objects):
        namespace = f"{PREFIX}{index // PER_NAMESPACE:03d}"
        yield deployment(f"llm-{index:05d}", namespace, choices[index % len(choices)])


def budgets(objects: int) -> list[Object]:
    """Return one EnergyBudget for each namespace and a ClusterEnergyBudget, none of which is ever short."""
    found: list[Object] = [
        {
            "apiVersion": API,
            "kind": "EnergyBudget",
            "metadata": {"name": "team", "namespace": name},
            "spec": {"powerWatts": 200_000, "energyWattHours": 4_800_000, "period": "Day", "action": "Deny"},
        }
        for name in namespaces(objects)
    ]
    cluster: Object = {
        "apiVersion": API,
        "kind": "ClusterEnergyBudget",
        "metadata": {"name": "bench"},
        "spec": {"powerWatts": 2_000 * max(objects, 100), "action": "Deny"},
    }
    return [*found, cluster]


def plain_deployment(name: str, namespace: str) -> Object:
    """Return a Deployment of Kubernetes itself, without a pod: its controller makes the ReplicaSet of it."""
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "registry.k8s.io/pause"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": pod},
    }
