"""Layouts that engines refuse, from public reports and the engines' sources. No number here is the planner's own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from tests.unit.predictor.models import layouts

from energylens.api.llmdeployment import Engine, Overrides, PowerCap
from energylens.data import find_gpu, known_models, load_gpus, load_model
from energylens.planner.engines import EngineSettings, refusals
from energylens.planner.engines.caveats import caveats
from energylens.planner.engines.kernels import capability, missing_kernels
from energylens.planner.search.space import enumerate_space
from energylens.predictor.fitted.profiles import default_step_tokens
from energylens.predictor.huggingface.config import model_from_config
from energylens.predictor.huggingface.fields import UnsupportedConfigError
from energylens.predictor.model.architecture import Attention, DenseFfn, LayerGroup, ModelSpec, Quantization
from energylens.predictor.model.rules import unsupported_reasons
from energylens.predictor.types import GpuSpec, Layouts, Workload

H100 = find_gpu("H100")
SHORT = Workload(100, 100)
SMALL = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "vocab_size": 100,
}


def engine(name: str = "VLLM", *arguments: str, image: str | None = None, **env: str) -> EngineSettings:
    variables = [{"name": key, "value": value} for key, value in env.items()]
    return EngineSettings.of(
        Engine.model_validate({"type": name, "extraArgs": list(arguments), "image": image, "env": variables})
    )


def layout(tp: int = 1, pp: int = 1, ep: int = 1, dp: int = 1, batch: int = 16) -> Layouts:
    return layouts((tp, pp, ep, dp), batch=batch)


def refusal(
    model: ModelSpec, where: Layouts, settings: EngineSettings | None = None, gpu: Any = H100, nodes: int = 1
) -> str:
    found = refusals(model, gpu, where, np.asarray([nodes]), SHORT, settings or engine())
    return str(found[0])


def dense(width: int, quant: Quantization, heads: int = 32, kv_heads: int = 8, head_dim: int = 128) -> ModelSpec:
    group = LayerGroup(4, Attention(heads, kv_heads, head_dim), DenseFfn(width))
    return ModelSpec("m", "llama", 4096, 32000, (group,), attention_quant=quant, ffn_quant=quant, expert_quant=quant)


BLOCK = Quantization("fp8", "fp8", "block")


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
def test_shared_experts_are_cut_in_whole_blocks_whatever_expert_parallelism_is(name: str) -> None:
    """sgl-project/sglang#26107, vllm-project/vllm#52997: 1280 / 4 = 320 is no multiple of 128."""
    step = load_model("stepfun-ai/Step-3.7-Flash-FP8")
    found = refusal(step, layout(tp=4, ep=4), engine(name))
    assert "shared expert width 1280 over 4 ranks" in found
    assert "320 each, which is not a multiple of 128, the block size of FP8 scales" in found
    assert refusal(step, layout(tp=2, ep=2), engine(name)) == ""
    assert refusal(load_model("stepfun-ai/Step-3.7-Flash"), layout(tp=4, ep=4), engine(name)) == ""


@pytest.mark.parametrize(
    ("width", "quant", "tp", "unit"),
    [
        (29568, Quantization("int4", "bfloat16", "group"), 2, "128, the group size of INT4"),
        (29568, Quantization("int4", "bfloat16", "group", 64), 2, ""),
        (29568, Quantization("int4", "bfloat16", "per_channel"), 2, ""),
        (29568, Quantization("int8", "bfloat16", "group", 32), 8, "32, the group size of INT8"),
        (29568, Quantization("fp8", "fp8", "per_tensor"), 8, ""),
        (18944, BLOCK, 8, "128, the block size of FP8"),
        (18944, Quantization("fp8", "fp8", "block", block=(64, 64)), 8, ""),
        (18944, Quantization("fp8", "fp8", "block", block=(64, 128)), 8, "128, the block size of FP8"),
        (18944, BLOCK, 4, ""),
        (1000, Quantization("nvfp4", "bfloat16", "group"), 8, "16, the group size of NVFP4"),
        (1000, Quantization("mxfp4", "bfloat16", "group"), 2, "32, the group size of MXFP4"),
    ],
)
def test_dense_widths_are_cut_at_scales(width: int, quant: Quantization, tp: int, unit: str) -> None:
    found = refusal(dense(width, quant), layout(tp=tp))
    assert (unit in found) if unit else found == ""
    assert refusal(dense(width, quant), layout(tp=1, pp=2)) == ""


def test_the_attention_output_is_cut_at_scales_too() -> None:
    """40 heads of 64 over 8 ranks are 320 inputs of the output projection."""
    model = dense(8192, Quantization("int4", "bfloat16", "group"), heads=40, kv_heads=8, head_dim=64)
    assert "attention output 2560 over 8 ranks of tensor parallel is 320 each" in refusal(model, layout(tp=8))
    assert refusal(model, layout(tp=4)) == ""


def test_sglang_checks_queries_and_keys_apart() -> None:
    model = dense(8192, BLOCK, heads=32, kv_heads=8, head_dim=64)
    assert "key width 512 over 8 ranks" in refusal(model, layout(tp=8), engine("SGLang"))
    assert refusal(model, layout(tp=8), engine("VLLM")) == ""


@pytest.mark.parametrize(
    ("quantization", "refused"),
    [
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, True),
        ({"quant_method": "fp8", "weight_block_size": [64, 64]}, False),
        ({"quant_method": "fp8", "weight_block_size": [128, 128], "modules_to_not_convert": ["mlp"]}, False),
        ({"quant_method": "fp8"}, False),
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": 64}, False),
        ({"quant_method": "gptq", "bits": 8, "group_size": 128}, True),
        ({"quant_method": "gptq", "bits": 4, "group_size": -1}, False),
        ({"quant_method": "gptq", "bits": 8, "group_size": -1}, False),
    ],
)
def test_config_json_says_what_scales_cover(quantization: dict[str, Any], refused: bool) -> None:
    config = {
        "model_type": "qwen2",
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 2,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "quantization_config": quantization,
    }
    assert bool(refusal(model_from_config(config, "m"), layout(tp=8))) is refused


def test_sglang_spreads_experts_evenly() -> None:
    """It asserts that experts divide; vLLM takes remainders, but not on DeepSeek V4's own path."""
    deepseek = load_model("deepseek-ai/DeepSeek-V3")
    found = refusal(deepseek, layout(tp=4, ep=12, dp=3), engine("SGLang"), nodes=2)
    assert "256 experts are not divisible by expert parallel (12)" in found
    assert "the nearest smaller value is 8" in found
    assert refusal(deepseek, layout(tp=4, ep=12, dp=3), nodes=2) == ""
    assert "256 experts are not divisible" in refusal(
        load_model("deepseek-ai/DeepSeek-V4-Flash"), layout(tp=1, ep=3, dp=3)
    )


def test_sglang_cuts_dense_layers_over_data_parallel_ranks_too() -> None:
    step = load_model("stepfun-ai/Step-3.7-Flash-FP8")
    assert "over 4 ranks of tensor parallel x data parallel" in refusal(
        step, layout(tp=2, ep=4, dp=2), engine("SGLang")
    )
    assert refusal(step, layout(tp=2, ep=4, dp=2)) == ""


@pytest.mark.parametrize(
    ("gpu", "expected"),
    [
        ("A10G", (8, 0)),
        ("A100", (8, 0)),
        ("L4", (8, 9)),
        ("H200", (9, 0)),
        ("B200", (10, 0)),
        ("RTX-PRO-6000", (12, 0)),
    ],
)
def test_the_compute_capability_follows_from_the_product(gpu: str, expected: tuple[int, int]) -> None:
    assert capability(find_gpu(gpu)) == expected


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
@pytest.mark.parametrize(
    "model",
    ["deepseek-ai/DeepSeek-V4-Flash", "deepseek-ai/DeepSeek-V3.2", "zai-org/GLM-5-FP8", "zai-org/GLM-5.2"],
)
def test_sparse_attention_has_kernels_on_hopper_and_datacentre_blackwell_only(name: str, model: str) -> None:
    """vllm-project/vllm#40851, #57144."""
    spec = load_model(model)
    for gpu in ("A100", "A10G", "L4", "L40S", "RTX-PRO-6000"):
        assert "sparse attention needs Hopper or datacentre Blackwell" in missing_kernels(
            spec, find_gpu(gpu), engine(name)
        )
    for gpu in ("H100", "H20", "B200", "GB300"):
        assert missing_kernels(spec, find_gpu(gpu), engine(name)) == ""
    assert missing_kernels(load_model("deepseek-ai/DeepSeek-V3"), find_gpu("A100"), engine("VLLM")) == ""


def test_nvfp4_is_unpacked_where_the_engine_does() -> None:
    """vllm-project/vllm#18000, #37296; SGLang 0.5.23 falls back to Marlin, older ones do not."""
    model = load_model("nvidia/Qwen3-235B-A22B-NVFP4")
    for gpu in ("H100", "A100", "L40S"):
        assert missing_kernels(model, find_gpu(gpu), engine("VLLM")) == ""
        assert missing_kernels(model, find_gpu(gpu), engine("SGLang")) == ""
        old = missing_kernels(model, find_gpu(gpu), engine("SGLang", image="lmsysorg/sglang:v0.5.0"))
        assert "has no FP4 arithmetic, and" in old
    assert caveats(engine(), model, H100) == (
        "H100 has no FP4 arithmetic; NVFP4 weights are planned with 16-bit activations",
    )
    assert caveats(engine(), model, find_gpu("B200")) == ()


def test_other_kernels_that_are_missing() -> None:
    int8 = load_model("RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8")
    assert "has no INT8 kernels for Blackwell" in missing_kernels(int8, find_gpu("B200"), engine())
    assert missing_kernels(int8, H100, engine()) == ""
    fbgemm = load_model("meta-llama/Llama-3.1-405B-Instruct-FP8")
    assert "does not support quant_method fbgemm_fp8" in missing_kernels(fbgemm, H100, engine("SGLang"))
    assert missing_kernels(fbgemm, H100, engine()) == ""
    modelopt = load_model("nvidia/Llama-3.1-8B-Instruct-FP8")
    assert "FP8 from NVIDIA ModelOpt" in missing_kernels(modelopt, find_gpu("A100"), engine("SGLang"))
    latent = replace(load_model("deepseek-ai/DeepSeek-V3"), kv_bytes_per_element=1.0)
    assert "latent attention with an FP8 KV cache" in missing_kernels(latent, find_gpu("A100"), engine())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (engine(), "inputTokens 20000 + outputTokens 1000 is more than the 16384 tokens of the model's context"),
        (engine("SGLang"), "more than the 16384 tokens of the model's context"),
        (
            engine("VLLM", "--max-model-len=32768"),
            "'--max-model-len=32768' exceeds the model's context of 16384 tokens",
        ),
        (engine("VLLM", "--max-model-len=32768", VLLM_ALLOW_LONG_MAX_MODEL_LEN="1"), ""),
        (engine("VLLM", "--max-model-len=20k", VLLM_ALLOW_LONG_MAX_MODEL_LEN="1"), "more than the 20000 tokens"),
        (engine("SGLang", "--context-length=32768", SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN="true"), ""),
        (engine("SGLang", "--context-length", "32768"), "exceeds the model's context of 16384 tokens"),
        (engine("VLLM", "--hf-overrides", '{"max_position_embeddings": 32768}'), ""),
        (engine("VLLM", "--hf-overrides.max_position_embeddings=32768", "--max-model-len=32k"), ""),
        (engine("VLLM", '--hf-overrides={"rope_scaling": {"rope_type": "linear", "factor": 2}}'), ""),
        (engine("SGLang", '--json-model-override-args={"rope_scaling": {"type": "yarn", "factor": 2.0}}'), ""),
        (
            engine(
                "SGLang",
                '--json-model-override-args={"rope_scaling": {"rope_type": "yarn", "factor": 2.0, '
                '"original_max_position_embeddings": 16384}}',
            ),
            "more than the 16384 tokens",
        ),
        (engine("VLLM", "--max-model-len=8192"), "more than the 8192 tokens that '--max-model-len=8192' allows"),
        (engine("SGLang", "--max-total-tokens=9000", "--context-length=16384"), "more than the 16384 tokens"),
    ],
)
def test_a_request_fits_into_the_context(settings: EngineSettings, message: str) -> None:
    phi = load_model("microsoft/phi-4")
    found = refusals(phi, H100, layout(), np.asarray([1]), Workload(20_000, 1000), settings)[0]
    assert (message in found) if message else found == ""


@pytest.mark.parametrize(
    ("scaling", "longest", "start"),
    [
        (None, 4096, None),
        ({"type": "linear", "factor": 4.0}, 16384, None),
        ({"rope_type": "dynamic", "factor": 2}, 8192, None),
        ({"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 512}, 4096, None),
        ({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024}, 4096, None),
        (
            {"full_attention": {"rope_type": "linear", "factor": 2.0}, "sliding_attention": {"rope_type": "default"}},
            8192,
            None,
        ),
        ({"type": "longrope"}, 4096, 1024),
    ],
)
def test_position_scaling_is_counted_as_engines_count_it(
    scaling: dict[str, Any] | None, longest: int, start: int | None
) -> None:
    config = SMALL | {
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 1024,
        "rope_scaling": scaling,
    }
    model = model_from_config(config, "m")
    assert (model.max_position, model.start_position) == (longest, start)


@pytest.mark.parametrize(
    ("image", "context"),
    [
        ("vllm/vllm-openai:v0.10.2", 131_072),
        ("vllm/vllm-openai:v0.29.0", 131_072),
        ("vllm/vllm-openai:v0.30.0", 32_768),
        ("vllm/vllm-openai:latest", 32_768),
        ("lmsysorg/sglang:v0.5.20", 32_768),
    ],
)
@pytest.mark.parametrize("trained", [{"original_max_position_embeddings": 32_768}, {}])
def test_yarn_is_counted_as_the_version_of_the_image_counts_it(
    image: str, context: int, trained: dict[str, int]
) -> None:
    config = SMALL | {
        "max_position_embeddings": 32_768,
        "rope_scaling": {"type": "yarn", "factor": 4.0, **trained},
    }
    settings = engine("SGLang" if "sglang" in image else "VLLM", image=image)
    found = refusals(model_from_config(config, "m"), H100, layout(), np.asarray([1]), Workload(39_000, 1000), settings)
    short = "inputTokens 39000 + outputTokens 1000 is more than the 32768 tokens of the model's context"
    assert found[0] == ("" if context > 40_000 else short)


def test_yarn_that_is_counted_already_is_so_for_every_version() -> None:
    scaling = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}
    model = model_from_config(SMALL | {"max_position_embeddings": 163_840, "rope_scaling": scaling}, "m")
    old = engine(image="vllm/vllm-openai:v0.24.0")
    assert (model.max_position, model.yarn_position, old.context_of(model)) == (163_840, None, 163_840)


@pytest.mark.parametrize(
    ("gpu", "tokens"), [("B200", 16384), ("H200", 8192), ("H100", 8192), ("A100-SXM4-80GB", 2048), ("L40S", 2048)]
)
def test_the_tokens_of_a_step_follow_from_the_gpu(gpu: str, tokens: int) -> None:
    assert default_step_tokens("vllm", find_gpu(gpu)) == tokens


@pytest.mark.parametrize(("gib", "tokens"), [(160, 16384), (159, 8192), (70, 8192), (69, 2048)])
def test_the_tokens_of_a_step_change_at_whole_sizes_of_memory(gib: int, tokens: int) -> None:
    assert default_step_tokens("vllm", replace(H100, memory_bytes=float(gib * 2**30))) == tokens


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--enforce-eager"], "--enforce-eager (no CUDA graphs)"),
        (["--no-enforce-eager"], ""),
        (["--enable-lora"], "--enable-lora (LoRA adapters)"),
        (["--cpu_offload_gb=10"], "--cpu_offload_gb=10 (weights in host memory)"),
        (["--dtype=float32"], "--dtype=float32 (another number format)"),
        (["--dtype=bfloat16"], ""),
        (["--load-format=bitsandbytes"], "--load-format=bitsandbytes (another number format)"),
        (["--load-format", "runai_streamer"], ""),
        (["--seed=1"], ""),
        (["--gpu-memory-utilization=0.8"], ""),
        (["--kv-cache-dtype=turboquant_k8v4"], "a KV cache format of unknown size"),
        (["--kv-cache-dtype=fp8"], ""),
        (["--block-size=32"], "--block-size=32 (a KV cache in blocks of another size)"),
        (["-O2"], "--optimization-level=2 (compilation and CUDA graphs)"),
        (["--stream-interval=10"], "--stream-interval=10 (tokens sent several at a time)"),
        (["--disable-hybrid-kv-cache-manager"], "--disable-hybrid-kv-cache-manager (a KV cache of another size)"),
        (["--max-num-scheduled-tokens=64"], "--max-num-scheduled-tokens=64 (another schedule of steps)"),
    ],
)
def test_what_the_figures_leave_out_is_said(arguments: list[str], named: str) -> None:
    said = "; ".join(caveats(engine("VLLM", *arguments), load_model("Qwen/Qwen3-8B"), H100))
    assert (named in said) if named else said == ""


def test_code_of_the_repository_is_the_users_to_trust() -> None:
    kimi = load_model("moonshotai/Kimi-K2-Instruct")
    assert "--trust-remote-code" in caveats(engine(), kimi, H100)[0]
    assert caveats(engine("VLLM", "--trust-remote-code"), kimi, H100) == ()


@pytest.mark.parametrize("name", ["nvidia/Llama-3_3-Nemotron-Super-49B-v1", "XiaomiMiMo/MiMo-7B-Base"])
def test_a_configuration_in_the_repository_is_code_to_trust_too(name: str) -> None:
    assert "--trust-remote-code" in caveats(engine(), load_model(name), H100)[0]


def test_a_multimodal_class_of_the_repository_is_code_to_trust_whatever_its_text_part() -> None:
    config = SMALL | {"max_position_embeddings": 4096}
    wrapped = model_from_config({"model_type": "internvl_chat", "llm_config": config}, "m")
    assert "--trust-remote-code" in caveats(engine(), wrapped, H100)[0]
    assert caveats(engine(), model_from_config(config, "m"), H100) == ()


GENERATIONS = ("A100", "L40S", "H100", "B200", "RTX-PRO-6000")


@cache
def shapes() -> list[str]:
    """Return a model of each architecture and number format: an engine looks at nothing in which releases differ."""
    return list({replace(load_model(name), name=""): name for name in known_models()}.values())


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
def test_what_is_offered_of_the_catalogue_holds_the_rules_and_every_model_has_some(name: str) -> None:
    settings = engine(name)
    for model_name in shapes():
        model, offered = load_model(model_name), 0
        for gpu in map(find_gpu, GENERATIONS):
            offered += _offered(model, gpu, name, settings)
        fbgemm_on_sglang = name == "SGLang" and model.quant_method == "fbgemm_fp8"
        assert fbgemm_on_sglang or offered, model_name


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
@pytest.mark.parametrize("product", sorted(load_gpus()))
def test_every_product_is_judged_like_its_generation(product: str, name: str) -> None:
    """Each product with every tenth model of its own, so that the products of a generation cover most of them."""
    settings, gpu, start = engine(name), find_gpu(product), sorted(load_gpus()).index(product) % 10
    twins = [twin for twin in load_gpus().values() if capability(twin) == capability(gpu)]
    for model_name in shapes()[start::10]:
        model = load_model(model_name)
        assert len({bool(missing_kernels(model, twin, settings)) for twin in twins}) == 1, model_name
        offered = _offered(model, gpu, name, settings)
        assert bool(offered) is (missing_kernels(model, gpu, settings) == ""), model_name


def _offered(model: ModelSpec, gpu: GpuSpec, name: str, settings: EngineSettings) -> int:
    """Check the layouts that the rules leave on two nodes, and return their number."""
    if missing_kernels(model, gpu, settings):
        return 0
    space = enumerate_space(model, gpu, [gpu.max_gpus_per_node] * 2, Overrides(max_batch_size=16), PowerCap())
    found = refusals(model, gpu, space.layouts, space.nodes_per_replica, SHORT, settings)
    kept = space.layouts.take((found == "") & (unsupported_reasons(model, space.layouts) == ""))
    _check(model, kept, name)
    return len(kept)


def _check(model: ModelSpec, kept: Layouts, name: str) -> None:
    tp, dp, ep = kept.tensor_parallel, kept.data_parallel, kept.expert_parallel
    for group in model.layers:
        ffn, wide = group.ffn, tp * dp if name == "SGLang" and model.is_moe else tp
        if isinstance(ffn, DenseFfn):
            _whole(model.ffn_quant, ffn.intermediate, wide, model)
        elif ffn is not None:
            if ffn.shared_intermediate:
                _whole(model.ffn_quant, ffn.shared_intermediate, wide, model)
            _whole(model.expert_quant, ffn.intermediate, np.where(ep > 1, 1, tp * dp), model)
            if name == "SGLang":
                assert (ffn.experts % ep == 0).all(), model.name


def _whole(quant: Quantization, width: int, ranks: Any, model: ModelSpec) -> None:
    assert (width % ranks == 0).all(), (model.name, width)
    if quant.scaling == "block":
        assert (width // ranks % 128 == 0)[ranks > 1].all(), (model.name, width)
    elif quant.weight == "int4" and quant.scaling == "group":
        assert (width // ranks % (quant.group_size or 128) == 0)[ranks > 1].all(), (model.name, width)


@pytest.mark.parametrize(
    ("model", "gpu", "name", "refused"),
    [
        ("Qwen/Qwen3-30B-A3B-FP8", "A100", "SGLang", True),
        ("deepseek-ai/DeepSeek-V3", "A100", "SGLang", True),
        ("Qwen/Qwen3-30B-A3B-FP8", "A100", "VLLM", False),
        ("Qwen/Qwen3-30B-A3B-FP8", "L40S", "SGLang", False),
        ("Qwen/Qwen3-32B-FP8", "A100", "SGLang", False),
        ("Qwen/Qwen3-30B-A3B", "A100", "SGLang", False),
    ],
)
def test_fp8_experts_below_ada_have_no_kernel_in_sglang(model: str, gpu: str, name: str, refused: bool) -> None:
    """sgl-project/sglang#12887 and #38291: type fp8e4nv not supported in this architecture."""
    found = missing_kernels(load_model(model), find_gpu(gpu), engine(name))
    assert ("no kernel for FP8 experts below compute capability 8.9" in found) is refused
    assert refused or not found


def test_a_kv_cache_of_the_other_fp8_needs_a_checkpoint_without_scales() -> None:
    settings = engine("VLLM", "--kv-cache-dtype=fp8_e5m2")
    assert "does not support an fp8_e5m2 KV cache for FP8 checkpoints" in missing_kernels(
        load_model("Qwen/Qwen3-8B-FP8"), H100, settings
    )
    assert missing_kernels(load_model("Qwen/Qwen3-8B"), H100, settings) == ""
    assert missing_kernels(load_model("Qwen/Qwen3-8B-FP8"), H100, engine("VLLM", "--kv-cache-dtype=fp8")) == ""


def test_sglang_keeps_a_cache_in_nvfp4_on_blackwell_only() -> None:
    qwen, settings = load_model("Qwen/Qwen3-8B"), engine("SGLang", "--kv-cache-dtype=nvfp4")
    assert "needs Blackwell for --kv-cache-dtype=nvfp4" in missing_kernels(qwen, H100, settings)
    assert missing_kernels(qwen, find_gpu("B200"), settings) == ""


@pytest.mark.parametrize(
    ("arguments", "refused"),
    [
        (["--max-num-batched-tokens=4096", "--no-enable-chunked-prefill"], "less than the 40960 tokens of the context"),
        (["--max-num-batched-tokens=4096", "--no-enable-chunked-prefill", "--max-model-len=4097"], "the 4097 tokens"),
        (["--max-num-batched-tokens=4096", "--no-enable-chunked-prefill", "--max-model-len=4096"], ""),
        (["--max-num-batched-tokens=4096", "--enable-chunked-prefill"], ""),
        (["--max-num-batched-tokens=4096"], ""),
        (["--no-enable-chunked-prefill"], ""),
        (["--num-gpu-blocks-override=12"], "more than the 192 tokens of '--num-gpu-blocks-override=12'"),
        (["--num-gpu-blocks-override", "12", "--block-size=32"], ""),
        (["--num-gpu-blocks-override=13"], ""),
    ],
)
def test_steps_and_caches_that_hold_no_request(arguments: list[str], refused: str) -> None:
    """Requests of 100 + 100 tokens (vLLM config/scheduler.py, verify_max_model_len)."""
    found = refusal(load_model("Qwen/Qwen3-8B"), layout(), engine("VLLM", *arguments))
    assert (refused in found) if refused else found == ""


def test_sglang_wants_whole_blocks_of_merged_matrices_on_one_rank_too() -> None:
    model = dense(2752 + 64, BLOCK)
    assert "feed-forward width 2816" not in refusal(model, layout(), engine("SGLang"))
    model = dense(2752, BLOCK)
    assert "2752 over 1 rank of tensor parallel is 2752 each" in refusal(model, layout(), engine("SGLang"))
    assert refusal(model, layout(), engine("VLLM")) == ""
    odd_keys = dense(2816, BLOCK, heads=32, kv_heads=1, head_dim=96)
    assert "key width 96" in refusal(odd_keys, layout(), engine("SGLang"))


def test_sglang_drafts_without_stages_only() -> None:
    model, settings = load_model("meta-llama/Llama-3.1-8B-Instruct"), engine("SGLang", "--speculative-algorithm=EAGLE")
    assert refusal(model, layout(tp=2), settings) == ""
    assert "only without pipeline parallelism" in refusal(model, layout(pp=2), settings)


def test_an_exchange_of_tokens_between_experts_needs_experts_that_are_whole() -> None:
    moe, settings = load_model("Qwen/Qwen3-30B-A3B"), engine("SGLang", "--moe-a2a-backend=deepep")
    assert "spreads whole experts over all GPUs" in refusal(moe, layout(tp=2), settings)
    assert "spreads whole experts over all GPUs" in refusal(moe, layout(tp=2, dp=2), settings)
    assert refusal(moe, layout(tp=2, ep=2), settings) == ""
    assert refusal(moe, layout(), settings) == ""
    assert refusal(moe, layout(tp=2), engine("SGLang", "--moe-a2a-backend=none")) == ""


@pytest.mark.parametrize(
    ("method", "quant", "gpu", "name", "message"),
    [
        ("compressed-tensors", Quantization("int4", "fp8", "group"), "A100", "VLLM", "needs Hopper or newer for INT4"),
        ("compressed-tensors", Quantization("int4", "fp8", "group"), "L40S", "VLLM", "needs Hopper or newer for INT4"),
        ("compressed-tensors", Quantization("int4", "fp8", "group"), "H100", "VLLM", ""),
        (
            "modelopt",
            Quantization("int4", "bfloat16", "group"),
            "H100",
            "VLLM",
            "serves only FP8, NVFP4 and MXFP8",
        ),
        ("modelopt", Quantization("int8", "int8", "per_channel"), "H100", "VLLM", "serves only FP8, NVFP4 and MXFP8"),
        ("modelopt", Quantization("fp8", "fp8", "per_tensor"), "H100", "VLLM", ""),
        ("awq", Quantization("int4", "bfloat16", "group"), "A100", "VLLM", ""),
    ],
)
def test_number_formats_that_an_engine_does_not_load(
    method: str, quant: Quantization, gpu: str, name: str, message: str
) -> None:
    found = missing_kernels(replace(dense(4096, quant), quant_method=method), find_gpu(gpu), engine(name))
    assert (message in found) if message else found == ""


@pytest.mark.parametrize("beside", [{"format": "marlin-24"}, {"sparsity_config": {"format": "sparse-24-bitmask"}}])
def test_sparse_weights_are_refused(beside: dict[str, Any]) -> None:
    weights = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
    quant = {"quant_method": "compressed-tensors", "config_groups": {"g": {"targets": ["Linear"], "weights": weights}}}
    config = SMALL | {"max_position_embeddings": 4096}
    assert model_from_config(config | {"quantization_config": quant}, "m").quant_method == "compressed-tensors"
    with pytest.raises(
        UnsupportedConfigError, match=r"format is .*; allowed: dense \(engines no longer serve sparse weights"
    ):
        model_from_config(config | {"quantization_config": quant | beside}, "m")


def mamba(groups: int, **quantization: Any) -> ModelSpec:
    config = {
        "model_type": "nemotron_h",
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "hybrid_override_pattern": "M-M*",
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 1000,
        "max_position_embeddings": 4096,
        "mamba_num_heads": 64,
        "mamba_head_dim": 64,
        "ssm_state_size": 128,
        "n_groups": groups,
        "conv_kernel": 4,
        "tie_word_embeddings": False,
    }
    return model_from_config(config | ({"quantization_config": quantization} if quantization else {}), "m")


@pytest.mark.parametrize("name", ["VLLM", "SGLang"])
def test_groups_of_mamba_layers_are_shared_evenly(name: str) -> None:
    """vLLM layers/mamba/mamba_mixer2.py: tensor parallel divides the groups, or there is one group."""
    assert "4 groups of the Mamba layers cannot be shared by tensor parallel (8)" in refusal(
        mamba(4), layout(tp=8), engine(name)
    )
    assert refusal(mamba(8), layout(tp=8), engine(name)) == ""
    assert refusal(mamba(1), layout(tp=8), engine(name)) == ""


def test_sglang_copies_no_group_of_a_quantised_checkpoint() -> None:
    fp8 = mamba(1, quant_method="fp8")
    assert "1 group of the Mamba layers cannot be shared" in refusal(fp8, layout(tp=2), engine("SGLang"))
    assert refusal(fp8, layout(), engine("SGLang")) == ""
    assert refusal(fp8, layout(tp=2)) == ""


@pytest.mark.parametrize(("method", "refused"), [("fp8", False), ("compressed-tensors", True)])
def test_vllm_forgives_merged_matrices_of_one_method_only(method: str, refused: bool) -> None:
    """model_executor/layers/linear.py asks for weight_block_size, which compressed-tensors keeps elsewhere."""
    narrow = replace(dense(8192, BLOCK, heads=32, kv_heads=8, head_dim=64), quant_method=method)
    assert ("key width 512 over 8 ranks" in refusal(narrow, layout(tp=8))) is refused
    wide = replace(dense(10944, BLOCK), quant_method=method)
    assert ("feed-forward width 10944 over 1 rank" in refusal(wide, layout())) is refused
