"""Which layouts of a model an engine can start on a GPU product, and why it refuses the others."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from energylens.api.words import counted
from energylens.planner.engines.classes import class_rules, unserved
from energylens.planner.engines.encoders import encoder_rules
from energylens.planner.engines.kernels import missing_kernels
from energylens.planner.engines.settings import EngineSettings
from energylens.planner.engines.speculation import told
from energylens.planner.engines.splits import Slice, experts, slices
from energylens.predictor.model.architecture import Mamba2, ModelSpec
from energylens.predictor.types import BoolArray, GpuSpec, IntArray, Layouts, Workload

MEGA_MOE = ("deepseek_v4",)
"""Families whose experts vLLM can only divide evenly (models/deepseek_v4/nvidia/model.py, ``MegaMoE``)."""


def refusals(
    model: ModelSpec,
    gpu: GpuSpec,
    layouts: Layouts,
    nodes_per_replica: IntArray,
    workload: Workload,
    settings: EngineSettings,
) -> npt.NDArray[np.object_]:
    """Return why the engine refuses to start each layout, shape (n,); empty text if it starts.

    Args:
        model: The model as the engine serves it.
        gpu: The GPU product.
        layouts: Candidates, shape (n,).
        nodes_per_replica: Nodes of one replica, shape (n,).
        workload: The workload, whose mean request must fit into the context.
        settings: The engine.
    """
    reason = np.full(len(layouts), "", dtype=object)
    every = np.ones(len(layouts), dtype=bool)
    whole = unserved(model, settings) or too_long(model, workload, settings) or _too_short_a_step(model, settings)
    whole = whole or missing_kernels(model, gpu, settings)
    if whole:
        reason[every] = whole
        return reason
    for bad, text in _layout_rules(model, gpu, layouts, nodes_per_replica, settings):
        reason[bad & (reason == "")] = text
    return reason


def longest_request(model: ModelSpec, settings: EngineSettings) -> int:
    """Return the tokens of the longest request, prompt and output together, that the engine accepts."""
    given, cache = settings.context_tokens, settings.cache_tokens
    longest = settings.context_of(model) if given is None else given
    return longest if cache is None else min(longest, cache)


def too_long(model: ModelSpec, workload: Workload, settings: EngineSettings) -> str:
    """Return why the engine would reject the mean request of a workload or of one of its classes; "" if it would not.

    Engines answer 400 to a request beyond their context (vllm-project/vllm pull request 12600), and exit at start-up if
    an argument sets a longer context than the checkpoint has (vLLM config/model.py, SGLang configs/model_config.py).
    """
    longest = max(workload.parts, key=lambda part: part.input_tokens + part.output_tokens)
    tokens = round(longest.input_tokens + longest.output_tokens)
    asked = f"inputTokens {longest.input_tokens:.0f} + outputTokens {longest.output_tokens:.0f}"
    if workload.classes:
        asked = f"classes[{workload.parts.index(longest)}]: {asked}"
    context, given, name = settings.context_of(model), settings.context_tokens, settings.names.context
    if given is not None and given > context and not settings.takes_longer_context:
        return (
            f"{settings.arguments.written(name)!r} exceeds the model's context of {context} tokens, which "
            f"{settings.name} refuses; use at most {name}={context}"
        )
    if given is not None and tokens > given:
        return f"{asked} is more than the {given} tokens that {settings.arguments.written(name)!r} allows"
    if given is None and tokens > context:
        return f"{asked} is more than the {context} tokens of the model's context"
    cache = settings.cache_tokens
    if cache is not None and tokens > cache:
        return f"{asked} is more than the {cache} tokens of {settings.arguments.written(settings.cache_option)!r}"
    return ""


def _too_short_a_step(model: ModelSpec, settings: EngineSettings) -> str:
    """Return why steps that must hold a whole prompt are too short for the context (vLLM 0.33 config/scheduler.py)."""
    context = settings.context_tokens or settings.context_of(model)
    if not settings.unchunked or settings.step_tokens is None or settings.step_tokens >= context:
        return ""
    written, names = settings.arguments.written(settings.names.step), settings.names
    return (
        f"{written!r} without chunked prefill is less than the {context} tokens of the context, which {settings.name} "
        f"refuses; set {names.context}={settings.step_tokens} or less, or leave --no-enable-chunked-prefill out"
    )


def _layout_rules(
    model: ModelSpec, gpu: GpuSpec, layouts: Layouts, nodes: IntArray, settings: EngineSettings
) -> Iterator[tuple[BoolArray, str]]:
    if settings.engine == "VLLM":
        yield from _vllm(model, gpu, layouts, settings)
    else:
        yield from _sglang(model, layouts, nodes, settings)
    yield from class_rules(model, layouts, settings)
    for cut in slices(model, layouts, settings.engine):
        yield from _cut_rules(cut)
    yield from encoder_rules(model, layouts, settings)
    yield from _mamba_rules(model, layouts, settings)


def _mamba_rules(model: ModelSpec, layouts: Layouts, settings: EngineSettings) -> Iterator[tuple[BoolArray, str]]:
    """Refuse groups of Mamba-2 that ranks cannot share evenly.

    vLLM 0.33 model_executor/layers/mamba/mamba_mixer2.py; SGLang 0.5.23 layers/attention/mamba/mamba.py, which requires
    whole groups on every rank of a quantised checkpoint, even if it has a single group that ranks could copy.
    """
    tensor = layouts.tensor_parallel
    copies = settings.engine == "VLLM" or not model.quant_method
    for groups in sorted({g.mixer.groups for g in model.layers if isinstance(g.mixer, Mamba2)}):
        uneven = (groups % tensor != 0) & ((groups != 1) | (not copies))
        for ranks in _sizes(tensor[uneven]):
            yield (
                uneven & (tensor == ranks),
                f"{counted(groups, 'group')} of the Mamba layers cannot be shared by tensor parallel ({ranks})",
            )


def _cut_rules(cut: Slice) -> Iterator[tuple[BoolArray, str]]:
    uneven = cut.uneven()
    for ranks in _sizes(cut.ranks[uneven]):
        yield uneven & (cut.ranks == ranks), f"{cut.what} {cut.size} is not divisible by {cut.across} ({ranks})"
    broken, unit = cut.broken()
    broken &= ~uneven
    for ranks in _sizes(cut.ranks[broken]):
        part = cut.size // ranks
        yield (
            broken & (cut.ranks == ranks),
            f"{cut.what} {cut.size} over {counted(ranks, 'rank')} of {cut.across} is {part} each, "
            f"which is not a multiple of {unit}",
        )


def _sizes(ranks: IntArray) -> list[int]:
    return sorted(set(ranks.tolist()))


def _vllm(
    model: ModelSpec, gpu: GpuSpec, layouts: Layouts, settings: EngineSettings
) -> Iterator[tuple[BoolArray, str]]:
    """Yield layouts that vLLM refuses: a batch above a step (config/scheduler.py), and MegaMoE with uneven experts."""
    limits = settings.step_limits(model, gpu, layouts)
    batches = layouts.max_batch_size
    for batch, tokens in sorted(set(zip(batches.tolist(), limits.tolist(), strict=True))):
        if batch > tokens:
            field = settings.names.step + " in spec.engine.extraArgs"
            field = field if settings.fixes_steps else "spec.planning.overrides.maxBatchedTokens"
            yield (
                np.asarray((batches == batch) & (limits == tokens)),
                f"max batch {batch} is more than the {tokens} tokens of a step on {gpu.name}; raise {field}",
            )
    if settings.unchunked:
        context = settings.context_tokens or settings.context_of(model)
        given = layouts.max_batched_tokens
        yield (
            np.asarray((given > 0) & (given < context)),
            f"without chunked prefill a step must hold the {context} tokens of the context; raise "
            "spec.planning.overrides.maxBatchedTokens, or leave it out",
        )
    if model.family in MEGA_MOE:
        yield from _whole_experts(model, layouts, settings)


def _sglang(
    model: ModelSpec, layouts: Layouts, nodes: IntArray, settings: EngineSettings
) -> Iterator[tuple[BoolArray, str]]:
    """Yield layouts that SGLang refuses: uneven experts (layers/moe/fused_moe_triton/layer.py), ranks across nodes.

    Pipeline stages with speculative decoding are refused except on prefill replicas (server_args.py, ``pp_size > 1``).
    ``arg_groups/validation_hook.py`` refuses ``dp_size`` above 1 on several nodes and requires the GPUs of a replica to
    be divisible by its nodes, which holds for every layout.
    """
    page = settings.block_tokens or 1
    # server_args.py: chunked_prefill_size must be divisible by page_size.
    yield (
        np.asarray(layouts.max_batched_tokens % page > 0),
        f"the tokens of a step are not a multiple of the {page} tokens of a page of the KV cache",
    )
    yield from _whole_experts(model, layouts, settings)
    if model.is_moe and settings.arguments.value("--moe-a2a-backend") not in (None, "none"):
        # arg_groups/overrides.py: every other backend sets ep_size to tp_size.
        cut = (layouts.expert_parallel == 1) & (layouts.tensor_parallel * layouts.data_parallel > 1)
        written = settings.arguments.written("--moe-a2a-backend")
        yield np.asarray(cut), f"{written!r} spreads whole experts over all GPUs, but the layout shards each expert"
    drafting = told(settings)
    if drafting is not None:
        staged = layouts.pipeline_parallel > 1
        yield (
            np.asarray(staged),
            f"{settings.name} supports speculative decoding ({drafting.written}) only without pipeline parallelism",
        )
    if not model.is_moe:
        apart = (layouts.data_parallel > 1) & (nodes > 1)
        yield np.asarray(apart), "SGLang runs data-parallel copies of a dense model only on one node"


def _whole_experts(model: ModelSpec, layouts: Layouts, settings: EngineSettings) -> Iterator[tuple[BoolArray, str]]:
    ranks = layouts.expert_parallel
    for moe in experts(model):
        uneven = moe.experts % ranks != 0
        for size in _sizes(ranks[uneven]):
            near = max(n for n in range(1, size) if moe.experts % n == 0)
            yield (
                np.asarray(ranks == size),
                f"{moe.experts} experts are not divisible by expert parallel ({size}), as {settings.name} "
                f"requires; the nearest smaller value is {near}",
            )
