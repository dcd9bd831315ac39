"""The parts of a language model that latency and energy depend on.

A :class:`ModelSpec` is a sequence of layer groups. A layer is a *mixer* (attention or a recurrent state) and a
*feed-forward* part, either of which may be absent (Nemotron-H has layers of one kind only). Facts only: what an
operation costs is derived from these shapes by the einsum interface, never typed in per model.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

WeightFormat = Literal["bfloat16", "fp8", "mxfp4", "nvfp4", "int8", "int4"]
ActivationFormat = Literal["bfloat16", "fp8", "mxfp8", "nvfp4", "int8"]
Scaling = Literal["none", "per_tensor", "per_channel", "block", "group"]

BYTES_PER_WEIGHT: dict[str, float] = {
    "bfloat16": 2.0,
    "fp8": 1.0,
    "int8": 1.0,
    "mxfp4": 0.5 + 1 / 32,
    "nvfp4": 0.5 + 1 / 16,
    "int4": 0.5 + 2 / 128,
}
"""Bytes per stored weight, scales included.

MXFP4 keeps one 8-bit scale per 32 weights (OCP Microscaling Formats v1.0), NVFP4 one FP8 scale per 16, INT4 (GPTQ and
AWQ at their usual group size of 128) one 16-bit scale per 128. FP8 scales (one FP32 per 128x128 block or per channel)
are below 0.1 %, but for MXFP8, which keeps one 8-bit scale per 32 weights.
"""


@dataclass(frozen=True)
class Quantization:
    """How the weights of one part of a model are stored, and what the matrix units compute with."""

    weight: WeightFormat = "bfloat16"
    activation: ActivationFormat = "bfloat16"
    scaling: Scaling = "none"
    group_size: int | None = None
    """Weights per scale of one row, where the format does not fix the number and it is not 128 (Kimi K2 Thinking:
    32)."""
    block: tuple[int, int] | None = None
    """Rows and columns of the block that one scale covers, where it is not 128 x 128."""

    @property
    def scaled_block(self) -> tuple[int, int] | None:
        """Output and input features that share a scale, which no GPU may cut; None where no block or group is kept.

        One scale covers 1 x 32 weights in MXFP4 and MXFP8 (OCP Microscaling Formats v1.0), 1 x 16 in NVFP4.
        """
        if self.scaling == "block":
            return self.block or (128, 128)
        if self.scaling != "group":
            return None
        fixed = {"mxfp4": 32, "nvfp4": 16, "fp8": 32}.get(self.weight)
        return 1, fixed or self.group_size or 128

    @property
    def bytes_per_weight(self) -> float:
        """Bytes per stored weight, scales included."""
        if self.weight == "int4" and self.scaling == "per_channel":
            return 0.5
        if self.weight == "fp8" and self.scaling == "group":
            return 1.0 + 1 / 32
        if self.weight == "int4" and self.group_size is not None:
            return 0.5 + 2 / self.group_size
        return BYTES_PER_WEIGHT[self.weight]


@dataclass(frozen=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention, full or over a sliding window."""

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int | None = None
    """Width of a value head when it differs from ``head_dim``."""
    window: int | None = None
    """Tokens a query can see; None means all of them."""
    chunked: bool = False
    """The window is a fixed chunk of the context (Llama 4), not the last tokens."""
    output_gate: bool = False
    """An extra query-sized gate projection multiplies the output (Qwen3-Next, Qwen3.5)."""
    norm_over_heads: bool = False
    """Queries and keys are normalised over all heads of a layer together (MiniMax M2), so that tensor-parallel ranks
    exchange sums of squares."""
    shared_kv: bool = False
    """The key projection serves as the value too, so that the KV cache holds one tensor per token."""
    shared_kv_projection: bool = False
    """Values come from the key projection (no value weights), but the KV cache holds both tensors (Gemma 4)."""
    top_k_tokens: int | None = None
    """Tokens that sparse attention (MiniMax M3) reads per query; None means all that the window allows."""
    index_heads: int = 0
    """Query heads of the indexer that picks those tokens; 0 when this layer has no indexer of its own."""
    index_head_dim: int = 0
    """Width of an indexer head; the indexer caches one such key per token."""


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention (DeepSeek V2/V3, Kimi K2): the cache holds one compressed vector per token."""

    heads: int
    q_lora_rank: int | None
    kv_lora_rank: int
    qk_nope_head_dim: int
    qk_rope_head_dim: int
    v_head_dim: int
    top_k_tokens: int | None = None
    """Tokens that sparse attention (DeepSeek V3.2, GLM-5) reads per query; None means all of them."""
    index_heads: int = 0
    """Query heads of the indexer that picks those tokens; 0 when this layer has no indexer of its own (GLM-5.2 lets
    layers share one)."""
    index_head_dim: int = 0
    """Width of an indexer head; the indexer caches one such key per token."""
    output_gate: bool = False
    """An extra projection to heads x v_head_dim multiplies the output (Kimi K3)."""


@dataclass(frozen=True)
class CompressedAttention:
    """Multi-query attention over a short window and a compressed past (DeepSeek V4).

    Each layer caches its last ``window`` tokens and one entry of ``head_dim`` per ``compress_ratio`` tokens before; an
    entry is key and value at once. The query and the grouped output projection are of low rank.
    """

    heads: int
    head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    """Rank of the output projection per group."""
    o_groups: int
    window: int
    compress_ratio: int
    """Tokens per compressed entry; 0 means that the layer sees its window only."""
    top_k_entries: int | None = None
    """Compressed entries that a query reads; None means all of them."""
    index_heads: int = 0
    index_head_dim: int = 0


@dataclass(frozen=True)
class Mamba2:
    """Selective state space mixer: a state of heads x head_dim x state_size per sequence, whatever its length."""

    heads: int
    head_dim: int
    state_size: int
    groups: int
    conv_kernel: int
    state_bytes_per_element: float = 2.0


@dataclass(frozen=True)
class GatedDeltaNet:
    """Gated delta rule linear attention: a state of v_heads x k_dim x v_dim per sequence.

    Qwen3-Next, Qwen3.5, and the Kimi delta attention of Kimi Linear and K3.
    """

    k_heads: int
    v_heads: int
    k_dim: int
    v_dim: int
    conv_kernel: int
    state_bytes_per_element: float = 2.0


@dataclass(frozen=True)
class DenseFfn:
    """Feed-forward network; ``gated`` means three matrices (SwiGLU, GeGLU) instead of two."""

    intermediate: int
    gated: bool = True


@dataclass(frozen=True)
class MoeFfn:
    """Mixture of experts: ``top_k`` of ``experts`` routed experts per token, and shared ones that see every token."""

    experts: int
    top_k: int
    intermediate: int
    gated: bool = True
    shared_intermediate: int = 0
    """Total intermediate width of the shared experts; 0 when there are none."""
    latent: int | None = None
    """Width that the routed experts work in, behind a shared down and up projection (Nemotron 3 Super, Kimi K3); None
    means the hidden size."""
    skew: float | None = None
    """Unevenness of routing (`energylens.predictor.step.moe.experts_hit`); None for that of the family."""


Mixer = Attention | LatentAttention | CompressedAttention | Mamba2 | GatedDeltaNet
FeedForward = DenseFfn | MoeFfn


@dataclass(frozen=True)
class LayerGroup:
    """``count`` equal layers. Order within a model does not matter to latency or energy."""

    count: int
    mixer: Mixer | None
    ffn: FeedForward | None


@dataclass(frozen=True)
class Tower:
    """A vision or audio encoder beside the text part, as far as tensor parallelism cuts it."""

    kind: str
    """The ``model_type`` of the encoder, such as ``siglip_vision_model``."""
    part: str
    """For messages: ``vision`` or ``audio``."""
    heads: int | None = None
    """Attention heads; None where config.json does not say."""
    width: int | None = None
    """Width of the feed-forward networks; None where config.json does not say."""


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model (the text part of a multimodal one)."""

    name: str
    family: str
    """The ``model_type`` of its config.json, such as ``llama`` or ``qwen3_moe``."""
    hidden: int
    vocab: int
    layers: tuple[LayerGroup, ...]
    tied_embeddings: bool = False
    max_position: int = 131072
    """Longest context in tokens, as engines derive it: position scaling that config.json asks for is counted."""
    start_position: int | None = None
    """Context that vLLM takes unasked where that is shorter: what LongRoPE was trained with before its extension."""
    yarn_position: int | None = None
    """Longest context in tokens up to vLLM 0.29 where that is another: what YaRN was trained from times its factor."""
    attention_quant: Quantization = field(default_factory=Quantization)
    ffn_quant: Quantization = field(default_factory=Quantization)
    """Dense feed-forward and shared experts."""
    expert_quant: Quantization = field(default_factory=Quantization)
    """Routed experts."""
    head_quant: Quantization = field(default_factory=Quantization)
    """Embeddings and output head."""
    kv_bytes_per_element: float = 2.0
    extra_weight_bytes: float = 0.0
    """Weights that take memory but no time in text decoding, such as a vision tower."""
    quant_method: str = ""
    """``quant_method`` of config.json (``fp8``, ``fbgemm_fp8``, ``awq``, ``modelopt``, ...); empty for 16 bit."""
    architecture: str = ""
    """The class that config.json names, such as ``LlamaForCausalLM``; empty where that is not known."""
    towers: tuple[Tower, ...] = ()

    @property
    def layer_count(self) -> int:
        """Number of layers."""
        return sum(group.count for group in self.layers)

    @property
    def is_moe(self) -> bool:
        """Whether any layer routes tokens to experts."""
        return any(isinstance(group.ffn, MoeFfn) for group in self.layers)


def served_on(model: ModelSpec, *, fp4_arithmetic: bool) -> ModelSpec:
    """Return the model as an engine computes it on a GPU: without FP4 arithmetic NVFP4 and MXFP8 store weights only.

    vLLM and SGLang then unpack the weights and compute in 16 bit (the Marlin kernels; vllm-project/vllm#18000, SGLang
    0.5.23 layers/quantization/modelopt_quant.py; MXFP8: vLLM 0.20 layers/quantization/mxfp8.py). The GPUs that multiply
    FP4 are those that scale blocks of 32 in their matrix units.

    Args:
        model: As the checkpoint is.
        fp4_arithmetic: Whether the GPU has FP4 matrix units.
    """
    if fp4_arithmetic:
        return model

    def weight_only(quant: Quantization) -> Quantization:
        return replace(quant, activation="bfloat16") if quant.activation in ("nvfp4", "mxfp8") else quant

    return replace(
        model,
        attention_quant=weight_only(model.attention_quant),
        ffn_quant=weight_only(model.ffn_quant),
        expert_quant=weight_only(model.expert_quant),
        head_quant=weight_only(model.head_quant),
    )
