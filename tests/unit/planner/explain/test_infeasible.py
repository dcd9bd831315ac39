"""Messages that explain why no plan is feasible, word by word: each figure in them is one that a reader acts on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.planner.conftest import H100, H200, L40S

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner import plan
from energylens.planner.types import BudgetLimit, ClusterSnapshot, EnergyLeft, Infeasible, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

LOAD = {"inputTokens": 300, "outputTokens": 400}
Refused = Callable[..., Infeasible]


@pytest.fixture(scope="module")
def refused(
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    predictor: Any,
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
) -> Refused:
    """Return a function that plans a model of 70 billion parameters, and returns why that has no plan."""

    def build(
        pools: tuple[tuple[str, int, int], ...] = ((H100, 8, 1), (H200, 8, 1), (L40S, 4, 2)),
        used: int = 0,
        watts: float | None = None,
        allowance: PowerAllowance | None = None,
        **parts: Any,
    ) -> Infeasible:
        if watts is not None:
            allowance = PowerAllowance(watts, "EnergyBudget team/cap")
        asked = make_deployment(models["70b"].name, **parts)
        found = plan(asked, models["70b"], make_snapshot(*pools, used=used), gpus, predictor, allowance=allowance)
        assert isinstance(found, Infeasible), found
        return found

    return build


@pytest.mark.parametrize(
    ("asked", "reason", "message"),
    [
        pytest.param(
            {"workload": LOAD | {"concurrency": 8}, "planning": {"overrides": {"tensorParallel": 16}}},
            "InvalidOverride",
            "spec.planning.overrides.tensorParallel=16: no such layout can be placed on 1 node of "
            "NVIDIA-H100-80GB-HBM3, 1 node of NVIDIA-H200, 2 nodes of NVIDIA-L40S for 8 concurrent requests;"
            " nearest that works: spec.planning.overrides.tensorParallel=8",
            id="an override in flight",
        ),
        pytest.param(
            {"planning": {"overrides": {"tensorParallel": 16}}},
            "InvalidOverride",
            "spec.planning.overrides.tensorParallel=16: no such layout can be placed on 1 node of "
            "NVIDIA-H100-80GB-HBM3, 1 node of NVIDIA-H200, 2 nodes of NVIDIA-L40S; nearest that works: "
            "spec.planning.overrides.tensorParallel=8",
            id="an override",
        ),
        pytest.param(
            {"hardware": {"maxGPUs": 1, "maxGPUsPerReplica": 1, "gpuProducts": ["L40S"]}, "pools": ((L40S, 4, 2),)},
            "InsufficientGPUs",
            "spec.hardware.maxGPUsPerReplica=1: needs at least 4 GPUs of NVIDIA-L40S (1 x NVIDIA-L40S "
            "TP1-PP4, max batch 1); would work: spec.hardware.maxGPUsPerReplica=4 with "
            "spec.hardware.maxGPUs=4 (at 1.00 J per output token)",
            id="limits of a product",
        ),
        pytest.param(
            {"pools": ((L40S, 1, 3),), "hardware": {"maxGPUs": 2}},
            "ModelTooLarge",
            "spec.model.name=meta-llama/Llama-3.1-70B-Instruct needs 141 GB for its weights, and room for "
            "the KV cache of one request; the largest replica within spec.hardware.maxGPUs=2 has 2 GPUs of "
            "NVIDIA-L40S with 96 GB",
            id="a model too large",
        ),
        pytest.param(
            {"used": 8},
            "InsufficientGPUs",
            "not enough free GPUs: needs 2 GPUs of NVIDIA-H100-80GB-HBM3 on one node for 1 x "
            "NVIDIA-H100-80GB-HBM3 TP2, max batch 32; free on its nodes now: 0",
            id="no free GPUs",
        ),
        pytest.param(
            {
                "used": 1,
                "pools": ((H100, 2, 4),),
                "planning": {"overrides": {"tensorParallel": 2, "pipelineParallel": 2}},
            },
            "InsufficientGPUs",
            "not enough free GPUs: needs 2 GPUs of NVIDIA-H100-80GB-HBM3 on each of 2 nodes for 1 x "
            "NVIDIA-H100-80GB-HBM3 TP2-PP2, max batch 32; free on its nodes now: 1, 1, 1, 1",
            id="no free GPUs on several nodes",
        ),
        pytest.param(
            {"workload": LOAD | {"requestsPerSecond": "300"}, "hardware": {"maxGPUs": 4}},
            "LoadTooHigh",
            "spec.workload.requestsPerSecond=300 is too high: the highest load that a plan within "
            "spec.hardware.maxGPUs=4 sustains is 104",
            id="a rate",
        ),
        pytest.param(
            {"workload": LOAD | {"concurrency": 50000}, "slo": {"itlMilliseconds": 20}},
            "LoadTooHigh",
            "spec.workload.concurrency=50000 is too high: the highest load that a plan sustains is 277",
            id="requests in flight",
        ),
        pytest.param(
            {"workload": LOAD | {"job": {"requests": 100000, "completeWithinSeconds": 600}}, "slo": {}},
            "LoadTooHigh",
            "spec.workload.job.requests=100000 is too high for spec.workload.job.completeWithinSeconds=600, "
            "of which the start of the pods takes 252 s: the most that a plan completes is 69632; would also"
            " work: spec.workload.job.completeWithinSeconds=744 (at 0.0457 J per output token)",
            id="a job",
        ),
        pytest.param(
            {"slo": {"itlMilliseconds": 14, "joulesPerOutputToken": "1"}, "pools": ((H200, 8, 1),)},
            "SLOInfeasible",
            "spec.slo.itlMilliseconds=14 and spec.slo.joulesPerOutputToken=1 cannot be met together: with "
            "the other constraints met, the lowest predicted ITL P95 (safety margin included) is 24 ms (1 x "
            "NVIDIA-H200 TP2, max batch 32); with the other constraints met, the lowest predicted energy per"
            " output token (safety margin included) is 3.32 J (2 x NVIDIA-H200 TP4, max batch 8); would also"
            " work: spec.slo.joulesPerOutputToken=3321.417m (at 3.02 J per output token), or "
            "spec.workload.requestsPerSecond=8 (at 0.909 J per output token)",
            id="two objectives",
        ),
        pytest.param(
            {
                "slo": {"itlMilliseconds": 14, "joulesPerOutputToken": "1", "ttftMilliseconds": 15},
                "pools": ((H200, 8, 1),),
            },
            "SLOInfeasible",
            "spec.slo.ttftMilliseconds=15 cannot be met: the lowest predicted TTFT P95 (safety margin "
            "included) is 20 ms (1 x NVIDIA-H200 TP8, max batch 128); would work: "
            "spec.workload.requestsPerSecond=8 with spec.slo.ttftMilliseconds=23 (at 0.909 J per output "
            "token), or spec.slo.ttftMilliseconds=51 with spec.slo.itlMilliseconds=24 (at 0.854 J per output"
            " token), or spec.slo.ttftMilliseconds=20 with spec.slo.joulesPerOutputToken=3419.394m (at 3.11 "
            "J per output token)",
            id="an objective alone",
        ),
        pytest.param(
            {"slo": {"itlMilliseconds": 5, "ttftMilliseconds": 3}},
            "SLOInfeasible",
            "spec.slo.ttftMilliseconds=3 cannot be met: the lowest predicted TTFT P95 (safety margin "
            "included) is 20 ms (1 x NVIDIA-H200 TP8, max batch 128); spec.slo.itlMilliseconds=5 cannot be "
            "met: the lowest predicted ITL P95 (safety margin included) is 10 ms (1 x NVIDIA-H200 TP8, max "
            "batch 8); would work: spec.slo.ttftMilliseconds=20 with spec.slo.itlMilliseconds=10 (at 3.11 J "
            "per output token)",
            id="two objectives alone",
        ),
        pytest.param(
            {"watts": 500.0},
            "BudgetExceeded",
            "EnergyBudget team/cap=500 leaves too little power: the lowest predicted power is 683 W (1 x "
            "NVIDIA-H200 TP2, max batch 32), 183 W too much; no plan fits; would also work: "
            "spec.workload.requestsPerSecond=102m (at 12.2 J per output token)",
            id="power",
        ),
        pytest.param(
            {"watts": 900.0, "slo": {"itlMilliseconds": 15}},
            "BudgetExceeded",
            "EnergyBudget team/cap=900 leaves too little power: the lowest predicted power is 1293 W (1 x "
            "NVIDIA-H200 TP4, max batch 16), 393 W too much; a smaller plan that fits: 1 x NVIDIA-H100-80GB-"
            "HBM3 TP2, max batch 32 at 700 W, but ITL P95 32 ms, with the safety margin 33 ms > 15 ms; would"
            " also work: spec.slo.itlMilliseconds=24 (at 0.854 J per output token), or "
            "spec.workload.requestsPerSecond=141m (at 15.9 J per output token)",
            id="power and an objective",
        ),
        pytest.param(
            {
                "slo": {"itlMilliseconds": 5},
                "hardware": {"gpuProducts": ["L40S"], "maxGPUs": 2, "maxGPUsPerReplica": 2},
            },
            "InsufficientGPUs",
            "spec.hardware.maxGPUsPerReplica=2: needs at least 4 GPUs of NVIDIA-L40S (1 x NVIDIA-L40S "
            "TP1-PP4, max batch 1); would work: spec.hardware.gpuProducts=[NVIDIA-H200] with "
            "spec.slo.itlMilliseconds=24 (at 0.854 J per output token)",
            id="three limits",
        ),
    ],
)
def test_the_message_names_field_value_and_the_nearest_that_works(
    asked: dict[str, Any], reason: str, message: str, refused: Refused
) -> None:
    found = refused(**asked)
    assert (found.reason, found.message) == (reason, message)


def test_a_limit_of_energy_names_the_energy_that_works(refused: Refused) -> None:
    """The message has the watts that follow from the limit, which no field sets."""
    limit = BudgetLimit("spec.energyWattHours", 360_000, EnergyLeft(0.0, 720.0, 720.0))
    found = refused(allowance=PowerAllowance(500.0, "EnergyBudget team/cap", limit=limit))
    assert found.message == (
        "EnergyBudget team/cap=500 W (of spec.energyWattHours=360000 Wh) leaves too little power: the lowest predicted "
        "power is 683 W (1 x NVIDIA-H200 TP2, max batch 32), 183 W too much; no plan fits; would work: "
        "EnergyBudget team/cap: spec.energyWattHours=491760 (at 0.854 J per output token), or "
        "spec.workload.requestsPerSecond=102m (at 12.2 J per output token)"
    )


def test_an_own_limit_of_energy_is_named_with_the_energy_that_works(refused: Refused) -> None:
    field = "spec.energy.budget.energyWattHours"
    limit = BudgetLimit("", 360_000, EnergyLeft(0.0, 720.0, 720.0))
    found = refused(allowance=PowerAllowance(500.0, field, limit=limit))
    assert found.message.startswith(f"{field}=360000 (500 W) leaves too little power: ")
    assert f"; would work: {field}=491760 (at " in found.message


def test_a_smaller_plan_that_cannot_carry_the_load_has_no_latencies_to_name(
    make_deployment: Callable[..., LLMDeployment], make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    name, slo = "meta-llama/Llama-3.1-8B-Instruct", {"ttftMilliseconds": 4000}
    asked = make_deployment(name, workload=LOAD | {"requestsPerSecond": "60"}, slo=slo)
    allowance, snapshot = PowerAllowance(700.0, "EnergyBudget team/cap"), make_snapshot((H100, 8, 1))
    found = plan(asked, load_model(name), snapshot, load_gpus(), load_predictor(), allowance=allowance)
    assert isinstance(found, Infeasible)
    fits = found.message.partition("; a smaller plan that fits: ")[2].partition("; would")[0]
    assert fits.endswith(" W, but the replicas cannot keep up with 60 requests per second")
