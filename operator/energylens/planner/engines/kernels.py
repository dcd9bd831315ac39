"""Which GPUs an engine has kernels for, given a model's requirements."""

from __future__ import annotations

from collections.abc import Iterator

from energylens.planner.engines.settings import EngineSettings
from energylens.predictor.model.architecture import CompressedAttention, LatentAttention, ModelSpec, Quantization
from energylens.predictor.types import GpuSpec

Capability = tuple[int, int]

_CAPABILITIES: dict[str, Capability] = {
    "volta": (7, 0),
    "turing": (7, 5),
    "ampere": (8, 0),
    "ada-lovelace": (8, 9),
    "hopper": (9, 0),
    "blackwell": (10, 0),
}
_FP8_ARITHMETIC: Capability = (8, 9)
_NOT_OF_MODELOPT = ("int4", "int8", "mxfp4")
"""Weight formats of ModelOpt's other algorithms (``LINEAR_ALGOS`` of vLLM 0.33, layers/quantization/modelopt.py)."""
_OWN_CACHE_SCALES = ("fp8", "modelopt")
"""Methods of checkpoints that contain KV cache scales, which are in the other FP8 format."""
_DATACENTRE = (9, 10)
"""Major compute capabilities of Hopper and of Blackwell with NVLink, the only ones that sparse attention is planned on.

vLLM: v1/attention/backends/mla/flashmla_sparse.py and models/deepseek_v4/sparse_mla.py list 9 and 10; issues #40851 and
#57144 report Ampere refused. No report says that its path for 12.0 (since 0.24) or MiniMax M3's Triton kernels work.
SGLang: layers/attention/dsa_backend.py on DeepGEMM, whose kernels begin with Hopper; MiniMax M3 names 9.0 and 10.0
(arg_groups/model_overrides/minimax_m3.py).
"""


def capability(gpu: GpuSpec) -> Capability | None:
    """Return the CUDA compute capability of a product as precisely as kernels require it; None if it is unknown.

    Blackwell without NVLink is the graphics generation, 12.0 (developer.nvidia.com/cuda-gpus).
    """
    if gpu.architecture == "blackwell" and gpu.nvlink_bandwidth <= 0:
        return 12, 0
    return _CAPABILITIES.get(gpu.architecture)


def missing_kernels(model: ModelSpec, gpu: GpuSpec, settings: EngineSettings) -> str:
    """Return why an engine cannot run a model on a GPU product in any layout; "" if it can."""
    found = capability(gpu)
    return "" if found is None else next(_missing(model, gpu, found, settings), "")


def _missing(model: ModelSpec, gpu: GpuSpec, found: Capability, settings: EngineSettings) -> Iterator[str]:
    name, engine = settings.name, settings.engine
    sm = f"{gpu.name} (compute capability {found[0]}.{found[1]})"
    quants = (model.attention_quant, model.ffn_quant, model.expert_quant)
    if found < (7, 5):
        yield f"{name} needs compute capability 7.5 or newer; {gpu.name} has {found[0]}.{found[1]}"
    if _is_sparse(model) and found[0] not in _DATACENTRE:
        yield f"sparse attention needs Hopper or datacentre Blackwell with {name}; {sm} has no kernel for it"
    if _is_latent(model) and model.kv_bytes_per_element < 2 and found < _FP8_ARITHMETIC:
        # vLLM 0.33 v1/attention/backends/mla/triton_mla.py: the only latent attention below Hopper.
        yield (
            f"latent attention with an FP8 KV cache needs compute capability 8.9 or newer with {name}; {sm} is older: "
            "set --kv-cache-dtype=bfloat16 in spec.engine.extraArgs"
        )
    if any(q.weight == "nvfp4" for q in quants) and gpu.flops_fp4 <= 0:
        yield from _weight_only(sm, found, settings)
    if any(q.activation == "int8" for q in quants) and found >= (10, 0) and engine == "VLLM":
        # vLLM's cutlass_scaled_mm: "Int8 not supported on SM100".
        yield f"{name} has no INT8 kernels for Blackwell ({gpu.name}); serve an FP8 release"
    if any(q.weight == "int4" and q.activation == "fp8" for q in quants) and found < (9, 0):
        # vLLM 0.33 compressed_tensors_w4a8_fp8.py, SGLang 0.5.23 compressed_tensors_w4a8_fp8_moe.py.
        yield f"{name} needs Hopper or newer for INT4 weights with FP8 activations; {sm} is older"
    if engine == "VLLM" and model.quant_method == "modelopt" and any(q.weight in _NOT_OF_MODELOPT for q in quants):
        yield f"{name} serves only FP8, NVFP4 and MXFP8 from NVIDIA ModelOpt; {model.name} uses another format"
    cache = settings.arguments.value("--kv-cache-dtype")
    if engine == "VLLM" and cache == "fp8_e5m2" and model.quant_method in _OWN_CACHE_SCALES:
        # model_executor/layers/attention/attention.py, 0.33.
        yield (
            f"{name} does not support an fp8_e5m2 KV cache for FP8 checkpoints; set --kv-cache-dtype=fp8 in "
            "spec.engine.extraArgs"
        )
    if engine == "SGLang":
        if cache == "nvfp4" and found < (10, 0):
            # arg_groups/kv_cache_hook.py, 0.5.23.
            yield f"{name} needs Blackwell for --kv-cache-dtype=nvfp4; {sm} is older"
        if model.expert_quant.weight == "fp8" and found < _FP8_ARITHMETIC:
            # sgl-project/sglang#12887, #38291: experts use its Triton kernel; dense layers have Marlin.
            yield f"{name} has no kernel for FP8 experts below compute capability 8.9; {sm} is older"
        if model.quant_method == "fbgemm_fp8":
            yield f"{name} does not support quant_method fbgemm_fp8 of {model.name}; serve another FP8 release"
        if model.quant_method == "modelopt" and _has(quants, "fp8") and found < _FP8_ARITHMETIC:
            # SGLang 0.5.23 layers/quantization/modelopt_quant.py, get_min_capability.
            yield f"{name} needs compute capability 8.9 or newer for FP8 from NVIDIA ModelOpt; {sm} is older"


def _weight_only(sm: str, found: Capability, settings: EngineSettings) -> Iterator[str]:
    """Refuse NVFP4 if the engine cannot unpack it to 16 bits: SGLang can from 0.5.23 on, Marlin on Ampere or newer."""
    too_old = settings.engine == "SGLang" and settings.version < (0, 5, 23)
    if too_old or found < (8, 0):
        yield f"{sm} has no FP4 arithmetic, and {settings.name} cannot unpack NVFP4 weights on this GPU"


def _is_sparse(model: ModelSpec) -> bool:
    return any(
        isinstance(group.mixer, CompressedAttention) or getattr(group.mixer, "top_k_tokens", None) is not None
        for group in model.layers
    )


def _is_latent(model: ModelSpec) -> bool:
    return any(isinstance(group.mixer, LatentAttention) for group in model.layers)


def _has(quants: tuple[Quantization, ...], weight: str) -> bool:
    return any(quant.weight == weight for quant in quants)
