"""NVML's counters in joules and watts; a GPU that cannot be read costs only itself."""

from __future__ import annotations

import pynvml
import pytest
from tests.unit.measure.builders import FakeClock
from tests.unit.measure.fake_nvml import Device, FakeNvml

from energylens.measure.nvml import NvmlSource, NvmlUnavailableError


async def test_units_and_identity() -> None:
    library = FakeNvml([Device("GPU-a", 1_500_000), Device("GPU-b", 2_000_000)])
    with NvmlSource(FakeClock(7.0), library=library) as source:
        reading = await source.read()
    assert not library.open
    first = reading.observations[0]
    assert (first.uuid, first.index, first.time, first.source) == ("GPU-a", "0", 7.0, "nvml")
    assert (first.energy_joules, first.power_watts, first.power_limit_watts) == (1500.0, 500.0, 700.0)
    assert (first.product, first.owners) == ("NVIDIA H100 80GB HBM3", frozenset())
    assert (len(reading.observations), reading.failures) == (2, ())


async def test_power_that_is_not_supported_is_absent() -> None:
    library = FakeNvml([Device("GPU-a", 1000, milliwatts=None, limit_milliwatts=None)])
    with NvmlSource(FakeClock(), library=library) as source:
        (gpu,) = (await source.read()).observations
    assert (gpu.energy_joules, gpu.power_watts, gpu.power_limit_watts) == (1.0, None, None)


@pytest.mark.parametrize("fault", [None, pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)])
async def test_a_gpu_without_a_counter_is_a_failure_of_its_own(fault: Exception | None) -> None:
    library = FakeNvml([Device("GPU-a", fault), Device("GPU-b", 1000)])
    with NvmlSource(FakeClock(), library=library) as source:
        reading = await source.read()
    assert [gpu.uuid for gpu in reading.observations] == ["GPU-b"]
    (failure,) = reading.failures
    assert (failure.target, failure.reason) == ("GPU 0", "NVML")


async def test_a_driver_that_goes_away_is_a_failure() -> None:
    library = FakeNvml([Device("GPU-a", 1000)])
    with NvmlSource(FakeClock(), library=library) as source:
        library.open = False
        reading = await source.read()
    assert (reading.observations, reading.failures[0].target) == ((), "nvml")


def test_without_a_driver_it_says_so() -> None:
    with (
        pytest.raises(NvmlUnavailableError, match=r"NVML: .*Not Found; is an NVIDIA driver loaded"),
        NvmlSource(FakeClock(), library=FakeNvml(driver=False)),
    ):
        pass
