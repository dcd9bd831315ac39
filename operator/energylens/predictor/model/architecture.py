"""The parts of a language model that determine latency and energy.

A :class:`ModelSpec` is a sequence of layer groups. A layer is a *mixer* (attention or a recurrent state) and a
*feed-forward* part, either of which may be absent (layers of Nemotron-H have only one). The module has facts only: the
einsum interface derives the cost of an operation from these shapes; no cost is entered per model.
"""

from __future__ import annotations

from dataclasses import field, replace
from typing import Literal

from energylens.records import dataclass

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
are below 0.1 %, except for MXFP8, which keeps one 8-bit scale per 32 weights.
"""


@dataclass(frozen=True)
class Quantization:
    """How the weights of one part of a model are stored, and what the matrix units compute with."""

    weight: WeightFormat = "bfloat16"
    activation: ActivationFormat = "bfloat16"
    scaling: Scaling = "none"
    group_size: int | None = None
    """Weights per scale within a row, if the format does not fix the number and it is not 128 (Kimi K2 Thinking: 32).
    """
    block: tuple[int, int] | None = None
    """Rows and columns of the block that one scale covers, if it is not 128 x 128."""

    @property
    def scaled_block(self) -> tuple[int, int] | None:
        """Output and input features that share a scale, which no GPU may split; None if scales cover no block or group.

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

    @property
    def bytes_per_activation(self) -> float:
        """Bytes of one element of the input of a matrix product, scales included."""
        return 1.0 + 1 / 32 if self.activation == "mxfp8" else BYTES_PER_WEIGHT[self.activation]


@dataclass(frozen=True)
class Attention:
    """Multi-head, grouped-query or multi-query attention, full or over a sliding window."""

    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int | None = None
    """Width of a value head if it differs from ``head_dim``."""
    window: int | None = None
    """Tokens that a query can see; None means all."""
    chunked: bool = False
    """Whether the window is a fixed chunk of the context (Llama 4) instead of the last tokens."""
    output_gate: bool = False
    """Whether an additional gate projection as wide as the query multiplies the output (Qwen3-Next, Qwen3.5)."""
    norm_over_heads: bool = False
    """Whether queries and keys are normalised over all heads of a layer together (MiniMax M2), so that tensor-parallel
    ranks exchange sums of squares."""
    shared_kv: bool = False
    """Whether the key projection also serves as the value, so that the KV cache holds one tensor per token."""
    shared_kv_projection: bool = False
    """Whether values come from the key projection (no value weights) but the KV cache holds both tensors (Gemma 4)."""
    top_k_tokens: int | None = None
    """Tokens that sparse attention (MiniMax M3) reads per query; None means all within the window."""
    index_heads: int = 0
    """Query heads of the indexer that selects those tokens; 0 if this layer has no indexer of its own."""
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
    """Tokens that sparse attention (DeepSeek V3.2, GLM-5) reads per query; None means all."""
    index_heads: int = 0
    """Query heads of the indexer that selects those tokens; 0 if this layer has no indexer of its own (GLM-5.2 shares
    one between layers)."""
    index_head_dim: int = 0
    """Width of an indexer head; the indexer caches one such key per token."""
    output_gate: bool = False
    """Whether an additional projection to heads x v_head_dim multiplies the output (Kimi K3)."""


@dataclass(frozen=True)
class CompressedAttention:
    """Multi-query attention over a short window and a compressed past (DeepSeek V4).

    Each layer caches its last ``window`` tokens, and one entry of ``head_dim`` per ``compress_ratio`` earlier tokens;
    an entry serves as both key and value. The query and the grouped output projection have low rank.
    """

    heads: int
    head_dim: int
    q_lora_rank: int
    o_lora_rank: int
    """Rank of the output projection per group."""
    o_groups: int
    window: int
    compress_ratio: int
    """Tokens per compressed entry; 0 means that the layer sees only its window."""
    top_k_entries: int | None = None
    """Compressed entries that a query reads; None means all."""
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
    """Mixture of experts: ``top_k`` of ``experts`` routed experts per token, and shared experts for every token."""

    experts: int
    top_k: int
    intermediate: int
    gated: bool = True
    shared_intermediate: int = 0
    """Total intermediate width of the shared experts; 0 if there are none."""
    latent: int | None = None
    """Width in which the routed experts work, behind a shared down and up projection (Nemotron 3 Super, Kimi K3); None
    means the hidden size."""
    skew: float | None = None
    """Unevenness of routing (`energylens.predictor.step.moe.experts_hit`); None means the family's value."""


Mixer = Attention | LatentAttention | CompressedAttention | Mamba2 | GatedDeltaNet
FeedForward = DenseFfn | MoeFfn


@dataclass(frozen=True)
class LayerGroup:
    """A number of equal layers, ``count``. The order of groups does not affect latency or energy."""

    count: int
    mixer: Mixer | None
    ffn: FeedForward | None


@dataclass(frozen=True)
class Tower:
    """A vision or audio encoder besides the text part, with the sizes that tensor parallelism divides."""

    kind: str
    """The ``model_type`` of the encoder, such as ``siglip_vision_model``."""
    part: str
    """Name in messages: ``vision`` or ``audio``."""
    heads: int | None = None
    """Attention heads; None if config.json does not state them."""
    width: int | None = None
    """Width of the feed-forward networks; None if config.json does not state it."""


@dataclass(frozen=True)
class ModelSpec:
    """A decoder-only language model (for a multimodal model, its text part)."""

    name: str
    family: str
    """The ``model_type`` of its config.json, such as ``llama`` or ``qwen3_moe``."""
    hidden: int
    vocab: int
    layers: tuple[LayerGroup, ...]
    tied_embeddings: bool = False
    max_position: int = 131072
    """Longest context in tokens as engines derive it, including the position scaling in config.json."""
    start_position: int | None = None
    """Context that vLLM uses by default if that is shorter: the training context of LongRoPE before its extension."""
    yarn_position: int | None = None
    """Longest context in tokens up to vLLM 0.29 if that differs: YaRN's training context times its factor."""
    attention_quant: Quantization = field(default_factory=Quantization)
    ffn_quant: Quantization = field(default_factory=Quantization)
    """Quantization of dense feed-forward and shared experts."""
    expert_quant: Quantization = field(default_factory=Quantization)
    """Quantization of routed experts."""
    head_quant: Quantization = field(default_factory=Quantization)
    """Quantization of embeddings and output head."""
    kv_bytes_per_element: float = 2.0
    extra_weight_bytes: float = 0.0
    """Weights that take memory but no time in text decoding, such as those of a vision encoder."""
    quant_method: str = ""
    """``quant_method`` of config.json (``fp8``, ``fbgemm_fp8``, ``awq``, ``modelopt``, ...); empty for 16 bits."""
    architecture: str = ""
    """The class in config.json, such as ``LlamaForCausalLM``; empty if it is unknown."""
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
    """Return the model as computed on a GPU: without FP4 arithmetic, NVFP4 and MXFP8 are only storage formats.

    vLLM and SGLang then unpack the weights and compute in 16 bits (the Marlin kernels; vllm-project/vllm#18000, SGLang
    0.5.23 layers/quantization/modelopt_quant.py; MXFP8: vLLM 0.20 layers/quantization/mxfp8.py). GPUs with FP4
    arithmetic are also those whose matrix units scale blocks of 32.

    Args:
        model: The model in the checkpoint's format.
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
