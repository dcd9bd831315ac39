"""The agent on a fake NVML with the real API: what it sets, and that nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.unit.powercap.fake_nvml import Device, FakeNvml, KilledError

from energylens.powercap.agent import Agent
from energylens.powercap.devices import Devices, DevicesUnavailableError
from energylens.powercap.record import Record, RecordError

PODS = {101: "pod-a", 102: "pod-b"}


class World:
    """A node: its GPUs, the pods' caps, and an agent that can die."""

    def __init__(self, path: Path, *devices: Device) -> None:
        self.nvml = FakeNvml(list(devices))
        self.caps: Mapping[str, str] | None = {}
        self.record = Record(path / "run" / "caps.json")

    def agent(self) -> Agent:
        async def caps() -> Mapping[str, str] | None:
            return self.caps

        return Agent(Devices(PODS.get, library=self.nvml), caps, self.record)

    @property
    def limits(self) -> list[int]:
        return [device.limit // 1000 for device in self.nvml.devices]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, Device("GPU-0", pids=[101]), Device("GPU-1", pids=[102]), Device("GPU-2"))


async def test_only_the_gpus_of_annotated_pods_are_capped(world: World) -> None:
    world.caps = {"pod-a": "400"}
    await world.agent().step()
    assert world.limits == [400, 700, 700]
    assert world.record.read() == {"GPU-0"}
    await world.agent().step()
    assert len(world.nvml.calls) == 1


async def test_the_default_comes_back_when_the_pod_is_gone(world: World) -> None:
    world.caps = {"pod-a": "400"}
    await world.agent().step()
    world.nvml.devices[0].pids = []
    world.caps = {}
    await world.agent().step()
    assert world.limits == [700, 700, 700]
    assert world.record.read() == frozenset()


async def test_all_limits_come_back_when_it_is_told_to_stop(world: World) -> None:
    stop = asyncio.Event()

    async def caps() -> Mapping[str, str] | None:
        stop.set()
        return {"pod-a": "400", "pod-b": "500"}

    await Agent(Devices(PODS.get, library=world.nvml), caps, world.record).run(60.0, stop)
    assert world.nvml.calls[:2] == [("GPU-0", 400_000), ("GPU-1", 500_000)]
    assert world.limits == [700, 700, 700]
    assert world.record.read() == frozenset()


async def test_all_limits_come_back_when_something_goes_wrong(world: World) -> None:
    world.caps = {"pod-a": "400"}
    agent = world.agent()
    await agent.step()

    async def broken() -> Mapping[str, str] | None:
        raise RuntimeError("a defect")

    agent._caps = broken
    with pytest.raises(RuntimeError, match="a defect"):
        await agent.run(60.0, asyncio.Event())
    assert world.limits == [700, 700, 700]


@pytest.mark.parametrize("dies_at", [1, 2, 3, 4])
async def test_after_it_was_killed_at_any_change_the_next_one_finds_every_limit_of_ours(
    world: World, dies_at: int
) -> None:
    world.nvml.dies_at = dies_at
    steps: tuple[dict[str, str], ...] = ({"pod-a": "400", "pod-b": "500"}, {"pod-a": "300"}, {})
    try:
        for caps in steps:
            world.caps = caps
            await world.agent().step()
    except KilledError:
        pass
    world.nvml.dies_at = None
    changed = {d.uuid for d in world.nvml.devices if d.limit != d.default}
    assert changed <= world.record.read()
    world.caps = {}
    await world.agent().step()
    assert world.limits == [700, 700, 700]
    assert world.record.read() == frozenset()


async def test_while_the_api_server_does_not_answer_everything_stays(world: World) -> None:
    world.caps = {"pod-a": "400"}
    await world.agent().step()
    world.caps = None
    await world.agent().step()
    assert world.limits == [400, 700, 700]
    assert world.record.read() == {"GPU-0"}


async def test_a_cap_outside_of_the_range_is_refused_and_said_once(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.caps = {"pod-a": "100"}
    agent = world.agent()
    await agent.step()
    await agent.step()
    assert world.nvml.calls == []
    assert [r.message for r in caplog.records if "outside of 200 to 700 W" in r.message] != []
    assert len(caplog.records) == 1


async def test_without_the_capability_it_says_so_and_goes_on(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.nvml.devices[0].refuses = True
    world.caps = {"pod-a": "400", "pod-b": "500"}
    await world.agent().step()
    assert world.limits == [700, 500, 700]
    assert "GPU-0: 400 W" in caplog.text


async def test_a_gpu_whose_default_cannot_be_restored_stays_in_the_record(world: World) -> None:
    world.caps = {"pod-a": "400"}
    agent = world.agent()
    await agent.step()
    world.nvml.devices[0].refuses = True
    world.caps = {}
    await agent.step()
    assert world.record.read() == {"GPU-0"}
    agent.restore()
    assert world.record.read() == {"GPU-0"}
    world.nvml.devices[0].refuses = False
    agent.restore()
    assert world.limits == [700, 700, 700]
    assert world.record.read() == frozenset()


async def test_gpus_without_power_management_are_left_out(tmp_path: Path) -> None:
    world = World(tmp_path, Device("GPU-0", pids=[101], manageable=False), Device("GPU-1", pids=[101]))
    world.caps = {"pod-a": "400"}
    await world.agent().step()
    assert [d.limit for d in world.nvml.devices] == [700_000, 400_000]


def test_without_a_driver_it_ends_with_one_line() -> None:
    with pytest.raises(DevicesUnavailableError, match="is the NVIDIA driver mounted"):
        Devices(PODS.get, library=FakeNvml(driver=False)).__enter__()


async def test_without_a_record_nothing_is_changed(world: World, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "caps.json").write_text("[]")
    world.caps = {"pod-a": "400"}
    with pytest.raises(RecordError, match=r"caps\.json"):
        await world.agent().step()
    assert world.nvml.calls == []
