"""Serving: from a plan to Kubernetes manifests for a serving engine. Pure."""

from energylens.serving.errors import ServingError
from energylens.serving.gpus import Placement
from energylens.serving.objects import Roles, canary_manifests, check, manifests, prefill_workload
from energylens.serving.rollout import Strategy, choose_strategy, strategy_of
from energylens.serving.workload import canary_ref, workload_ref

__all__ = [
    "Placement",
    "Roles",
    "ServingError",
    "Strategy",
    "canary_manifests",
    "canary_ref",
    "check",
    "choose_strategy",
    "manifests",
    "prefill_workload",
    "strategy_of",
    "workload_ref",
]
