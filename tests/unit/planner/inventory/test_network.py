"""The network between nodes: where its speed is read, and what it changes of plans."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_llmdeployment
from energylens.data import find_gpu, load_gpus, load_model, load_predictor
from energylens.planner import plan
from energylens.planner.inventory.network import MOST_GIGABITS, SPEED_LABEL, network_of, with_networks
from energylens.planner.search.identity import inputs_hash
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode
from energylens.predictor.types import Layouts, Workload

H100 = "NVIDIA-H100-80GB-HBM3"
MODEL = load_model("meta-llama/Llama-3.1-405B-Instruct")
INSTANCE = "node.kubernetes.io/instance-type"


def nodes(*labels: dict[str, str], gpus: int = 8) -> tuple[GpuNode, ...]:
    return tuple(GpuNode(f"n{i}", H100, gpus, labels=each) for i, each in enumerate(labels))


def asked(rate: str = "1", slo: dict[str, Any] | None = None, **hardware: Any) -> LLMDeployment:
    return parse_llmdeployment(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": "large"},
            "spec": {
                "model": {"name": "meta-llama/Llama-3.1-405B-Instruct"},
                "workload": {"inputTokens": 1000, "outputTokens": 500, "requestsPerSecond": rate},
                "hardware": hardware,
                "slo": slo or {},
            },
        },
        strict=True,
    )


def planned(deployment: LLMDeployment, *labels: dict[str, str]) -> Feasible:
    found = plan(deployment, MODEL, ClusterSnapshot(nodes(*labels)), load_gpus(), load_predictor())
    assert isinstance(found, Feasible), found
    return found


@pytest.mark.parametrize(
    ("labels", "speed", "source"),
    [
        ([{}, {}], None, SPEED_LABEL),
        ([{SPEED_LABEL: "400"}, {SPEED_LABEL: "100"}, {}], 100, f"label {SPEED_LABEL}"),
        ([{INSTANCE: "p5.48xlarge"}], 3200, "instance type p5.48xlarge"),
        ([{INSTANCE: "p5.48xlarge", SPEED_LABEL: "200"}], 200, f"label {SPEED_LABEL}"),
        ([{SPEED_LABEL: "fast"}], None, SPEED_LABEL),
        ([{SPEED_LABEL: "0"}], None, SPEED_LABEL),
        ([{SPEED_LABEL: "1"}], 1, f"label {SPEED_LABEL}"),
        ([{SPEED_LABEL: f"{MOST_GIGABITS}"}], MOST_GIGABITS, f"label {SPEED_LABEL}"),
        ([{SPEED_LABEL: f"{MOST_GIGABITS + 1}"}], None, SPEED_LABEL),
        ([{INSTANCE: "m7i.large"}], None, SPEED_LABEL),
    ],
)
def test_the_slowest_node_that_says_it_counts(labels: list[dict[str, str]], speed: int | None, source: str) -> None:
    found = network_of(asked().spec, nodes(*labels))
    assert found.gigabits_per_second == speed
    assert source in found.source


def test_the_spec_comes_before_labels() -> None:
    found = network_of(asked(interNodeGigabitsPerSecond=25).spec, nodes({SPEED_LABEL: "400"}))
    assert (found.gigabits_per_second, found.source) == (25, "spec.hardware.interNodeGigabitsPerSecond")


@pytest.mark.parametrize(
    ("model", "tp", "pp", "ep", "dp"),
    [
        ("meta-llama/Llama-3.1-405B-Instruct", 16, 1, 1, 1),
        ("meta-llama/Llama-3.1-405B-Instruct", 8, 2, 1, 1),
        ("meta-llama/Llama-3.1-70B-Instruct", 4, 4, 1, 1),
        ("Qwen/Qwen3-235B-A22B", 4, 1, 16, 4),
        ("Qwen/Qwen3-235B-A22B", 1, 1, 16, 16),
    ],
)
def test_a_slower_network_makes_nothing_faster_or_cheaper(model: str, tp: int, pp: int, ep: int, dp: int) -> None:
    def one(value: int) -> np.ndarray[Any, Any]:
        return np.array([value])

    layouts = Layouts(one(tp), one(pp), one(ep), one(dp), one(64), np.array([np.nan]))
    predictor, gpu, spec = load_predictor(), find_gpu("H100"), load_model(model)
    found = [
        predictor.at_concurrency(
            spec, replace(gpu, network_bandwidth=speed * 1e9 / 8), layouts, Workload(2000, 300), np.array([64.0])
        )
        for speed in (3200, 800, 200, 50, 10)
    ]
    assert found[0].supported[0], found[0].reason
    for fast, slow in itertools.pairwise(found):
        for name in ("mean_step_ms", "itl_p95_ms", "ttft_p95_ms", "joules_per_output_token"):
            assert getattr(slow, name)[0] >= getattr(fast, name)[0] * (1 - 1e-9), name
    assert found[-1].mean_step_ms[0] > 1.02 * found[0].mean_step_ms[0]


def test_replicas_of_one_node_do_not_feel_the_network() -> None:
    predictor, gpu, spec = load_predictor(), find_gpu("H100"), load_model("meta-llama/Llama-3.1-70B-Instruct")
    one = np.array([1])
    layouts = Layouts(8 * one, one, one, one, 64 * one, np.array([np.nan]))
    slow, none = (
        predictor.at_rate(spec, replace(gpu, network_bandwidth=b), layouts, Workload(1000, 300), np.array([1.0]))
        for b in (1e9, 0.0)
    )
    assert slow.itl_p95_ms == none.itl_p95_ms
    assert slow.joules_per_output_token == none.joules_per_output_token


def test_a_plan_over_nodes_says_which_speed_it_counts() -> None:
    unknown = planned(asked(), *[{}] * 4).plan
    assert unknown.nodes_per_replica > 1
    assert unknown.inter_node_network is not None
    assert unknown.inter_node_network.startswith("unknown, assumed to be the PCIe speed of one GPU")
    known = planned(asked(), *[{INSTANCE: "p5.48xlarge"}] * 4).plan
    assert known.inter_node_network == "3200 Gbit/s per node (instance type p5.48xlarge)"


def test_the_network_changes_the_layout() -> None:
    slow, fast = (planned(asked(interNodeGigabitsPerSecond=speed), *[{}] * 4) for speed in (10, 3200))
    assert slow.plan.layout != fast.plan.layout
    # Tensor parallelism sums after every layer, a pipeline hands over once.
    assert slow.plan.tensor_parallel <= 8


def test_a_label_is_an_input_of_a_plan() -> None:
    spec, gpus = asked().spec, load_gpus()
    plain, labelled, faster = (
        inputs_hash(spec, MODEL, nodes(*[labels] * 2), gpus, "8", None)
        for labels in ({}, {SPEED_LABEL: "100"}, {SPEED_LABEL: "400"})
    )
    assert len({plain, labelled, faster}) == 3


def test_products_get_their_network_in_bytes_per_second() -> None:
    found = with_networks(asked().spec, nodes({SPEED_LABEL: "400"}), load_gpus())
    assert found[H100].network_bandwidth == 50e9
    others = {name: gpu for name, gpu in load_gpus().items() if name != H100}
    assert {name: gpu for name, gpu in found.items() if name != H100} == others
