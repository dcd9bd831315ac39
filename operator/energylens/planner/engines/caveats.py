"""Effects of engine options that a plan's figures omit, and further requirements of the engine."""

from __future__ import annotations

from collections.abc import Iterator

from energylens.api.llmdeployment import WorkloadSpec
from energylens.planner.engines.settings import EngineSettings
from energylens.planner.engines.speculation import disagreements
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

_NOT_COUNTED: dict[str, tuple[str, ...]] = {
    "no CUDA graphs": (
        "--enforce-eager",
        "--disable-cuda-graph",
        "--disable-decode-cuda-graph",
        "--disable-prefill-cuda-graph",
    ),
    "compilation and CUDA graphs": (
        "--compilation-config",
        "--optimization-level",
        "--max-cudagraph-capture-size",
        "--cudagraph-capture-sizes",
        "--cuda-graph-config",
        "--cuda-graph-max-bs-decode",
        "--cuda-graph-bs-decode",
        "--enable-torch-compile",
        "--performance-mode",
    ),
    "LoRA adapters": ("--enable-lora", "--lora-modules", "--lora-paths"),
    "weights in host memory": (
        "--cpu-offload-gb",
        "--offload-backend",
        "--offload-group-size",
        "--kt-weight-path",
    ),
    "KV cache in host memory or moved between engines": (
        "--kv-offloading-size",
        "--kv-transfer-config",
        "--enable-hierarchical-cache",
        "--enable-lmcache",
        "--enable-flexkv",
    ),
    "other kernels": (
        "--attention-backend",
        "--attention-config",
        "--decode-attention-backend",
        "--prefill-attention-backend",
        "--moe-backend",
        "--moe-runner-backend",
        "--linear-backend",
        "--fp8-gemm-backend",
        "--fp4-gemm-backend",
        "--kernel-config",
        "--disable-custom-all-reduce",
        "--all2all-backend",
        "--moe-a2a-backend",
        "--model-impl",
        "--enable-deterministic-inference",
        "--enable-hisparse",
        "--enable-nccl-nvls",
        "--enable-symm-mem",
        "--enable-torch-symm-mem",
        "--enable-mscclpp",
    ),
    "another schedule of steps": (
        "--async-scheduling",
        "--enable-chunked-prefill",
        "--enable-dbo",
        "--enable-two-batch-overlap",
        "--enable-single-batch-overlap",
        "--disable-overlap-schedule",
        "--enable-mixed-chunk",
        "--num-continuous-decode-steps",
        "--max-prefill-tokens",
        "--pp-max-micro-batch-size",
        "--long-prefill-token-threshold",
        "--max-num-scheduled-tokens",
        "--prefill-schedule-interval",
        "--ubatch-size",
        "--schedule-conservativeness",
        "--prefill-max-requests",
    ),
    "experts moved or doubled": ("--enable-eplb", "--ep-num-redundant-experts", "--eplb-config"),
    "a KV cache of another size": (
        "--num-gpu-blocks-override",
        "--max-total-tokens",
        "--swa-full-tokens-ratio",
        "--disable-sliding-window",
        "--disable-hybrid-kv-cache-manager",
        "--disable-hybrid-swa-memory",
        "--max-mamba-cache-size",
        "--mamba-full-memory-ratio",
    ),
    "tokens sent several at a time": ("--stream-interval",),
    "a KV cache in blocks of another size": ("--block-size", "--page-size"),
    "another number format": (
        "--dtype",
        "--load-format",
        "--quantization-config",
        "--mamba-ssm-cache-dtype",
        "--mamba-ssm-dtype",
    ),
    "a changed config.json": ("--hf-overrides", "--json-model-override-args", "--hf-config-path"),
}
"""Features that the predictor does not model, and the options of either engine that enable them."""
_HARMLESS_VALUES: dict[str, tuple[str, ...]] = {
    "--dtype": ("auto", "bfloat16", "half", "float16"),
    "--all2all-backend": ("allgather_reducescatter",),
    "--load-format": (
        *("auto", "hf", "pt", "safetensors", "npcache", "dummy", "mistral", "sharded_state", "presharded", "layered"),
        *("fastsafetensors", "instanttensor", "ipc_cache", "modelexpress", "runai_streamer", "runai_streamer_sharded"),
        *("tensorizer", "remote", "remote_instance", "rdma", "local_cached"),
    ),
}
"""Values with which an option changes no figure; for ``--load-format``, the values that leave the weights unchanged."""
_OFF_IS_USUAL = ("--enforce-eager", "--enable-lora", "--enable-eplb", "--enable-dbo", "--disable-custom-all-reduce")
"""Switches that are off by default in both engines."""
_STEPS_UNDER_ARRIVALS_ONLY = "latency in steps of another size, if workload.concurrency or workload.job is the load"
REMOTE_CODE_FAMILIES = (
    *("kimi_k2", "kimi_k25", "kimi_linear", "kimi_k3"),
    *("baichuan", "bailing_moe", "bailing_moe_v2", "chatglm", "deepseek", "internlm", "internlm2", "mimo", "minicpm"),
    *("nemotron-nas", "qwen"),
)
"""Families whose tokenizer or configuration is Python code in the model's repository.

Kimi: moonshotai/Kimi-K2-Instruct, deployment guide. The others have a ``model_type`` that neither transformers 5.24.0
nor vLLM 0.33.0 (transformers_utils/config.py) knows, or a tokenizer class of their own.
"""
REMOTE_CODE_CLASSES = ("InternVLChatModel", "KimiVLForConditionalGeneration")
"""Multimodal classes of the same kind, whose family is the family of their text model."""


def caveats(
    settings: EngineSettings, model: ModelSpec | None, gpu: GpuSpec | None, workload: WorkloadSpec | None = None
) -> tuple[str, ...]:
    """Return the caveats of a plan's figures, one sentence each, without a full stop.

    Args:
        settings: The engine and its arguments.
        model: The checkpoint; None if it is unknown.
        gpu: The plan's GPU product; None without a plan.
        workload: ``spec.workload``, which decides which arguments the figures include; None if it is not set.
    """
    differing = () if workload is None else disagreements(workload, settings)
    return (*_caveats(settings, model, gpu), *differing)


def _caveats(settings: EngineSettings, model: ModelSpec | None, gpu: GpuSpec | None) -> Iterator[str]:
    left_out = [f"{written} ({what})" for what, written in _not_counted(settings)]
    if left_out:
        yield f"the figures do not include {', '.join(left_out)}"
    if model is None:
        return
    remote = model.family in REMOTE_CODE_FAMILIES or model.architecture in REMOTE_CODE_CLASSES
    if remote and not settings.arguments.switch("--trust-remote-code"):
        yield (
            f"{model.name} needs Python code from its repository; if you trust that code, add "
            "--trust-remote-code to spec.engine.extraArgs, otherwise the engine may exit at start-up"
        )
    formats = {q.activation for q in (model.attention_quant, model.ffn_quant, model.expert_quant)}
    if gpu is not None and "nvfp4" in formats and gpu.flops_fp4 <= 0:
        yield f"{gpu.name} has no FP4 arithmetic; NVFP4 weights are planned with 16-bit activations"


def _not_counted(settings: EngineSettings) -> Iterator[tuple[str, str]]:
    given = settings.arguments
    names = {g.name for g in given.given}
    for what, options in _NOT_COUNTED.items():
        for option in options:
            if option not in names or given.value(option) in _HARMLESS_VALUES.get(option, ()):
                continue
            # Figures mostly assume that the feature is off, so turning it off changes nothing.
            if given.value(option) is None and given.switch(option) is False and option in _OFF_IS_USUAL:
                continue
            yield what, given.written(option)
    if settings.step_tokens is not None:
        yield _STEPS_UNDER_ARRIVALS_ONLY, given.written(settings.names.step)
    cache = given.value("--kv-cache-dtype")
    if cache is not None and cache.lower() != "auto" and settings.kv_bytes_per_element is None:
        yield "a KV cache format of unknown size", given.written("--kv-cache-dtype")
