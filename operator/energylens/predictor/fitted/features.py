"""Features of a candidate that the residual and the range check use."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from energylens.predictor.fitted.residual import RunFeatures
from energylens.predictor.model.architecture import ModelSpec, MoeFfn
from energylens.predictor.step.links import nvlink_island
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec, IntArray, Layouts, Workload

LONG_OUTPUT = 1500.0
LONG_PROMPT, LONGEST_PROMPT = 600.0, 3000.0


def architecture_key(model: ModelSpec) -> str:
    """Return a key that siblings share: releases of one architecture and size, whatever their name."""
    experts = max((g.ffn.experts for g in model.layers if isinstance(g.ffn, MoeFfn)), default=0)
    return f"{model.family}/{model.hidden}x{model.layer_count}/{experts}"


def storage_key(model: ModelSpec) -> str:
    """Return how most of the weights are stored."""
    quant = model.expert_quant if model.is_moe else model.ffn_quant
    return f"{quant.weight}-{quant.scaling}"


def is_unpacked(model: ModelSpec) -> bool:
    """Return whether NVFP4 is only the storage format, so that other kernels run than those of FP4 arithmetic."""
    quant = model.expert_quant if model.is_moe else model.ffn_quant
    return quant.weight == "nvfp4" and quant.activation != "nvfp4"


def load_key(workload: Workload) -> str:
    """Return the kind of load of the mean request; see :func:`load_kind`."""
    return load_kind(workload.input_tokens, workload.output_tokens)


def lengths_key(workload: Workload) -> str:
    """Return the mean tokens of a prompt and of an output as one label, such as ``300/400``."""
    return f"{max(workload.input_tokens, 1.0):.6g}/{max(workload.output_tokens, 1.0):.6g}"


_MOST_EXPERT_GPUS = 99
"""Layouts over more GPUs of experts count as one: no run has so many."""
_DEGREES, _MOST_RANKS = 2048, 2**20
"""Above every degree of tensor or pipeline parallelism, and above every number of ranks."""


def load_kind(input_tokens: float, output_tokens: float) -> str:
    """Return the kind of load: long reasoning outputs, long prompts, prompts longer than outputs, or other."""
    if output_tokens >= LONG_OUTPUT:
        return "long-output"
    if input_tokens >= LONGEST_PROMPT:
        return "longest-prompt"
    return "long-prompt" if input_tokens >= LONG_PROMPT else "chat"


def beyond_island(gpu: GpuSpec, layouts: Layouts) -> BoolArray:
    """Return which candidates communicate over the host link, shape (n,)."""
    return np.asarray(layouts.gpus > nvlink_island(gpu, layouts))


def parallel_key(gpu: GpuSpec, layouts: Layouts) -> npt.NDArray[np.str_]:
    """Return the kinds of links and splits of each candidate, shape (n,).

    These are several pipeline stages, several data-parallel ranks, and communication that leaves an NVLink island.
    """
    staged, ranked = layouts.pipeline_parallel > 1, layouts.data_parallel > 1
    kinds = ["plain", "ranks", "stages", "both"]
    names = np.array([*kinds, *(f"{kind}/host-link" for kind in kinds)], dtype=np.str_)
    return np.asarray(names[4 * beyond_island(gpu, layouts) + 2 * staged + ranked])


def run_features(
    model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, concurrency: FloatArray, engine: str = ""
) -> RunFeatures:
    """Return the residual's features of every candidate; each layout is one kind.

    Args:
        model: The architecture.
        gpu: The GPU product.
        layouts: Candidates, shape (n,).
        workload: The mean request.
        concurrency: Running sequences, shape (n,).
        engine: The engine's `EngineProfile.tag`, since the residual of one engine is no evidence about another.
    """
    architecture, storage, load = architecture_key(model) + engine, storage_key(model), load_key(workload)
    tp, pp, dp = layouts.tensor_parallel, layouts.pipeline_parallel, layouts.data_parallel
    ep = np.minimum(layouts.expert_parallel, _MOST_EXPERT_GPUS)
    # The same degrees on small nodes may leave an NVLink island.
    code = (((tp * _DEGREES + pp) * 128 + ep) * _MOST_RANKS + dp) * 2 + beyond_island(gpu, layouts)
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    degrees = zip(*(degree[first].tolist() for degree in (tp, pp, ep, dp)), strict=True)
    names = [f"{architecture}/{storage}/{gpu.name}/tp{t}pp{p}ep{e}dp{d}" for t, p, e, d in degrees]
    layouts = layouts.take(first)
    layout = np.array(names, dtype=np.str_)
    single = np.where(layouts.gpus == 1, f"{gpu.name}/one", f"{gpu.name}/several").astype(np.str_)

    def same(text: str) -> np.ndarray:
        # No dtype is given, because np.str_ would mean one character and truncate the text.
        return np.full(len(layouts), text)

    kind, parallel = "moe" if model.is_moe else "dense", parallel_key(gpu, layouts)
    # The residual of ranks that wait for each other is no evidence about a replica with one rank.
    ranks = np.where(layouts.data_parallel > 1, "/ranks", "")
    keys = {
        "family": np.char.add(same(model.family + engine), ranks),
        "architecture": np.char.add(same(architecture), ranks),
        "stored": np.char.add(same(f"{architecture}/{storage}"), ranks),
        "product": np.char.add(np.char.add(single, f"/{kind}-{storage}{engine}"), ranks),
        "layout": layout,
        "load": np.char.add(layout, f"/{load}"),
        "parallel": np.char.add(parallel, engine) if engine else parallel,
        "gpu": np.char.add(same(gpu.name + engine), ranks),
        "size": np.char.add(np.char.add(single, engine), ranks),
        "experts": np.char.add(np.where(layouts.expert_parallel > 1, f"split{engine}", f"whole{engine}"), ranks),
        "lengths": same(lengths_key(workload)),
        "kind": np.char.add(same(load + engine), ranks),
    }
    return RunFeatures(keys, np.log(np.maximum(concurrency, 1.0)), inverse.reshape(-1))


def measured_parallelism(training: RunFeatures, runs: RunFeatures) -> BoolArray:
    """Return which candidates have a kind of split that was measured."""
    return _has(training, runs, "parallel")


def split_anywhere(training: RunFeatures, runs: RunFeatures) -> BoolArray:
    """Return which candidates have a kind of split that was measured under any engine, shape (n,)."""
    known = {label.partition("@")[0] for label in training.members["parallel"]}
    labels = runs.keys["parallel"].tolist()
    return runs.each(np.array([label.partition("@")[0] in known for label in labels], dtype=np.bool_))


def measured_kind(training: RunFeatures, runs: RunFeatures) -> BoolArray:
    """Return which candidates have a kind of model and storage that was run on their product under their engine."""
    return _has(training, runs, "product")


def _has(training: RunFeatures, runs: RunFeatures, key: str) -> BoolArray:
    """Return which candidates share a key with a measured run, shape (n,)."""
    known = training.members[key]
    return runs.each(np.array([label in known for label in runs.keys[key].tolist()], dtype=np.bool_))


NEAREST = ("layout", "model", "engine", "nothing")
"""Kinds of nearest measurement, nearest first; the codes of :func:`nearest` are indices into this tuple.

``layout``: this model in this layout on this product under this engine, with similar prompts and outputs
(:func:`similar_lengths`) and numbers of sequences. ``model``: this model under this engine, and this product with
models of its kind and storage. ``engine``: the engine on this product, and either models of the kind and storage or the
model itself, on any product under the engine or under other versions of it. ``nothing``: less than that, or a split
that nobody measured.
"""
BASE_ENGINE = "vllm"
"""Engine whose constants the factors of others refer to; its runs have no engine in their keys."""
LAYOUT, MODEL, ENGINE, NOTHING = range(4)
LOAD_REACH = 2.0
"""Factor on the fewest and the most measured sequences of a layout within which its loads count as known."""
LENGTH_REACH = 2.0
"""Factor between mean prompts, and between mean outputs, within which loads of one kind are similar. Without this
factor, prompts of 20 tokens counted as similar to prompts of 150: half of these runs were outside of their 80 %
intervals."""


def nearest(training: RunFeatures, runs: RunFeatures, *, here_only: bool = False) -> IntArray:
    """Return the nearest measurement of each candidate, shape (n,).

    Args:
        training: The measured runs.
        runs: Candidates on a product that was measured under their engine.
        here_only: Whether runs on other products are no evidence about the model's kernels on this one.
    """
    low, high = training.log_batch.min() - 0.1, training.log_batch.max() + 0.1
    related = measured_parallelism(training, runs) & (runs.log_batch >= low) & (runs.log_batch <= high)
    model, here = _has(training, runs, "architecture"), measured_kind(training, runs)
    elsewhere = (before(training, runs, "product") | before(training, runs, "architecture")) & (not here_only)
    found = np.where(related & (here | elsewhere), ENGINE, NOTHING)
    found[related & model & here] = MODEL
    reach = np.log(LOAD_REACH)
    for lengths in dict.fromkeys(runs.keys["lengths"].tolist()):
        similar, own = similar_lengths(training, lengths), runs.keys["lengths"] == lengths
        for load in dict.fromkeys(runs.keys["load"][own].tolist()):
            known = training.members["load"].get(load)
            if known is None or not (known & similar).any():
                continue
            batches = training.log_batch[known & similar]
            near = (runs.log_batch >= batches.min() - reach) & (runs.log_batch <= batches.max() + reach)
            found[related & near & runs.each(own & (runs.keys["load"] == load))] = LAYOUT
    return found


def similar_lengths(training: RunFeatures, lengths: str) -> BoolArray:
    """Return which runs have prompts and outputs of similar lengths, shape (m,).

    Args:
        training: The m measured runs.
        lengths: The key ``lengths`` of a candidate.
    """
    own = np.log(np.array(lengths.split("/"), dtype=np.float64))
    return np.asarray((np.abs(training.lengths - own) <= np.log(LENGTH_REACH) + 1e-9).all(axis=1))


def kind_known(training: RunFeatures, runs: RunFeatures) -> BoolArray:
    """Return which candidates have a kind of model that was run under their engine on any product, shape (n,)."""
    known = _known(training, "kinds", lambda: map(_kind, training.members["product"]))
    return runs.each(np.array([_kind(label) in known for label in runs.keys["product"].tolist()], dtype=np.bool_))


def before(training: RunFeatures, runs: RunFeatures, key: str) -> BoolArray:
    """Return which candidates share a key with a run of any version of their engine, shape (n,).

    Args:
        training: The measured runs.
        runs: Candidates.
        key: ``architecture``, or ``product``, in which the GPU product itself is ignored.
    """
    of = _kind if key == "product" else str
    known = _known(training, f"{key} before", lambda: (any_version(of(label)) for label in training.members[key]))
    return runs.each(np.array([any_version(of(label)) in known for label in runs.keys[key].tolist()], dtype=np.bool_))


def any_version(label: str) -> str:
    """Return a label with the engine's name in place of the versions of its profile."""
    stem, _, tag = label.partition("@")
    engine, _, rest = tag.partition(">=")
    ranks = "/ranks" if (rest or stem).endswith("/ranks") else ""
    return f"{stem.removesuffix('/ranks')}@{engine or BASE_ENGINE}{ranks}"


def _kind(product: str) -> str:
    """Return the rest of a product key without the product: dense or mixture of experts, storage, engine and ranks."""
    return product.split("/", 2)[2]


def _known(training: RunFeatures, name: str, labels: Callable[[], Iterable[str]]) -> frozenset[str]:
    if name not in training.memo:
        training.memo[name] = frozenset(labels())
    return training.memo[name]
