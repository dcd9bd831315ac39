"""NVML without a driver: the functions that the agent calls, with the real ones' names, parameters and errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pynvml
from tests.support.fake_nvml import FakeLibrary


@dataclass
class Device:
    """One GPU; NVML's units."""

    uuid: str
    limit: int = 700_000
    default: int = 700_000
    constraints: tuple[int, int] = (200_000, 700_000)
    pids: list[int] = field(default_factory=list)
    manageable: bool = True
    refuses: bool = False
    """The driver refuses to change its limit."""


@dataclass
class FakeNvml(FakeLibrary):
    devices: list[Device] = field(default_factory=list)
    driver: bool = True
    calls: list[tuple[str, int]] = field(default_factory=list)
    """UUID and milliwatts of every change."""
    dies_at: int | None = None
    """The process dies in the change of this number, counted from 1, when the driver has carried it out."""

    def nvmlInit(self):  # noqa: N802
        self._check()

    def nvmlShutdown(self):  # noqa: N802
        return None

    def nvmlDeviceGetCount(self):  # noqa: N802
        self._check()
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return self.devices[index]

    def nvmlDeviceGetHandleByUUID(self, uuid):  # noqa: N802
        for device in self.devices:
            if device.uuid == uuid:
                return device
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetPowerManagementLimit(self, handle):  # noqa: N802
        return self._managed(handle).limit

    def nvmlDeviceGetPowerManagementDefaultLimit(self, handle):  # noqa: N802
        return self._managed(handle).default

    def nvmlDeviceGetPowerManagementLimitConstraints(self, handle):  # noqa: N802
        return list(self._managed(handle).constraints)

    def nvmlDeviceGetComputeRunningProcesses(self, handle):  # noqa: N802
        return [SimpleNamespace(pid=pid, usedGpuMemory=None) for pid in handle.pids]

    def nvmlDeviceSetPowerManagementLimit(self, handle, limit):  # noqa: N802
        self._check()
        low, high = self._managed(handle).constraints
        if handle.refuses:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NO_PERMISSION)
        if not low <= limit <= high:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_INVALID_ARGUMENT)
        handle.limit = limit
        self.calls.append((handle.uuid, limit))
        if len(self.calls) == self.dies_at:
            raise KilledError

    def _check(self) -> None:
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def _managed(self, device: Device) -> Device:
        if not device.manageable:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return device


class KilledError(BaseException):
    """SIGKILL: nothing of the process runs any more."""
