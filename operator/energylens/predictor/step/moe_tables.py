"""Measured efficiency of grouped expert kernels, as the ratio of measured time to roofline time.

A curve is the ratio over tokens for one GPU, kernel class and shape of the local experts. Unmeasured shapes use the
nearest measured one: ratios transfer between shapes, times do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from energylens.predictor.model.architecture import MoeFfn
from energylens.predictor.step.moe import evenly_hit
from energylens.predictor.types import FloatArray, GpuSpec
from energylens.records import dataclass


@dataclass(frozen=True)
class MoeCurves:
    """Curves of one GPU and kernel class."""

    shapes: FloatArray
    """Logarithms of experts, experts per token, width, intermediate width, tensor and expert parallel; shape (m, 6)."""
    tokens: FloatArray
    """Numbers of tokens, shape (p,), ascending."""
    log_ratio: FloatArray
    """log(measured / roofline), shape (m, p)."""


MoeTables = Mapping[str, MoeCurves]
"""``<GPU short name>/<kernel class>`` -> curves."""


@dataclass(frozen=True)
class ExpertLayer:
    """The routed experts of one layer."""

    experts: float
    top_k: float
    """Experts per token."""
    width: float
    """Width of a token's hidden vector."""
    intermediate: float
    """Width inside an expert."""
    matrices: float
    """Matrices of an expert: 3 with a gate, otherwise 2."""


def roofline_seconds(
    layer: ExpertLayer,
    tokens: FloatArray,
    expert_parallel: FloatArray,
    tensor_parallel: FloatArray,
    bytes_per_weight: float,
    bandwidth: float,
    flops_per_second: float,
) -> FloatArray:
    """Return the least time of a layer's routed experts by roofline: bytes of hit experts, or FLOPs.

    Tokens are dealt out to the experts in turn, as in the tables.
    """
    weights = layer.matrices * layer.width * layer.intermediate / tensor_parallel
    inner = layer.matrices * layer.intermediate / tensor_parallel
    pairs = tokens * layer.top_k / expert_parallel
    hit = np.maximum(evenly_hit(layer.experts, layer.top_k, tokens) / expert_parallel, 1.0)
    traffic = hit * weights * bytes_per_weight + 2.0 * pairs * (2.0 * layer.width + inner)
    return np.maximum(traffic / bandwidth, 2.0 * pairs * weights / flops_per_second)


def table_gpu(gpu: GpuSpec, tables: MoeTables, kernel: str) -> str | None:
    """Return the GPU whose curves serve ``gpu``: itself, otherwise one of its architecture, otherwise Hopper's."""
    order = [gpu.name] + (["B200"] if gpu.architecture == "blackwell" else ["H100", "H200"])
    for name in [*order, "H100", "B200", "H200"]:
        if f"{name}/{kernel}" in tables:
            return f"{name}/{kernel}"
    return None


NEIGHBOURS = 3
FEW_TOKENS = 8.0
"""Tokens below which curves are not used: for one token the tables have twice the time of two, which engines avoid by
padding the step."""


def _log_ratio(curves: MoeCurves, shape: tuple[float, ...]) -> FloatArray:
    """Return the curve at one shape: the mean of the nearest curves, weighted by inverse distance, shape (p,)."""
    own = np.log(np.array(shape))
    delta = curves.shapes - own
    # A kernel depends on the width of an expert on this GPU and on the number of its experts.
    local = np.stack(
        [delta[:, 0] - delta[:, 5], delta[:, 1], delta[:, 2], delta[:, 3] - delta[:, 4], delta[:, 5] * 0.3, delta[:, 0]]
    )
    weights = np.array([1.0, 0.7, 0.7, 0.7, 0.3, 0.3])
    distance = np.sqrt((weights[:, None] * local**2).sum(axis=0))
    nearest = np.argsort(distance, kind="stable")[:NEIGHBOURS]
    weight = 1.0 / (distance[nearest] + 1e-3) ** 2
    return _rising(curves.tokens, weight @ curves.log_ratio[nearest] / weight.sum(), shape)


def _rising(tokens: FloatArray, log_ratio: FloatArray, shape: tuple[float, ...]) -> FloatArray:
    """Return a curve along which fewer tokens never take longer than more tokens, shape (p,)."""
    experts, top_k, expert_parallel = shape[0], shape[1], shape[5]
    few = tokens <= FEW_TOKENS
    # With few tokens the weights of the hit experts limit the time.
    hit = np.log(np.maximum(evenly_hit(experts, top_k, tokens[few]) / expert_parallel, 1.0))
    log_time = log_ratio[few] + hit
    out = log_ratio.copy()
    out[few] = np.minimum.accumulate(log_time[::-1])[::-1] - hit
    return out


def expert_ratio(
    tables: MoeTables,
    gpu: GpuSpec,
    kernel: str,
    moe: MoeFfn,
    width: int,
    tokens: FloatArray,
    expert_parallel: FloatArray,
    tensor_parallel: FloatArray,
) -> FloatArray | None:
    """Return the ratio of measured to roofline time for every candidate, shape (n,); None if no curve applies."""
    key = table_gpu(gpu, tables, kernel)
    if key is None:
        return None
    curves = tables[key]
    out = np.empty_like(tokens)
    log_tokens = np.log(np.maximum(tokens, 1.0))
    code = (expert_parallel * (tensor_parallel.max(initial=0.0) + 1.0) + tensor_parallel).astype(np.int64)
    # Counting is faster than np.unique, which loads numpy.ma for 30 ms.
    for value in np.flatnonzero(np.bincount(code)).tolist():
        rows = code == value
        first = int(np.argmax(rows))
        ep, tp = float(expert_parallel[first]), float(tensor_parallel[first])
        shape = (float(moe.experts), float(moe.top_k), float(width), float(moe.intermediate), tp, ep)
        curve = _cached(curves, key, shape)
        out[rows] = np.exp(np.interp(log_tokens[rows], np.log(curves.tokens), curve))
    return out


class _Keyed:
    """Curves that are hashable by identity, so that interpolated shapes can be cached."""

    def __init__(self, curves: MoeCurves, key: str) -> None:
        self.curves, self.key = curves, key

    def __hash__(self) -> int:
        return hash((id(self.curves), self.key))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Keyed) and other.curves is self.curves


@lru_cache(maxsize=4096)
def _lookup(keyed: _Keyed, shape: tuple[float, ...]) -> FloatArray:
    return _log_ratio(keyed.curves, shape)


def _cached(curves: MoeCurves, key: str, shape: tuple[float, ...]) -> FloatArray:
    return _lookup(_Keyed(curves, key), shape)
