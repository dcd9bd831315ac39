"""Time and energy of a replica's start, until it serves."""

from __future__ import annotations

from energylens.api.llmdeployment import Scaling
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

LOAD_BYTES_PER_SECOND = 1e9
"""Rate at which weights are read from a network volume or a download. Page caches are faster; ignoring them keeps the
cost from being understated."""
_MEASURED_SECONDS, _MEASURED_JOULES = 127.0, 13_500.0
"""Cold start of an 8B model in 16 bit with vLLM on one H200, measured by this project: torch.compile took 29 s, graphs
7 s, imports most of the rest. The energy is that of the GPU from the start of the process until it was ready."""
_MEASURED_BYTES = 16.06e9
"""Weights of that model, 8.03 billion parameters."""
_MEASURED_IDLE_WATTS = (76.0 + 123.0) / 2
"""Mean power of that GPU when empty and with weights, from its data."""
FIXED_SECONDS = _MEASURED_SECONDS - _MEASURED_BYTES / LOAD_BYTES_PER_SECOND
"""Start-up time without reading weights, s: imports, compilation and graphs."""
POWER_RATIO = _MEASURED_JOULES / _MEASURED_SECONDS / _MEASURED_IDLE_WATTS
"""Mean power of a start over the mean of idle power empty and with weights, 1.07."""


@dataclass(frozen=True)
class Start:
    """The start of one replica."""

    seconds: float
    joules: float
    """Energy of all GPUs of the replica."""


def start_of(gpus: int, gpu: GpuSpec, weight_bytes: float, scaling: Scaling | None) -> Start:
    """Return time and energy of a start, as measured on the site, otherwise estimated from one measured start.

    Args:
        gpus: GPUs of the replica.
        gpu: The GPU product.
        weight_bytes: Bytes of all weights of the replica.
        scaling: Measurements of the site.
    """
    seconds = FIXED_SECONDS + weight_bytes / LOAD_BYTES_PER_SECOND
    if scaling is not None and scaling.start_seconds is not None:
        seconds = float(scaling.start_seconds)
    watts = gpus * POWER_RATIO * (gpu.idle_watts + gpu.loaded_idle_watts) / 2
    joules = watts * seconds
    if scaling is not None and scaling.start_joules is not None:
        joules = float(scaling.start_joules)
    return Start(seconds, joules)
