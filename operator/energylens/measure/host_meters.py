"""Power of whole machines, from meters that a Prometheus scrapes.

The meters are of the machine's baseboard controller (Redfish, IPMI), and read CPUs, memory, fans, power supplies and
GPUs together. Kepler's estimates and its counters of CPUs (RAPL) are not such meters and are not read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from itertools import pairwise

from energylens.measure.prometheus import Series
from energylens.measure.types import Sample
from energylens.records import dataclass

METERS: Mapping[str, str] = {
    "kepler_platform_watts": "Kepler, by Redfish",
    "idrac_power_control_consumed_watts": "idrac_exporter, by Redfish",
    "redfish_chassis_power_average_consumed_watts": "redfish_exporter",
    "ipmi_dcmi_power_consumption_current_watts": "ipmi_exporter",
    "ipmi_dcmi_power_consumption_watts": "ipmi_exporter",
}
"""Metrics in watts with the exporter that serves each; of a machine with several, the first one counts.

Sources: docs of sustainable-computing-io/kepler (EP-001, from 0.11 on), mrlhansen/idrac_exporter,
jenningsloy318/redfish_exporter, prometheus-community/ipmi_exporter.
"""
_NODE_LABELS = ("node_name", "node", "nodename", "hostname", "exported_instance", "target", "instance")
"""Labels that may name the machine, the most specific first; ``instance`` of an exporter beside the machine last."""
MAX_WATTS = 1e6
"""Upper bound of a machine, W; a rack of 72 GPUs draws a seventh of it."""
LEAST_SHARE = 0.8
"""Least share of the window between the first and the last sample."""
LONGEST_GAP_SECONDS = 300.0
"""Longest time without a sample, s: the interval of slow controllers."""


@dataclass(frozen=True)
class HostMeter:
    """The readings of one entry of one meter."""

    metric: str
    names: tuple[str, ...]
    """Names of the machine in the labels, the most specific first."""
    samples: tuple[Sample, ...]
    """Watts, by time."""


def host_meters(series: Iterable[Series]) -> tuple[HostMeter, ...]:
    """Return the meters among some series; impossible readings are left out."""
    found = []
    for each in series:
        if each.name not in METERS:
            continue
        names = [each.labels[label] for label in _NODE_LABELS if each.labels.get(label)]
        samples = sorted((time, value) for time, value in each.values if math.isfinite(value) and 0 < value < MAX_WATTS)
        if samples:
            hosts = dict.fromkeys(name for full in names for name in (full, _without_port(full)))
            found.append(HostMeter(each.name, tuple(hosts), tuple(Sample(*sample) for sample in samples)))
    return tuple(found)


def mean_watts(meter: HostMeter, start: float, end: float) -> float | None:
    """Return the mean power from ``start`` to ``end``; None if the readings have gaps or cover too little."""
    inside = [sample for sample in meter.samples if start <= sample.time <= end]
    if len(inside) < 2 or inside[-1].time - inside[0].time < LEAST_SHARE * (end - start):
        return None
    steps = list(pairwise(inside))
    if max(after.time - before.time for before, after in steps) > LONGEST_GAP_SECONDS:
        return None
    joules = sum((after.time - before.time) * (before.value + after.value) / 2 for before, after in steps)
    return joules / (inside[-1].time - inside[0].time)


def _without_port(name: str) -> str:
    head, colon, port = name.rpartition(":")
    return head.strip("[]") if colon and port.isdigit() and (":" not in head or head.startswith("[")) else name
