"""What spec and engine arguments say of speculative decoding and the prefix cache, and where they disagree."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tests.unit.predictor.models import layouts

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner.engines import EngineSettings, refusals
from energylens.planner.engines.caveats import caveats
from energylens.planner.engines.speculation import Told, speculation_of, told
from energylens.planner.planning import problem_for
from energylens.planner.search.identity import planning_inputs
from energylens.planner.search.problem import solve
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.predictor.types import Speculation, Workload

Deploy = Callable[..., LLMDeployment]
LLAMA, H100 = "meta-llama/Llama-3.1-8B-Instruct", "NVIDIA-H100-80GB-HBM3"
LOAD = {"inputTokens": 1000, "outputTokens": 300, "requestsPerSecond": "4"}
EAGLE = {"draftTokens": 3, "acceptancePercent": 60}
CLASSES = [
    {"sharePercent": 60, "inputTokens": 100, "outputTokens": 100},
    {"sharePercent": 40, "inputTokens": 900, "outputTokens": 100, "prefixCacheHitPercent": 50},
]
CONFIG = '--speculative-config={"method": "eagle3", "model": "a/b", "num_speculative_tokens": 3}'


def deployed(make_deployment: Deploy, *arguments: str, engine: str = "VLLM", **load: Any) -> LLMDeployment:
    return make_deployment(engine={"type": engine, "extraArgs": list(arguments)}, workload={**LOAD, **load})


@pytest.mark.parametrize(
    ("engine", "arguments", "method", "tokens"),
    [
        ("VLLM", [CONFIG], "EAGLE", 3),
        ("VLLM", ["-sc", '{"method": "ngram", "num_speculative_tokens": 5}'], "NGram", 5),
        ("VLLM", ["--speculative-config.method=mtp", "--speculative-config.num_speculative_tokens=1"], "MTP", 1),
        ("VLLM", ['--speculative-config={"method": "deepseek_mtp"}'], "MTP", None),
        ("VLLM", ['--speculative-config={"method": "draft_model", "model": "a/small"}'], "DraftModel", None),
        ("VLLM", ['--speculative-config={"model": "yuhuili/EAGLE3-LLaMA3.1-Instruct-8B"}'], "EAGLE", None),
        ("VLLM", ['--speculative-config={"method": "medusa"}'], None, None),
        ("SGLang", ["--speculative-algorithm=EAGLE3", "--speculative-num-steps=5"], "EAGLE", 5),
        ("SGLang", ["--speculative-algorithm=NEXTN", "--speculative-num-draft-tokens=4"], "MTP", 3),
        ("SGLang", ["--speculative-algorithm=NEXTN", "--speculative-num-draft-tokens=2"], "MTP", 1),
        ("SGLang", ["--speculative-algorithm=NEXTN", "--speculative-num-draft-tokens=1"], "MTP", 1),
        ("SGLang", ["--speculative-algorithm", "STANDALONE"], "DraftModel", None),
        ("VLLM", ["--spec-method=eagle", "--spec-tokens=0"], "EAGLE", None),
    ],
)
def test_arguments_of_either_engine_are_read(
    engine: str, arguments: list[str], method: str | None, tokens: int | None, make_deployment: Deploy
) -> None:
    found = told(EngineSettings.of(deployed(make_deployment, *arguments, engine=engine).spec.engine))
    assert found is not None
    assert (found.method, found.draft_tokens) == (method, tokens)
    assert found.written in arguments


def test_without_an_argument_nothing_is_told(make_deployment: Deploy) -> None:
    assert told(EngineSettings.of(deployed(make_deployment, "--seed=1").spec.engine)) is None
    assert Told("x", None, None) != told(EngineSettings.of(deployed(make_deployment, CONFIG).spec.engine))


@pytest.mark.parametrize(
    ("speculative", "arguments", "expected"),
    [
        (None, [CONFIG], None),
        (EAGLE, [], Speculation("EAGLE", 3, 0.6)),
        (EAGLE, ['-sc={"method": "ngram"}'], Speculation("NGram", 3, 0.6)),
        ({**EAGLE, "method": "MTP"}, [CONFIG], Speculation("MTP", 3, 0.6)),
        ({**EAGLE, "method": "MTP"}, [], Speculation("MTP", 3, 0.6)),
        (EAGLE, ['-sc={"method": "medusa"}'], Speculation("EAGLE", 3, 0.6)),
        ({**EAGLE, "draftModelMillionParameters": 500}, [CONFIG], Speculation("EAGLE", 3, 0.6)),
        ({**EAGLE, "method": "DraftModel", "draftModelMillionParameters": 500}, [],
         Speculation("DraftModel", 3, 0.6, 5e8)),
        ({**EAGLE, "draftModelMillionParameters": 500}, ['-sc={"method": "draft_model"}'],
         Speculation("DraftModel", 3, 0.6, 5e8)),
        (EAGLE, ['-sc={"method": "draft_model"}'], Speculation("EAGLE", 3, 0.6)),
    ],
)  # fmt: skip
def test_the_spec_says_what_is_planned_and_the_arguments_fill_in_the_method(
    speculative: dict[str, Any] | None, arguments: list[str], expected: Speculation | None, make_deployment: Deploy
) -> None:
    load: dict[str, Any] = {} if speculative is None else {"speculative": speculative}
    assert speculation_of(deployed(make_deployment, *arguments, **load).spec) == expected


@pytest.mark.parametrize(
    ("engine", "load", "arguments", "said"),
    [
        ("VLLM", {"speculative": EAGLE}, [], "extraArgs does not enable speculative decoding in vLLM"),
        ("VLLM", {}, [CONFIG], "set spec.workload.speculative to include it"),
        ("VLLM", {"speculative": EAGLE}, [CONFIG], ""),
        ("VLLM", {"speculative": {**EAGLE, "draftTokens": 5}}, [CONFIG], "draftTokens=5, but --speculative-config="),
        ("VLLM", {"speculative": {**EAGLE, "method": "MTP"}}, [CONFIG], "selects EAGLE"),
        ("VLLM", {"speculative": EAGLE}, ['-sc={"method": "draft_model"}'], "set spec.workload.speculative.draftModel"),
        ("VLLM", {"prefixCacheHitPercent": 50}, ["--no-enable-prefix-caching"],
         "prefixCacheHitPercent=50, but --no-enable-prefix-caching turns the prefix cache off"),
        ("VLLM", {"prefixCacheHitPercent": 50}, ["--enable-prefix-caching"], ""),
        ("VLLM", {}, ["--no-enable-prefix-caching"], ""),
        ("SGLang", {"prefixCacheHitPercent": 50}, ["--disable-radix-cache"], "--disable-radix-cache turns the prefix"),
        ("SGLang", {"prefixCacheHitPercent": 50}, [], ""),
    ],
)  # fmt: skip
def test_contradictions_are_said(
    engine: str, load: dict[str, Any], arguments: list[str], said: str, make_deployment: Deploy
) -> None:
    spec = deployed(make_deployment, *arguments, engine=engine, **load).spec
    found = "; ".join(caveats(EngineSettings.of(spec.engine), load_model(LLAMA), load_gpus()[H100], spec.workload))
    assert (said in found) if said else found == ""


def test_one_class_that_counts_on_the_prefix_cache_contradicts_its_absence(make_deployment: Deploy) -> None:
    load = {"classes": CLASSES, "requestsPerSecond": "4"}
    engine = {"type": "VLLM", "extraArgs": ["--no-enable-prefix-caching"]}
    spec = make_deployment(engine=engine, workload=load).spec
    (said,) = caveats(EngineSettings.of(spec.engine), load_model(LLAMA), load_gpus()[H100], spec.workload)
    assert said.startswith("spec.workload.classes: prefixCacheHitPercent=50, but --no-enable-prefix-caching")


def test_sglang_drafts_without_stages_only(make_deployment: Deploy) -> None:
    both = layouts((1, 1, 1, 1), (1, 2, 1, 1), batch=16)
    one, model, gpu = np.ones(2, dtype=np.int64), load_model(LLAMA), load_gpus()[H100]
    for engine, arguments, refused in (
        ("SGLang", ["--speculative-algorithm=EAGLE3"], True),
        ("SGLang", [], False),
        ("VLLM", [CONFIG], False),
    ):
        settings = EngineSettings.of(deployed(make_deployment, *arguments, engine=engine).spec.engine)
        found = refusals(model, gpu, both, one, Workload(100, 100), settings)
        assert found[0] == ""
        assert bool(found[1]) is refused
        assert ("--speculative-algorithm=EAGLE3" in found[1]) is refused


def test_another_way_to_draft_is_another_plan(make_deployment: Deploy) -> None:
    texts = ((), (CONFIG,), ('-sc={"method": "ngram", "num_speculative_tokens": 3}',))
    hashes = [planning_inputs(deployed(make_deployment, *one, speculative=EAGLE).spec) for one in texts]
    assert hashes[0] != hashes[1] != hashes[2]
    assert "drafting" not in hashes[0]


def test_the_plan_is_of_the_load_as_it_is(make_deployment: Deploy) -> None:
    def joules(**load: Any) -> float:
        snapshot = ClusterSnapshot((GpuNode("a", H100, 2),))
        asked = problem_for(
            deployed(make_deployment, **load),
            load_model(LLAMA),
            snapshot,
            load_gpus(),
            load_predictor("vllm"),
            None,
            None,
        )
        found = solve(asked)
        assert found.chosen is not None
        return float(found.rows.joules_per_output_token[found.chosen])

    plain = joules()
    assert joules(prefixCacheHitPercent=0) == plain
    assert joules(prefixCacheHitPercent=80) < plain
    assert joules(speculative={**EAGLE, "acceptancePercent": 0}) > plain
    assert joules(speculative={**EAGLE, "acceptancePercent": 90}) < joules(
        speculative={**EAGLE, "acceptancePercent": 10}
    )
