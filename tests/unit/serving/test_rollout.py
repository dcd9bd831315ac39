"""Rollouts are run against a model of the Deployment controller, a scheduler and GPUs: none of them may hang."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode
from energylens.serving.rollout import Strategy, choose_strategy, free_replicas, strategy_of

OWNER = "team-a/chat"


@dataclass
class Pod:
    gpus: int
    node: int | None = None
    ready: bool = False


@dataclass
class Cluster:
    """Nodes with GPUs, and what the Deployment controller (pkg/controller/deployment/rolling.go) does with them."""

    free: list[int]
    desired: int
    strategy: Strategy
    new_gpus: int
    chance: random.Random
    old: list[Pod] = field(default_factory=list)
    new: list[Pod] = field(default_factory=list)

    def schedule(self) -> bool:
        placed = False
        pending = [pod for pod in (*self.old, *self.new) if pod.node is None]
        self.chance.shuffle(pending)
        for pod in pending:
            nodes = [i for i, free in enumerate(self.free) if free >= pod.gpus]
            if nodes:
                pod.node = self.chance.choice(nodes)
                self.free[pod.node] -= pod.gpus
                placed = True
        return placed

    def stop(self, pods: list[Pod], pod: Pod) -> None:
        pods.remove(pod)
        if pod.node is not None:
            self.free[pod.node] += pod.gpus

    def scale_old_to_desired(self, gpus: int) -> None:
        """When replicas and template change at once, the controller scales the old ReplicaSet first."""
        while len(self.old) > self.desired:
            self.stop(self.old, self.chance.choice(self.old))
        self.old += [Pod(gpus) for _ in range(self.desired - len(self.old))]
        self.schedule()

    def controller(self) -> bool:
        """One sync: scale the new ReplicaSet up, else the old one down; whether anything was done."""
        total = len(self.old) + len(self.new)
        up = min(self.desired + self.strategy.max_surge - total, self.desired - len(self.new))
        if up > 0:
            self.new += [Pod(self.new_gpus) for _ in range(up)]
            return True
        least = self.desired - self.strategy.max_unavailable
        unavailable_new = sum(not pod.ready for pod in self.new)
        down = total - least - unavailable_new
        if not self.old or down <= 0:
            return False
        unhealthy = [pod for pod in self.old if not pod.ready][:down]
        for pod in unhealthy:
            self.stop(self.old, pod)
        available = sum(pod.ready for pod in (*self.old, *self.new))
        stoppable = [pod for pod in self.old if pod.ready]
        self.chance.shuffle(stoppable)
        stopped = stoppable[: max(0, available - least)]
        for pod in stopped:
            self.stop(self.old, pod)
        return bool(unhealthy or stopped)

    def run(self) -> None:
        for _ in range(1000):
            acted = self.controller()
            acted |= self.schedule()
            starting = [pod for pod in self.new if pod.node is not None and not pod.ready]
            if starting:
                self.chance.choice(starting).ready = True
                acted = True
            if not acted:
                return
        raise AssertionError("the rollout neither ends nor hangs")


@pytest.mark.parametrize("wanted", ["Auto", "Recreate"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_rollout_always_ends(
    wanted: str,
    data: st.DataObject,
    make_deployment: Callable[..., LLMDeployment],
    make_plan: Callable[..., PlanStatus],
) -> None:
    chance = random.Random(data.draw(st.integers(0, 2**32)))
    sizes = data.draw(st.lists(st.sampled_from([2, 4, 8]), min_size=1, max_size=4))
    others = [data.draw(st.integers(0, size)) for size in sizes]
    old_gpus, new_gpus = (data.draw(st.sampled_from([1, 2, 4, 8]), label=label) for label in ("old", "new"))
    room = [size - other for size, other in zip(sizes, others, strict=True)]
    old_most, new_most = (sum(free // gpus for free in room) for gpus in (old_gpus, new_gpus))
    if not old_most or not new_most:
        return
    old_replicas, new_replicas = data.draw(st.integers(1, old_most)), data.draw(st.integers(1, new_most))

    deployment = make_deployment(rollout={"strategy": wanted})
    running = make_plan(tensor_parallel=old_gpus, replicas=old_replicas)
    new = make_plan(tensor_parallel=new_gpus, replicas=new_replicas, hash="fedcba9876543210")
    cluster = Cluster(room, old_replicas, Strategy("Surge", 1, 0), new_gpus, chance)
    cluster.old = [Pod(old_gpus) for _ in range(old_replicas)]
    cluster.schedule()
    held = [sum(pod.gpus for pod in cluster.old if pod.node == i) for i in range(len(sizes))]
    for pod in cluster.old:
        pod.ready = True
    snapshot = ClusterSnapshot(
        tuple(
            GpuNode(
                f"node-{i}",
                running.gpu_product,
                size,
                (GpuAllocation("", others[i]), GpuAllocation(OWNER, held[i])),
            )
            for i, size in enumerate(sizes)
        )
    )

    cluster.strategy = choose_strategy(deployment, running, new, snapshot)
    cluster.desired = new_replicas
    cluster.scale_old_to_desired(old_gpus)
    cluster.run()

    assert not cluster.old
    assert len(cluster.new) == new_replicas
    assert all(pod.ready for pod in cluster.new)


def snapshot_of(*nodes: tuple[str, int, int]) -> ClusterSnapshot:
    return ClusterSnapshot(
        tuple(
            GpuNode(f"node-{i}", product, size, (GpuAllocation(OWNER, used),))
            for i, (product, size, used) in enumerate(nodes)
        )
    )


H100, H200 = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200"


def test_surges_when_a_replica_fits_beside_the_running_ones(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus]
) -> None:
    plan = make_plan(tensor_parallel=2, replicas=3)
    strategy = choose_strategy(make_deployment(), plan, plan, snapshot_of((H100, 8, 6)))
    assert (strategy.name, strategy.max_surge, strategy.max_unavailable) == ("Surge", 1, 0)
    assert "GPUs for 1 new replicas are free" in strategy.message


def test_recreates_replica_by_replica_when_all_gpus_are_taken(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus]
) -> None:
    plan = make_plan(tensor_parallel=2, replicas=4)
    strategy = choose_strategy(make_deployment(), plan, plan, snapshot_of((H100, 8, 8)))
    assert (strategy.name, strategy.max_surge, strategy.max_unavailable) == ("Recreate", 0, 1)


def test_another_product_comes_up_whole_beside_the_running_one(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus]
) -> None:
    running = make_plan(tensor_parallel=4, replicas=2)
    new = make_plan(tensor_parallel=2, replicas=3, gpu_product=H200)
    strategy = choose_strategy(make_deployment(), running, new, snapshot_of((H100, 8, 8), (H200, 8, 0)))
    assert (strategy.name, strategy.max_surge) == ("Surge", 3)


def test_larger_pods_do_not_surge_into_a_single_place(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus]
) -> None:
    running = make_plan(tensor_parallel=2, replicas=4)
    new = make_plan(tensor_parallel=4, replicas=2)
    strategy = choose_strategy(make_deployment(), running, new, snapshot_of((H100, 8, 8), (H100, 4, 0)))
    assert (strategy.name, strategy.max_surge, strategy.max_unavailable) == ("Recreate", 0, 1)


def test_the_spec_may_insist_on_surge(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus]
) -> None:
    plan = make_plan(tensor_parallel=8)
    deployment = make_deployment(rollout={"strategy": "Surge"})
    assert choose_strategy(deployment, plan, plan, snapshot_of((H100, 8, 8))).name == "Surge"


def test_nodes_that_pods_cannot_use_count_as_full(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus]
) -> None:
    cordoned = GpuNode("a", H100, 8, schedulable=False)
    unlabelled = GpuNode("b", H100, 8)
    deployment = make_deployment(hardware={"nodeSelector": {"pool": "llm"}})
    assert free_replicas(deployment, make_plan(), ClusterSnapshot((cordoned, unlabelled))) == 0
    assert free_replicas(make_deployment(), make_plan(), ClusterSnapshot((cordoned, unlabelled))) == 8


def test_a_live_workload_tells_its_strategy() -> None:
    rolling = {"maxSurge": 0, "maxUnavailable": 2}
    deployment = {"kind": "Deployment", "spec": {"strategy": {"rollingUpdate": rolling}}}
    group = {"kind": "LeaderWorkerSet", "spec": {"rolloutStrategy": {"rollingUpdateConfiguration": rolling}}}
    for live in (deployment, group):
        strategy = strategy_of(live)
        assert (strategy.name, strategy.max_surge, strategy.max_unavailable) == ("Recreate", 0, 2)


@pytest.mark.parametrize(
    ("old", "new", "limits"),
    [
        ((4, 2), (2, 4), Strategy("Recreate", 0, 1)),
        ((4, 2), (2, 4), Strategy("Surge", 1, 0)),
    ],
)
def test_fixed_limits_do_hang(old: tuple[int, int], new: tuple[int, int], limits: Strategy) -> None:
    """The usual limits hang in this model: it can tell a rollout that ends from one that does not."""

    def hangs(seed: int) -> bool:
        cluster = Cluster([4, 4], new[1], limits, new[0], random.Random(seed))
        cluster.old = [Pod(old[0]) for _ in range(old[1])]
        cluster.schedule()
        for pod in cluster.old:
            pod.ready = True
        cluster.scale_old_to_desired(old[0])
        cluster.run()
        return bool(cluster.old) or sum(pod.ready for pod in cluster.new) < new[1]

    assert any(hangs(seed) for seed in range(20))
