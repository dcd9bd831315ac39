"""What somebody reads who asked for what is not possible: field, value, and the nearest thing that works.

Each suggestion is tried: what a message says would work must work.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner import plan
from energylens.planner.types import (
    ClusterSnapshot,
    ExcludedNode,
    Feasible,
    GpuNode,
    Infeasible,
    PowerAllowance,
    Taint,
)
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

H100, H200, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200", "NVIDIA-L40S"
Deploy = Callable[..., LLMDeployment]
Snapshot = Callable[..., ClusterSnapshot]
Refuse = Callable[..., Infeasible]
LOAD = {"inputTokens": 300, "outputTokens": 400}


@pytest.fixture
def attempt(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_deployment: Deploy,
    make_snapshot: Snapshot,
) -> Callable[..., Feasible | Infeasible]:
    def build(
        shape: str = "70b", snapshot: ClusterSnapshot | None = None, allowance: Any = None, **parts: Any
    ) -> Feasible | Infeasible:
        cluster = make_snapshot((H100, 8, 1), (H200, 8, 1), (L40S, 4, 2)) if snapshot is None else snapshot
        deployment = make_deployment(models[shape].name, **parts)
        return plan(deployment, models[shape], cluster, gpus, predictor, allowance=allowance)

    return build


@pytest.fixture
def refuse(attempt: Callable[..., Feasible | Infeasible]) -> Refuse:
    def build(*args: Any, **parts: Any) -> Infeasible:
        result = attempt(*args, **parts)
        assert isinstance(result, Infeasible), result
        return result

    return build


def test_an_itl_that_nobody_can_meet(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    result = refuse(slo={"itlMilliseconds": 2})
    assert result.reason == "SLOInfeasible"
    assert result.message.startswith(
        "spec.slo.itlMilliseconds=2 cannot be met: the lowest predicted ITL P95 (safety margin included) is 10 ms "
        "(1 x NVIDIA-H200 TP8, max batch "
    )
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.slo.itlMilliseconds"]
    assert (relaxation.value, relaxation.allowed) == ("2", "10")
    assert isinstance(attempt(slo={"itlMilliseconds": 10}), Feasible)
    assert isinstance(attempt(slo={"itlMilliseconds": 9}), Infeasible)


def test_a_ttft_that_nobody_can_meet(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    result = refuse(slo={"percentile": "P99", "ttftMilliseconds": 3})
    assert result.reason == "SLOInfeasible"
    assert "spec.slo.ttftMilliseconds=3 cannot be met: the lowest predicted TTFT P99" in result.message
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.slo.ttftMilliseconds"]
    allowed = int(relaxation.allowed)
    assert isinstance(attempt(slo={"percentile": "P99", "ttftMilliseconds": allowed}), Feasible)
    assert isinstance(attempt(slo={"percentile": "P99", "ttftMilliseconds": allowed - 1}), Infeasible)


def test_two_objectives_that_nobody_can_meet_are_both_named(refuse: Refuse) -> None:
    message = refuse(slo={"ttftMilliseconds": 3, "itlMilliseconds": 2}).message
    assert "spec.slo.ttftMilliseconds=3 cannot be met" in message
    assert "spec.slo.itlMilliseconds=2 cannot be met" in message


def test_objectives_that_nobody_can_meet_together(
    refuse: Refuse, attempt: Callable[..., Any], make_snapshot: Snapshot
) -> None:
    """A small energy takes few GPUs, a small ITL takes many."""
    both = {"itlMilliseconds": 14, "joulesPerOutputToken": "1"}
    snapshot = make_snapshot((H200, 8, 1))
    for field, value in both.items():
        assert isinstance(attempt(snapshot=snapshot, slo={field: value}), Feasible)
    result = refuse(snapshot=snapshot, slo=both)
    assert result.reason == "SLOInfeasible"
    assert "spec.slo.itlMilliseconds=14 and spec.slo.joulesPerOutputToken=1 cannot be met together" in result.message
    assert {r.field for r in result.relaxations} >= {"spec.slo.itlMilliseconds", "spec.slo.joulesPerOutputToken"}
    for relaxation in result.relaxations:
        name = relaxation.field.removeprefix("spec.slo.")
        if name in both:
            value = int(relaxation.allowed) if name == "itlMilliseconds" else relaxation.allowed
            assert isinstance(attempt(snapshot=snapshot, slo=both | {name: value}), Feasible)


def test_an_energy_that_nobody_can_meet(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    result = refuse(slo={"joulesPerOutputToken": "1m"})
    assert result.reason == "SLOInfeasible"
    assert (
        "spec.slo.joulesPerOutputToken=1m cannot be met: the lowest predicted energy per output token" in result.message
    )
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.slo.joulesPerOutputToken"]
    assert isinstance(attempt(slo={"joulesPerOutputToken": relaxation.allowed}), Feasible)


def test_a_model_that_fits_no_gpu(refuse: Refuse, make_snapshot: Snapshot) -> None:
    result = refuse("405b", make_snapshot((L40S, 4, 2)))
    assert result.reason == "ModelTooLarge"
    assert result.message == (
        "spec.model.name=meta-llama/Llama-3.1-405B-Instruct needs 812 GB for its weights, and room for the "
        "KV cache of one request; the largest replica has 8 GPUs of NVIDIA-L40S with 384 GB"
    )


def test_a_model_that_fits_no_allowed_gpu_names_one_that_it_fits(refuse: Refuse) -> None:
    result = refuse("405b", hardware={"gpuProducts": ["L40S"]})
    assert result.reason == "ModelTooLarge"
    assert "the largest replica within spec.hardware.gpuProducts=[L40S] has 8 GPUs of NVIDIA-L40S" in result.message
    assert "would work: spec.hardware.gpuProducts=[NVIDIA-H200]" in result.message


@pytest.mark.parametrize("shape", ["70b", "405b"])
def test_a_ceiling_that_is_too_low(
    shape: str, refuse: Refuse, attempt: Callable[..., Any], make_snapshot: Snapshot
) -> None:
    snapshot = make_snapshot((H200, 8, 1))
    result = refuse(shape, snapshot, hardware={"maxGPUs": 1})
    needed = {"70b": 2, "405b": 7}[shape]
    assert result.reason == "InsufficientGPUs"
    assert result.message.startswith(f"spec.hardware.maxGPUs=1: needs at least {needed} GPUs of NVIDIA-H200 (1 x ")
    assert isinstance(attempt(shape, snapshot, hardware={"maxGPUs": needed}), Feasible)
    assert isinstance(attempt(shape, snapshot, hardware={"maxGPUs": needed - 1}), Infeasible)


def test_a_ceiling_per_replica_that_is_too_low(refuse: Refuse) -> None:
    result = refuse(hardware={"maxGPUs": 8, "maxGPUsPerReplica": 1})
    assert result.reason == "InsufficientGPUs"
    assert result.message.startswith("spec.hardware.maxGPUsPerReplica=1: needs at least 2 GPUs of ")


def test_gpus_that_others_use(refuse: Refuse, make_snapshot: Snapshot) -> None:
    result = refuse(snapshot=make_snapshot((H200, 8, 2), used=7))
    assert result.reason == "InsufficientGPUs"
    assert result.message.startswith(
        "not enough free GPUs: needs 2 GPUs of NVIDIA-H200 on one node for 1 x NVIDIA-H200 "
    )
    assert result.message.endswith("free on its nodes now: 1, 1")


def test_a_rate_that_is_too_high(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    load = LOAD | {"requestsPerSecond": "500"}
    result = refuse(workload=load, hardware={"maxGPUs": 4})
    assert result.reason == "LoadTooHigh"
    assert result.message.startswith(
        "spec.workload.requestsPerSecond=500 is too high: the highest load that a plan within "
        "spec.hardware.maxGPUs=4 sustains is "
    )
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.workload.requestsPerSecond"]
    works = LOAD | {"requestsPerSecond": relaxation.allowed}
    assert isinstance(attempt(workload=works, hardware={"maxGPUs": 4}), Feasible)
    more = LOAD | {"requestsPerSecond": str(round(float(relaxation.allowed) * 1.03))}
    assert isinstance(attempt(workload=more, hardware={"maxGPUs": 4}), Infeasible)


def test_a_concurrency_that_is_too_high(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    result = refuse(workload=LOAD | {"concurrency": 90000}, hardware={"maxGPUs": 4})
    assert result.reason == "LoadTooHigh"
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.workload.concurrency"]
    works = LOAD | {"concurrency": int(relaxation.allowed)}
    assert isinstance(attempt(workload=works, hardware={"maxGPUs": 4}), Feasible)


def test_a_rate_that_more_gpus_would_carry(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    load = LOAD | {"requestsPerSecond": "120"}
    result = refuse(workload=load, hardware={"maxGPUs": 2})
    assert result.reason == "LoadTooHigh"
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.hardware.maxGPUs"]
    assert f"spec.hardware.maxGPUs={relaxation.allowed}" in result.message
    assert isinstance(attempt(workload=load, hardware={"maxGPUs": int(relaxation.allowed)}), Feasible)
    assert isinstance(attempt(workload=load, hardware={"maxGPUs": int(relaxation.allowed) - 1}), Infeasible)


@pytest.mark.parametrize("source", ["EnergyBudget team-a/cap", "spec.energy.budget.powerWatts"])
def test_a_budget_that_is_too_small(source: str, refuse: Refuse, attempt: Callable[..., Any]) -> None:
    if source.startswith("spec"):
        result = refuse(energy={"budget": {"powerWatts": 300, "action": "Enforce"}})
    else:
        result = refuse(allowance=PowerAllowance(300, source))
    assert result.reason == "BudgetExceeded"
    assert result.message.startswith(f"{source}=300 leaves too little power: the lowest predicted power is ")
    (relaxation,) = [r for r in result.relaxations if r.field == source]
    assert isinstance(attempt(allowance=PowerAllowance(float(relaxation.allowed), source)), Feasible)
    assert isinstance(attempt(allowance=PowerAllowance(float(relaxation.allowed) - 1, source)), Infeasible)


def test_the_tighter_of_two_budgets_is_named(refuse: Refuse) -> None:
    own = {"budget": {"powerWatts": 300, "action": "Enforce"}}
    assert "spec.energy.budget.powerWatts=300" in refuse(energy=own, allowance=PowerAllowance(400, "x")).message
    assert "EnergyBudget a/b=200" in refuse(energy=own, allowance=PowerAllowance(200, "EnergyBudget a/b")).message


def test_no_such_gpu(refuse: Refuse) -> None:
    result = refuse(hardware={"gpuProducts": ["A100", "NVIDIA-B200"]})
    assert result.reason == "NoMatchingGPUs"
    assert result.message.startswith(
        "spec.hardware.gpuProducts=[A100, NVIDIA-B200]: no node has such a GPU; available: "
        "NVIDIA-H100-80GB-HBM3 (8 GPUs), NVIDIA-H200 (8 GPUs), NVIDIA-L40S (8 GPUs); "
    )
    assert "; would work: spec.hardware.gpuProducts=[NVIDIA-H200] (at " in result.message


def test_a_wanted_gpu_that_nobody_knows_is_named_with_the_nearest(refuse: Refuse) -> None:
    message = refuse(hardware={"gpuProducts": ["H200", "L4OS"]}, snapshot=ClusterSnapshot((GpuNode("a", H100, 8),)))
    assert "; L4OS is not a known product, nearest: NVIDIA-L40S, " in message.message


def test_a_name_beside_one_that_is_there_is_no_secret(refuse: Refuse) -> None:
    message = refuse(
        hardware={"gpuProducts": ["H100", "Banana"]}, workload=LOAD | {"requestsPerSecond": "100000"}
    ).message
    assert "; spec.hardware.gpuProducts: Banana is not a known product, nearest: " in message


def test_no_such_node(refuse: Refuse) -> None:
    result = refuse(hardware={"nodeSelector": {"zone": "b"}})
    assert result.reason == "NoMatchingGPUs"
    assert result.message.startswith("spec.hardware.nodeSelector={zone=b}: no node with NVIDIA-H100-80GB-HBM3, ")


def test_nodes_with_a_taint(refuse: Refuse) -> None:
    tainted = ClusterSnapshot((GpuNode("a", H100, 8, taints=(Taint("spot", "true"), Taint("nvidia.com/gpu"))),))
    result = refuse(snapshot=tainted)
    assert result.reason == "NoMatchingGPUs"
    assert result.message.startswith("spec.hardware.tolerations: every node with NVIDIA-H100-80GB-HBM3 has a taint")
    # Only what keeps pods away is named.
    assert result.message.split("tolerated: ")[1].startswith("spot=true:NoSchedule;")
    assert "nvidia.com/gpu" not in result.message.split("tolerated: ")[1].split(";")[0]


def test_a_taint_that_is_borne_for_a_while_only(refuse: Refuse) -> None:
    tainted = ClusterSnapshot((GpuNode("a", H100, 8, taints=(Taint("spot", "", "NoExecute"),)),))
    brief = {"key": "spot", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}
    message = refuse(snapshot=tainted, hardware={"tolerations": [brief]}).message
    assert "a taint that is not tolerated without a time limit (tolerationSeconds): spot:NoExecute" in message


def test_no_gpu_at_all(refuse: Refuse) -> None:
    excluded = ExcludedNode("a", "NVIDIA-H100-80GB-HBM3-MIG-1g.10gb", "its GPUs are partitioned (MIG)")
    message = refuse(snapshot=ClusterSnapshot((), (excluded,))).message
    assert message == (
        "the cluster has no node with allocatable nvidia.com/gpu or with GPUs in ResourceSlices; not usable: "
        "a: its GPUs are partitioned (MIG)"
    )


def test_a_gpu_that_nobody_knows(refuse: Refuse) -> None:
    message = refuse(snapshot=ClusterSnapshot((GpuNode("a", "NVIDIA-L40", 8),))).message
    assert message == (
        "GPU product NVIDIA-L40 is not known to the predictor; known, nearest first: "
        "NVIDIA-L40S, NVIDIA-H200, NVIDIA-H100-80GB-HBM3"
    )


def test_nodes_that_cannot_be_used_are_named_with_their_reasons(refuse: Refuse) -> None:
    excluded = [ExcludedNode(f"h{i}", H100, "its GPUs are shared") for i in range(5)]
    excluded += [ExcludedNode(f"n{i}", "", reason) for i, reason in enumerate(("no label", "empty", "no plugin"))]
    snapshot = ClusterSnapshot((GpuNode("a", L40S, 8),), tuple(excluded))
    message = refuse(hardware={"gpuProducts": ["H100"]}, snapshot=snapshot).message
    assert "; not usable: h0, h1, h2 and 2 more: its GPUs are shared; n0: no label; n1: empty; and 1 more" in message


def test_too_few_gpus_names_the_nodes_that_would_have_more(refuse: Refuse) -> None:
    excluded = (ExcludedNode("sick", H100, "its GPUs are unhealthy"), ExcludedNode("x", "NVIDIA-X1", "no label"))
    snapshot = ClusterSnapshot((GpuNode("a", H100, 1),), excluded)
    result = refuse("70b", snapshot=snapshot)
    assert result.reason == "ModelTooLarge"
    assert result.message.endswith("; not usable: sick: its GPUs are unhealthy")


@pytest.mark.parametrize(
    ("overrides", "expected", "works"),
    [
        ({"tensorParallel": 3}, "64 attention heads are not divisible by tensor parallel", "2"),
        ({"expertParallel": 2}, "expert parallel needs a mixture-of-experts model", "1"),
        ({"tensorParallel": 16}, "no such layout can be placed on 1 node of NVIDIA-H200", "8"),
        ({"tensorParallel": 1, "pipelineParallel": 1}, "weights and the KV cache of one request do not fit", "2"),
    ],
)
def test_overrides_that_cannot_be_had(
    overrides: dict[str, int], expected: str, works: str, refuse: Refuse, make_snapshot: Snapshot
) -> None:
    result = refuse(snapshot=make_snapshot((H200, 8, 1)), planning={"overrides": overrides})
    assert result.reason == "InvalidOverride"
    name, value = next(iter(overrides.items()))
    assert result.message.startswith(f"spec.planning.overrides.{name}={value}")
    assert expected in result.message
    assert f"nearest that works: spec.planning.overrides.{name}={works}" in result.message


def test_a_power_cap_out_of_range(refuse: Refuse, make_snapshot: Snapshot) -> None:
    capped = {"powerCap": {"mode": "Fixed", "wattsPerGPU": 50}}
    result = refuse(snapshot=make_snapshot((H200, 8, 1), (L40S, 4, 1)), energy=capped)
    assert result.reason == "InvalidOverride"
    assert result.message == (
        "spec.energy.powerCap.wattsPerGPU=50: the power limit of NVIDIA-H200 can be set from 200 to 700 W; the power "
        "limit of NVIDIA-L40S can be set from 100 to 350 W"
    )


def test_relaxations_say_what_they_cost(refuse: Refuse, attempt: Callable[..., Any]) -> None:
    from energylens.api.quantity import parse_quantity

    result = refuse(slo={"itlMilliseconds": 2})
    (relaxation,) = [r for r in result.relaxations if r.field == "spec.slo.itlMilliseconds"]
    relaxed = attempt(slo={"itlMilliseconds": int(relaxation.allowed)})
    planned = float(parse_quantity(relaxed.plan.predicted.joules_per_output_token))
    assert relaxation.joules_per_output_token == pytest.approx(planned, abs=0.0006)


def test_every_message_is_one_line(refuse: Refuse) -> None:
    for parts in ({"slo": {"itlMilliseconds": 2}}, {"hardware": {"maxGPUs": 1}}, {"hardware": {"gpuProducts": ["X"]}}):
        message = refuse(**parts).message
        assert "\n" not in message
        assert len(message) < 600


@pytest.mark.parametrize("watts", [300, 1000, 2000])
@pytest.mark.parametrize(
    ("rate", "reason"), [("200", "BudgetExceeded"), ("400", "LoadTooHigh"), ("5000", "LoadTooHigh")]
)
def test_a_budget_that_leaves_too_little_is_said_in_numbers_under_any_objective(
    refuse: Refuse, watts: int, rate: str, reason: str
) -> None:
    """A smaller plan that cannot keep up has no TTFT: its queue grows for ever."""
    result = refuse(
        allowance=PowerAllowance(watts, "spec.energy.budget.powerWatts"),
        workload={**LOAD, "requestsPerSecond": rate},
        slo={"ttftMilliseconds": 20_000, "itlMilliseconds": 500},
    )
    assert result.reason == reason
    assert not any(word in result.message for word in ("nan", "inf", "unbounded")), result.message


@pytest.mark.parametrize("rate", ["1e30", "9E", "10M"])
def test_however_high_the_load_is_the_most_that_can_be_carried_is_named(
    attempt: Callable[..., Any], refuse: Refuse, rate: str
) -> None:
    result = refuse(workload={**LOAD, "requestsPerSecond": rate})
    assert result.reason == "LoadTooHigh"
    most = result.message.partition("sustains is ")[2].partition(";")[0]
    assert isinstance(attempt(workload={**LOAD, "requestsPerSecond": most}), Feasible), result.message


def test_a_concurrency_of_the_schema_s_largest_value_has_a_most_too(
    attempt: Callable[..., Any], refuse: Refuse, make_snapshot: Snapshot
) -> None:
    small = make_snapshot((H100, 2, 1))
    result = refuse(snapshot=small, workload={**LOAD, "concurrency": 100_000}, planning={"overrides": {"replicas": 1}})
    most = result.message.partition("sustains is ")[2].partition(";")[0]
    workload = {**LOAD, "concurrency": int(most)}
    assert isinstance(attempt(snapshot=small, workload=workload, planning={"overrides": {"replicas": 1}}), Feasible)
