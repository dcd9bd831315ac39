"""How an engine's data-parallel ranks synchronise their steps."""

from __future__ import annotations

from math import inf

from energylens.predictor.types import FloatArray
from energylens.records import dataclass


@dataclass(frozen=True)
class Lockstep:
    """How data-parallel ranks that exchange experts' tokens synchronise their steps."""

    padded: bool = False
    """Whether every rank passes as many tokens through the model as the rank with the longest prompt (vLLM, if any step
    uses CUDA graphs). Padding rows are equal, so the router sends all of them to the same experts."""
    graphed: bool = False
    """Whether ranks are padded only in steps that a CUDA graph covers on every rank."""
    graphs: float | FloatArray = inf
    """Tokens of the largest step of a rank that is padded, one number or shape (n,); it depends on candidates."""
    clump: float = 1.0
    """Requests that ranks admit in one step at any load: a scheduler that checks for new requests only every few steps,
    as in SGLang's recipes for attention data parallelism, finds several at once."""
    quantized_dispatch: bool = False
    """Whether ranks quantize tokens before they send them to experts, instead of after."""
    chunk: float | FloatArray = inf
    """Tokens that a step of a rank computes at most, one number or shape (n,); it depends on candidates."""
    holds_decodes: bool = False
    """Whether ``chunk`` counts running sequences too, as in vLLM; SGLang prefills in steps of their own."""


APART = Lockstep()
