"""From the layers of a :class:`ModelSpec` to the einsums that a serving engine runs.

Sources of the shapes: the attention and feed-forward forms in the model cards of Llama, Qwen, Gemma and gpt-oss;
multi-head latent attention in its absorbed form, as engines run it at decode (DeepSeek-V2, arXiv 2405.04434, appendix
C); Mamba-2 (arXiv 2405.21060); gated delta rule (arXiv 2412.06464).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache

from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    DenseFfn,
    FeedForward,
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    Mixer,
    ModelSpec,
    MoeFfn,
    Quantization,
)
from energylens.predictor.model.einsum import Einsum, Operand, Split
from energylens.records import dataclass

BF16 = Quantization()
TENSOR, WEIGHT, CACHE = Split.TENSOR, Operand.WEIGHT, Operand.CACHE
INDEX_LAUNCHES = 3
"""Kernels of a step that decodes, for one indexer: the scores, the selection among them, and the merge of the parts of
the context that were selected from (MiniMax M3, `minimax_m3_index_decode` of vLLM 0.24) or the translation of positions
into addresses of the cache (DeepSeek in vLLM, `triton_convert_req_index_to_global_index`)."""


@dataclass(frozen=True)
class AttentionReach:
    """How many tokens of context a query reads, given a context length; see :func:`visible_tokens`."""

    window: int | None = None
    top_k: int | None = None
    compress_ratio: int = 1
    gathered: bool = False
    """Whether one kernel gathers the entries of a window and a compressed past (DeepSeek V4)."""
    prompt_flops: float = 1.0
    """Ratio of the FLOPs per pair of prompt tokens to those per decoded token and cached token."""
    exponentials: int = 0
    """Exponentials per pair of prompt tokens: the number of query heads, at the scores of softmax attention."""


@dataclass(frozen=True)
class Part:
    """An einsum, and the context that its queries read."""

    einsum: Einsum
    reach: AttentionReach = AttentionReach()


@dataclass(frozen=True)
class Operation:
    """The einsums that one kernel computes, and how often a model launches that kernel per token pass."""

    parts: tuple[Part, ...]
    count: int
    moe: MoeFfn | None = None
    """The mixture of experts that a grouped einsum belongs to."""
    width: int = 0
    """Hidden width of that mixture's experts."""

    @property
    def einsum(self) -> Einsum:
        """The first einsum, whose class and storage are those of the kernel."""
        return self.parts[0].einsum

    @property
    def launches(self) -> int:
        """Kernels that one pass through all layers launches."""
        return self.count * max(part.einsum.launches for part in self.parts)

    @property
    def reach(self) -> AttentionReach:
        """The context that queries of the first einsum read."""
        return self.parts[0].reach


@dataclass(frozen=True)
class Lowered:
    """A model as operations, with the counts for launch and host terms."""

    operations: tuple[Operation, ...]
    mixer_layers: int
    """Layers with a mixer."""
    recurrent_layers: int
    ffn_layers: int
    moe_layers: int
    latent_layers: int
    chunked_layers: int
    norm_layers: int
    """Layers that normalise queries and keys over all heads."""


def _gemm(
    label: str,
    equation: str,
    quant: Quantization,
    parallel: str = "",
    gather: bool = False,
    *,
    fused: bool = False,
    **sizes: int,
) -> Einsum:
    split = TENSOR if parallel else Split.NONE
    return Einsum(label, equation, tuple(sizes.items()), parallel, split, WEIGHT, quant, "gemm", fused, gather=gather)


def _attend(label: str, equation: str, parallel: str, fused: bool, quant: Quantization, **sizes: int) -> Einsum:
    split = TENSOR if parallel else Split.NONE
    return Einsum(label, equation, tuple(sizes.items()), parallel, split, CACHE, quant, "attention", fused)


def _attention(a: Attention, m: int, q: Quantization, kv: Quantization) -> list[Part]:
    """Return the einsums of one layer.

    vLLM and SGLang merge the weights of queries, keys and values (`QKVParallelLinear`), and MiniMax M3's of the indexer
    as well, whose query heads are split like the KV heads (`MinimaxM3QKVParallelLinearWithIndexer`, vLLM 0.24).
    """
    value = a.v_head_dim or a.head_dim
    group = a.heads // a.kv_heads
    reach = AttentionReach(a.window, a.top_k_tokens)
    soft = replace(reach, exponentials=a.heads)
    queries = a.heads * (2 if a.output_gate else 1)
    projections = [
        _gemm("query", "tm,mhd->thd", q, "h", m=m, h=queries, d=a.head_dim),
        _gemm("key", "tm,mgd->tgd", q, "g", m=m, g=a.kv_heads, d=a.head_dim),
    ]
    if not (a.shared_kv or a.shared_kv_projection):
        projections.append(_gemm("value", "tm,mgv->tgv", q, "g", m=m, g=a.kv_heads, v=value))
    if a.index_heads:
        projections.append(_gemm("index_query", "tm,mid->tid", q, "i", m=m, i=a.index_heads, d=a.index_head_dim))
        projections.append(_gemm("index_key", "tm,md->td", q, "", m=m, d=a.index_head_dim))
    out = _one_kernel(projections)
    # r query heads read the same key head, which saves bytes in grouped-query attention.
    out.append(_attend("scores", "tgrd,cgd->tgrc", "g", True, kv, g=a.kv_heads, r=group, d=a.head_dim))
    values = Operand.ACTIVATION if a.shared_kv else CACHE
    sizes = (("g", a.kv_heads), ("r", group), ("v", value))
    out.append(Einsum("values", "tgrc,cgv->tgrv", sizes, "g", TENSOR, values, kv, "attention"))
    out.append(_gemm("output", "thv,hvm->tm", q, "h", m=m, h=a.heads, v=value))
    if a.index_heads:
        out.append(_index_scores(a.index_heads, a.index_head_dim, kv, "i"))
    reaches = {"scores": soft, "values": reach, "index_scores": AttentionReach(a.window)}
    return [Part(e, reaches.get(e.label, AttentionReach())) for e in out]


def _one_kernel(einsums: list[Einsum]) -> list[Einsum]:
    """Return einsums of the same input as those of one kernel."""
    return [replace(e, fused_with_next=e is not einsums[-1]) for e in einsums]


def _indexer(m: int, source: int, heads: int, dim: int, q: Quantization, kv: Quantization) -> list[Einsum]:
    return [
        _gemm("index_query", "tm,mid->tid", q, "", m=source, i=heads, d=dim),
        _gemm("index_key", "tm,md->td", q, "", m=m, d=dim),
        _index_scores(heads, dim, kv),
    ]


def _index_scores(heads: int, dim: int, kv: Quantization, parallel: str = "") -> Einsum:
    scores = _attend("index_scores", "tid,cd->tic", parallel, False, kv, i=heads, d=dim)
    return replace(scores, launches=INDEX_LAUNCHES)


def _latent(a: LatentAttention, m: int, q: Quantization, kv: Quantization) -> list[Part]:
    nope, rope, rank = a.qk_nope_head_dim, a.qk_rope_head_dim, a.kv_lora_rank
    reach = AttentionReach(None, a.top_k_tokens)
    # Prompts attend with expanded keys and values, which takes fewer FLOPs; sparse attention reads the cache in both
    # phases.
    expanded = a.top_k_tokens is None
    reaches = {
        "scores": replace(reach, prompt_flops=(nope + rope) / (rank + rope) if expanded else 1.0, exponentials=a.heads),
        "values": replace(reach, prompt_flops=a.v_head_dim / rank if expanded else 1.0),
    }
    down = [_gemm("latent", "tm,me->te", q, "", m=m, e=rank + rope)]
    source = m
    if a.q_lora_rank is not None:
        # One product of merged weights: vLLM's fused_qkv_a_proj, SGLang's fused_qkv_a_proj_with_mqa.
        down = _one_kernel([_gemm("query_down", "tm,ml->tl", q, "", m=m, l=a.q_lora_rank), *down])
        source = a.q_lora_rank
    out = [
        *down,
        _gemm("query", "tl,lhd->thd", q, "h", l=source, h=a.heads, d=nope + rope),
        _gemm("absorb_key", "thn,hne->the", q, "h", h=a.heads, n=nope, e=rank),
        _attend("scores", "the,ce->thc", "h", True, kv, h=a.heads, e=rank + rope),
        # The values are the same cached vectors as the keys and need no additional bytes.
        Einsum(
            "values", "thc,ce->the", (("h", a.heads), ("e", rank)), "h", TENSOR, Operand.ACTIVATION, kv, "attention"
        ),
        _gemm("absorb_value", "the,hev->thv", q, "h", h=a.heads, e=rank, v=a.v_head_dim),
        _gemm("output", "thv,hvm->tm", q, "h", h=a.heads, v=a.v_head_dim, m=m),
    ]
    if a.output_gate:
        out.append(_gemm("output_gate", "tm,mhv->thv", q, "h", m=m, h=a.heads, v=a.v_head_dim))
    if a.index_heads:
        out += _indexer(m, a.q_lora_rank or m, a.index_heads, a.index_head_dim, q, kv)
    return [Part(e, reaches.get(e.label, AttentionReach())) for e in out]


def _compressed(a: CompressedAttention, m: int, q: Quantization, kv: Quantization) -> list[Part]:
    d, h = a.head_dim, a.heads
    ratio = max(a.compress_ratio, 1)
    past = AttentionReach(None, a.top_k_entries, ratio, gathered=True)
    window = AttentionReach(a.window, gathered=True)
    near, far = replace(window, exponentials=h), replace(past, exponentials=h)
    sizes = (("h", h), ("d", d))
    # Queries and keys from one product of merged weights (vLLM 0.24: fused_wqa_wkv).
    down = [_gemm("query_down", "tm,ml->tl", q, "", m=m, l=a.q_lora_rank), _gemm("key", "tm,md->td", q, "", m=m, d=d)]
    out = [
        *_one_kernel(down),
        _gemm("query", "tl,lhd->thd", q, "h", l=a.q_lora_rank, h=h, d=d),
        _attend("scores", "thd,cd->thc", "h", True, kv, h=h, d=d),
        # An entry serves as both key and value.
        Einsum("values", "thc,cd->thd", sizes, "h", TENSOR, Operand.ACTIVATION, kv, "attention"),
        _gemm("output_down", "thd,hdl->tl", q, "h", h=h, d=d, l=a.o_lora_rank),
        _gemm("output", "tgl,glm->tm", q, "g", g=a.o_groups, l=a.o_lora_rank, m=m),
    ]
    reaches = {"scores": near, "values": window, "past_scores": far, "past_values": past}
    if a.compress_ratio:
        out += [
            _gemm("compress", "tm,md->td", q, "", m=m, d=d * (4 if a.index_heads else 2)),
            _attend("past_scores", "thd,cd->thc", "h", True, kv, h=h, d=d),
            Einsum("past_values", "thc,cd->thd", sizes, "h", TENSOR, Operand.ACTIVATION, kv, "attention"),
        ]
    if a.index_heads:
        reaches["index_scores"] = AttentionReach(None, None, ratio)
        out += _indexer(m, a.q_lora_rank, a.index_heads, a.index_head_dim, q, kv)
    return [Part(e, reaches.get(e.label, AttentionReach())) for e in out]


def _mamba2(a: Mamba2, m: int, q: Quantization) -> list[Part]:
    inner = a.heads * a.head_dim
    state = Quantization("int8" if a.state_bytes_per_element < 2 else "bfloat16")
    # Gate, convolved input, B and C of each group, and one step size per head, in one projection.
    out = [
        *_one_kernel(
            [
                _gemm("input_heads", "tm,mhd->thd", q, "h", m=m, h=a.heads, d=2 * a.head_dim + 1),
                _gemm("input_groups", "tm,mgn->tgn", q, "g", m=m, g=a.groups, n=2 * a.state_size),
            ]
        ),
        Einsum("state_update", "thp,hpn->thpn", (("h", a.heads), ("p", a.head_dim), ("n", a.state_size)), "h", TENSOR,
               CACHE, state, "state", True),
        Einsum("state_read", "thpn,hn->thp", (("h", a.heads), ("p", a.head_dim), ("n", a.state_size)), "h", TENSOR,
               Operand.ACTIVATION, state, "state"),
        _gemm("output", "tk,km->tm", q, "k", k=inner, m=m),
    ]  # fmt: skip
    return [Part(e) for e in out]


def _delta(a: GatedDeltaNet, m: int, q: Quantization) -> list[Part]:
    state = Quantization("int8" if a.state_bytes_per_element < 2 else "bfloat16")
    sizes = (("h", a.v_heads), ("k", a.k_dim), ("v", a.v_dim))
    out = [
        _gemm("input_keys", "tm,mhk->thk", q, "h", m=m, h=a.k_heads, k=2 * a.k_dim),
        _gemm("input_values", "tm,mhv->thv", q, "h", m=m, h=a.v_heads, v=2 * a.v_dim + 2),
        Einsum("state_update", "thk,hkv->thkv", sizes, "h", TENSOR, CACHE, state, "state", True),
        Einsum("state_read", "thkv,hk->thv", sizes, "h", TENSOR, Operand.ACTIVATION, state, "state"),
        _gemm("output", "thv,hvm->tm", q, "h", h=a.v_heads, v=a.v_dim, m=m),
    ]
    return [Part(e) for e in out]


def _mixer(mixer: Mixer, m: int, q: Quantization, kv: Quantization) -> list[Part]:
    if isinstance(mixer, Attention):
        return _attention(mixer, m, q, kv)
    if isinstance(mixer, LatentAttention):
        return _latent(mixer, m, q, kv)
    if isinstance(mixer, CompressedAttention):
        return _compressed(mixer, m, q, kv)
    if isinstance(mixer, Mamba2):
        return _mamba2(mixer, m, q)
    return _delta(mixer, m, q)


def _dense(width: int, gated: bool, m: int, q: Quantization, prefix: str = "") -> list[Einsum]:
    up = 2 * width if gated else width
    return [
        _gemm(prefix + "up", "tm,mf->tf", q, "f", m=m, f=up),
        _gemm(prefix + "down", "tf,fm->tm", q, "f", f=width, m=m),
    ]


def _ffn(ffn: FeedForward, model: ModelSpec) -> list[tuple[Einsum, MoeFfn | None, int]]:
    m = model.hidden
    if isinstance(ffn, DenseFfn):
        return [(e, None, 0) for e in _dense(ffn.intermediate, ffn.gated, m, model.ffn_quant)]
    out: list[tuple[Einsum, MoeFfn | None, int]] = [
        (_gemm("router", "tm,mx->tx", BF16, "", m=m, x=ffn.experts), None, 0)
    ]
    width = m
    if ffn.latent:
        width = ffn.latent
        out.append((_gemm("latent_down", "tm,ml->tl", model.ffn_quant, "", m=m, l=width), None, 0))
        out.append((_gemm("latent_up", "tl,lm->tm", model.ffn_quant, "", m=m, l=width), None, 0))
    matrices = 3 if ffn.gated else 2
    sizes = (("x", ffn.experts), ("w", width), ("f", matrices * ffn.intermediate))
    grouped = Einsum("experts", "tw,xwf->txf", sizes, "x", Split.EXPERT, WEIGHT, model.expert_quant, "moe")
    out.append((grouped, ffn, width))
    if ffn.shared_intermediate:
        shared = _dense(ffn.shared_intermediate, ffn.gated, m, model.ffn_quant, "shared_")
        out += [(e, None, 0) for e in shared]
    return out


@lru_cache(maxsize=256)
def lower(model: ModelSpec) -> Lowered:
    """Return the operations of one pass of a token through a model, including the output head."""
    kv = Quantization("fp8" if model.kv_bytes_per_element < 2 else "bfloat16")
    merged: dict[tuple[tuple[Part, ...], MoeFfn | None, int], int] = {}
    mixers = recurrent = ffns = moes = latent = chunked = norms = 0
    for group in model.layers:
        if group.mixer is not None:
            mixers += group.count
            recurrent += group.count * isinstance(group.mixer, Mamba2 | GatedDeltaNet)
            latent += group.count * isinstance(group.mixer, LatentAttention)
            chunked += group.count * (isinstance(group.mixer, Attention) and group.mixer.chunked)
            norms += group.count * (isinstance(group.mixer, Attention) and group.mixer.norm_over_heads)
            for parts in _kernels(_mixer(group.mixer, model.hidden, model.attention_quant, kv)):
                mixed = (parts, None, 0)
                merged[mixed] = merged.get(mixed, 0) + group.count
        if group.ffn is not None:
            ffns += group.count
            moes += group.count * isinstance(group.ffn, MoeFfn)
            for einsum, moe, width in _ffn(group.ffn, model):
                fed = ((Part(einsum),), moe, width)
                merged[fed] = merged.get(fed, 0) + group.count
    head = _gemm("head", "tm,mn->tn", model.head_quant, "n", True, m=model.hidden, n=model.vocab)
    merged[((Part(head),), None, 0)] = 1
    operations = tuple(Operation(parts, n, moe, width) for (parts, moe, width), n in merged.items())
    return Lowered(operations, mixers, recurrent, ffns, moes, latent, chunked, norms)


def _kernels(parts: list[Part]) -> Iterator[tuple[Part, ...]]:
    """Yield the parts that one kernel computes."""
    chain: list[Part] = []
    for part in parts:
        chain.append(part)
        if not part.einsum.fused_with_next:
            yield tuple(chain)
            chain = []
