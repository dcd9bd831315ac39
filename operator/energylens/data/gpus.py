"""GPU products by their node label, their short name or a cloud's name for them.

The figures and their sources are in ``gpus.json``. Memory is what NVML reports, FLOP rates are dense, link bandwidths
one way. ``gpus_per_nvlink_island`` follows the data sheets and product briefs that an entry names: the board or rack of
modules, two cards of an NVLink bridge, up to four of an H200 NVL.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from functools import cache
from importlib import resources
from typing import Any

from energylens.predictor.gpu_names import index_of, name_key, nearest_first
from energylens.predictor.types import GpuSpec


class UnknownGpuError(LookupError):
    """No GPU product of that name. The message lists the known ones, nearest first."""

    def __init__(self, name: str, known: tuple[str, ...]) -> None:
        self.name = name
        self.known = known
        super().__init__(f"GPU product {name!r} is not known; known products, nearest first: {', '.join(known)}")


class PartitionedGpuError(LookupError):
    """The label names a part of a GPU, which cannot be planned: its power and bandwidth are shared with other pods."""

    def __init__(self, label: str, reason: str) -> None:
        self.label = label
        super().__init__(f"GPU product {label!r} is {reason}; only whole GPUs can be planned")


def load_gpus() -> dict[str, GpuSpec]:
    """Return the known GPUs by the value of the node label ``nvidia.com/gpu.product``."""
    return dict(_gpus())


def find_gpu(name: str) -> GpuSpec:
    """Return the GPU of a product label, an NVML name, a short name such as ``H100``, or a cloud's name.

    Letter case does not matter, and blanks count as dashes, since NVML writes blanks where the label has dashes.

    Raises:
        UnknownGpuError: No such product.
        PartitionedGpuError: The label of a time-sliced or MPS-shared GPU, or of a MIG slice.
    """
    gpu = gpu_for_label(name)
    if gpu is None:
        raise _unknown(name)
    return gpu


def gpu_for_label(label: str) -> GpuSpec | None:
    """Return the GPU of a node label or of any name that :func:`find_gpu` takes; None when it is not known.

    Raises:
        PartitionedGpuError: The label of a time-sliced or MPS-shared GPU (``-SHARED``), or of a MIG slice (``-MIG-``).
    """
    key = name_key(label)
    if key.endswith("-shared"):
        raise PartitionedGpuError(label, "shared between pods by time slicing or MPS")
    if "-mig-" in key:
        raise PartitionedGpuError(label, "a MIG slice")
    product = _names().get(key)
    return None if product is None else _gpus()[product]


def gpu_sources(product: str) -> tuple[str, ...]:
    """Return where the figures of a product label come from, and what is uncertain about them.

    Raises:
        UnknownGpuError: No such product label.
    """
    entry = _document()["gpus"].get(product)
    if entry is None:
        raise _unknown(product)
    return (*entry["sources"], *entry["notes"])


def _unknown(name: str) -> UnknownGpuError:
    return UnknownGpuError(name, nearest_first([name], _gpus()))


@cache
def _document() -> dict[str, Any]:
    text = resources.files("energylens.data").joinpath("gpus.json").read_text(encoding="utf-8")
    document: dict[str, Any] = json.loads(text)
    return document


def _names_in(entry: Any) -> tuple[str, ...]:
    return tuple(map(str, entry))


@cache
def _gpus() -> dict[str, GpuSpec]:
    # GpuSpec's annotations are strings: names, the counts as integers, and floats in every formula.
    by_type: dict[str, Callable[[Any], Any]] = {"str": str, "int": int, "float": float, "tuple[str, ...]": _names_in}
    # The network is of a cluster and not of a product.
    convert = {f.name: by_type[str(f.type)] for f in fields(GpuSpec) if f.name not in ("product", "network_bandwidth")}
    return {
        product: GpuSpec(product=product, **{name: to(entry[name]) for name, to in convert.items()})
        for product, entry in _document()["gpus"].items()
    }


@cache
def _names() -> dict[str, str]:
    return index_of(_gpus().values())
