"""GPU specifications, calibrated coefficients and the model catalogue, each with its provenance.

The names below are resolved on first use, so that a program that needs GPU figures only does not read the catalogue's
code, and neither pulls in the predictor.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from energylens.data.catalogue import UnknownModelError as UnknownModelError
    from energylens.data.catalogue import known_models as known_models
    from energylens.data.catalogue import load_config as load_config
    from energylens.data.catalogue import load_model as load_model
    from energylens.data.catalogue import model_sources as model_sources
    from energylens.data.gpus import PartitionedGpuError as PartitionedGpuError
    from energylens.data.gpus import UnknownGpuError as UnknownGpuError
    from energylens.data.gpus import find_gpu as find_gpu
    from energylens.data.gpus import gpu_for_label as gpu_for_label
    from energylens.data.gpus import gpu_sources as gpu_sources
    from energylens.data.gpus import load_gpus as load_gpus

_HOME = {
    "UnknownModelError": "catalogue",
    "known_models": "catalogue",
    "load_config": "catalogue",
    "load_model": "catalogue",
    "model_sources": "catalogue",
    "PartitionedGpuError": "gpus",
    "UnknownGpuError": "gpus",
    "find_gpu": "gpus",
    "gpu_for_label": "gpus",
    "gpu_sources": "gpus",
    "load_gpus": "gpus",
    "load_predictor": "predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
