"""Reading a cluster: what it lacks is told, or left out where it may be."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import pytest

from energylens.cli.errors import InputError
from energylens.cli.live import Access, read_cluster
from energylens.cluster import client as module
from energylens.cluster.errors import NotFoundError
from energylens.cluster.resources import CONFIG_MAP, ENERGY_BUDGET, LLM_DEPLOYMENT, NODE, Resource


class Cluster:
    """Has nodes and ConfigMaps, and knows nothing of EnergyLens."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def list_objects(
        self, resource: Resource, *, namespace: str | None = None, name: str | None = None
    ) -> list[dict[str, Any]]:
        self.asked.append((resource.kind, namespace, name))
        if resource.group == "energylens.dev":
            raise NotFoundError(f"GET {resource.path()}: 404")
        return [{"kind": resource.kind, "metadata": {"name": name or "a"}}] if name != "gone" else []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()

    async def connect(*_: object) -> tuple[Cluster, str]:
        return found, "own"

    monkeypatch.setattr(module, "connect_as_user", connect)
    return found


def test_a_kind_that_the_cluster_does_not_know_is_told_with_the_way_out(cluster: Cluster) -> None:
    with pytest.raises(InputError, match=r"does not know llmdeployments\.energylens\.dev: is EnergyLens installed\?"):
        read_cluster(Access(), (LLM_DEPLOYMENT,))


def test_what_may_be_missing_is_left_out(cluster: Cluster) -> None:
    found = read_cluster(Access(), everywhere=(NODE, ENERGY_BUDGET), optional=(ENERGY_BUDGET,))
    assert set(found.objects) == {"Node"}


def test_namespaces_and_names_are_those_asked_for(cluster: Cluster) -> None:
    named = [(CONFIG_MAP, "team", "shape"), (CONFIG_MAP, "team", "gone")]
    found = read_cluster(Access(), (CONFIG_MAP,), (NODE,), named=named)
    assert cluster.asked == [
        ("ConfigMap", "own", None),
        ("Node", None, None),
        ("ConfigMap", "team", "shape"),
        ("ConfigMap", "team", "gone"),
    ]
    assert found.namespace == "own"
    assert [body["metadata"]["name"] for body in found.objects["ConfigMap"]] == ["a", "shape"]
    assert read_cluster(Access(namespace="other"), (CONFIG_MAP,)).namespace == "other"
    assert cluster.asked[-1] == ("ConfigMap", "other", None)
    read_cluster(Access(all_namespaces=True), (CONFIG_MAP,))
    assert cluster.asked[-1] == ("ConfigMap", None, None)
