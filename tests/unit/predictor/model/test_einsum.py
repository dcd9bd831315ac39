"""FLOPs, bytes and messages against counts done by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.unit.predictor import models
from tests.unit.predictor.models import layouts

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_coefficients
from energylens.predictor.model.architecture import Attention, DenseFfn, LayerGroup, ModelSpec
from energylens.predictor.model.einsum import Collective, Einsum, Split
from energylens.predictor.model.lowering import lower
from energylens.predictor.model.parameters import mixer_parameters, shared_ffn_parameters
from energylens.predictor.step.building import build_work
from energylens.predictor.step.work import StepLoad, Work
from energylens.predictor.types import Layouts

H100 = find_gpu("H100")


def step(model: ModelSpec, where: Layouts, decode: float, context: float, prefill: float = 0.0) -> Work:
    ones = np.ones(len(where))
    load = StepLoad(ones * decode, ones * context, ones * prefill, ones * max(prefill, 1.0))
    return build_work(model, H100, where, load, {})


def row(work: Work, label: str, name: str) -> np.ndarray:
    return getattr(work, name)[work.labels.index(label)]


def test_a_dense_layer_of_llama_by_hand() -> None:
    work = step(models.dense(), layouts((1, 1, 1, 1)), decode=10, context=100)
    # 2 layers, hidden 128, 8 heads and 2 KV heads of 16, feed-forward 256. One kernel computes all of the projection.
    assert row(work, "query", "launches") == 2
    assert row(work, "query", "flops")[0] == 2 * 2 * 10 * 128 * (8 + 2 + 2) * 16
    assert row(work, "query", "weight_bytes")[0] == 2 * 2 * 128 * (8 + 2 + 2) * 16
    assert row(work, "query", "activation_bytes")[0] == 2 * 2 * 10 * (128 + (8 + 2 + 2) * 16)
    # Another one computes scores and values.
    assert row(work, "scores", "launches") == 2
    assert row(work, "scores", "flops")[0] == 2 * 2 * 10 * 8 * 16 * 100 * 2
    assert row(work, "scores", "cache_bytes")[0] == 2 * 2 * 10 * 100 * (2 + 2) * 16
    assert row(work, "up", "weight_bytes")[0] == 2 * 2 * 128 * 512
    assert row(work, "down", "flops")[0] == 2 * 2 * 10 * 256 * 128
    assert row(work, "head", "flops")[0] == 2 * 10 * 128 * 1000


def test_tensor_parallel_splits_weights_and_replicates_few_kv_heads() -> None:
    work = step(models.dense(), layouts((1, 1, 1, 1), (4, 1, 1, 1)), decode=10, context=100)
    assert row(work, "up", "weight_bytes")[1] == row(work, "up", "weight_bytes")[0] / 4
    # Two KV heads over four GPUs: each GPU holds one, not half of one.
    assert row(work, "scores", "cache_bytes")[1] == row(work, "scores", "cache_bytes")[0] / 2


def test_a_summed_split_rank_implies_an_all_reduce_of_the_hidden_state() -> None:
    work = step(models.dense(), layouts((2, 1, 1, 1)), decode=10, context=100)
    reduces = [i for i, kind in enumerate(work.collectives.kind) if kind is Collective.ALL_REDUCE]
    # After attention and after the feed-forward part, in each of two layers, 10 tokens of 128 16-bit numbers.
    assert sum(work.collectives.count[i, 0] for i in reduces) == 4
    assert {float(work.collectives.message_bytes[i, 0]) for i in reduces} == {10 * 128 * 2.0}


def test_a_mixture_reads_only_the_experts_that_are_hit() -> None:
    one = step(models.mixture(), layouts((1, 1, 1, 1)), decode=1, context=10)
    # 3 layers, 4 of 32 experts with three matrices of 128 x 128.
    assert row(one, "experts", "flops")[0] == 3 * 2 * 4 * 3 * 128 * 128
    assert row(one, "experts", "weight_bytes")[0] == pytest.approx(3 * 4 * 3 * 128 * 128 * 2, rel=0.02)
    many = step(models.mixture(), layouts((1, 1, 1, 1)), decode=100_000, context=10)
    assert row(many, "experts", "weight_bytes")[0] == pytest.approx(3 * 32 * 3 * 128 * 128 * 2, rel=1e-3)


def test_expert_parallel_splits_experts_and_sends_tokens_only_across_data_parallel_ranks() -> None:
    work = step(models.mixture(), layouts((4, 1, 4, 1), (1, 1, 4, 4)), decode=64, context=10)
    by_kind = {kind: i for i, kind in enumerate(work.collectives.kind) if kind is Collective.ALL_TO_ALL}
    i = by_kind[Collective.ALL_TO_ALL]
    assert work.collectives.count[i].tolist() == [0.0, 6.0]
    assert work.collectives.group[i].tolist() == [1.0, 4.0]
    # Four ranks of 64 tokens give every expert four times the tokens of one rank.
    assert row(work, "experts", "flops")[1] == 4 * row(work, "experts", "flops")[0]


def test_a_sliding_window_bounds_what_a_query_reads() -> None:
    short, long = (step(models.sliding(), layouts((1, 1, 1, 1)), 1, context) for context in (64.0, 640.0))
    assert row(short, "scores", "cache_bytes")[0] > 0
    cached = [w.cache_bytes.sum() for w in (short, long)]
    # Five of six layers stop at 64 tokens, one grows tenfold: (5 + 10) / 6.
    assert cached[1] / cached[0] == pytest.approx(15 / 6)


def test_latent_attention_caches_one_vector_whatever_the_heads_and_does_not_split_it() -> None:
    work = step(models.latent(), layouts((1, 1, 1, 1), (8, 1, 8, 1)), decode=10, context=100)
    # Every GPU reads all of it.
    assert work.cache_bytes.sum(axis=0).tolist() == [2 * 10 * 100 * (32 + 8) * 2.0] * 2
    assert row(work, "absorb_key", "flops")[0] == 2 * 2 * 10 * 8 * 16 * 32


def test_a_recurrent_layer_reads_and_writes_its_state_whatever_the_context() -> None:
    short, long = (step(models.hybrid(), layouts((1, 1, 1, 1)), 10, context) for context in (100.0, 1000.0))
    assert row(short, "state_update", "cache_bytes")[0] == 3 * 2 * 2.0 * 10 * 8 * 16 * 32
    assert row(long, "state_update", "cache_bytes")[0] == row(short, "state_update", "cache_bytes")[0]


def test_block_scaled_fp8_computes_whole_tiles_for_every_local_expert() -> None:
    plain = step(models.mixture(), layouts((1, 1, 1, 1)), 10, 10)
    scaled = step(models.mixture(models.FP8_BLOCK), layouts((1, 1, 1, 1), (4, 1, 4, 1)), 10, 10)
    assert plain.aligned_flops.sum() == 0
    # 10 tokens x 4 pairs and 127 rows per local expert, three layers, three matrices of 128 x 128.
    rows = [10 * 4 + 127 * 32, 10 * 4 + 127 * 32 / 4]
    assert scaled.aligned_flops.sum(axis=0).tolist() == pytest.approx([3 * r * 2 * 3 * 128 * 128 for r in rows])


def test_experts_run_in_large_tiles_once_a_step_has_more_tokens_than_a_gpu_has_experts() -> None:
    few, many = (step(models.mixture(), layouts((1, 1, 1, 1), (4, 1, 4, 1)), n, 10) for n in (20, 36))
    assert few.coarse_tiles.max(axis=0).tolist() == pytest.approx([0.0, 1.0], abs=0.1)
    assert many.coarse_tiles.max(axis=0) == pytest.approx([0.9, 0.9], abs=0.1)
    assert step(models.mixture(models.FP8_BLOCK), layouts((4, 1, 4, 1)), 36, 10).coarse_tiles.max() == 0.0
    # Rows of padding are computed, too: at least 16 per hit expert in small tiles, 64 in large ones.
    real = row(few, "experts", "flops")[0]
    assert row(few, "experts", "tile_flops")[0] > 3 * real
    assert row(few, "experts", "tile_flops")[1] > 3 * row(few, "experts", "tile_flops")[0] / 4


def test_full_tiles_are_no_loss() -> None:
    large = step(models.mixture(), layouts((1, 1, 1, 1)), 100_000, 10)
    assert large.coarse_tiles.max() < 0.01
    assert row(large, "experts", "tile_flops")[0] == pytest.approx(row(large, "experts", "flops")[0], rel=0.01)


def test_one_chunked_layer_keeps_all_attention_out_of_cuda_graphs() -> None:
    def group(chunked: bool) -> LayerGroup:
        return LayerGroup(2, Attention(8, 4, 16, window=64, chunked=chunked), DenseFfn(256))

    def eager(*groups: LayerGroup) -> object:
        model = ModelSpec("m", "llama4", hidden=128, vocab=1000, layers=groups)
        return step(model, layouts((1, 1, 1, 1)), 10, 10).layers.eager

    assert eager(group(False), group(False)) == 0
    assert eager(group(False), group(True)) == 4


def test_cuda_graphs_hold_twice_the_batch_and_no_more_than_the_largest_graph() -> None:
    work = step(models.dense(), layouts((1, 1, 1, 1), batch=8), 8, 10)
    assert work.graph_tokens[0] == 16
    many = layouts((1, 1, 1, 1), batch=1024)
    assert step(models.dense(), many, 8, 10).graph_tokens[0] == 512
    # An argument decides, whatever the batch.
    for given in (16, 2048):
        stated = replace(many, graph_tokens=np.array([given]))
        assert step(models.dense(), stated, 8, 10).graph_tokens[0] == given


def test_deepseek_s_experts_are_not_aligned_and_take_no_table_on_blackwell() -> None:
    model = replace(models.latent(), expert_quant=models.FP8_BLOCK)
    ones, where, tables = np.ones(1), layouts((1, 1, 1, 1)), load_coefficients().tables
    load = StepLoad(ones * 10, ones * 10, ones * 0.0, ones)
    hopper, blackwell = (build_work(model, gpu, where, load, tables) for gpu in (H100, find_gpu("B200")))
    for work in (hopper, blackwell):
        assert work.aligned_flops.sum() == 0
        assert row(work, "experts", "tile_flops")[0] > 0
    assert row(hopper, "experts", "table_seconds")[0] > 0
    assert row(blackwell, "experts", "table_seconds")[0] == 0


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", 8.03),
        ("meta-llama/Llama-3.1-70B-Instruct", 70.55),
        ("meta-llama/Llama-3.1-405B-Instruct", 405.85),
        ("Qwen/Qwen3-30B-A3B", 30.5),
        ("Qwen/Qwen3-235B-A22B", 235.1),
        ("deepseek-ai/DeepSeek-V3", 671.0),
        ("google/gemma-3-12b-it", 11.77),
        ("openai/gpt-oss-120b", 116.8),
    ],
)
def test_the_einsums_hold_every_parameter_of_a_model(name: str, billions: float) -> None:
    model = load_model(name)
    weights = sum(
        op.count * part.einsum.operand_elements
        for op in lower(model).operations
        for part in op.parts
        if part.einsum.operand.value == "weight"
    )
    embedding = 0 if model.tied_embeddings else model.vocab * model.hidden
    assert (weights + embedding) / 1e9 == pytest.approx(billions, rel=0.01)


def test_the_einsums_of_each_mixer_hold_its_parameters() -> None:
    for model in (models.dense(), models.sliding(), models.latent()):
        group = model.layers[0]
        expected = mixer_parameters(group.mixer, model.hidden) + shared_ffn_parameters(group.ffn, model.hidden)
        single = ModelSpec("one", model.family, model.hidden, model.vocab, (group,))
        found = sum(
            op.count * part.einsum.operand_elements
            for op in lower(single).operations
            for part in op.parts
            if part.einsum.operand.value == "weight" and part.einsum.label != "head" and op.moe is None
        )
        assert found == expected * group.count


def test_an_einsum_names_the_rank_without_a_size() -> None:
    with pytest.raises(ValueError, match="rank 'f' of 'tm,mf->tf' has no size"):
        Einsum("up", "tm,mf->tf", (("m", 4),))
    with pytest.raises(ValueError, match="parallel rank 'x'"):
        Einsum("up", "tm,mf->tf", (("m", 4), ("f", 8)), parallel="x", split=Split.TENSOR)
