"""Energy per token on one machine, with a fake NVML, a fake engine and a clock that only `sleep` moves."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from tests.unit.measure.builders import FakeClock
from tests.unit.measure.fake_nvml import Device, FakeNvml

from energylens.cli.commands.measure import document, report
from energylens.cli.errors import InputError
from energylens.cli.inputs.local_window import WindowRequest, observe
from energylens.cli.main import cli
from energylens.cli.text.tables import dump
from energylens.measure.engines import EngineScraper
from energylens.measure.nvml import NvmlSource
from energylens.measure.scrape import Page, TargetFailure
from energylens.measure.types import WindowMeasurement

URL = "http://127.0.0.1:8000/metrics"


class Machine:
    """Two GPUs at 500 W; one engine of 100 tokens a second."""

    def __init__(self) -> None:
        self.clock = FakeClock(1000.0)
        self.nvml = FakeNvml([Device("GPU-a", 0), Device("GPU-b", 0)])
        self.lost = False

    async def sleep(self, seconds: float) -> None:
        self.clock.time += seconds
        for device in self.nvml.devices:
            device.millijoules += round(500_000 * seconds)

    async def fetch(self, url: str) -> Page | TargetFailure:
        if url != URL or self.lost:
            return TargetFailure(url, "Unreachable", "connection refused")
        return Page(url, f"vllm:generation_tokens_total {100 * self.clock.time}\n", self.clock.time)

    async def measure(self, *gpus: str, engines: tuple[str, ...] = (URL,), seconds: float = 30) -> WindowMeasurement:
        request = WindowRequest(seconds, gpus, engines)
        with NvmlSource(self.clock, library=self.nvml) as source:
            return await observe(request, source, EngineScraper(self), self.clock, self.sleep)


async def test_energy_per_token() -> None:
    found = await Machine().measure()
    assert (found.reason, found.energy_joules) == ("Measured", pytest.approx(30_000))
    assert found.joules_per_output_token == pytest.approx(10)


@pytest.mark.parametrize("name", ["1", "GPU-b"])
async def test_one_gpu_by_index_or_uuid(name: str) -> None:
    assert (await Machine().measure(name, name)).joules_per_output_token == pytest.approx(5)


async def test_without_an_engine_there_is_energy_and_no_ratio() -> None:
    found = await Machine().measure(engines=())
    assert (found.reason, found.energy_joules) == ("TokensMissing", pytest.approx(30_000))
    assert (found.output_tokens, found.joules_per_output_token) == (None, None)


@pytest.mark.parametrize(
    ("gpus", "engines", "message"),
    [
        (("7",), (URL,), r"--gpu=7: no such GPU with an energy counter; there are: 0 \(GPU-a\), 1 \(GPU-b\)"),
        ((), ("http://other",), "http://other: connection refused"),
    ],
)
async def test_what_is_not_there_is_named(gpus: tuple[str, ...], engines: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        await Machine().measure(*gpus, engines=engines)


async def test_a_gpu_without_a_counter_is_refused_unless_others_were_asked_for() -> None:
    machine = Machine()
    machine.nvml.devices[0] = Device("GPU-a", None)
    machine.sleep = lambda seconds: sleep_second(machine, seconds)  # type: ignore[method-assign]
    with pytest.raises(InputError, match="GPU 0: its energy counter"):
        await machine.measure()
    assert (await machine.measure("GPU-b")).reason == "Measured"


async def sleep_second(machine: Machine, seconds: float) -> None:
    machine.clock.time += seconds
    device: Any = machine.nvml.devices[1]
    device.millijoules += round(500_000 * seconds)


async def test_both_outputs_have_the_same_figures() -> None:
    found = await Machine().measure()
    figures = document(found)
    assert json.loads(dump([figures], "json")) == yaml.safe_load(dump([figures], "yaml")) == figures
    table = report(found)
    assert "joulesPerOutputToken   10" in table
    assert "idlePowerWatts         -" in table
    assert table.splitlines()[-1].startswith("  Measured: ")


def test_without_a_driver_it_ends_in_one_line() -> None:
    done = CliRunner().invoke(cli, ["measure", "--seconds", "5"])
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: NVML: ")
    assert done.stderr.count("\n") == 1
