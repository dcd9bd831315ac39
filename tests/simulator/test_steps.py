"""The tokens of a step that a plan takes hold the objective that the engine's default breaks, in the simulator too."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.simulator.compare import Case, physics, simulated

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus, load_model
from energylens.planner import plan
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode

MODEL, H100 = "Qwen/Qwen3-8B", "NVIDIA-H100-80GB-HBM3"
CLUSTER = ClusterSnapshot((GpuNode(name="a", product=H100, allocatable=2),))


@pytest.mark.parametrize(
    ("input_tokens", "output_tokens", "rate", "itl", "ttft"), [(6000, 300, 2.5, 60, 3000), (2500, 150, 7.0, 60, 2500)]
)
def test_a_plan_with_shorter_steps_holds_the_bound_that_the_default_breaks(
    input_tokens: int, output_tokens: int, rate: float, itl: int, ttft: int
) -> None:
    load = {"inputTokens": input_tokens, "outputTokens": output_tokens, "requestsPerSecond": f"{rate * 1e3:.0f}m"}
    spec = {
        "model": {"name": MODEL},
        "workload": load,
        "slo": {"percentile": "P95", "ttftMilliseconds": ttft, "itlMilliseconds": itl},
    }
    asked = LLMDeployment.model_validate({"metadata": {"name": "a", "namespace": "b"}, "spec": spec})
    predictor = physics()
    found = plan(asked, load_model(MODEL), CLUSTER, load_gpus(), predictor)
    assert isinstance(found, Feasible)
    chosen = found.plan
    assert (chosen.gpus, chosen.replicas) == (1, 1)
    assert chosen.max_batched_tokens is not None
    assert chosen.max_batched_tokens < 8192
    case = Case(MODEL, "H100", 1, input_tokens, output_tokens, chosen.max_batch_size, 0.0, 800, 32)
    own = simulated(predictor, case, rate, chosen.max_batch_size)
    shorter = simulated(predictor, replace(case, step_tokens=chosen.max_batched_tokens), rate, chosen.max_batch_size)
    assert own.itl[0.95] > itl >= shorter.itl[0.95]
    assert shorter.ttft[0.95] <= ttft
    # What is predicted is what is simulated, both without the safety margin.
    assert chosen.predicted.itl_milliseconds == pytest.approx(shorter.itl[0.95], rel=0.12)
    # A prompt over several steps costs no throughput.
    assert shorter.throughput == pytest.approx(own.throughput, abs=0.02)
