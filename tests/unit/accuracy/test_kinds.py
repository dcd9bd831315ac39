"""Kinds of runs that benchmarks of 2026 publish: all are answered, within physical bounds."""

from __future__ import annotations

import numpy as np
import pytest

from energylens.accuracy.evaluate import predict_runs
from energylens.cli.inputs.runs import predictor_for
from energylens.data import find_gpu
from energylens.runs import parse_runs, resolver

CONCURRENCY = (1, 8, 64, 256)
COLUMNS = (
    "run_id,task,model_id,weight_precision,gpu_model,num_gpus,tensor_parallel,expert_parallel,data_parallel,"
    "max_num_seqs,concurrency,input_tokens_assumed,output_tokens,engine"
)
KINDS = (
    # model, precision, GPU, TP, EP, DP, engine
    ("deepseek-ai/DeepSeek-V3", "", "H200", 8, 8, 1, "sglang==0.5.8"),
    ("deepseek-ai/DeepSeek-V3", "nvfp4", "B200", 4, 1, 1, "vllm==0.22.0"),
    ("deepseek-ai/DeepSeek-V3.2", "nvfp4", "B300", 1, 8, 8, "sglang==0.5.15"),
    ("deepseek-ai/DeepSeek-V4-Flash", "", "H200", 4, 1, 1, "vLLM 0.24.0"),
    ("deepseek-ai/DeepSeek-V4-Pro", "nvfp4", "B300", 4, 1, 1, "vllm==0.25.1"),
    ("zai-org/GLM-4.6", "fp8", "B200", 8, 1, 1, "vllm==0.23.0"),
    ("zai-org/GLM-5", "nvfp4", "B200", 4, 1, 1, "sglang==0.5.15"),
    ("MiniMaxAI/MiniMax-M2.7", "fp8", "H200", 4, 1, 1, "sglang==0.5.13"),
    ("MiniMaxAI/MiniMax-M3", "mxfp4", "B200", 4, 1, 1, "vllm==0.26.0"),
    ("moonshotai/Kimi-K2.5", "int4", "B200", 8, 1, 1, "sglang==0.5.16"),
    ("Qwen/Qwen3-Coder-480B-A35B-Instruct", "fp8", "H200", 8, 8, 1, "vllm==0.23.0"),
    ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", "", "B200", 1, 8, 8, "vllm==0.11.1"),
    ("Qwen/Qwen3.5-397B-A17B", "nvfp4", "B300", 2, 1, 1, "sglang==0.5.15"),
    ("openai/gpt-oss-120b", "mxfp4", "GB200", 1, 1, 1, "vllm==0.24.0"),
    ("meta-llama/Llama-4-Maverick-17B-128E-Instruct", "fp8", "H200", 8, 1, 1, "vllm==0.20.0"),
    ("nvidia/NVIDIA-Nemotron-3-Super-120B-A12B-NVFP4", "", "B200", 2, 1, 1, "vllm==0.24.0"),
    ("mistralai/Mistral-Large-3-675B-Instruct-2512", "", "H200", 8, 1, 1, "vllm==0.22.0"),
    ("mistralai/Mistral-Large-3-675B-Instruct-2512-NVFP4", "nvfp4", "B200", 4, 1, 1, "vllm==0.22.0"),
    ("google/gemma-4-31B-it", "nvfp4", "B200", 1, 1, 1, "vllm==0.24.0"),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind[0].rpartition('/')[2]} {kind[1]} {kind[2]}")
def test_a_published_kind_is_answered_within_physical_bounds(kind: tuple[str, str, str, int, int, int, str]) -> None:
    model, precision, gpu_name, tensor, expert, data, engine = kind
    gpus = tensor * data
    rows = (
        f"r{many},random-1k1k,{model},{precision},{gpu_name},{gpus},{tensor},{expert},{data},{many},{many},925,925,{engine}"
        for many in CONCURRENCY
    )
    table = parse_runs("\n".join((COLUMNS, *rows)), "kinds.csv", measured=False)
    assert table.errors == ()
    found = predict_runs(table.runs, resolver(), predictor_for)
    assert found.error == ("",) * len(CONCURRENCY)
    gpu, each = find_gpu(gpu_name), found.values["power"] / gpus
    assert (each > 0.95 * gpu.loaded_idle_watts).all()
    assert (each <= gpu.power_limit_watts).all()
    # More requests take longer each, and less energy per token; more running requests finish more tokens.
    assert (np.diff(found.values["tpot"]) > 0.0).all()
    assert (np.diff(found.values["throughput"]) > 0.0).all()
    assert (np.diff(found.values["energy"]) < 0.0).all()
