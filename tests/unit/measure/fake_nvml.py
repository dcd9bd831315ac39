"""NVML without a driver: the functions that are used, with the real ones' names, parameters and errors."""

from __future__ import annotations

from dataclasses import dataclass, field

import pynvml
from tests.support.fake_nvml import FakeLibrary


@dataclass
class Device:
    """One GPU; a value of None is not supported, an error is raised. NVML's units."""

    uuid: str
    millijoules: int | Exception | None
    milliwatts: int | None = 500_000
    limit_milliwatts: int | None = 700_000


@dataclass
class FakeNvml(FakeLibrary):
    devices: list[Device] = field(default_factory=list)
    driver: bool = True
    open: bool = False

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
