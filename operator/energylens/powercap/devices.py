"""The GPUs of this node through NVML: reading them, and setting their power limits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pynvml

from energylens.nvml import NvmlSession
from energylens.powercap.caps import Gpu

log = logging.getLogger("energylens")
_MILLI = 1000
"""NVML's unit of power is the milliwatt."""


class DevicesUnavailableError(Exception):
    """NVML cannot be used on this node; the message is one line."""


class Devices(NvmlSession):
    """The GPUs of this node, a context manager; entering it raises DevicesUnavailableError without a driver.

    Setting a limit needs root and CAP_SYS_ADMIN.
    """

    unavailable = DevicesUnavailableError
    hint = "is the NVIDIA driver mounted here?"

    def __init__(self, pod_of: Callable[[int], str | None], *, library: Any = pynvml) -> None:
        """Take ``pod_of``, which returns the UID of a process's pod, and a ``library`` with the functions of pynvml."""
        super().__init__(library)
        self._pod_of = pod_of

    def read(self) -> list[Gpu]:
        """Return the GPUs whose power limit can be managed; the others are left out.

        Raises:
            DevicesUnavailableError: the driver answers no more.
        """
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            raise DevicesUnavailableError(f"NVML: {error}") from error
        found = []
        for index in range(count):
            try:
                found.append(self._read(self._nvml.nvmlDeviceGetHandleByIndex(index)))
            except self._nvml.NVMLError_NotSupported:
                continue
            except self._nvml.NVMLError as error:
                log.warning("GPU %d: %s", index, error)
        return found

    def set_limit(self, uuid: str, watts: float) -> None:
        """Set the power limit of a GPU.

        Raises:
            DevicesUnavailableError: the driver refuses, such as without the capability.
        """
        nvml = self._nvml
        try:
            nvml.nvmlDeviceSetPowerManagementLimit(nvml.nvmlDeviceGetHandleByUUID(uuid), round(watts * _MILLI))
        except nvml.NVMLError as error:
            raise DevicesUnavailableError(f"GPU {uuid}: {watts:.0f} W: {error}") from error

    def _read(self, handle: Any) -> Gpu:
        nvml = self._nvml
        low, high = nvml.nvmlDeviceGetPowerManagementLimitConstraints(handle)
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        pods = {self._pod_of(int(process.pid)) for process in processes}
        return Gpu(
            uuid=str(nvml.nvmlDeviceGetUUID(handle)),
            product=str(nvml.nvmlDeviceGetName(handle)),
            limit_watts=nvml.nvmlDeviceGetPowerManagementLimit(handle) / _MILLI,
            default_watts=nvml.nvmlDeviceGetPowerManagementDefaultLimit(handle) / _MILLI,
            min_watts=low / _MILLI,
            max_watts=high / _MILLI,
            # A process outside of pods counts as a pod without a cap.
            pods=frozenset(pod or "" for pod in pods),
        )
