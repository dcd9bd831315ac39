"""The running plan with fewer replicas: the same pods, as many as the power allows, never below the floor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.planner.conftest import H100, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, PrefillReplicas, ReplicaPower
from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner import plan
from energylens.planner.shedding import MOST_COUNTS, Running, counts_of, is_priced, replica_powers, with_fewer_replicas
from energylens.planner.types import ClusterSnapshot, Feasible, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

Fewer = Callable[[float], PlanStatus | None]


@pytest.fixture
def running(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    predictor: ArithmeticPredictor,
) -> Callable[..., tuple[PlanStatus, Fewer]]:
    """Return a running plan of four replicas on a full node, and what is left of it under an allowance."""

    def build(**energy: Any) -> tuple[PlanStatus, Fewer]:
        asked = make_deployment(
            "meta-llama/Llama-3.1-8B-Instruct",
            energy=energy,
            planning={"overrides": {"tensorParallel": 2, "replicas": 4, "maxBatchSize": 64}},
            hardware={"gpuProducts": [H100]},
        )
        known = {**gpus, "NVIDIA-A-Product": replace(gpus[H100], product="NVIDIA-A-Product")}
        pools = (("NVIDIA-A-Product", 8, 1), (H100, 8, 1), (L40S, 8, 1))
        snapshot = make_snapshot(*pools, used=8, owner="team-a/chat")
        found = plan(asked, models["8b"], snapshot, known, predictor)
        assert isinstance(found, Feasible)

        def fewer(watts: float) -> PlanStatus | None:
            allowed = PowerAllowance(watts, "EnergyBudget team-a/cap", sheds=True)
            return with_fewer_replicas(Running(asked, models["8b"], found.plan, snapshot, known, predictor), allowed)

        return found.plan, fewer

    return build


def test_as_many_replicas_stay_as_the_power_allows(running: Callable[..., tuple[PlanStatus, Fewer]]) -> None:
    whole, fewer = running()
    one = fewer(1.0)
    assert one is not None
    two = fewer(one.predicted.power_watts * 2.5)
    assert two is not None
    assert (one.replicas, two.replicas) == (1, 2)
    assert two.predicted.power_watts < whole.predicted.power_watts
    assert two.gpu_product == H100
    assert (two.gpus, two.layout, two.max_batch_size) == (4, whole.layout, whole.max_batch_size)


def test_the_pods_stay_what_they_are(running: Callable[..., tuple[PlanStatus, Fewer]]) -> None:
    whole, fewer = running()
    found = fewer(1.0)
    assert found is not None
    assert found.hash == whole.hash
    assert found.shed_by == found.binding_constraint == "EnergyBudget team-a/cap"
    assert found.lowest_power_watts == whole.lowest_power_watts


def test_a_plan_that_is_shed_again_is_still_shed_from_the_whole(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    predictor: ArithmeticPredictor,
) -> None:
    overrides = {"tensorParallel": 2, "replicas": 4, "maxBatchSize": 64}
    asked = make_deployment("meta-llama/Llama-3.1-8B-Instruct", planning={"overrides": overrides})
    snapshot = make_snapshot((H100, 8, 1), used=8, owner="team-a/chat")
    whole = plan(asked, models["8b"], snapshot, gpus, predictor)
    assert isinstance(whole, Feasible)
    sheds = PowerAllowance(1.0, "EnergyBudget team-a/cap", sheds=True)
    shed = whole.plan.model_copy(update={"replicas": 3, "shed_from_replicas": 4, "shed_from_power_watts": 9000})
    for running, power in ((whole.plan, whole.plan.predicted.power_watts), (shed, 9000)):
        found = with_fewer_replicas(Running(asked, models["8b"], running, snapshot, gpus, predictor), sheds)
        assert found is not None
        assert (found.replicas, found.shed_from_replicas, found.shed_from_power_watts) == (1, 4, power)


def test_never_below_the_floor(running: Callable[..., tuple[PlanStatus, Fewer]]) -> None:
    _, fewer = running(minReplicas=3)
    found = fewer(1.0)
    assert found is not None
    assert found.replicas == 3
    _, fewer = running(minReplicas=4)
    assert fewer(1.0) is None


def test_replicas_whose_kv_cache_holds_less_than_a_batch_are_as_busy_as_it_allows(
    make_deployment: Callable[..., LLMDeployment], make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    predictor, model, gpus = load_predictor("vllm"), load_model("Qwen/Qwen3-8B"), load_gpus()
    asked = make_deployment(
        "Qwen/Qwen3-8B",
        workload={"inputTokens": 4000, "outputTokens": 1000, "concurrency": 180},
        slo={},
        planning={"overrides": {"tensorParallel": 1, "replicas": 4, "maxBatchSize": 256}},
        hardware={"gpuProducts": [H100]},
    )
    snapshot = make_snapshot((H100, 8, 1))
    whole = plan(asked, model, snapshot, gpus, predictor)
    assert isinstance(whole, Feasible)
    sheds = PowerAllowance(1.0, "EnergyBudget team-a/cap", sheds=True)
    running = Running(asked, model, whole.plan, snapshot, gpus, predictor)
    found = with_fewer_replicas(running, sheds)
    assert found is not None
    assert found.replicas == 1
    # What fits into one replica's cache is more than a quarter of the load and less than its batch.
    assert 45 < found.predicted.concurrency < 180
    assert found.predicted.power_watts < whole.plan.predicted.power_watts


@pytest.mark.parametrize(
    "workload",
    [
        {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 4},
        {"inputTokens": 512, "outputTokens": 512, "requestsPerSecond": 50},
        {"inputTokens": 4000, "outputTokens": 1000, "concurrency": 180},
    ],
    ids=["some load", "more than fewer carry", "concurrency"],
)
def test_the_powers_of_a_plan_are_those_that_shedding_comes_to(
    workload: dict[str, Any],
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
) -> None:
    asked = make_deployment(
        "Qwen/Qwen3-8B",
        workload=workload,
        slo={},
        planning={"overrides": {"tensorParallel": 1, "replicas": 6, "maxBatchSize": 64}},
        hardware={"gpuProducts": [H100]},
    )
    predictor, model, gpus = load_predictor("vllm"), load_model("Qwen/Qwen3-8B"), load_gpus()
    snapshot = make_snapshot((H100, 8, 1))
    whole = plan(asked, model, snapshot, gpus, predictor)
    assert isinstance(whole, Feasible)
    running = Running(asked, model, whole.plan, snapshot, gpus, predictor)
    found = replica_powers(running)
    assert [each.replicas for each in found] == [5, 4, 3, 2, 1]
    for each in found:
        one = running.at(each.replicas)
        assert one is not None
        assert one.predicted.power_watts == pytest.approx(each.power_watts, abs=1)
        # Told to draw as much as that, so many replicas stay.
        allowed = PowerAllowance(float(each.power_watts), "EnergyBudget team-a/cap", sheds=True)
        left = with_fewer_replicas(running, allowed)
        assert left is not None
        assert left.replicas == each.replicas


def test_of_many_replicas_some_numbers_are_priced_the_fewest_among_them() -> None:
    assert counts_of(4, 1) == (3, 2, 1)
    assert counts_of(4, 4) == counts_of(3, 4) == ()
    many = counts_of(1000, 7)
    assert (len(many), many[0], many[-1]) == (MOST_COUNTS, 999, 7)


@pytest.mark.parametrize(("batch", "data", "requests"), [(64, 1, 2 * 64), (1024, 1, 2 * 799), (16, 2, 2 * 32)])
def test_saturated_replicas_have_as_many_requests_as_batch_and_cache_hold(
    batch: int,
    data: int,
    requests: int,
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    predictor: ArithmeticPredictor,
) -> None:
    """Beside the weights of 8B, 55.9 GB hold 799 requests of 700 tokens of 0.1 MB."""
    shape, name = ("8b", "meta-llama/Llama-3.1-8B-Instruct") if data == 1 else ("moe", "Qwen/Qwen3-30B-A3B")
    overrides = {"tensorParallel": 1, "dataParallel": data, "replicas": 2, "maxBatchSize": batch}
    asked = make_deployment(name, planning={"overrides": overrides})
    snapshot = make_snapshot((H100, 8, 1))
    whole = plan(asked, models[shape], snapshot, gpus, predictor)
    assert isinstance(whole, Feasible)
    running = Running(asked, models[shape], whole.plan, snapshot, gpus, predictor)
    pinned = running.pinned(2)
    assert pinned is not None
    problem, solution, rows = running.solved(pinned)
    load = running.saturated(pinned, problem, solution, rows[0]).spec.workload
    assert (load.concurrency, load.requests_per_second) == (requests, None)


def test_a_plan_is_priced_if_it_lists_every_number_of_replicas(
    running: Callable[..., tuple[PlanStatus, Fewer]],
) -> None:
    whole, _ = running()

    def listed(*counts: int, **more: Any) -> PlanStatus:
        powers = tuple(ReplicaPower(replicas=count, power_watts=100 * count) for count in counts)
        return whole.model_copy(update={"fewer_replicas": powers} | more)

    assert is_priced(listed(3, 2, 1), 1)
    assert is_priced(listed(3, 2), 2)
    assert not is_priced(listed(3, 2), 1)
    assert not is_priced(listed(3, 2, 1), 2)
    assert is_priced(listed(), 4)
    # Without the replicas of one role, those of the other carry no load.
    apart = PrefillReplicas(
        **{name: getattr(whole, name) for name in PrefillReplicas.model_fields if hasattr(whole, name)}
    )
    assert is_priced(listed(prefill=apart), 1)
    assert not is_priced(listed(3, 2, 1, prefill=apart), 1)
