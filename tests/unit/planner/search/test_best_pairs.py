"""The best pair of prefill and decode replicas by each objective, within each limit."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, L40S, ArithmeticPredictor, dense
from tests.unit.planner.explain.test_pairs import unpredicted

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, PrefillReplicas, ReplicaLayout
from energylens.planner.planning import problem_for
from energylens.planner.search.disaggregation import SERVED, Disaggregated, Pair, Pairing, best_pairs
from energylens.planner.search.placement import layout_at
from energylens.planner.types import ClusterSnapshot, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

OBJECTIVES = ("MinimizeEnergy", "MinimizePower", "MinimizeGPUs")
Pairs = Callable[..., Disaggregated | None]


@pytest.fixture(scope="module")
def pairs(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    gpus: dict[str, GpuSpec],
    models: Mapping[str, ModelSpec],
    predictor: ArithmeticPredictor,
) -> Pairs:
    """Return a function that finds the best pairs of a small model on one node of each product."""

    def build(
        objective: str = "MinimizeEnergy",
        watts: float | None = None,
        pools: Any = ((H100, 4, 1),),
        pairing: Pairing | None = None,
        idle: Mapping[str, float] | None = None,
        model: ModelSpec | None = None,
        used: int = 0,
        **parts: Any,
    ) -> Disaggregated | None:
        asked = make_deployment(
            **{
                "workload": {"inputTokens": 600, "outputTokens": 200, "requestsPerSecond": "3"},
                "energy": {"objective": objective},
                "planning": {"overrides": {"maxBatchSize": 16}},
                "slo": {"ttftMilliseconds": 100, "itlMilliseconds": 20},
            }
            | parts
        )
        allowance = None if watts is None else PowerAllowance(watts, "EnergyBudget team-a/cap")
        snapshot = make_snapshot(*pools, used=used)
        known = gpus | {name: replace(gpus[name], loaded_idle_watts=watts) for name, watts in (idle or {}).items()}
        problem = problem_for(asked, model or models["8b"], snapshot, known, predictor, allowance, None)
        return best_pairs(problem) if pairing is None else best_pairs(problem, pairing)

    return build


def feasible(found: Disaggregated | None) -> Disaggregated:
    assert found is not None
    assert found.is_feasible, found.pairs[0][1]
    return found


def sizes(found: Disaggregated) -> tuple[int, int]:
    """Return the tensor-parallel sizes of prefill and decode of the best pair."""
    prefill, decode = found.prefill.layouts.tensor_parallel, found.decode.layouts.tensor_parallel
    return int(prefill[found.best.prefill]), int(decode[found.best.decode])


def test_the_figures_of_a_pair_are_sums_with_prompts_shared_by_their_tokens(pairs: Pairs) -> None:
    found = feasible(pairs())
    (first, i), (second, j) = (found.prefill, found.best.prefill), (found.decode, found.best.decode)
    pair = found.best
    assert pair.joules_per_output_token == pytest.approx(
        float(first.joules_per_output_token[i] / 200 + second.joules_per_output_token[j])
    )
    assert pair.joules_upper == pytest.approx(float(first.joules_upper[i] / 200 + second.joules_upper[j]))
    assert pair.power_watts == pytest.approx(float(first.power_watts[i] + second.power_watts[j]))
    assert pair.gpus == int(first.gpus[i] + second.gpus[j]) == 2
    assert pair.ttft_ms == pytest.approx(float(first.ttft_ms[i] + second.ttft_ms[j]))
    assert pair.ttft_upper_ms == pytest.approx(float(first.ttft_upper_ms[i] + second.ttft_upper_ms[j]))
    assert pair.end_to_end_ms == pytest.approx(float(first.ttft_ms[i] + second.end_to_end_ms[j]))
    assert pair.end_to_end_upper_ms == pytest.approx(float(first.ttft_upper_ms[i] + second.end_to_end_upper_ms[j]))


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("ttftMilliseconds", "TTFT"),
        ("itlMilliseconds", "ITL"),
        ("tpotMilliseconds", "TPOT"),
        ("endToEndMilliseconds", "E2E"),
    ],
)
def test_a_latency_may_be_exactly_its_objective(field: str, name: str, pairs: Pairs) -> None:
    two = {"hardware": {"maxGPUs": 2}}
    found = feasible(pairs(**two))
    decode, j = found.decode, found.best.decode
    upper = {
        "TTFT": found.best.ttft_upper_ms,
        "ITL": float(decode.itl_upper_ms[j]),
        "TPOT": float(decode.tpot_upper_ms[j]),
        "E2E": found.best.end_to_end_upper_ms,
    }[name]
    limit = math.ceil(upper)
    # Without the limit on GPUs, dearer pairs are faster.
    assert feasible(pairs(slo={field: limit})).best == found.best
    broken = pairs(slo={field: limit - 1}, **two)
    assert broken is not None
    assert not broken.is_feasible
    ((_, (said,)),) = broken.pairs
    assert said.startswith(f"{name} P95 ")
    assert said.endswith(f"with the safety margin {limit} ms > {limit - 1} ms")


def test_energy_with_its_margin_may_be_exactly_its_objective(pairs: Pairs) -> None:
    upper = math.ceil(1000 * feasible(pairs()).best.joules_upper)
    assert feasible(pairs(slo={"joulesPerOutputToken": f"{upper}m"})).best == feasible(pairs()).best
    broken = pairs(slo={"joulesPerOutputToken": f"{upper - 1}m"})
    assert broken is not None
    ((_, (said,)),) = broken.pairs
    assert said.endswith(f"with the safety margin 0.{upper} J > 0.{upper - 1} J per output token")


def test_power_may_be_exactly_what_a_budget_leaves(pairs: Pairs) -> None:
    watts = feasible(pairs()).best.power_watts
    assert feasible(pairs(watts=watts)).best.power_watts == watts
    broken = pairs(watts=watts - 1.0)
    assert broken is not None
    ((_, said),) = broken.pairs
    assert said == (f"{math.ceil(watts)} W > {watts - 1.0:.0f} W (EnergyBudget team-a/cap)",)


def test_hardware_limits_hold_for_both_roles_together_and_for_each_replica(pairs: Pairs) -> None:
    fast = {"slo": {"itlMilliseconds": 8}}
    assert sizes(feasible(pairs(**fast))) == (1, 2)
    assert feasible(pairs(**fast, hardware={"maxGPUs": 3})).best.gpus == 3
    assert not _holds(pairs(**fast, hardware={"maxGPUs": 2}))
    assert sizes(feasible(pairs(**fast, hardware={"maxGPUsPerReplica": 2}))) == (1, 2)
    assert not _holds(pairs(**fast, hardware={"maxGPUsPerReplica": 1}))
    assert feasible(pairs(hardware={"maxGPUs": 2})).best.gpus == 2
    assert pairs(hardware={"maxGPUs": 1}) is None


def _holds(found: Disaggregated | None) -> bool:
    return found is not None and found.is_feasible


def test_of_pairs_with_as_few_gpus_the_one_of_least_energy_is_best(pairs: Pairs) -> None:
    # Lower power caps use less energy here.
    fewest, least = (
        feasible(pairs(energy={"objective": each, "powerCap": {"mode": "Plan"}}))
        for each in ("MinimizeGPUs", "MinimizeEnergy")
    )
    assert fewest.best.joules_per_output_token == least.best.joules_per_output_token
    assert fewest.best.joules_per_output_token < 0.99 * feasible(pairs()).best.joules_per_output_token


@pytest.mark.parametrize(("prompt", "ttft", "itl"), [(600, 50, 10), (3000, 60, 20)])
def test_pairs_with_as_few_gpus_share_them_so_that_energy_is_least(
    prompt: int, ttft: int, itl: int, pairs: Pairs
) -> None:
    asked: dict[str, Any] = {
        "workload": {"inputTokens": prompt, "outputTokens": 200, "requestsPerSecond": "1"},
        "slo": {"ttftMilliseconds": ttft, "itlMilliseconds": itl},
        "pools": ((H100, 8, 1),),
    }
    fewest = feasible(pairs("MinimizeGPUs", **asked))
    gpus = fewest.best.gpus
    assert gpus > 2
    least = feasible(pairs("MinimizeEnergy", hardware={"maxGPUs": gpus}, **asked))
    assert fewest.best.joules_per_output_token == least.best.joules_per_output_token
    assert not _holds(pairs("MinimizeGPUs", hardware={"maxGPUs": gpus - 1}, **asked))


def test_a_faster_prefill_with_little_more_energy_is_not_dominated(pairs: Pairs) -> None:
    """Four GPUs for the prompts let slower decode replicas meet the TTFT, which takes less energy together."""
    found = feasible(pairs(slo={"ttftMilliseconds": 45}, pools=((H100, 8, 1),)))
    assert (sizes(found), found.best.gpus) == ((4, 1), 6)


def test_an_objective_that_is_just_met_is_not_named_beside_a_broken_one(pairs: Pairs) -> None:
    two = {"hardware": {"maxGPUs": 2}}
    limit = math.ceil(feasible(pairs(**two)).best.ttft_upper_ms)
    broken = pairs(slo={"ttftMilliseconds": limit, "itlMilliseconds": 1}, **two)
    assert broken is not None
    ((_, (said,)),) = broken.pairs
    assert said.startswith("ITL P95 ")


def test_pods_of_both_roles_need_places_at_once(pairs: Pairs) -> None:
    assert feasible(pairs(pools=((H100, 1, 2),))).best.gpus == 2
    assert feasible(pairs(pools=((H100, 2, 1),))).best.gpus == 2
    assert pairs(pools=((H100, 1, 1),)) is None
    fast = {"slo": {"itlMilliseconds": 8}}
    assert sizes(feasible(pairs(pools=((H100, 2, 1), (H100, 1, 1)), **fast))) == (1, 2)
    assert not _holds(pairs(pools=((H100, 2, 1),), **fast))


def test_the_operator_runs_only_pairs_that_can_exchange_the_cache(pairs: Pairs) -> None:
    fast = {"slo": {"itlMilliseconds": 8}, "pairing": SERVED}
    assert sizes(feasible(pairs(**fast))) == (1, 2)
    assert sizes(feasible(pairs(**fast, engine={"type": "SGLang"}))) == (2, 2)
    staged = {"planning": {"overrides": {"pipelineParallel": 2, "maxBatchSize": 16}}}
    assert pairs(**staged) is not None
    assert pairs(**staged, pairing=SERVED) is None


def test_sizes_that_do_not_divide_each_other_exchange_no_cache(pairs: Pairs) -> None:
    """82 GB of weights need two GPUs, and the steps of decode three."""
    model = dense("example/24-heads", 60, 6144, 24, 24, 28800)
    parts: dict[str, Any] = {"model": model, "pools": ((H100, 8, 1),), "slo": {"itlMilliseconds": 18}}
    five, six = {"maxGPUs": 5}, {"maxGPUs": 6}
    assert sizes(feasible(pairs(**parts, hardware=five))) == (2, 3)
    assert not _holds(pairs(**parts, hardware=five, pairing=SERVED))
    assert sizes(feasible(pairs(**parts, hardware=six, pairing=SERVED))) == (3, 3)


def test_prefill_may_have_the_larger_size(pairs: Pairs) -> None:
    """Prompts of 6,000 tokens take longer than the objective on one GPU."""
    load = {"inputTokens": 6000, "outputTokens": 200, "requestsPerSecond": "1"}
    found = feasible(pairs(workload=load, slo={"ttftMilliseconds": 200}, pairing=SERVED))
    assert sizes(found) == (2, 1)


def _running(found: Disaggregated, pair: Pair) -> PlanStatus:
    """Return a pair as a plan without figures."""
    prefill = PrefillReplicas(**dict(layout_at(found.prefill, pair.prefill)))
    return unpredicted(found.decode.take(np.array([pair.decode])), prefill=prefill)


@pytest.mark.parametrize(
    ("decode", "prefill"),
    [
        ({}, {}),
        ({"replicas": 2}, {}),
        ({"tensor_parallel": 2}, {}),
        ({"pipeline_parallel": 2}, {}),
        ({}, {"replicas": 2}),
        ({}, {"tensor_parallel": 2}),
    ],
)
def test_the_pair_of_a_running_plan_is_found_again(
    decode: dict[str, int], prefill: dict[str, int], pairs: Pairs
) -> None:
    found = feasible(pairs())
    pair = found.best
    plan = _running(found, pair)
    assert plan.prefill is not None
    plan = plan.model_copy(update=decode | {"prefill": plan.prefill.model_copy(update=prefill)})
    again = pairs(pairing=Pairing(only=plan))
    assert again is not None
    ((same, _),) = again.pairs
    assert dict(layout_at(again.decode, same.decode)) == {
        name: getattr(plan, name) for name in ReplicaLayout.model_fields
    }
    assert PrefillReplicas(**dict(layout_at(again.prefill, same.prefill))) == plan.prefill
    for other in ({"replicas": 5}, {"max_batch_size": 8}, {"gpu_product": L40S}, {"expert_parallel": 2}):
        assert pairs(pairing=Pairing(only=plan.model_copy(update=other))) is None


def test_pods_over_several_nodes_need_places_on_each(pairs: Pairs) -> None:
    spanning: dict[str, Any] = {
        "planning": {"overrides": {"tensorParallel": 2, "pipelineParallel": 2, "maxBatchSize": 16}},
        "slo": {},
    }
    assert feasible(pairs(pools=((H100, 2, 4),), **spanning)).best.gpus == 8
    assert pairs(pools=((H100, 2, 3),), **spanning) is None


@pytest.mark.parametrize(("used", "fits"), [(3, True), (4, False)])
def test_more_pods_than_fit_leave_no_room_beside_them(used: int, fits: bool, pairs: Pairs) -> None:
    """Two prefill pods of two GPUs and a decode pod of one, beside GPUs of others on a node of eight."""
    pools = ((H100, 8, 1),)
    found = feasible(pairs(pools=pools))
    plan = _running(found, found.best)
    assert plan.prefill is not None
    more = plan.prefill.model_copy(update={"replicas": 2, "tensor_parallel": 2})
    only = Pairing(only=plan.model_copy(update={"prefill": more}))
    assert (pairs(pools=pools, pairing=only, used=used) is not None) is fits
    assert pairs(pools=pools, pairing=only, used=5) is None


def test_the_pair_of_a_running_plan_is_of_its_product(pairs: Pairs) -> None:
    pools = ((H100, 4, 1), (L40S, 4, 1))
    found = feasible(pairs(pools=pools, slo={"itlMilliseconds": 60}))
    for number in (0, 1):
        pair, _ = found.pairs[number]
        plan = _running(found, pair)
        again = pairs(pools=pools, slo={"itlMilliseconds": 60}, pairing=Pairing(only=plan))
        assert again is not None
        assert [each for each, _ in again.pairs] == [pair]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_pairs_that_hold_come_first_and_then_the_objective_counts(objective: str, pairs: Pairs) -> None:
    pools = ((H100, 4, 1), (L40S, 4, 1))
    found = feasible(pairs(objective, pools=pools, slo={"itlMilliseconds": 28}, idle={H100: 400.0}))
    shown = [found.decode.products[int(found.decode.product[pair.decode])] for pair, _ in found.pairs]
    # Three L40S use less energy than two H100 that draw so much.
    assert shown == ([H100, L40S] if objective == "MinimizeGPUs" else [L40S, H100])
    # The L40S breaks this objective with any number of GPUs.
    tight = feasible(pairs(objective, pools=pools, slo={"itlMilliseconds": 10}))
    (first, none), (_, broken) = tight.pairs
    assert (none, bool(broken)) == ((), True)
    assert tight.decode.products[int(tight.decode.product[first.decode])] == H100
    only = feasible(pairs(objective, pools=pools, hardware={"gpuProducts": ["L40S"]}, slo={"itlMilliseconds": 60}))
    ((pair, _),) = only.pairs
    assert only.decode.products[int(only.decode.product[pair.decode])] == L40S
