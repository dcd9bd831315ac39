"""Kernel tables of NVIDIA aiconfigurator (Apache-2.0) -> the compact curves that the predictor reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from energylens.predictor.model.architecture import BYTES_PER_WEIGHT
from energylens.predictor.step.moe_tables import ExpertLayer, MoeCurves, roofline_seconds
from energylens.predictor.types import BoolArray, FloatArray, GpuSpec

TOKENS = (1, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 1024, 2048, 4096, 8192, 16384)
"""Token counts to keep; between these the ratio is smooth on a logarithmic axis."""

CLASSES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "moe:bfloat16": ("bfloat16", "bfloat16", ()),
    "moe:fp8_block": ("fp8_block", "fp8", ()),
    "moe:fp8": ("fp8", "fp8", ()),
    "moe:4bit": ("w4a16_mxfp4", "mxfp4", ("vllm_gptossmxfp4moe_triton_oaitritonmxfp4expertsmonolithic",)),
}
"""Kernel class -> the table's dtype, the stored weight format, and the kernels to keep (empty for all)."""
LARGEST_SPLIT = 64
SKIP = {("H100", "moe:fp8"), ("H200", "moe:fp8")}
"""Kernels that run a path twice as slow as bfloat16, which no engine picks by itself."""


def moe_curves(directory: Path, gpus: dict[str, GpuSpec]) -> dict[str, MoeCurves]:
    """Return the curves of every ``*-moe_perf.parquet`` in a directory.

    Args:
        directory: Holds files named ``<gpu>_sxm-moe_perf.parquet``.
        gpus: GPU specifications by short name; tables of other GPUs are ignored.

    Raises:
        FileNotFoundError: The directory has no such file.
    """
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    files = sorted(directory.glob("*_sxm-moe_perf.parquet"))
    if not files:
        raise FileNotFoundError(f"no *_sxm-moe_perf.parquet in {directory}")
    out: dict[str, MoeCurves] = {}
    for file in files:
        name = file.name.split("_", 1)[0].upper()
        if name not in gpus:
            continue
        table = pq.read_table(file)
        columns = {c: np.array(table[c].to_pylist()) for c in COLUMNS}
        for kernel in CLASSES:
            if (name, kernel) not in SKIP:
                curves = _curves(columns, kernel, gpus[name])
                if curves is not None:
                    out[f"{name}/{kernel}"] = curves
    return out


COLUMNS = (
    "moe_dtype", "kernel_source", "distribution", "num_tokens", "hidden_size", "inter_size", "topk", "num_experts",
    "moe_tp_size", "moe_ep_size", "latency",
)  # fmt: skip


def _curves(columns: dict[str, Any], kernel: str, gpu: GpuSpec) -> MoeCurves | None:
    dtype, weight, sources = CLASSES[kernel]
    rows = (columns["moe_dtype"] == dtype) & (columns["distribution"] != "power_law_1.2")
    rows &= (columns["moe_tp_size"] <= LARGEST_SPLIT) & (columns["moe_ep_size"] <= LARGEST_SPLIT)
    if sources:
        rows &= np.isin(columns["kernel_source"], sources)
    if not rows.any():
        return None
    c = {k: v[rows] for k, v in columns.items()}
    keys = np.stack([c[k] for k in ("num_experts", "topk", "hidden_size", "inter_size", "moe_tp_size", "moe_ep_size")])
    flops = gpu.flops_fp8 if weight == "fp8" else gpu.flops_bf16
    shapes, ratios = [], []
    wanted = np.log(np.array(TOKENS, dtype=float))
    for key in np.unique(keys, axis=1).T:
        mine = (keys == key[:, None]).all(axis=0)
        balanced = mine & (c["distribution"] == "balanced")
        if not balanced.any():
            continue
        tokens, log_time = _mean_log(c, balanced)
        if (mine & ~balanced).any():
            # Popular experts fill more tiles; real routing does so half as much. That they leave other experts without
            # tokens is counted with a step's experts (`energylens.predictor.step.work`).
            where, skewed = _mean_log(c, mine & ~balanced)
            log_time += 0.5 * np.maximum(np.interp(np.log(tokens), np.log(where), skewed) - log_time, 0.0)
        e, k, h, f, tp, ep = (float(v) for v in key)
        split = np.full_like(tokens, ep), np.full_like(tokens, tp)
        layer, per_weight = ExpertLayer(e, k, h, f, 3.0), BYTES_PER_WEIGHT[weight]
        roof = roofline_seconds(layer, tokens, *split, per_weight, gpu.memory_bandwidth, flops)
        shapes.append(np.log(key.astype(float)))
        ratios.append(np.interp(wanted, np.log(tokens), log_time - np.log(roof)))
    return MoeCurves(np.array(shapes), np.array(TOKENS, dtype=float), np.array(ratios))


def _mean_log(c: dict[str, Any], rows: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return the m distinct numbers of tokens of some rows and the mean logarithm of their seconds, shape (m,)."""
    unique, inverse = np.unique(c["num_tokens"][rows].astype(float), return_inverse=True)
    total = np.bincount(inverse, weights=np.log(c["latency"][rows].astype(float) * 1e-3))
    return unique, total / np.bincount(inverse)
