"""NVML without a driver: the functions that are used, with the real ones' names, parameters and errors."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field

import pynvml


@dataclass
class Device:
    """One GPU; a value of None is not supported, an error is raised. NVML's units."""

    uuid: str
    millijoules: int | Exception | None
    milliwatts: int | None = 500_000
    limit_milliwatts: int | None = 700_000


@dataclass
class FakeNvml:
    devices: list[Device] = field(default_factory=list)
    driver: bool = True
    open: bool = False

    NVMLError = pynvml.NVMLError
    NVMLError_NotSupported = pynvml.NVMLError_NotSupported

    def __post_init__(self) -> None:
        for name in [name for name in dir(self) if name.startswith("nvml")]:
            assert inspect.signature(getattr(self, name)) == inspect.signature(getattr(pynvml, name)), name

    def nvmlInit(self):  # noqa: N802
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
        self.open = True

    def nvmlShutdown(self):  # noqa: N802
        self.open = False

    def nvmlDeviceGetCount(self):  # noqa: N802
        self._check()
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        self._check()
        return self.devices[index]

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return handle.uuid

    def nvmlDeviceGetName(self, handle):  # noqa: N802
        return "NVIDIA H100 80GB HBM3"

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return self._value(handle.milliwatts)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        return self._value(handle.limit_milliwatts)

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        return self._value(handle.millijoules)

    def _check(self) -> None:
        if not self.open:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)

    def _value(self, value: int | Exception | None) -> int:
        if value is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        if isinstance(value, Exception):
            raise value
        return value
