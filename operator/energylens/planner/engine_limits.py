"""What an engine refuses at its start whatever the model is, so that no plan crash-loops.

vLLM 0.33 (engine/arg_utils.py, config/scheduler.py): the batch must not exceed the tokens of a step, whose default
follows from the GPU's memory. SGLang 0.5.23: independent data-parallel copies must be on one node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from energylens.api.llmdeployment import Engine
from energylens.predictor.types import GpuSpec, IntArray, Layouts

_GIB = 2**30
_STEP_TOKENS_FLAG = "--max-num-batched-tokens"
_SUFFIXES = {"k": 1000, "K": 1024}


@dataclass(frozen=True)
class EngineLimits:
    """The engine, and what its arguments say of its limits."""

    engine: str = "VLLM"
    step_tokens: int | None = None
    """Tokens of a step from ``spec.engine.extraArgs``; None for the engine's default."""

    @classmethod
    def of(cls, engine: Engine) -> EngineLimits:
        """Return the limits of ``spec.engine``."""
        return cls(engine.type, _flag_value(engine.extra_args))

    def reasons(
        self, gpu: GpuSpec, layouts: Layouts, nodes_per_replica: IntArray, *, is_moe: bool
    ) -> npt.NDArray[np.object_]:
        """Return why the engine refuses each layout, empty where it does not; shape (n,)."""
        reason = np.full(len(layouts), "", dtype=object)
        if self.engine == "VLLM":
            tokens = self.step_tokens or default_step_tokens(gpu)
            for batch in sorted(set(layouts.max_batch_size[layouts.max_batch_size > tokens].tolist())):
                reason[layouts.max_batch_size == batch] = (
                    f"max batch {batch} is more than the {tokens} tokens of a step on {gpu.name}; raise "
                    f"{_STEP_TOKENS_FLAG} in spec.engine.extraArgs"
                )
        elif not is_moe:
            apart = (layouts.data_parallel > 1) & (nodes_per_replica > 1)
            reason[apart] = "SGLang runs data-parallel copies of a dense model on one node only"
        return reason


def default_step_tokens(gpu: GpuSpec) -> int:
    """Return vLLM's default of ``--max-num-batched-tokens`` on a GPU, for its OpenAI server."""
    if gpu.memory_bytes >= 160 * _GIB:
        return 16384
    return 8192 if gpu.memory_bytes >= 70 * _GIB and "A100" not in gpu.name.upper() else 2048


def _flag_value(arguments: Sequence[str]) -> int | None:
    """Return the tokens of a step that the arguments set; None when they set none that can be read."""
    for argument, following in zip(arguments, [*arguments[1:], ""], strict=False):
        name, equals, value = argument.partition("=")
        if name.replace("_", "-") == _STEP_TOKENS_FLAG:
            text = value if equals else following
            factor = _SUFFIXES.get(text[-1:], 1)
            digits = text[:-1] if factor > 1 else text
            return int(digits) * factor if digits.isdecimal() else None
    return None
