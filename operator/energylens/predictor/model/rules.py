"""Which layouts can split a model's heads, widths, layers and experts, whatever the engine, and why others cannot."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from energylens.predictor.model.architecture import (
    Attention,
    CompressedAttention,
    DenseFfn,
    GatedDeltaNet,
    LatentAttention,
    Mamba2,
    ModelSpec,
    MoeFfn,
)
from energylens.predictor.types import BoolArray, IntArray, Layouts


def unsupported_reasons(model: ModelSpec, layouts: Layouts) -> npt.NDArray[np.str_]:
    """Return why a candidate cannot run, shape (n,): the first rule that fails, or empty text."""
    tp = layouts.tensor_parallel
    ep = layouts.expert_parallel
    stage = tp * layouts.data_parallel
    reason = np.full(len(layouts), "", dtype=object)

    def refuse(bad: BoolArray, text: str) -> None:
        reason[np.asarray(bad) & (reason == "")] = text

    sizes = [layouts.tensor_parallel, layouts.pipeline_parallel, layouts.expert_parallel, layouts.data_parallel]
    refuse(np.minimum.reduce(sizes) < 1, "parallel degrees must be at least 1")
    for heads in sorted(_heads(model)):
        refuse(heads % np.maximum(tp, 1) != 0, f"{heads} attention heads are not divisible by tensor parallel")
    for heads in sorted(_kv_heads(model)):
        uneven = (heads % np.maximum(tp, 1) != 0) & (np.maximum(tp, 1) % heads != 0)
        refuse(uneven, f"{heads} KV heads are neither divisible by nor a divisor of tensor parallel")
    for width in sorted(_dense_widths(model)):
        refuse(width % np.maximum(tp, 1) != 0, f"feed-forward width {width} is not divisible by tensor parallel")
    refuse(layouts.pipeline_parallel > model.layer_count, f"more pipeline stages than {model.layer_count} layers")
    experts = {g.ffn for g in model.layers if isinstance(g.ffn, MoeFfn)}
    if not experts:
        refuse(ep > 1, "expert parallel needs a mixture-of-experts model")
    for moe in sorted(experts, key=lambda m: m.experts):
        refuse((ep > 1) & (ep != stage), "expert parallel must be 1 or tensor parallel x data parallel")
        apart = ~splits_experts(moe, np.maximum(stage, 1), ep)
        refuse((ep > 1) & apart, f"more expert-parallel ranks than {moe.experts} experts")
        refuse(
            (ep == 1) & apart, f"expert width {moe.intermediate} is not divisible by tensor parallel x data parallel"
        )
    return reason.astype(np.str_)


def splits_experts(moe: MoeFfn, ranks: IntArray, expert_parallel: IntArray) -> BoolArray:
    """Return where experts can be split over tensor x data parallel ranks, whole or in equal slices; shape (n,)."""
    whole, slices = ranks <= moe.experts, moe.intermediate % ranks == 0
    return np.asarray(np.where(expert_parallel > 1, whole, slices))


def _heads(model: ModelSpec) -> set[int]:
    out: set[int] = set()
    for group in model.layers:
        mixer = group.mixer
        if isinstance(mixer, Attention | LatentAttention | CompressedAttention | Mamba2):
            out.add(mixer.heads)
        elif isinstance(mixer, GatedDeltaNet):
            out.add(mixer.v_heads)
    return out


def _kv_heads(model: ModelSpec) -> set[int]:
    out = {g.mixer.kv_heads for g in model.layers if isinstance(g.mixer, Attention)}
    return out | {g.mixer.k_heads for g in model.layers if isinstance(g.mixer, GatedDeltaNet)}


def _dense_widths(model: ModelSpec) -> set[int]:
    out: set[int] = set()
    for group in model.layers:
        if isinstance(group.ffn, DenseFfn):
            out.add(group.ffn.intermediate)
        elif isinstance(group.ffn, MoeFfn) and group.ffn.shared_intermediate:
            out.add(group.ffn.shared_intermediate)
    return out
