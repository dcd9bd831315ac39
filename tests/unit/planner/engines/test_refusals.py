"""Messages of refused layouts: each layout has its own reason."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.planner.engines.test_rules import BLOCK, H100, SHORT, dense, engine, layout, mamba, refusal
from tests.unit.predictor.models import layouts

from energylens.data import load_model
from energylens.planner.engines import refusals
from energylens.planner.engines.caveats import caveats
from energylens.planner.engines.layouts import too_long
from energylens.predictor.model.architecture import (
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    Mixer,
    ModelSpec,
    MoeFfn,
    Quantization,
)
from energylens.predictor.requests import RequestClass
from energylens.predictor.types import Workload

MOE = load_model("Qwen/Qwen3-30B-A3B")
QWEN = load_model("Qwen/Qwen3-8B")


def test_each_size_that_cannot_share_the_groups_is_named_with_its_own_layout() -> None:
    sizes = (1, 2, 3, 4, 8)
    found = refusals(
        mamba(4), H100, layouts(*((tp, 1, 1, 1) for tp in sizes), batch=16), np.ones(5, dtype=np.int64), SHORT, engine()
    )
    for tp, text in zip(sizes, found, strict=True):
        assert (f"by tensor parallel ({tp})" in text) if 4 % tp else text == ""


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ((), "spec.planning.overrides.maxBatchedTokens"),
        (("--max-num-batched-tokens=64",), "--max-num-batched-tokens in spec.engine.extraArgs"),
    ],
)
def test_a_batch_above_a_step_names_the_field_that_sets_the_step(arguments: tuple[str, ...], field: str) -> None:
    small = replace(layout(batch=65), max_batched_tokens=np.asarray([64]))
    text = refusal(QWEN, small, engine("VLLM", *arguments))
    assert text == f"max batch 65 is more than the 64 tokens of a step on H100; raise {field}"
    assert (
        refusal(QWEN, replace(layout(batch=64), max_batched_tokens=np.asarray([64])), engine("VLLM", *arguments)) == ""
    )


@pytest.mark.parametrize(("tokens", "refused"), [(1, True), (4095, True), (4096, False), (0, False)])
def test_a_step_without_chunks_holds_the_context(tokens: int, refused: bool) -> None:
    """No tokens stand for the engine's default."""
    settings = engine("VLLM", "--no-enable-chunked-prefill", "--max-model-len=4096")
    text = refusal(QWEN, replace(layout(batch=1), max_batched_tokens=np.asarray([tokens])), settings)
    assert ("a step must hold the 4096 tokens of the context" in text) is refused
    assert bool(text) is refused


def test_a_switch_that_is_off_as_usual_hides_no_other_option() -> None:
    (said,) = caveats(engine("VLLM", "--no-enable-lora", "--lora-modules=a=b"), QWEN, H100)
    assert said == "the figures do not include --lora-modules=a=b (LoRA adapters)"


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
@pytest.mark.parametrize(
    "model",
    [
        mamba(4),
        dense(18944, BLOCK, heads=40, kv_heads=1, head_dim=96),
        dense(29568, Quantization("int4", "bfloat16", "group")),
        load_model("deepseek-ai/DeepSeek-V3"),
        load_model("deepseek-ai/DeepSeek-V4-Flash"),
        load_model("Qwen/Qwen3-Next-80B-A3B-Instruct"),
        load_model("stepfun-ai/Step-3.7-Flash-FP8"),
    ],
    ids=lambda model: model.family,
)
def test_each_layout_is_judged_as_if_it_were_alone(name: str, model: ModelSpec) -> None:
    degrees = [(t, p, e, d) for t in (1, 2, 3, 5, 8) for p in (1, 2) for d in (1, 3) for e in {1, t * d}]
    many = layouts(*degrees, batch=16)
    nodes = np.asarray([2 if p == 2 or d == 3 else 1 for _, p, _, d in degrees])
    settings = engine(name)
    together = refusals(model, H100, many, nodes, SHORT, settings)
    for place, text in enumerate(together):
        one = many.take(np.asarray([place]))
        assert refusals(model, H100, one, nodes[place : place + 1], SHORT, settings)[0] == text


def test_sglang_copies_a_dense_model_on_one_node_only() -> None:
    text = "SGLang runs data-parallel copies of a dense model only on one node"
    assert refusal(QWEN, layout(dp=2), engine("SGLang"), nodes=2) == text
    assert refusal(QWEN, layout(dp=2), engine("SGLang"), nodes=1) == ""
    assert refusal(QWEN, layout(pp=2), engine("SGLang"), nodes=2) == ""
    assert refusal(QWEN, layout(dp=2), engine("VLLM"), nodes=2) == ""
    assert refusal(MOE, layout(tp=2, ep=4, dp=2), engine("SGLang"), nodes=2) == ""


@pytest.mark.parametrize(("tokens", "refused"), [(1024, False), (1025, True), (0, False), (64, False)])
def test_a_step_of_sglang_holds_whole_pages(tokens: int, refused: bool) -> None:
    one = replace(layout(), max_batched_tokens=np.asarray([tokens]))
    text = "the tokens of a step are not a multiple of the 64 tokens of a page of the KV cache"
    assert refusal(QWEN, one, engine("SGLang", "--page-size=64")) == (text if refused else "")
    assert refusal(QWEN, one, engine("SGLang")) == ""


def test_one_expert_rank_is_the_nearest_number_where_no_other_divides() -> None:
    (group,) = {g for g in MOE.layers if isinstance(g.ffn, MoeFfn)}
    nine = replace(MOE, layers=(replace(group, ffn=MoeFfn(9, 2, 768)),))
    found = refusal(nine, layout(tp=2, ep=2), engine("SGLang"))
    assert "9 experts are not divisible by expert parallel (2)" in found
    assert found.endswith("the nearest smaller value is 1")


@pytest.mark.parametrize(
    ("arguments", "most", "beyond"),
    [
        ((), 16_384, "the 16384 tokens of the model's context"),
        (("--max-model-len=8192",), 8192, "the 8192 tokens that '--max-model-len=8192' allows"),
        (("--num-gpu-blocks-override=512",), 8192, "the 8192 tokens of '--num-gpu-blocks-override=512'"),
    ],
)
def test_a_request_may_fill_the_context(arguments: tuple[str, ...], most: int, beyond: str) -> None:
    phi, settings = load_model("microsoft/phi-4"), engine("VLLM", *arguments)
    assert too_long(phi, Workload(most - 100, 100), settings) == ""
    asked = f"inputTokens {most - 99} + outputTokens 100"
    assert too_long(phi, Workload(most - 99, 100), settings) == f"{asked} is more than {beyond}"


def test_the_longest_class_is_named_by_prompt_and_output_together() -> None:
    phi = load_model("microsoft/phi-4")
    shapes = ((9000, 100), (8000, 9000), (100, 12_000))
    mixed = Workload.of_classes(tuple(RequestClass(1 / 3, inputs, outputs) for inputs, outputs in shapes))
    assert too_long(phi, mixed, engine()).startswith("classes[1]: inputTokens 8000 + outputTokens 9000 is more than")


def test_whole_experts_are_not_cut() -> None:
    (group,) = {g for g in MOE.layers if isinstance(g.ffn, MoeFfn)}
    narrow = replace(MOE, layers=(replace(group, ffn=MoeFfn(128, 8, 128)),), expert_quant=BLOCK)
    assert refusal(narrow, layout(tp=2, ep=2)) == ""
    assert "expert width 128 over 2 ranks" in refusal(narrow, layout(tp=2))


@pytest.mark.parametrize(
    ("mixer", "tp", "text"),
    [
        (LatentAttention(16, None, 512, 128, 64, 128), 8, ""),
        (LatentAttention(4, None, 512, 128, 64, 128), 4, "query width 768 over 4 ranks of tensor parallel is 192 each"),
        (LatentAttention(4, None, 512, 64, 64, 128), 4, "key and value width 768 over 4 ranks"),
        (LatentAttention(4, None, 512, 64, 64, 64), 4, "attention output 256 over 4 ranks"),
        (Mamba2(4, 64, 128, 8, 4), 4, "mixer output 256 over 4 ranks of tensor parallel is 64 each"),
        (GatedDeltaNet(4, 4, 128, 64, 4), 4, "linear attention output 256 over 4 ranks"),
    ],
)
def test_every_mixer_is_cut_at_scales(mixer: Mixer, tp: int, text: str) -> None:
    model = dense(8192, BLOCK)
    found = refusal(replace(model, layers=(replace(model.layers[0], mixer=mixer),)), layout(tp=tp))
    assert (text in found) if text else found == ""


def test_few_key_heads_are_copied_and_stay_whole() -> None:
    """One key head of 128 is on each of eight ranks; query heads are divided."""
    model = dense(8192, BLOCK, heads=8, kv_heads=1, head_dim=128)
    assert refusal(model, layout(tp=8), engine("SGLang")) == ""
    odd = dense(8192, BLOCK, heads=3, kv_heads=1, head_dim=128 + 64)
    assert "query width 576 over 1 rank of tensor parallel" in refusal(odd, layout(), engine("SGLang"))
