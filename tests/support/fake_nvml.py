"""NVML without a driver: what every fake of it has, with the real functions' names, parameters and errors."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import pynvml


@dataclass
class FakeLibrary:
    """To be extended by the functions that are used; their signatures are held against pynvml's."""

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported

    def __post_init__(self) -> None:
        for name in [name for name in dir(self) if name.startswith("nvml")]:
            assert inspect.signature(getattr(self, name)) == inspect.signature(getattr(pynvml, name)), name

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return "NVIDIA H100 80GB HBM3"
