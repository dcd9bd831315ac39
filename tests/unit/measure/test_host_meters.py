"""Meters of whole machines: names in labels, means over a window, and readings that are no power."""

from __future__ import annotations

import math

import pytest

from energylens.measure.host_meters import METERS, HostMeter, host_meters, mean_watts
from energylens.measure.prometheus import Series
from energylens.measure.types import Sample

KEPLER = "kepler_platform_watts"


def series(values: list[tuple[float, float]], name: str = KEPLER, **labels: str) -> Series:
    return Series(name, {"__name__": name, **labels}, values)


def meter(*samples: tuple[float, float]) -> HostMeter:
    return HostMeter(KEPLER, ("n",), tuple(Sample(*sample) for sample in samples))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ({"node_name": "gpu-1", "instance": "10.0.0.9:28282"}, ("gpu-1", "10.0.0.9:28282", "10.0.0.9")),
        ({"instance": "gpu-1:9290"}, ("gpu-1:9290", "gpu-1")),
        ({"instance": "[fd00::9]:9290"}, ("[fd00::9]:9290", "fd00::9")),
        ({"instance": "fd00::9"}, ("fd00::9",)),
        ({"target": "gpu-1", "instance": "exporter:9348"}, ("gpu-1", "exporter:9348", "exporter")),
        ({"job": "x"}, ()),
    ],
)
def test_a_machine_is_named_by_its_most_specific_label(labels: dict[str, str], names: tuple[str, ...]) -> None:
    (found,) = host_meters([series([(0.0, 100.0)], **labels)])
    assert found.names == names


def test_readings_that_are_no_power_are_left_out() -> None:
    values = [(30.0, 400.0), (0.0, math.nan), (10.0, 0.0), (20.0, -5.0), (40.0, 1e9), (5.0, 300.0)]
    (found,) = host_meters([series(values, node="n"), series([(0.0, math.inf)], node="n"), series([], "up")])
    assert found.samples == (Sample(5.0, 300.0), Sample(30.0, 400.0))


def test_the_mean_weights_each_reading_by_its_time() -> None:
    assert mean_watts(meter((0.0, 100.0), (90.0, 100.0), (100.0, 300.0)), 0.0, 100.0) == pytest.approx(110.0)
    assert mean_watts(meter((-50.0, 9e5), (0.0, 100.0), (100.0, 100.0), (150.0, 9e5)), 0.0, 100.0) == 100.0


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [(50.0, 1.0)],
        [(0.0, 1.0), (79.0, 1.0)],
        [(0.0, 1.0), (301.0, 1.0), (350.0, 1.0)],
    ],
)
def test_gaps_and_short_cover_give_no_mean(samples: list[tuple[float, float]]) -> None:
    end = 100.0 if len(samples) < 3 else 350.0
    assert mean_watts(meter(*samples), 0.0, end) is None


def test_kepler_s_estimates_are_no_meter() -> None:
    assert not {"kepler_node_platform_joules_total", "kepler_node_cpu_watts"} & set(METERS)
