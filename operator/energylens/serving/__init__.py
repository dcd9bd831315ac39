"""Plan in, Kubernetes manifests for a serving engine out. Pure."""

from energylens.serving.errors import ServingError
from energylens.serving.objects import check, manifests
from energylens.serving.rollout import Strategy, choose_strategy, strategy_of
from energylens.serving.workload import workload_ref

__all__ = ["ServingError", "Strategy", "check", "choose_strategy", "manifests", "strategy_of", "workload_ref"]
