"""Which plans realistic specs get: pipelines, nodes, layouts that were never measured; ranked with risk and by means.

Run it from a checkout: ``.venv/bin/python bench/plan_choices.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus
from energylens.decide.deployment.observed.served import model_of, predictor_of
from energylens.planner.planning import problem_for
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.constraints import feasible
from energylens.planner.search.objective import best
from energylens.planner.search.problem import solve
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.predictor.fitted.features import NEAREST

CLUSTERS: dict[str, tuple[tuple[str, int, int], ...]] = {
    "two H100 nodes": (("NVIDIA-H100-80GB-HBM3", 8, 2),),
    "eight H100 nodes": (("NVIDIA-H100-80GB-HBM3", 8, 8),),
    "H100, H200, B200, L40S": (
        ("NVIDIA-H100-80GB-HBM3", 8, 2),
        ("NVIDIA-H200", 8, 2),
        ("NVIDIA-B200", 8, 2),
        ("NVIDIA-L40S", 4, 2),
    ),
    "eight nodes of 2 B200": (("NVIDIA-B200", 2, 8),),
    "A100 and L40S": (("NVIDIA-A100-SXM4-80GB", 8, 2), ("NVIDIA-L40S", 4, 4)),
    "one H200 node": (("NVIDIA-H200", 8, 1),),
}
"""Product, GPUs of a node, nodes."""
MODELS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-14B",
    "google/gemma-3-27b-it",
    "mistralai/Mistral-Small-24B-Instruct-2501",
    "Qwen/Qwen3-32B",
    "Qwen/Qwen3-32B-FP8",
    "Qwen/Qwen2.5-72B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "neuralmagic/Meta-Llama-3.1-70B-Instruct-FP8",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-235B-A22B-FP8",
    "openai/gpt-oss-20b",
    "openai/gpt-oss-120b",
    "mistralai/Mixtral-8x7B-Instruct-v0.1",
    "deepseek-ai/DeepSeek-V3",
)
SHAPES = ((300, 400), (1000, 300), (2000, 500), (500, 2000), (8000, 500), (4000, 1000), (200, 100))
"""Tokens of prompts and of outputs: chat, retrieval, agents, reasoning, long documents, code, classification."""
RATES = ("0.05", "0.5", "2", "8", "20", "60", "200")
IN_FLIGHT = (1, 4, 16, 64, 256)
OBJECTIVES: tuple[dict[str, Any], ...] = (
    {},
    {"itlMilliseconds": 50},
    {"ttftMilliseconds": 1000, "itlMilliseconds": 50},
    {"ttftMilliseconds": 3000, "itlMilliseconds": 100},
    {"ttftMilliseconds": 500, "itlMilliseconds": 30},
    {"tpotMilliseconds": 60},
)
IMAGES: tuple[dict[str, Any], ...] = (
    {},
    {"image": "docker.io/vllm/vllm-openai:v0.11.1"},
    {"type": "SGLang"},
)


@dataclass
class Chosen:
    """What specs were planned with, as numbers of plans."""

    plans: int = 0
    pipelines: int = 0
    several_nodes: int = 0
    pipelines_over_nodes: int = 0
    never_measured: int = 0
    """Of which nothing near was measured."""

    def count(self, rows: Candidates, i: int) -> None:
        """Count one plan."""
        staged, spread = rows.layouts.pipeline_parallel[i] > 1, rows.nodes_per_replica[i] > 1
        self.plans += 1
        self.pipelines += int(staged)
        self.several_nodes += int(spread)
        self.pipelines_over_nodes += int(staged and spread)
        self.never_measured += int(NEAREST[int(rows.nearest[i])] == "nothing")


def specs(count: int, seed: int) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield random deployments of realistic models, loads and objectives, each with the name of a cluster."""
    rng = random.Random(seed)
    for number in range(count):
        tokens = dict(zip(("inputTokens", "outputTokens"), rng.choice(SHAPES), strict=True))
        load: dict[str, Any] = (
            {"requestsPerSecond": rng.choice(RATES)} if rng.random() < 0.75 else {"concurrency": rng.choice(IN_FLIGHT)}
        )
        slo = {"percentile": rng.choice(("P50", "P95", "P95", "P99")), **rng.choice(OBJECTIVES)}
        spec = {
            "model": {"name": rng.choice(MODELS)},
            "engine": rng.choice(IMAGES),
            "workload": tokens | load,
            "slo": slo,
        }
        yield (
            {
                "apiVersion": "energylens.dev/v1alpha1",
                "kind": "LLMDeployment",
                "metadata": {"name": f"spec-{number}"},
                "spec": spec,
            },
            rng.choice(tuple(CLUSTERS)),
        )


def cluster(name: str) -> ClusterSnapshot:
    """Return the nodes of one of :data:`CLUSTERS`."""
    nodes = [
        GpuNode(f"{product.lower()}-{size}-{number}", product, size)
        for product, size, nodes in CLUSTERS[name]
        for number in range(nodes)
    ]
    return ClusterSnapshot(tuple(nodes))


def main() -> None:
    """Plan the specs and print what was chosen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--specs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("-o", choices=["table", "json"], default="table")
    parser.add_argument("--list", action="store_true", help="Print each spec whose plan has a pipeline.")
    asked = parser.parse_args()
    found = {"by means": Chosen(), "with risk": Chosen()}
    more: list[float] = []
    gpus = load_gpus()
    for document, where in specs(asked.specs, asked.seed):
        deployment = LLMDeployment.model_validate(document)
        model, predictor = model_of(deployment, None), predictor_of(deployment)
        problem = problem_for(deployment, model, cluster(where), gpus, predictor, None, None)
        solution = solve(problem)
        if solution.chosen is None:
            continue
        rows, objective = solution.rows, deployment.spec.energy.objective
        mean = best(rows.without_risk(), feasible(solution.constraints, len(rows)), objective)
        assert mean is not None
        found["by means"].count(rows, mean)
        found["with risk"].count(rows, solution.chosen)
        joules = rows.joules_per_output_token
        more.append(float(joules[solution.chosen] / joules[mean] - 1.0))
        if asked.list and (rows.layouts.pipeline_parallel[solution.chosen] > 1):
            print(json.dumps({"cluster": where, **document["spec"]}))
    if asked.o == "json":
        print(json.dumps({"specs": asked.specs, **{name: asdict(one) for name, one in found.items()}}, indent=1))
        return
    print(f"{asked.specs} specs, seed {asked.seed}: {found['by means'].plans} can be planned")
    print(f"{'':12}{'pipelines':>16}{'several nodes':>16}{'both':>16}{'nothing near':>16}")
    for name, one in found.items():
        shown = (one.pipelines, one.several_nodes, one.pipelines_over_nodes, one.never_measured)
        print(f"{name:12}" + "".join(f"{n:6} ({100 * n / max(one.plans, 1):5.1f} %)" for n in shown))
    print(f"predicted energy of plans with risk above those by means: {100 * float(np.mean(more)):.1f} % on average")


if __name__ == "__main__":
    main()
