"""How an engine's data-parallel ranks step together."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Lockstep:
    """How data-parallel ranks that exchange experts' tokens step together."""

    padded: bool = False
    """Every rank passes as many tokens through the model as the one with the longest prompt does (vLLM, where any step
    uses CUDA graphs). Rows that pad are alike, so the router sends all of them to the same experts."""
    clump: float = 1.0
    """Requests that ranks admit in one step at any load: a scheduler that looks for new requests every few steps, as
    SGLang's recipes for attention data parallelism do, finds several at once."""


APART = Lockstep()
