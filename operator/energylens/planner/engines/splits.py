"""Which slices of a weight a layout makes, and whether scales that several weights share can be split there.

Block-scaled FP8: vLLM 0.33 (layers/quantization/utils/fp8_utils.py, ``validate_fp8_block_shape``) and SGLang 0.5.23
(layers/quantization/fp8.py, ``validate_block_quant_shapes``) require whole blocks on every rank, in both dimensions
(vllm-project/vllm#52997, sgl-project/sglang#26107). Groups along the input (AWQ, GPTQ, compressed-tensors, NVFP4,
MXFP4): the input of a slice must be a multiple of the group (vllm-project/vllm#21695, #13640; sgl-project/sglang#3571).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    DenseFfn,
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    Mixer,
    ModelSpec,
    MoeFfn,
    Quantization,
)
from energylens.predictor.types import BoolArray, IntArray, Layouts
from energylens.records import dataclass

PADDED = ("gpt_oss",)
"""Families whose engines pad experts to whole groups (vLLM 0.33, layers/quantization/mxfp4.py)."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One dimension of a weight, split into equal slices over ranks."""

    what: str
    """Name in messages, such as ``feed-forward width``."""
    size: int
    ranks: IntArray
    """Number of slices of each layout, shape (n,)."""
    across: str
    """Kind of the ranks, such as ``tensor parallel``."""
    quant: Quantization
    cut: str
    """``input`` or ``output`` if only that side of a matrix is split, ``both`` for a width between two matrices."""
    merged: bool = False
    """Whether the engine requires whole blocks even on one rank, because it concatenates several matrices."""

    def uneven(self) -> BoolArray:
        """Return the layouts in which the slices are not equal, shape (n,)."""
        return np.asarray(self.size % self.ranks != 0)

    def broken(self) -> tuple[BoolArray, str]:
        """Return the layouts that split a block of scaled weights, shape (n,), and the block's name in messages."""
        none = np.zeros(self.ranks.shape, dtype=bool)
        scaled = self.quant.scaled_block
        if scaled is None:
            return none, ""
        rows, columns = scaled
        sizes = {"input": (columns,), "output": (rows,), "both": (rows, columns)}[self.cut]
        wanted = int(np.lcm.reduce(np.asarray(sizes)))
        # If the weight stays whole on one rank, its last block may be shorter.
        is_block = self.quant.scaling == "block"
        bad = ((self.ranks > 1) | (self.merged and is_block)) & (self.size % (self.ranks * wanted) != 0)
        unit = "block" if is_block else "group"
        return bad, f"{wanted}, the {unit} size of {self.quant.weight.upper()} scales"


def slices(model: ModelSpec, layouts: Layouts, engine: str) -> Iterator[Slice]:
    """Yield every dimension of a model's weights that layouts split.

    vLLM splits dense layers and shared experts over tensor-parallel ranks. SGLang's tensor-parallel size spans all
    data-parallel attention ranks, and so do its dense layers and shared experts (layers/moe, models/deepseek_v2.py).
    """
    tensor = layouts.tensor_parallel
    world = tensor * layouts.data_parallel
    mixed = engine == "SGLang" and model.is_moe
    wide, across = (world, "tensor parallel x data parallel") if mixed else (tensor, "tensor parallel")
    merged = _checks_each(model, engine)
    for mixer in {group.mixer for group in model.layers if group.mixer is not None}:
        yield from _mixer_slices(mixer, tensor, model.attention_quant, merged)
    for ffn in {group.ffn for group in model.layers if group.ffn is not None}:
        if isinstance(ffn, DenseFfn):
            yield Slice("feed-forward width", ffn.intermediate, wide, across, model.ffn_quant, "both", merged)
            continue
        if ffn.shared_intermediate:
            yield Slice("shared expert width", ffn.shared_intermediate, wide, across, model.ffn_quant, "both", merged)
        whole = np.where(layouts.expert_parallel > 1, 1, world)
        quant = Quantization() if model.family in PADDED else model.expert_quant
        every = "tensor parallel x data parallel without expert parallel"
        yield Slice("expert width", ffn.intermediate, whole, every, quant, "both", merged)


def experts(model: ModelSpec) -> tuple[MoeFfn, ...]:
    """Return the distinct mixtures of experts of a model, ordered by number of experts."""
    found = {group.ffn for group in model.layers if isinstance(group.ffn, MoeFfn)}
    return tuple(sorted(found, key=lambda moe: (moe.experts, moe.intermediate)))


def _checks_each(model: ModelSpec, engine: str) -> bool:
    """Return whether each part of a concatenated matrix (gate and up; query, key and value) must hold whole blocks.

    SGLang requires it (``validate_block_quant_shapes``). vLLM exempts concatenated matrices if the checkpoint's method
    is ``fp8``, and no others (model_executor/layers/linear.py, ``_maybe_allow_fp8_block_shape_mismatch``).
    """
    return engine == "SGLang" or model.quant_method == "compressed-tensors"


def _mixer_slices(mixer: Mixer, tensor: IntArray, quant: Quantization, merged: bool) -> Iterator[Slice]:
    across = "tensor parallel"
    if isinstance(mixer, Attention):
        if merged:
            yield Slice("query width", mixer.heads * mixer.head_dim, tensor, across, quant, "output", merged=True)
            shared = np.minimum(tensor, mixer.kv_heads)
            yield Slice("key width", mixer.kv_heads * mixer.head_dim, shared, across, quant, "output", merged=True)
        yield Slice(
            "attention output", mixer.heads * (mixer.v_head_dim or mixer.head_dim), tensor, across, quant, "input"
        )
    elif isinstance(mixer, LatentAttention):
        queries = mixer.heads * (mixer.qk_nope_head_dim + mixer.qk_rope_head_dim)
        yield Slice("query width", queries, tensor, across, quant, "output")
        keys = mixer.heads * (mixer.qk_nope_head_dim + mixer.v_head_dim)
        yield Slice("key and value width", keys, tensor, across, quant, "output")
        yield Slice("attention output", mixer.heads * mixer.v_head_dim, tensor, across, quant, "input")
    elif isinstance(mixer, CompressedAttention):
        yield Slice("query width", mixer.heads * mixer.head_dim, tensor, across, quant, "output")
        yield Slice("output groups", mixer.o_groups, tensor, across, Quantization(), "both")
        yield Slice("attention output", mixer.o_groups * mixer.o_lora_rank, tensor, across, quant, "input")
    elif isinstance(mixer, GatedDeltaNet):
        yield Slice("linear attention output", mixer.v_heads * mixer.v_dim, tensor, across, quant, "input")
    elif isinstance(mixer, Mamba2):
        yield Slice("mixer output", mixer.heads * mixer.head_dim, tensor, across, quant, "input")
