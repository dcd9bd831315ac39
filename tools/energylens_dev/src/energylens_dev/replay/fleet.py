"""The GPUs of a cluster with counters that advance; pods come, hold GPUs and go."""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from energylens.data import find_gpu
from energylens.measure.types import PodRef
from energylens_dev.replay.plans import PRODUCT_LABEL, Pod, gpu_pods, load_of, plan_of
from energylens_dev.replay.runs import NoRunError, ReplicaFigures, operating_point

# vLLM's buckets of inter-token latency, seconds (vllm/v1/metrics/loggers.py).
ITL_BOUNDS = (
    0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
)  # fmt: skip

# vLLM's buckets of request lengths up to a context of 131,072 tokens (build_1_2_5_buckets in the same file).
LENGTH_BOUNDS = tuple(
    float(first * 10**power) for power in range(6) for first in (1, 2, 5) if first * 10**power <= 131_072
)


@dataclass(frozen=True)
class ClusterState:
    """Plain Kubernetes objects."""

    nodes: Sequence[Mapping[str, Any]]
    pods: Sequence[Mapping[str, Any]]
    deployments: Sequence[Mapping[str, Any]]
    """LLMDeployments."""


@dataclass
class Gpu:
    """One GPU and what its counter says. Idle power is the data sheet's or a public reading (energylens.data)."""

    uuid: str
    node: str
    index: int
    product: str
    idle_watts: float
    limit_watts: float
    watts: float
    joules: float
    pod: Pod | None = None
    silent: bool = False
    """Its pod stands for no measured run, so nothing is said of it."""


@dataclass
class Engine:
    """One serving pod and what its counters say."""

    pod: Pod
    point: ReplicaFigures
    tokens: float = 0.0
    requests: float = 0.0
    """That ended."""
    itl_counts: list[float] = field(default_factory=lambda: [0.0] * (len(ITL_BOUNDS) + 1))
    """Cumulative, the infinite bucket last."""
    tpot_counts: list[float] = field(default_factory=lambda: [0.0] * (len(ITL_BOUNDS) + 1))
    """The same of requests that ended, by their time per output token: the run's mean, running over tokens/s."""


@dataclass
class Fleet:
    """All GPUs and engines. `update` takes in the cluster, `advance` lets time pass; times in seconds."""

    time: float
    origin: datetime = datetime(2026, 1, 5, tzinfo=UTC)
    """The date at time 0, which loads with a profile follow; a Monday, midnight, unless stated."""
    gpus: dict[tuple[str, int], Gpu] = field(default_factory=dict)
    engines: dict[PodRef, Engine] = field(default_factory=dict)
    missing: dict[PodRef, str] = field(default_factory=dict)
    """Why a serving pod has no metrics."""

    def advance(self, time: float) -> None:
        """Let counters run to ``time``; going back does nothing."""
        seconds = max(0.0, time - self.time)
        for gpu in self.gpus.values():
            gpu.joules += gpu.watts * seconds
        for engine in self.engines.values():
            tokens = engine.point.output_tokens_per_second * seconds
            engine.tokens += tokens
            ended = tokens / engine.point.output_tokens
            engine.requests += ended
            tpot = engine.point.concurrency / engine.point.output_tokens_per_second
            within = [tpot <= bound for bound in (*ITL_BOUNDS, float("inf"))]
            engine.tpot_counts = [n + ended * is_in for n, is_in in zip(engine.tpot_counts, within, strict=True)]
            shares = itl_shares(engine.point.itl_ms)
            engine.itl_counts = [count + tokens * share for count, share in zip(engine.itl_counts, shares, strict=True)]
        self.time = max(self.time, time)

    def update(self, state: ClusterState, time: float) -> None:
        """Let counters run to ``time``, then take in the cluster as it is; new pods count from zero."""
        self.advance(time)
        self._nodes(state.nodes)
        pods = gpu_pods(state.pods)
        self._assign(pods)
        deployments = {(d["metadata"]["namespace"], d["metadata"]["name"]): d for d in state.deployments}
        serving = [pod for pod in pods if pod.ready and pod.deployment is not None]
        replicas = Counter((pod.namespace, pod.deployment) for pod in serving)
        products = {gpu.node: gpu.product for gpu in self.gpus.values()}
        engines: dict[PodRef, Engine] = {}
        now = self.origin + timedelta(seconds=self.time)
        self.missing = {}
        for pod in serving:
            ref = PodRef(pod.namespace, pod.name)
            deployment = deployments.get((pod.namespace, pod.deployment or ""))
            try:
                plan = plan_of(pod, products[pod.node], deployment)
                point = operating_point(plan, load_of(deployment, replicas[(pod.namespace, pod.deployment)], now))
            except NoRunError as error:
                self.missing[ref] = str(error)
                continue
            known = self.engines.get(ref)
            engines[ref] = known if known is not None and known.pod.uid == pod.uid else Engine(pod, point)
            engines[ref].point = point
        self.engines = engines
        for gpu in self.gpus.values():
            holder = None if gpu.pod is None else PodRef(gpu.pod.namespace, gpu.pod.name)
            engine = None if holder is None else engines.get(holder)
            gpu.silent = holder in self.missing
            gpu.watts = gpu.idle_watts if engine is None else engine.point.power_watts / engine.pod.gpus

    def _nodes(self, nodes: Sequence[Mapping[str, Any]]) -> None:
        wanted: dict[tuple[str, int], str] = {}
        for node in nodes:
            product = node["metadata"].get("labels", {}).get(PRODUCT_LABEL)
            count = int(node.get("status", {}).get("allocatable", {}).get("nvidia.com/gpu", 0))
            wanted |= {(node["metadata"]["name"], index): product for index in range(count) if product}
        self.gpus = {key: self.gpus.get(key) or new_gpu(*key, product) for key, product in wanted.items()}

    def _assign(self, pods: Sequence[Pod]) -> None:
        """Keep every pod on its GPUs, and give new pods the lowest free ones of their node."""
        alive = {pod.uid: pod for pod in pods}
        for gpu in self.gpus.values():
            gpu.pod = alive.get(gpu.pod.uid) if gpu.pod else None
        held = Counter(gpu.pod.uid for gpu in self.gpus.values() if gpu.pod)
        for pod in pods:
            free = [gpu for gpu in self.gpus.values() if gpu.node == pod.node and gpu.pod is None]
            free.sort(key=lambda gpu: gpu.index)
            for gpu in free[: max(0, pod.gpus - held[pod.uid])]:
                gpu.pod = pod


def new_gpu(node: str, index: int, product: str) -> Gpu:
    """Return an idle GPU whose UUID and first counter value follow from its place alone."""
    spec = find_gpu(product)
    identity = uuid.uuid5(uuid.NAMESPACE_DNS, f"{index}.{node}.replay.energylens.dev")
    start = int.from_bytes(hashlib.sha256(identity.bytes).digest()[:4], "big")
    return Gpu(
        uuid=f"GPU-{identity}",
        node=node,
        index=index,
        product=product,
        idle_watts=spec.idle_watts,
        limit_watts=spec.power_limit_watts,
        watts=spec.idle_watts,
        joules=1e7 + start % 1_000_000_000,
    )


def itl_shares(itl_ms: tuple[float, float, float, float]) -> list[float]:
    """Return the share of inter-token latencies at or below each bucket's bound, the infinite one last.

    The runs keep the median, P90, P95 and P99. Between them the distribution is taken as even, below the median as
    wide as between median and P90 (but above half the median), beyond P99 as wide as between P95 and P99.
    """
    median, p90, p95, p99 = (value / 1000 for value in itl_ms)
    low = max(median / 2, median - max(p90 - median, 1e-6))
    values = np.maximum.accumulate([low, median, p90, p95, p99, p99 + max(p99 - p95, 1e-6)])
    values += np.arange(6) * 1e-9
    shares = np.interp(ITL_BOUNDS, values, [0.0, 0.5, 0.9, 0.95, 0.99, 1.0])
    return [*shares.tolist(), 1.0]
