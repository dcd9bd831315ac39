"""Hosts of LLMDeployments, by the pods' labels and nodes, from a Prometheus on loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from tests.support.audit_cluster import Served, matrix, node, pod
from tests.support.loopback import serving

from energylens.cli.errors import InputError
from energylens.cli.inputs import hosts
from energylens.cli.inputs.live import ClusterAccess, LiveObjects
from energylens.measure.prometheus_http import Access

LLAMA = pod("llama-1", {"image": "x"}, gpus=8, labels={"energylens.dev/llmdeployment": "llama"})
OTHER = pod("other-1", {"image": "x"}, gpus=1, host="node-1")
ACCESS = ClusterAccess()


@pytest.fixture(autouse=True)
def cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"Node": [node("node-0"), node("node-1")], "Pod": [LLAMA, OTHER]}
    monkeypatch.setattr(hosts, "read_cluster", lambda *_, **__: LiveObjects("team", found))


@contextmanager
def prometheus(meters: dict[str, float]) -> Iterator[Access]:
    answer: dict[str, Any] = matrix([Served("llama-1", gpus=8, watts_per_gpu=300.0)])
    times = [time for time, _ in answer["data"]["result"][0]["values"]]
    for name, watts in meters.items():
        labels = {"__name__": "kepler_platform_watts", "node_name": name}
        answer["data"]["result"].append({"metric": labels, "values": [[time, str(watts)] for time in times]})
    with serving(lambda *_: (200, json.dumps(answer).encode(), {})) as url:
        yield Access(url)


def test_each_deployment_has_the_hosts_of_its_pods() -> None:
    with prometheus({"node-0": 5000.0, "bmc": 1.0}) as access:
        found, unknown = hosts.hosts_by_deployment(ACCESS, access, 3600.0)
    ((key, [host]),) = found.items()
    assert key == ("team", "llama")
    assert host.host_watts == pytest.approx(5000.0 - 2400.0)
    assert [text.partition(" in ")[2].partition(";")[0] for text in unknown] == ["bmc"]


def test_a_prometheus_without_meters_is_refused() -> None:
    with prometheus({}) as access, pytest.raises(InputError, match="no meter of a host: it has none of kepler_plat"):
        hosts.hosts_by_deployment(ACCESS, access, 3600.0)
