"""The kernels that engines run for an operation, and the rows that grouped expert kernels compute."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from energylens.predictor.model.architecture import Quantization
from energylens.predictor.model.lowering import Lowered, Operation
from energylens.predictor.step.moe import ExpertLoad
from energylens.predictor.types import FloatArray, GpuSpec

KERNELS = (
    "gemm:bfloat16",
    "gemm:fp8",
    "gemm:fp8_block",
    "gemm:int8",
    "gemm:8bit",
    "gemm:4bit",
    "gemm:fp4",
    "attention",
    "attention_latent",
    "attention_sparse",
    "state",
    "moe:bfloat16",
    "moe:fp8",
    "moe:fp8_block",
    "moe:fp8_block_latent",
    "moe:int8",
    "moe:8bit",
    "moe:4bit",
    "moe:fp4",
)
"""Kernel classes: the rows of the calibrated coefficients. ``8bit`` and ``4bit`` are weights that kernels widen to 16
bits to compute (on Blackwell 4 bits to 8); ``fp4`` computes in 4 bits."""
KERNEL_INDEX = {name: i for i, name in enumerate(KERNELS)}


def kernel_class(kernel: str, quant: Quantization) -> str:
    """Return the kernel class of an einsum from the storage and scaling of its weights."""
    if kernel in ("attention", "state"):
        return kernel
    if quant.weight in ("fp8", "int8") and quant.activation == "bfloat16":
        return f"{kernel}:8bit"
    if quant.weight == "fp8":
        return f"{kernel}:fp8_block" if quant.scaling == "block" else f"{kernel}:fp8"
    if quant.weight == "nvfp4" and quant.activation == "nvfp4":
        return f"{kernel}:fp4"
    if quant.weight in ("mxfp4", "nvfp4", "int4"):
        return f"{kernel}:4bit"
    return f"{kernel}:{quant.weight}"


def engine_path(kernel: str, lowered: Lowered, op: Operation) -> str:
    """Return the class of the kernels that engines run for an operation.

    DeepSeek's block-scaled experts run on other kernels than the experts of models with plain attention; latent and
    sparse attention have their own kernels.
    """
    if kernel == "attention":
        if op.reach.gathered or op.reach.top_k is not None or op.einsum.label.startswith("index"):
            return "attention_sparse"
        return "attention_latent" if lowered.latent_layers else kernel
    return f"{kernel}_latent" if kernel == "moe:fp8_block" and lowered.latent_layers else kernel


def coarse_tiles(expert: ExpertLoad) -> FloatArray:
    """Return 1 if a step has more tokens than a GPU has experts, shape (n,).

    Without tuned tile sizes for a shape, vLLM 0.11 uses tiles of 16 x 32 up to that many tokens and of 64 x 64 beyond,
    whose rows are mostly padding. It ships no tuned sizes for the bfloat16 shapes of the most popular models.
    """
    local = expert.experts / expert.expert_parallel
    return np.asarray(1.0 / (1.0 + (1.04 * local / np.maximum(expert.tokens, 1.0)) ** 48))


def tile_rows(expert: ExpertLoad, tile: FloatArray) -> FloatArray:
    """Return the rows that grouped experts compute on one GPU if each hit expert fills whole tiles, shape (n,)."""
    return np.maximum(expert.hit * tile, expert.pairs + expert.hit * (tile - 1.0) / 2.0)


def aligned_rows(expert: ExpertLoad, padding: FloatArray | float = 0.0) -> FloatArray:
    """Return the rows of a contiguous grouped kernel that aligns every local expert to 128 rows, shape (n,).

    vLLM 0.11 runs block-scaled FP8 experts this way (DeepGEMM). It sizes the buffer before routing is known, for all
    pairs of the step whichever GPU holds their expert, and computes the whole buffer (fused_moe/deep_gemm_utils.py,
    ``compute_aligned_M``).

    Args:
        expert: The experts of one layer.
        padding: Tokens that pad data-parallel ranks, on all of them together, which the buffer holds as well.
    """
    local = expert.experts / expert.expert_parallel
    return np.asarray((expert.tokens + padding) * expert.top_k + 127.0 * local)


def has_other_kernels(kernel: int, gpu: GpuSpec) -> bool:
    """Whether engines run other kernels than the tables: TensorRT-LLM's for FP8 block experts on Blackwell."""
    return kernel == KERNEL_INDEX["moe:fp8_block"] and gpu.architecture == "blackwell"


def is_tensorrt(kernel: int, gpu: GpuSpec) -> bool:
    """Whether TensorRT-LLM's kernels run: DeepSeek's experts on Blackwell, absent from vLLM's kernel tables."""
    return kernel == KERNEL_INDEX["moe:fp8_block_latent"] and gpu.architecture == "blackwell"


_FUSED = frozenset(KERNEL_INDEX[f"moe:{kind}"] for kind in ("fp4", "4bit", "fp8_block", "fp8_block_latent"))


def fused_experts(kernels: npt.NDArray[np.int64], gpu: GpuSpec) -> bool:
    """Return whether one launch computes a layer's routed experts, from routing to their sum.

    TensorRT-LLM's kernels, which engines run on Blackwell, do so. Elsewhere sorting, both products, the activation
    between them, quantization and the sum are separate launches.

    Args:
        kernels: Kernel classes of the model's operations, shape (k,).
        gpu: The GPU product.
    """
    return gpu.architecture == "blackwell" and not _FUSED.isdisjoint(kernels.tolist())
