"""Engine profiles: the terms that belong to an engine and a version range, not to a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from energylens.predictor.model.memory import FULL_CACHE
from energylens.predictor.step.latency import Overlap
from energylens.predictor.step.lockstep import APART, Lockstep
from energylens.predictor.types import GpuSpec

_SGLANG_STEPS = ((20.0, 2048), (60.0, 4096), (160.0, 8192), (float("inf"), 16384))
"""Memory in GiB that a GPU has less of, and the tokens of a chunk."""


@dataclass(frozen=True)
class EngineProfile:
    """How an engine of some versions differs from the one that the constants were fitted on."""

    engine: str
    """``vllm`` or ``sglang``."""
    minimum: tuple[int, ...]
    """First version that the profile covers."""
    below: tuple[int, ...] | None
    """First version that it no longer covers; None means all later ones."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Constant -> factor on its fitted value."""
    overlap: Overlap | None = None
    """How it runs collectives beside kernels; None for one after the other, as all profiles that ship do."""
    lockstep: Lockstep = APART
    """How its data-parallel ranks step together."""
    memory_utilization: float = 0.9
    """Share of GPU memory that the engine takes by default."""
    steps_ahead: int = 0
    """Steps that are scheduled before the one that runs has ended: 1 with asynchronous or overlapped scheduling."""
    full_cache: float = FULL_CACHE
    """Sequences in a full KV cache over those that the estimate of the memory has room for."""
    kv_cache_bytes: float | None = None
    """Bytes of KV cache per GPU where an argument fixes them; None where the cache gets what is left."""
    step_tokens: int | None = None
    """Tokens of the largest step where an argument sets them, which size the activations."""
    longest_request: int | None = None
    """Tokens of a request that must fit into the KV cache at the start, where an argument says so."""
    sources: tuple[str, ...] = ()
    measured: tuple[str, str] | None = None
    """First and last version that runs were measured of, as their source names them; None where there are none."""

    @property
    def name(self) -> str:
        """Engine and first version, such as ``vllm>=0.11``."""
        return f"{self.engine}>={'.'.join(str(part) for part in self.minimum)}"

    @property
    def tag(self) -> str:
        """What tells runs of this engine from those of the engine that constants are of; empty for that one."""
        return f"@{self.name}" if self.factors else ""

    def tokens_of_step(self, gpu: GpuSpec) -> int:
        """Return the tokens that a step of a rank computes at most on a GPU: as an argument says, or by default.

        vLLM's OpenAI server (engine/arg_utils.py, ``get_batch_defaults``) and SGLang's ``--chunked-prefill-size``
        (server_args.py) go by the GPU's memory.
        """
        if self.step_tokens is not None:
            return self.step_tokens
        gib = gpu.memory_bytes / 2**30
        if self.engine == "sglang":
            return next(tokens for below, tokens in _SGLANG_STEPS if gib < below)
        if gib >= 160:
            return 16384
        return 8192 if gib >= 70 and "A100" not in gpu.name.upper() else 2048

    @property
    def divides_itl(self) -> bool:
        """Whether ITL, as the engine counts it, is the time between two outputs over the tokens of the later one.

        So SGLang observes it, once for each token (observability/metrics_collector.py, observe_inter_token_latency).
        vLLM observes the time between two outputs, whatever their tokens (v1/metrics/stats.py).
        """
        return self.engine == "sglang"

    def covers(self, version: tuple[int, ...]) -> bool:
        """Return whether a version falls into the range."""
        return self.minimum <= version and (self.below is None or version < self.below)


class UnknownEngineError(LookupError):
    """No profile for an engine or version; the message lists those that exist."""


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


def parse_engine(text: str) -> tuple[str, str | None]:
    """Split ``vllm==0.11.1`` into engine and version; the version is None when it is not given."""
    engine, separator, version = text.strip().partition("==")
    return engine.strip().lower(), version.strip() if separator and version.strip() else None


def select_profile(profiles: Sequence[EngineProfile], engine: str, version: str | None) -> EngineProfile:
    """Return the profile of an engine; without a version its newest one.

    Raises:
        UnknownEngineError: No profile of that engine, or none that covers the version.
        ValueError: The version is not a version.
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
