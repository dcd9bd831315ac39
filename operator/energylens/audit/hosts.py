"""Power of the machines under served models: the meter of each node beside the energy of its GPUs. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from energylens.audit.containers import pod_spec, reference_of
from energylens.audit.telemetry import Telemetry
from energylens.measure.energy import energy_span
from energylens.measure.host_meters import METERS, HostMeter, mean_watts
from energylens.measure.types import GpuEnergySeries, PodRef
from energylens.records import dataclass

Object = Mapping[str, Any]
_GPUS = "nvidia.com/gpu"
NOTHING_LISTED: Mapping[str, int] = {}


@dataclass(frozen=True)
class HostPower:
    """Mean power of a node over the window."""

    node: str
    gpus: int
    """GPUs of the node, in use or not."""
    pods: frozenset[PodRef]
    """Pods on the node."""
    meter: str
    """Name of the metric; "" if no meter is known."""
    meter_watts: float | None
    """Power of the whole machine, GPUs included; None if the meter has gaps or there is none."""
    gpu_watts: float | None
    """Power of all GPUs of the node; None if the power of any GPU is unknown."""
    why: str = ""
    """Why :attr:`host_watts` is unknown, one sentence."""

    @property
    def host_watts(self) -> float | None:
        """Power of the machine without its GPUs; None if unknown."""
        return None if self.why or self.meter_watts is None or self.gpu_watts is None else self._rest

    @property
    def _rest(self) -> float:
        return (self.meter_watts or 0.0) - (self.gpu_watts or 0.0)


def host_powers(
    nodes: Sequence[Object], pods: Sequence[Object], telemetry: Telemetry, listed: Mapping[str, int] = NOTHING_LISTED
) -> tuple[HostPower, ...]:
    """Return the power of every node with GPUs, by name; no nodes if no meter was read.

    Args:
        nodes: Nodes of the cluster.
        pods: Pods of all namespaces.
        telemetry: Counters of GPUs, and meters.
        listed: GPUs by node that ResourceSlices list, for nodes without a device plugin.
    """
    if not telemetry.meters:
        return ()
    names = _names(nodes)
    by_node: dict[str, set[PodRef]] = {}
    for pod in pods:
        if node := pod_spec(pod).get("nodeName"):
            by_node.setdefault(node, set()).add(reference_of(pod))
    meters = _metered(telemetry.meters, names)
    series = _gpu_series(telemetry, {pod: node for node, found in by_node.items() for pod in found}, names)
    counts = {node["metadata"]["name"]: _gpu_count(node) for node in nodes}
    return tuple(
        _host(name, gpus, frozenset(by_node.get(name, ())), meters.get(name, []), series.get(name, []), telemetry)
        for name, count in sorted(counts.items())
        if (gpus := count or listed.get(name, 0))
    )


def unknown_meters(nodes: Sequence[Object], telemetry: Telemetry) -> tuple[str, ...]:
    """Return a sentence for each metric of which some meters belong to no node of the cluster."""
    names = _names(nodes)
    lost: dict[str, list[str]] = {}
    for meter in telemetry.meters:
        if _node_of(meter.names, names) is None:
            lost.setdefault(meter.metric, []).append(meter.names[0] if meter.names else "without a label")
    return tuple(
        f"{metric} names no node of the cluster in {', '.join(sorted(set(found))[:3])}; "
        "add a label node_name with the node's name"
        for metric, found in sorted(lost.items())
    )


def _host(
    name: str,
    gpus: int,
    pods: frozenset[PodRef],
    meters: Sequence[HostMeter],
    series: Sequence[GpuEnergySeries],
    telemetry: Telemetry,
) -> HostPower:
    metric = min((meter.metric for meter in meters), key=list(METERS).index, default="")
    found = [mean_watts(each, telemetry.start, telemetry.end) for each in meters if each.metric == metric]
    # A controller has an entry for the machine and others for its parts, so that a sum would count parts twice.
    watts = max((each for each in found if each is not None), default=None)
    span = energy_span(series, gpus, telemetry.start, None)
    gpu_watts = None if span is None else span.watts
    why = ""
    if not metric:
        why = "no meter names this node"
    elif watts is None:
        why = f"{metric} has gaps in the window"
    elif gpu_watts is None:
        why = f"the energy of {len(series)} of its {gpus} GPUs is known"
    elif watts <= gpu_watts:
        why = f"{metric} reads no more than the {gpu_watts:,.0f} W of the GPUs: it meters a part of the machine"
    return HostPower(name, gpus, pods, metric, watts, gpu_watts, why)


def _names(nodes: Iterable[Object]) -> dict[str, str]:
    """Return the node by its name, host names and addresses."""
    found: dict[str, str] = {}
    for node in nodes:
        name = node["metadata"]["name"]
        addresses = (node.get("status") or {}).get("addresses") or ()
        for text in (name, *(str(each.get("address") or "") for each in addresses)):
            if text:
                found.setdefault(text, name)
    return found


def _node_of(names: Iterable[str], known: Mapping[str, str]) -> str | None:
    return next((known[name] for name in names if name in known), None)


def _metered(meters: Iterable[HostMeter], names: Mapping[str, str]) -> dict[str, list[HostMeter]]:
    found: dict[str, list[HostMeter]] = {}
    for meter in meters:
        if (node := _node_of(meter.names, names)) is not None:
            found.setdefault(node, []).append(meter)
    return found


def _gpu_series(
    telemetry: Telemetry, node_of_pod: Mapping[PodRef, str], names: Mapping[str, str]
) -> dict[str, list[GpuEnergySeries]]:
    """Return the counters of each node's GPUs: by the pods that held them, else by the exporter's host name."""
    found: dict[str, list[GpuEnergySeries]] = {}
    for series, owners, host in telemetry.gpus():
        nodes = {node_of_pod[pod] for pod in owners if pod in node_of_pod}
        if len(nodes) == 1:
            found.setdefault(nodes.pop(), []).append(series)
        elif not nodes and host in names:
            found.setdefault(names[host], []).append(series)
    return found


def _gpu_count(node: Object) -> int:
    try:
        status = node.get("status") or {}
        return int((status.get("capacity") or status.get("allocatable") or {}).get(_GPUS) or 0)
    except (TypeError, ValueError):
        return 0
