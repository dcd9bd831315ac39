"""Measured power of machines beside that of their GPUs, in words and for programs. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from energylens.api.words import counted
from energylens.audit.hosts import HostPower
from energylens.cli.inputs.rates import Rates
from energylens.cli.text.money import month_text
from energylens.measure.host_meters import METERS
from energylens.measure.types import PodRef


def hosts_under(hosts: Sequence[HostPower], pods: Collection[PodRef]) -> list[HostPower]:
    """Return the hosts on which any of some pods run."""
    asked = frozenset(pods)
    return [host for host in hosts if host.pods & asked]


def measured_host_lines(hosts: Sequence[HostPower], rates: Rates) -> list[str]:
    """Return a line for each host, and their sum; no lines without hosts."""
    lines = [f"  host        {host.node}: {_host_text(host)}" for host in hosts]
    known = [host for host in hosts if host.host_watts is not None]
    if known:
        watts, gpus = sum(host.host_watts or 0.0 for host in known), sum(host.gpus for host in known)
        part = "" if len(known) == len(hosts) else f" of {len(known)} of {len(hosts)} hosts"
        lines.append(
            f"  hosts       {watts:,.0f} W more as measured{part}, {watts / gpus:,.0f} W for each of "
            f"{counted(gpus, 'GPU')}: {month_text(rates, watts)}"
        )
    return lines


def host_objects(hosts: Sequence[HostPower]) -> dict[str, Any]:
    """Return the figures of hosts for programs; empty without hosts."""
    if not hosts:
        return {}
    return {"hosts": [_host_object(host) for host in hosts]}


def _host_text(host: HostPower) -> str:
    if host.meter_watts is None:
        return f"not measured: {host.why}"
    whole = f"{host.meter_watts:,.0f} W at the meter ({METERS[host.meter]})"
    if host.host_watts is None:
        return f"{whole}, with the GPUs; the host's part is not known: {host.why}"
    return f"{whole}, of which its {counted(host.gpus, 'GPU')} drew {host.gpu_watts:,.0f} W"


def _host_object(host: HostPower) -> dict[str, Any]:
    found = {
        "node": host.node,
        "gpus": host.gpus,
        "meter": host.meter or None,
        "meterWatts": host.meter_watts,
        "gpuWatts": host.gpu_watts,
        "hostWatts": host.host_watts,
        "reason": host.why or None,
    }
    return {name: value for name, value in found.items() if value is not None}
