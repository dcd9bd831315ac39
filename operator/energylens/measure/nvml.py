"""GPU energy of this machine by NVML, with reads that need no privilege.

NVML does not know pods, so this source serves ``energylens measure`` on a node, not the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pynvml

from energylens.clock import Clock
from energylens.measure.scrape import TargetFailure
from energylens.measure.source import SourceReading
from energylens.measure.types import GpuObservation
from energylens.nvml import NvmlSession

MILLI = 1e-3
"""NVML counts millijoules and milliwatts."""


class NvmlUnavailableError(Exception):
    """NVML is not available on this machine; the message is one line."""


class NvmlSource(NvmlSession):
    """Reads all GPUs of this machine, as a context manager, which raises NvmlUnavailableError without a driver.

    The energy counter (nvmlDeviceGetTotalEnergyConsumption, Volta and later) runs from the last load of the driver and
    moves about every 100 ms. Power is a mean over 1 s on Ampere and later but instantaneous on GA100 (A100) and before,
    so that it is only a cross-check. Grace-Hopper does not count the energy of the GPU alone: its GPU counts as a
    failure, since the module's counter includes the CPU.
    """

    name = "nvml"
    unavailable = NvmlUnavailableError
    hint = "is an NVIDIA driver loaded on this machine?"

    def __init__(self, clock: Clock, *, library: Any = pynvml) -> None:
        """Read by ``clock``; ``library`` has the functions of pynvml."""
        super().__init__(library)
        self._clock = clock

    async def read(self) -> SourceReading:
        """Read every GPU once; an unreadable GPU is a separate failure."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> SourceReading:
        found: list[GpuObservation] = []
        failures: list[TargetFailure] = []
        try:
            count = self._nvml.nvmlDeviceGetCount()
        except self._nvml.NVMLError as error:
            return SourceReading((), (TargetFailure("nvml", "NVML", str(error)),))
        for index in range(count):
            try:
                found.append(self._observe(index))
            except self._nvml.NVMLError as error:
                failures.append(TargetFailure(f"GPU {index}", "NVML", f"its energy counter: {error}"))
        return SourceReading(tuple(found), tuple(failures))

    def _observe(self, index: int) -> GpuObservation:
        nvml = self._nvml
        device = nvml.nvmlDeviceGetHandleByIndex(index)
        power = limit = None
        # The counter is read last, so that the recorded time is closest to it.
        with self._unless_unsupported():
            power = nvml.nvmlDeviceGetPowerUsage(device) * MILLI
        with self._unless_unsupported():
            limit = nvml.nvmlDeviceGetEnforcedPowerLimit(device) * MILLI
        uuid, product = str(nvml.nvmlDeviceGetUUID(device)), str(nvml.nvmlDeviceGetName(device))
        joules = nvml.nvmlDeviceGetTotalEnergyConsumption(device) * MILLI
        return GpuObservation(
            uuid=uuid,
            time=self._clock.now().timestamp(),
            source=self.name,
            energy_joules=joules,
            power_watts=power,
            power_limit_watts=limit,
            product=product,
            index=str(index),
        )

    @contextlib.contextmanager
    def _unless_unsupported(self) -> Iterator[None]:
        with contextlib.suppress(self._nvml.NVMLError_NotSupported):
            yield
