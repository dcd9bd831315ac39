"""Models that draft tokens for speculative decoding, as separate models whose steps cost like any other step.

Only chains are modelled: ``draft_tokens`` passes in sequence, each over one token of every running sequence. The cost
of draft trees (SGLang's ``--speculative-eagle-topk`` above 1) or of parallel drafting is unknown.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Literal

from energylens.predictor.model.architecture import (
    Attention,
    DenseFfn,
    FeedForward,
    LayerGroup,
    Mixer,
    ModelSpec,
    MoeFfn,
    Quantization,
)
from energylens.predictor.types import Speculation

Method = Literal["NGram", "EAGLE", "MTP", "DraftModel"]
EAGLE_VOCABULARY = 32_000
"""Tokens in the vocabulary of EAGLE-3 heads (arXiv 2503.01840; ``draft_vocab_size`` of the published heads)."""
DRAFT_LAYERS = 24
"""Layers of a draft model of which only the size is known: Qwen2.5-0.5B and similar models have 24, Llama-3.2-1B 16."""
_HEAD_WIDTH = 64


def draft_of(target: ModelSpec, speculation: Speculation) -> ModelSpec | None:
    """Return the draft model of a target, as :func:`draft_model` does."""
    return draft_model(target, speculation.method, speculation.draft_parameters)


@lru_cache(maxsize=64)
def draft_model(target: ModelSpec, method: Method, parameters: float | None) -> ModelSpec | None:
    """Return the draft model; None if nothing is computed on the GPU (n-grams of the prompt).

    An EAGLE head is one dense layer of the target's width with the target's kind of attention and its own small
    vocabulary, in 16 bits. MTP is another copy of the target's last layer, in the target's number format, with its
    output head. A draft model is a dense model with a given number of parameters.

    Args:
        target: The model that verifies the drafts.
        method: The drafting method.
        parameters: Parameters of a draft model without embeddings; other methods ignore the value.

    Raises:
        ValueError: A draft model has no number of parameters, or the target of an EAGLE head has no attention.
    """
    if method == "NGram":
        return None
    plain = Quantization()
    bare = replace(target, extra_weight_bytes=0.0, tied_embeddings=True)
    if method == "MTP":
        last = target.layers[-1]
        return replace(bare, name=f"{target.name} MTP", layers=(replace(last, count=1),))
    bare = replace(bare, attention_quant=plain, ffn_quant=plain, expert_quant=plain, head_quant=plain)
    if method == "EAGLE":
        mixers = [g.mixer for g in reversed(target.layers) if g.mixer is not None]
        mixer = next((m for m in mixers if isinstance(m, Attention)), next(iter(mixers), None))
        if mixer is None:
            raise ValueError(f"{target.name} has no attention on which an EAGLE head could be based")
        layer = LayerGroup(1, _full(mixer), _dense(target))
        return replace(bare, name=f"{target.name} EAGLE", layers=(layer,), vocab=min(target.vocab, EAGLE_VOCABULARY))
    if parameters is None:
        raise ValueError("a draft model needs its number of parameters")
    # A dense layer of width h has 4 h^2 parameters of attention and 8 h^2 of a gated network of 8/3 h.
    hidden = max(_HEAD_WIDTH, round((parameters / (12.0 * DRAFT_LAYERS)) ** 0.5 / _HEAD_WIDTH) * _HEAD_WIDTH)
    heads = hidden // _HEAD_WIDTH
    attention = Attention(heads=heads, kv_heads=heads, head_dim=_HEAD_WIDTH)
    layers = (LayerGroup(DRAFT_LAYERS, attention, DenseFfn(round(8.0 * hidden / 3.0))),)
    return replace(bare, name=f"draft of {target.name}", family="llama", hidden=hidden, layers=layers)


def _full(mixer: Mixer) -> Mixer:
    """Return attention over the whole context."""
    return replace(mixer, window=None) if isinstance(mixer, Attention) else mixer


def _dense(target: ModelSpec) -> FeedForward:
    """Return a dense network as wide as the parameters that a token of the target uses."""
    ffn = next((g.ffn for g in reversed(target.layers) if g.ffn is not None), None)
    if isinstance(ffn, MoeFfn):
        return DenseFfn(ffn.top_k * ffn.intermediate + ffn.shared_intermediate, ffn.gated)
    return ffn if ffn is not None else DenseFfn(4 * target.hidden)
