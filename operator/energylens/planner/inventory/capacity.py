"""How many replicas fit on nodes when the Kubernetes scheduler places their pods."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from energylens.api.llmdeployment import Toleration
from energylens.api.selectors import carries
from energylens.planner.types import GpuNode, Taint
from energylens.predictor.types import IntArray

GPU_TAINT = "nvidia.com/gpu"
"""Taint that GPU nodes usually have."""

GPU_TOLERATION = Toleration(key=GPU_TAINT, operator="Exists")
"""The first toleration of every pod that the operator creates: it tolerates any value and, without an effect, every
effect."""

BLOCKING_EFFECTS = ("NoSchedule", "NoExecute")
"""Effects of taints that keep pods off a node."""


def tolerates(toleration: Toleration, taint: Taint) -> bool:
    """Return whether one toleration matches one taint, by the rules of the Kubernetes scheduler."""
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if not toleration.key:
        return toleration.operator == "Exists"
    if toleration.key != taint.key:
        return False
    return toleration.operator == "Exists" or (toleration.value or "") == taint.value


def tolerates_for_good(tolerations: Iterable[Toleration], taint: Taint) -> bool:
    """Return whether a pod with these tolerations may run on a node with a taint and stay there.

    The first toleration that matches decides how long a pod tolerates a NoExecute taint (``GetMatchingTolerations`` of
    Kubernetes' taint eviction controller): with ``tolerationSeconds`` it is evicted after that time.
    """
    first = next((toleration for toleration in tolerations if tolerates(toleration, taint)), None)
    if first is None:
        return False
    return taint.effect != "NoExecute" or first.toleration_seconds is None


def eligible(node: GpuNode, node_selector: Mapping[str, str], tolerations: Iterable[Toleration]) -> bool:
    """Return whether pods may run on a node: labels match, and every blocking taint is tolerated without a time limit.

    Whether the node is ready or cordoned is ignored: these states are temporary, and a plan should not change with
    them.
    """
    if not carries(node.labels, node_selector):
        return False
    accepted = (GPU_TOLERATION, *tolerations)
    return all(tolerates_for_good(accepted, taint) for taint in node.taints if taint.effect in BLOCKING_EFFECTS)


def pods_beside(gpus_on_nodes: Sequence[int], gpus_per_pod: int, gpus_per_other: int) -> IntArray:
    """Return how many pods of another size fit beside 0, 1, 2, ... pods of one size, up to the most that fit.

    The counts are those of the best placement: a (max, +) convolution over the nodes of the pods that each node leaves
    room for.
    """
    most = np.zeros(1, dtype=np.int64)
    for free in gpus_on_nodes:
        here = (free - gpus_per_pod * np.arange(free // gpus_per_pod + 1)) // gpus_per_other
        together = np.zeros(most.size + here.size - 1, dtype=np.int64)
        for count, others in enumerate(here.tolist()):
            window = together[count : count + most.size]
            np.maximum(window, most + others, out=window)
        most = together
    return most


def replicas_that_fit(gpus_on_nodes: Sequence[int], gpus_per_pod: IntArray, pods_per_replica: IntArray) -> IntArray:
    """Return how many replicas fit, shape (n,), given the GPUs available on each node.

    A replica is ``pods_per_replica`` pods of ``gpus_per_pod`` GPUs each. All pods of one layout are equal, so the
    scheduler uses every slot in whatever order it places them: the sum of whole pods per node is exact, not a bound.

    Args:
        gpus_on_nodes: GPUs available on each node.
        gpus_per_pod: GPUs of one pod, shape (n,), at least 1.
        pods_per_replica: Pods of one replica, shape (n,), at least 1.
    """
    sizes, counts = np.unique(np.asarray(gpus_on_nodes, dtype=np.int64), return_counts=True)
    slots = (counts * (sizes // gpus_per_pod[:, None])).sum(axis=1)
    result: IntArray = slots // pods_per_replica
    return result
