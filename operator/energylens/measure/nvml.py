"""GPU energy of the machine that this runs on, by NVML: only reads that need no privilege.

NVML knows no pods, so this source serves ``energylens measure`` on a node, not the operator.
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
    """There is no NVML on this machine; the message is one line."""


class NvmlSource(NvmlSession):
    """Reads all GPUs of this machine, for ``with``, which raises NvmlUnavailableError without a driver.

    The energy counter (nvmlDeviceGetTotalEnergyConsumption, Volta and later) runs from the last load of the driver and
    moves about every 100 ms. Power is a mean over 1 s on Ampere and later but instantaneous on GA100 (A100) and before,
    so that it is a cross-check only. Grace-Hopper counts no energy of the GPU alone: there the GPU is a failure,
    since its module's counter has the CPU in it.
    """

    name = "nvml"
    unavailable = NvmlUnavailableError
    hint = "is an NVIDIA driver loaded on this machine?"

    def __init__(self, clock: Clock, *, library: Any = pynvml) -> None:
        """Read by ``clock``; ``library`` has the functions of pynvml."""
        super().__init__(library)
        self._clock = clock

    async def read(self) -> SourceReading:
        """Read every GPU once; one that cannot be read is a failure of its own."""
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
        # The counter is read last, so that its time is the nearest to it.
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
