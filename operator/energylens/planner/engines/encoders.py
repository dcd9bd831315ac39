"""Whether tensor parallelism divides the vision and audio encoders of a model evenly.

vLLM 0.33 (model_executor/models/, ``dist_utils.divide`` of the heads; vllm-project/vllm#24004, #49368) and SGLang
0.5.23 (layers/attention/vision.py) exit at start-up if the heads of an encoder do not divide evenly. Some encoders are
never sharded, are replicated if they cannot be sharded, or are padded with zero heads; vLLM and SGLang replicate others
on request.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from energylens.planner.engines.settings import EngineSettings
from energylens.predictor.model.architecture import ModelSpec, Tower
from energylens.predictor.types import BoolArray, Layouts

_NEVER_UNEVEN = {
    "VLLM": ("gemma4_vision", "intern", "kimi_k25_vision", "qwen2_audio", "qwen2_5_omni_audio", "qwen3_omni_moe_audio"),
    "SGLang": ("glm4v", "intern", "llama4", "qwen2_audio"),
}
"""Prefixes of the kinds of encoders that start with any number of ranks."""
_WHOLE_ON_REQUEST = {
    "VLLM": ("glm4v", "llama4", "minimax_m3", "moonvit", "qwen2_5_vl", "qwen2_vl", "qwen3_5", "qwen3_vl", "step3p5"),
    "SGLang": ("glm4v", "intern", "kimi_k25", "minimax_m3", "moonvit", "qwen2_5_vl", "qwen3_5", "qwen3_vl"),
}
"""Prefixes of the kinds that an engine replicates on request (vLLM: ``supports_encoder_tp_data``)."""
_ROUNDED_WIDTH = {"VLLM": (), "SGLang": ("qwen2_5_vl",)}
"""Prefixes of the kinds whose feed-forward width is padded until it divides."""


def encoder_rules(model: ModelSpec, layouts: Layouts, settings: EngineSettings) -> Iterator[tuple[BoolArray, str]]:
    """Yield the layouts that shard an encoder unevenly, shape (n,), each with the reason."""
    engine, given = settings.engine, settings.arguments
    if engine == "VLLM" and given.switch("--language-model-only"):
        return
    tensor = layouts.tensor_parallel
    for tower in model.towers:
        on_request = tower.kind.startswith(_WHOLE_ON_REQUEST[engine])
        if tower.kind.startswith(_NEVER_UNEVEN[engine]) or (on_request and _is_whole(settings)):
            continue
        for what, size in _sizes(tower, engine):
            for ranks in sorted(set(tensor[size % tensor != 0].tolist())):
                hint = f"; add {_option(engine)} to spec.engine.extraArgs" if on_request else ""
                yield (
                    np.asarray(tensor == ranks),
                    f"{size} {what} of the {tower.part} encoder are not divisible by tensor parallel ({ranks}), "
                    f"as {settings.name} requires{hint}",
                )


def _sizes(tower: Tower, engine: str) -> Iterator[tuple[str, int]]:
    if tower.heads is not None:
        yield "heads", tower.heads
    if tower.width is not None and not tower.kind.startswith(_ROUNDED_WIDTH[engine]):
        yield "features", tower.width


def _option(engine: str) -> str:
    return "--mm-encoder-tp-mode=data" if engine == "VLLM" else "--mm-enable-dp-encoder"


def _is_whole(settings: EngineSettings) -> bool:
    if settings.engine == "VLLM":
        return settings.arguments.value("--mm-encoder-tp-mode") == "data"
    return settings.arguments.switch("--mm-enable-dp-encoder") is True
