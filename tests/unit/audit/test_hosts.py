"""The meter of a node beside the energy of its GPUs: what is subtracted, and when nothing is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tests.support.audit_cluster import Object, node, pod

from energylens.audit.hosts import HostPower, host_powers, unknown_meters
from energylens.audit.telemetry import Telemetry
from energylens.measure.host_meters import HostMeter
from energylens.measure.types import GpuObservation, PodRef, Sample

CHAT = pod("chat-a", {"image": "x"}, gpus=2)
REF = PodRef("team", "chat-a")
NODE = node("node-0", gpus=2)
TIMES = range(0, 3601, 60)


def meter(watts: float, metric: str = "kepler_platform_watts", *names: str) -> HostMeter:
    return HostMeter(metric, names or ("node-0",), tuple(Sample(float(time), watts) for time in TIMES))


def telemetry(meters: Sequence[HostMeter], gpus: Sequence[tuple[str, frozenset[PodRef], str]]) -> Telemetry:
    """Return meters, and GPUs of 300 W each by UUID, pods and host name."""
    found = Telemetry(0.0, 3600.0, source="test", meters=tuple(meters))
    found.record(
        [
            GpuObservation(uuid, float(time), "test", 1e6 + 300.0 * time, owners=owners, host=host)
            for uuid, owners, host in gpus
            for time in TIMES
        ],
        [],
    )
    return found


HELD = ("GPU-0", frozenset({REF}), "")
FREE = ("GPU-1", frozenset[PodRef](), "node-0")


def only(found: Sequence[HostPower]) -> HostPower:
    (host,) = found
    return host


def test_the_host_is_the_meter_less_all_gpus_of_the_node() -> None:
    host = only(host_powers([NODE], [CHAT], telemetry([meter(1500.0)], [HELD, FREE])))
    assert (host.node, host.gpus, host.pods) == ("node-0", 2, {REF})
    assert (host.meter_watts, host.gpu_watts) == (pytest.approx(1500.0), pytest.approx(600.0))
    assert host.host_watts == pytest.approx(900.0)


def test_a_node_without_a_device_plugin_has_the_gpus_of_its_slices() -> None:
    bare = {**NODE, "status": {}}
    assert host_powers([bare], [CHAT], telemetry([meter(1500.0)], [HELD, FREE])) == ()
    host = only(host_powers([bare], [CHAT], telemetry([meter(1500.0)], [HELD, FREE]), {"node-0": 2}))
    assert host.host_watts == pytest.approx(900.0)


def test_parts_of_a_machine_are_not_added_to_the_whole() -> None:
    whole, cpus = meter(1500.0), meter(200.0)
    host = only(host_powers([NODE], [CHAT], telemetry([cpus, whole], [HELD, FREE])))
    assert host.meter_watts == pytest.approx(1500.0)


def test_the_first_of_several_exporters_counts() -> None:
    other = meter(1700.0, "ipmi_dcmi_power_consumption_watts", "node-0")
    host = only(host_powers([NODE], [CHAT], telemetry([other, meter(1500.0)], [HELD, FREE])))
    assert (host.meter, host.meter_watts) == ("kepler_platform_watts", pytest.approx(1500.0))


@pytest.mark.parametrize(
    ("meters", "gpus", "why"),
    [
        ([meter(1500.0)], [HELD], "the energy of 1 of its 2 GPUs is known"),
        ([meter(500.0)], [HELD, FREE], "reads no more than the 600 W of the GPUs: it meters a part of the machine"),
        ([meter(1500.0, "kepler_platform_watts", "bmc-7")], [HELD, FREE], "no meter names this node"),
        (
            [HostMeter("kepler_platform_watts", ("node-0",), (Sample(0.0, 9.0), Sample(60.0, 9.0)))],
            [HELD, FREE],
            "kepler_platform_watts has gaps in the window",
        ),
    ],
)
def test_what_is_not_known_is_not_subtracted(
    meters: list[HostMeter], gpus: list[tuple[str, frozenset[PodRef], str]], why: str
) -> None:
    host = only(host_powers([NODE], [CHAT], telemetry(meters, gpus)))
    assert host.host_watts is None
    assert host.why.endswith(why)


def test_a_gpu_of_another_node_is_not_counted_here() -> None:
    elsewhere = ("GPU-1", frozenset[PodRef](), "node-1")
    host = only(host_powers([NODE], [CHAT], telemetry([meter(1500.0)], [HELD, elsewhere])))
    assert host.why == "the energy of 1 of its 2 GPUs is known"


@pytest.mark.parametrize("address", ["gpu-1.example.com", "10.0.0.9"])
def test_a_node_is_known_by_its_addresses_too(address: str) -> None:
    known: Object = {**NODE, "status": {**NODE["status"], "addresses": [{"type": "Any", "address": address}]}}
    meters = [meter(1500.0, "kepler_platform_watts", address)]
    found = telemetry(meters, [HELD, FREE])
    assert only(host_powers([known], [CHAT], found)).host_watts == pytest.approx(900.0)
    assert unknown_meters([known], found) == ()
    assert unknown_meters([NODE], found) == (
        f"kepler_platform_watts names no node of the cluster in {address}; add a label node_name with the node's name",
    )


def test_without_meters_nothing_is_said() -> None:
    found = telemetry([], [HELD, FREE])
    assert (host_powers([NODE], [CHAT], found), unknown_meters([NODE], found)) == ((), ())


def test_nodes_without_gpus_are_left_out() -> None:
    plain: Object = {"metadata": {"name": "cpu-0"}, "status": {"capacity": {"cpu": "4"}}}
    assert [host.node for host in host_powers([plain, NODE], [], telemetry([meter(9.0)], []))] == ["node-0"]
