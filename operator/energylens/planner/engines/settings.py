"""Memory, context and step limits from ``spec.engine``, read from its arguments and environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from typing import Any

from energylens.api.llmdeployment import Engine
from energylens.planner.engines.arguments import Arguments, read_arguments
from energylens.planner.engines.versions import PROVED, Version, display, version_of
from energylens.predictor.fitted.profiles import EngineProfile, default_step_tokens, step_limits
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec, IntArray, Layouts
from energylens.records import dataclass

_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DECIMAL = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"^(\d+(?:\.\d+)?)([kKmMgGtT]?i?)$")
_CACHE_BYTES = (
    ("nvfp4", 0.5 + 1 / 16),
    ("fp4", 0.5 + 1 / 16),
    ("int4", 0.5),
    ("fp8", 1.0),
    ("int8", 1.0),
    ("bf16", 2.0),
    ("bfloat16", 2.0),
    ("float16", 2.0),
)
"""Prefix of a KV cache format to bytes per element, including one scale per 16 elements."""
_KERNEL_BLOCK = 16
_YARN_COUNTED_SINCE = (0, 30)
_AUTO_CONTEXT_SINCE = (0, 14)
_SUFFIXED = ("--context-length", "--max-total-tokens")
"""Options of SGLang that accept 1k and 1Ki (utils/common.py, ``human_readable_int``)."""
_SUFFIXES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_LONGER = {"VLLM": "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "SGLang": "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"}


@dataclass(frozen=True)
class Names:
    """The options that set one limit in the two engines."""

    memory: str
    step: str
    context: str
    overrides: str
    block: str


NAMES = {
    "VLLM": Names(
        memory="--gpu-memory-utilization",
        step="--max-num-batched-tokens",
        context="--max-model-len",
        overrides="--hf-overrides",
        block="--block-size",
    ),
    "SGLang": Names(
        memory="--mem-fraction-static",
        step="--chunked-prefill-size",
        context="--context-length",
        overrides="--json-model-override-args",
        block="--page-size",
    ),
}


class SettingError(ValueError):
    """An argument whose value the engine refuses. The message names the argument and the allowed values."""


@dataclass(frozen=True)
class EngineSettings:
    """An engine, its version, and the settings from its arguments and environment."""

    engine: str = "VLLM"
    version: Version = PROVED["VLLM"]
    arguments: Arguments = field(default_factory=Arguments)
    env: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, engine: Engine) -> EngineSettings:
        """Return the settings of ``spec.engine``."""
        version = version_of(engine)
        arguments = read_arguments(engine.extra_args, engine.type, version)
        return cls(engine.type, version, arguments, {entry.name: entry.value for entry in engine.env})

    @property
    def name(self) -> str:
        """Engine and version, such as ``vLLM 0.33.0``."""
        return display(self.engine, self.version)

    @property
    def names(self) -> Names:
        """The engine's own options for the limits."""
        return NAMES[self.engine]

    def check(self) -> None:
        """Check the values of the arguments that planning reads.

        Raises:
            SettingError: The engine would refuse the value; the first one is named.
        """
        # These checks say more about a value than that it must be a number.
        _ = (self.memory_utilization, self.step_tokens, self.kv_cache_bytes, self.kv_bytes_per_element)
        _ = (self.context_tokens, self.cache_tokens, self.block_tokens)
        for problem in self.arguments.problems:
            raise SettingError(problem)

    @cached_property
    def memory_utilization(self) -> float | None:
        """Share of a GPU's memory for weights and cache; None for the engine's default."""
        text = self.arguments.value(self.names.memory)
        if text is None:
            return None
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0.0 < share <= 1.0:
            raise self._error(self.names.memory, "a number above 0 and at most 1")
        return share

    @cached_property
    def step_tokens(self) -> int | None:
        """Tokens of a step; None for the engine's default."""
        if self.engine == "SGLang" and self.arguments.value(self.names.step) == "-1":
            return None
        return self._tokens(self.names.step)

    @cached_property
    def context_tokens(self) -> int | None:
        """Longest request that the engine is told to accept, tokens; None if the engine determines it."""
        text = self.arguments.value(self.names.context)
        if text is not None and self.engine == "VLLM" and text.lower() in ("auto", "-1"):
            if self.version < _AUTO_CONTEXT_SINCE:
                raise self._error(self.names.context, f"a whole number above 0 ({text} since vLLM 0.14)")
            return None
        return self._tokens(self.names.context)

    @cached_property
    def cache_tokens(self) -> int | None:
        """Tokens of the whole KV cache of a rank, if the arguments set it; see :attr:`cache_option`."""
        found = self._tokens(self.cache_option)
        return found if found is None or self.engine == "SGLang" else found * (self.block_tokens or _KERNEL_BLOCK)

    @property
    def cache_option(self) -> str:
        """The option that sets the size of the KV cache: in tokens for SGLang, in blocks for vLLM."""
        return "--max-total-tokens" if self.engine == "SGLang" else "--num-gpu-blocks-override"

    @property
    def unchunked(self) -> bool:
        """Whether the arguments make vLLM process every prompt in one step."""
        return self.engine == "VLLM" and self.arguments.switch("--enable-chunked-prefill") is False

    @property
    def fixes_steps(self) -> bool:
        """Whether an argument sets the tokens of a step."""
        return self.arguments.value(self.names.step) is not None

    @property
    def plans_steps(self) -> bool:
        """Whether the plan chooses the tokens of a step: no argument sets them, and prompts are chunked."""
        return not (self.fixes_steps or self.unchunked or self.arguments.value("--max-num-scheduled-tokens"))

    def step_limits(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts) -> IntArray:
        """Return the tokens that a step of a data-parallel rank computes at most, shape (n,)."""
        engine = self.engine.lower()
        return step_limits(engine, self.step_tokens or default_step_tokens(engine, gpu), layouts, model)

    def own_steps(self, gpu: GpuSpec | None, data_parallel: int) -> int | None:
        """Return the tokens of a step under a plan that sets none; None if the product is unknown."""
        if self.step_tokens is not None or gpu is None:
            return self.step_tokens
        ranks = data_parallel if self.engine == "SGLang" else 1
        return max(default_step_tokens(self.engine.lower(), gpu) // ranks, 1)

    @cached_property
    def block_tokens(self) -> int | None:
        """Tokens of a block of the KV cache; None for the engine's default.

        vLLM 0.33 has attention kernels for multiples of 16 on NVIDIA GPUs (``get_supported_kernel_block_sizes`` of
        v1/attention/backends). SGLang 0.5.23 rounds pages to what its kernels take (arg_groups/overrides.py).
        """
        name = self.names.block
        text = self.arguments.value(name)
        if text is None:
            return None
        number = int(text) if text.isascii() and text.isdigit() else 0
        if self.engine == "VLLM" and (number < 1 or number % _KERNEL_BLOCK):
            raise self._error(name, f"a multiple of {_KERNEL_BLOCK}")
        if number < 1:
            raise self._error(name, "a whole number above 0")
        return number

    @cached_property
    def kv_cache_bytes(self) -> float | None:
        """KV cache bytes per GPU, if the arguments set them (``--kv-cache-memory-bytes`` of vLLM)."""
        if self.engine != "VLLM":
            return None
        found = self._tokens("--kv-cache-memory-bytes")
        return None if found is None else float(found)

    @cached_property
    def kv_bytes_per_element(self) -> float | None:
        """Bytes of a KV cache element; None if the checkpoint decides, or if the format's size is unknown."""
        text = (self.arguments.value("--kv-cache-dtype") or "auto").lower()
        return next((size for start, size in _CACHE_BYTES if text.startswith(start)), None)

    @property
    def takes_longer_context(self) -> bool:
        """Whether the environment allows a context longer than the checkpoint's."""
        return self.env.get(_LONGER[self.engine], "").strip().lower() in ("1", "true", "yes", "y", "on", "t")

    def context_of(self, model: ModelSpec) -> int:
        """Return the longest context of the checkpoint, with overrides of its config.json applied."""
        overrides = self.arguments.parts.get(self.names.overrides, {})
        longest = model.max_position
        if self._multiplies_yarn and model.yarn_position is not None:
            longest = model.yarn_position
        holders = (overrides, overrides.get("text_config")) if isinstance(overrides, Mapping) else ()
        for holder in holders:
            if not isinstance(holder, Mapping):
                continue
            given = holder.get("max_position_embeddings")
            if isinstance(given, int) and not isinstance(given, bool) and given > 0:
                longest = given
            scaling = holder.get("rope_parameters") or holder.get("rope_scaling")
            longest = max(longest, self._scaled(scaling, longest))
        return longest

    def served(self, model: ModelSpec) -> ModelSpec:
        """Return the model with the KV cache format that the arguments set."""
        size = self.kv_bytes_per_element
        return model if size is None else replace(model, kv_bytes_per_element=size)

    def profile(self, profile: EngineProfile) -> EngineProfile:
        """Return an engine profile with the memory that the arguments leave."""
        changes: dict[str, Any] = {
            "memory_utilization": self.memory_utilization,
            "step_tokens": self.step_tokens,
            "kv_cache_bytes": self.kv_cache_bytes,
            # SGLang does not check at start-up whether its cache can hold one request of the full context.
            "longest_request": self.context_tokens if self.engine == "VLLM" else None,
        }
        given = {name: value for name, value in changes.items() if value is not None}
        return replace(profile, **given) if given else profile

    def planning_inputs(self) -> dict[str, Any]:
        """Return the settings that decide a plan, for its hash; empty for the defaults."""
        inputs = {
            "stepTokens": self.step_tokens,
            "memoryUtilization": self.memory_utilization,
            "kvCacheBytes": self.kv_cache_bytes,
            "kvBytesPerElement": self.kv_bytes_per_element,
            "contextTokens": self.context_tokens,
            "cacheTokens": self.cache_tokens,
            "longerContext": self.takes_longer_context or None,
            "modelOverrides": self.arguments.parts.get(self.names.overrides),
            "version": None if self.version == PROVED[self.engine] else ".".join(map(str, self.version)),
        }
        return {name: value for name, value in inputs.items() if value is not None}

    @property
    def _multiplies_yarn(self) -> bool:
        """Return whether YaRN's factor multiplies the context, as in vLLM up to 0.29 (config/model.py)."""
        return self.engine == "VLLM" and self.version < _YARN_COUNTED_SINCE

    def _scaled(self, scaling: object, context: int) -> int:
        """Return the context that an override of the position scaling sets; 0 without one.

        From 0.30 on vLLM assumes that ``max_position_embeddings`` already includes YaRN's factor. SGLang 0.5.23
        (utils/hf_transformers/common.py) assumes that for every scaling that names its original context, and multiplies
        for the others.
        """
        if not isinstance(scaling, Mapping):
            return 0
        kind = scaling.get("rope_type") or scaling.get("type")
        factor, original = scaling.get("factor"), scaling.get("original_max_position_embeddings")
        if self.engine == "SGLang":
            multiplies = original is None and kind != "llama3"
        else:
            multiplies = kind in ("linear", "dynamic") or (kind == "yarn" and self._multiplies_yarn)
        if kind == "yarn" and isinstance(original, int) and not isinstance(original, bool):
            context = original
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return 0
        return int(factor * context) if multiplies else 0

    def _tokens(self, name: str) -> int | None:
        text = self.arguments.value(name)
        if text is None:
            return None
        suffixes, hint = self._suffixes(name)
        found = _SIZE.match(text)
        if found is None or (found[2] and found[2] not in suffixes):
            raise self._error(name, f"a whole number above 0{hint}")
        number = float(found[1]) * suffixes.get(found[2], 1)
        if number < 1 or ("." in found[1] and found[2] in ("", "Ki", "Mi", "Gi", "Ti")):
            raise self._error(name, "a whole number above 0")
        return int(number)

    def _suffixes(self, name: str) -> tuple[Mapping[str, int], str]:
        """Return the suffixes that an option accepts after a number, and a text that explains them.

        For vLLM (utils/argparse_utils.py, human_readable_int) 1k is 1000 and 1K is 1024.
        """
        if self.engine == "VLLM":
            return {**_DECIMAL, **{letter.upper(): size for letter, size in _BINARY.items()}}, " (1k and 1K too)"
        return (_SUFFIXES, " (1k and 1Ki too)") if name in _SUFFIXED else ({}, "")

    def _error(self, name: str, allowed: str) -> SettingError:
        return SettingError(
            f"{self.arguments.written(name)!r}: {name} is {self.arguments.value(name)!r}; allowed: {allowed}"
        )
