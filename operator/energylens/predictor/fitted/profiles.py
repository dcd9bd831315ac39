"""Engine profiles: the terms that depend on an engine and a version range, not on a GPU."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from math import inf

import numpy as np

from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.memory import FULL_CACHE
from energylens.predictor.step.latency import Overlap
from energylens.predictor.step.lockstep import APART, Lockstep
from energylens.predictor.step.work import graph_tokens
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Layouts
from energylens.records import dataclass

_SGLANG_STEPS = ((20.0, 2048), (60.0, 4096), (160.0, 8192), (float("inf"), 16384))
"""Memory in GiB below which a GPU uses the chunk size, and that chunk size in tokens."""


@dataclass(frozen=True)
class EngineProfile:
    """How an engine in a range of versions differs from the engine to which the constants were fitted."""

    engine: str
    """``vllm`` or ``sglang``."""
    minimum: tuple[int, ...]
    """First version that the profile covers."""
    below: tuple[int, ...] | None
    """First later version that the profile does not cover; None if it covers all later ones."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Constant -> factor on its fitted value."""
    overlap: Overlap | None = None
    """How the engine overlaps collectives with kernels; None if they run one after the other, as in all shipped
    profiles."""
    lockstep: Lockstep = APART
    """How the engine's data-parallel ranks synchronise their steps."""
    memory_utilization: float = 0.9
    """Share of GPU memory that the engine uses by default."""
    steps_ahead: int = 0
    """Steps that are scheduled before the running step has ended: 1 with asynchronous or overlapped scheduling."""
    full_cache: float = FULL_CACHE
    """Ratio of the sequences in a full KV cache to those for which the memory estimate has room."""
    kv_cache_bytes: float | None = None
    """Bytes of KV cache per GPU if an argument fixes them; None if the cache gets the remaining memory."""
    step_tokens: int | None = None
    """Tokens of the largest step, which size the activations, if an argument sets them."""
    longest_request: int | None = None
    """Tokens of a request for which the KV cache must have room at start-up, if an argument sets them."""
    sources: tuple[str, ...] = ()
    measured: tuple[str, str] | None = None
    """First and last measured version, as the source of the runs names them; None if there are no runs."""

    @property
    def name(self) -> str:
        """Engine and first version, such as ``vllm>=0.11``."""
        return f"{self.engine}>={'.'.join(str(part) for part in self.minimum)}"

    @property
    def tag(self) -> str:
        """Label that separates runs of this engine from those of the engine of the constants; empty for the latter."""
        return f"@{self.name}" if self.factors else ""

    def step_limits(self, gpu: GpuSpec, layouts: Layouts, model: ModelSpec) -> FloatArray:
        """Return the tokens that a step of a data-parallel rank computes at most, shape (n,)."""
        tokens = self.step_tokens or default_step_tokens(self.engine, gpu)
        return step_limits(self.engine, tokens, layouts, model).astype(np.float64)

    def default_limits(self, gpu: GpuSpec, layouts: Layouts, model: ModelSpec) -> FloatArray:
        """Return the tokens that a step of a data-parallel rank computes at most if no argument says so, (n,)."""
        plain = replace(layouts, max_batched_tokens=np.zeros_like(layouts.max_batched_tokens))
        return step_limits(self.engine, default_step_tokens(self.engine, gpu), plain, model).astype(np.float64)

    def lockstep_of(self, gpu: GpuSpec, layouts: Layouts, model: ModelSpec) -> Lockstep:
        """Return how the ranks of candidates step together."""
        graphs = graph_tokens(layouts) if self.lockstep.graphed else inf
        return replace(self.lockstep, chunk=self.step_limits(gpu, layouts, model), graphs=graphs)

    @property
    def divides_itl(self) -> bool:
        """Whether the engine reports ITL as the time between two outputs divided by the tokens of the later output.

        SGLang does so, once for each token (observability/metrics_collector.py, observe_inter_token_latency). vLLM
        reports the time between two outputs, whatever their tokens (v1/metrics/stats.py).
        """
        return self.engine == "sglang"

    def covers(self, version: tuple[int, ...]) -> bool:
        """Return whether a version falls into the range."""
        return self.minimum <= version and (self.below is None or version < self.below)


def default_step_tokens(engine: str, gpu: GpuSpec) -> int:
    """Return the tokens that a step computes at most on a GPU where no argument says so; ``vllm`` or ``sglang``.

    vLLM's OpenAI server (``--max-num-batched-tokens``; engine/arg_utils.py, ``get_batch_defaults``) and SGLang
    (``--chunked-prefill-size``; server_args.py) depend on the GPU's memory.
    """
    gib = gpu.memory_bytes / 2**30
    if engine == "sglang":
        return next(tokens for below, tokens in _SGLANG_STEPS if gib < below)
    if gib >= 160:
        return 16384
    return 8192 if gib >= 70 and "A100" not in gpu.name.upper() else 2048


def step_limits(engine: str, tokens: int, layouts: Layouts, model: ModelSpec) -> IntArray:
    """Return the tokens that a step of a data-parallel rank computes at most, shape (n,).

    Those of the layout where it has any. SGLang 0.5.23 divides its argument, and the default, by the ranks of
    data-parallel attention (server_args.py).

    Args:
        engine: ``vllm`` or ``sglang``.
        tokens: The argument of the engine, or its default.
        layouts: Candidates, shape (n,).
        model: The architecture.
    """
    given = layouts.max_batched_tokens
    ranks = layouts.data_parallel if engine == "sglang" and model.is_moe else np.ones_like(given)
    return np.where(given > 0, given, np.maximum(tokens // ranks, 1))


class UnknownEngineError(LookupError):
    """An engine or version has no profile; the message lists the existing profiles."""


def parse_version(text: str) -> tuple[int, ...]:
    """Return the numeric parts of a version such as ``0.11.1`` or ``v0.11.1rc2+cu128``.

    Raises:
        ValueError: The text does not start with a number.
    """
    parts: list[int] = []
    for piece in text.strip().lstrip("vV").split("+", 1)[0].split("."):
        digits = ""
        for character in piece:
            if not character.isdigit():
                break
            digits += character
        if not digits:
            break
        parts.append(int(digits))
        if len(digits) < len(piece):
            break
    if not parts:
        raise ValueError(f"engine version {text!r} does not start with a number")
    return tuple(parts)


_LOOSE_ENGINE = re.compile(r"([A-Za-z]+)(?:\s*[:=@/]\s*|[\s-]+)(v?\d\S*)")


def parse_engine(text: str) -> tuple[str, str | None]:
    """Split ``vllm==0.11.1`` into engine and version; the version is None if it is not given.

    Tables of runs also write ``vLLM 0.11.1``, ``vllm:v0.11.1`` and ``vllm@0.11.1``.
    """
    engine, separator, version = text.strip().partition("==")
    loose = None if separator else _LOOSE_ENGINE.fullmatch(engine)
    if loose is not None:
        engine, version = loose.groups()
    return engine.strip().lower(), version.strip() or None


def select_profile(profiles: Sequence[EngineProfile], engine: str, version: str | None) -> EngineProfile:
    """Return the profile of an engine, without a version its newest one.

    Raises:
        UnknownEngineError: The engine has no profile, or none that covers the version.
        ValueError: The version is malformed.
    """
    mine = sorted((p for p in profiles if p.engine == engine.lower()), key=lambda p: p.minimum)
    if not mine:
        known = ", ".join(sorted({p.engine for p in profiles}))
        raise UnknownEngineError(f"engine {engine!r} has no profile; known engines: {known}")
    if version is None:
        return mine[-1]
    wanted = parse_version(version)
    for profile in mine:
        if profile.covers(wanted):
            return profile
    ranges = ", ".join(p.name for p in mine)
    raise UnknownEngineError(f"no profile of {engine} covers version {version!r}; known: {ranges}")
