"""Hosts of LLMDeployments and their power, from a cluster and a Prometheus."""

from __future__ import annotations

from energylens.audit.containers import reference_of
from energylens.audit.hosts import HostPower
from energylens.cli.errors import InputError
from energylens.cli.inputs.audit import Audited, hosts_of, telemetry_of_prometheus
from energylens.cli.inputs.files import device_objects
from energylens.cli.inputs.live import ClusterAccess, read_cluster
from energylens.measure.host_meters import METERS
from energylens.measure.prometheus_http import Access
from energylens.planner.inventory.snapshot import OWNER_LABEL

Key = tuple[str, str]


def hosts_by_deployment(
    access: ClusterAccess, prometheus: Access, seconds: float
) -> tuple[dict[Key, list[HostPower]], tuple[str, ...]]:
    """Return the hosts of each LLMDeployment's pods, by namespace and name, and sentences for meters without a node.

    Raises:
        InputError: The cluster or the Prometheus cannot be read, or the Prometheus has no meter of a host.
    """
    from energylens.cluster.resources import DEVICE_OBJECTS, NODE, POD

    everywhere = (NODE, POD, *DEVICE_OBJECTS)
    found = read_cluster(access, everywhere=everywhere, optional=DEVICE_OBJECTS, if_allowed=DEVICE_OBJECTS).objects
    audited = Audited(found[NODE.kind], found[POD.kind], devices=device_objects(found))
    telemetry = telemetry_of_prometheus(prometheus, seconds, audited)
    if not telemetry.meters:
        why = "; ".join(telemetry.failures) or f"it has none of {', '.join(METERS)}"
        raise InputError(f"--prometheus={prometheus.url}: no meter of a host: {why}")
    hosts, unknown = hosts_of(audited, telemetry)
    by_pod = {pod: host for host in hosts for pod in host.pods}
    result: dict[Key, dict[str, HostPower]] = {}
    for pod in audited.pods:
        owner = (pod["metadata"].get("labels") or {}).get(OWNER_LABEL)
        host = by_pod.get(reference_of(pod))
        if owner and host is not None:
            result.setdefault((reference_of(pod).namespace, owner), {})[host.node] = host
    return {key: [nodes[name] for name in sorted(nodes)] for key, nodes in result.items()}, unknown
