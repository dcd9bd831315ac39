"""Reading a cluster: what it lacks is told, or left out where it may be."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import pytest
from tests.unit.api.objects import changed
from tests.unit.cli.commands.test_status import LIVE

from energylens.api.parse import parse_llmdeployment
from energylens.cli.errors import InputError
from energylens.cli.inputs import world
from energylens.cli.inputs.files import Asked
from energylens.cli.inputs.live import ClusterAccess, LiveObjects, read_cluster
from energylens.cli.inputs.previews import previews
from energylens.cli.inputs.world import join, operator_namespace, world_of_cluster
from energylens.cluster import connecting as module
from energylens.cluster.errors import ForbiddenError, NotFoundError
from energylens.cluster.resources import (
    CONFIG_MAP,
    DEVICE_CLASS,
    ENERGY_BUDGET,
    LLM_DEPLOYMENT,
    NODE,
    PERSISTENT_VOLUME_CLAIM,
    RESOURCE_CLAIM,
    RESOURCE_SLICE,
    Resource,
)


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
    with pytest.raises(InputError, match=r"llmdeployments\.energylens\.dev in version v1alpha1: is EnergyLens"):
        read_cluster(ClusterAccess(), (LLM_DEPLOYMENT,))


def test_what_may_be_missing_is_left_out(cluster: Cluster) -> None:
    found = read_cluster(ClusterAccess(), everywhere=(NODE, ENERGY_BUDGET), optional=(ENERGY_BUDGET,))
    assert set(found.objects) == {"Node"}


def test_namespaces_and_names_are_those_asked_for(cluster: Cluster) -> None:
    named = [(CONFIG_MAP, "team", "shape"), (CONFIG_MAP, "team", "gone")]
    found = read_cluster(ClusterAccess(), (CONFIG_MAP,), (NODE,), named=named)
    assert cluster.asked == [
        ("ConfigMap", "own", None),
        ("Node", None, None),
        ("ConfigMap", "team", "shape"),
        ("ConfigMap", "team", "gone"),
    ]
    assert found.namespace == "own"
    assert [body["metadata"]["name"] for body in found.objects["ConfigMap"]] == ["a", "shape"]
    assert read_cluster(ClusterAccess(namespace="other"), (CONFIG_MAP,)).namespace == "other"
    assert cluster.asked[-1] == ("ConfigMap", "other", None)
    read_cluster(ClusterAccess(all_namespaces=True), (CONFIG_MAP,))
    assert cluster.asked[-1] == ("ConfigMap", None, None)


def test_what_the_user_may_not_read_is_left_out_by_name_too(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    listed = cluster.list_objects

    async def refuse(resource: Resource, **where: Any) -> list[dict[str, Any]]:
        if resource == PERSISTENT_VOLUME_CLAIM:
            raise ForbiddenError("GET: 403")
        return await listed(resource, **where)

    monkeypatch.setattr(cluster, "list_objects", refuse)
    named = [(PERSISTENT_VOLUME_CLAIM, "team", "models"), (CONFIG_MAP, "team", "shape")]
    found = read_cluster(ClusterAccess(), named=named, if_allowed=(PERSISTENT_VOLUME_CLAIM,))
    assert {kind: len(bodies) for kind, bodies in found.objects.items()} == {
        "PersistentVolumeClaim": 0,
        "ConfigMap": 1,
    }
    with pytest.raises(InputError, match="403"):
        read_cluster(ClusterAccess(), named=named)


@pytest.mark.parametrize(("mode", "reason"), [("ReadWriteOncePod", "ClaimNotShareable"), ("ReadWriteMany", "Planned")])
def test_a_live_plan_knows_who_may_mount_its_claims(monkeypatch: pytest.MonkeyPatch, mode: str, reason: str) -> None:
    node = {
        "metadata": {"name": "n", "labels": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }

    def answer(access: ClusterAccess, *_: object, named: Any = (), **__: object) -> LiveObjects:
        claims = [
            {"metadata": {"namespace": namespace, "name": name}, "spec": {"accessModes": [mode]}}
            for resource, namespace, name in named
            if resource == PERSISTENT_VOLUME_CLAIM
        ]
        return LiveObjects("team", {"Node": [node], PERSISTENT_VOLUME_CLAIM.kind: claims})

    monkeypatch.setattr(world, "read_cluster", answer)
    spec = {
        "model": {"name": "Qwen/Qwen3-8B", "cache": {"persistentVolumeClaim": "models"}},
        "workload": {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "1"},
        "planning": {"overrides": {"replicas": 2}},
    }
    asked = Asked((parse_llmdeployment({"metadata": {"name": "a", "namespace": "team"}, "spec": spec}, strict=False),))
    (found,) = previews(*join(asked, world_of_cluster(ClusterAccess(), asked)))
    (ready,) = [c for c in found.status["conditions"] if c["type"] == "PlanReady"]
    assert ready["reason"] == reason


def test_a_live_plan_needs_no_right_to_list_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kubernetes 1.34 and newer serve these kinds whether a cluster uses them or not."""
    allowed: list[Resource] = []

    def answer(access: ClusterAccess, *_: object, if_allowed: Any = (), **__: object) -> LiveObjects:
        allowed.extend(if_allowed)
        return LiveObjects("team", {})

    monkeypatch.setattr(world, "read_cluster", answer)
    world_of_cluster(ClusterAccess(), Asked(()))
    assert {RESOURCE_SLICE, RESOURCE_CLAIM, DEVICE_CLASS} <= set(allowed)


def deployed(namespace: str, **labels: str) -> dict[str, Any]:
    chart = {"app.kubernetes.io/name": "energylens", "app.kubernetes.io/managed-by": "Helm"}
    return {"metadata": {"name": "energylens", "namespace": namespace, "labels": {**chart, **labels}}}


def test_the_operator_is_where_its_deployment_is() -> None:
    serving = deployed("team", **{"app.kubernetes.io/managed-by": "energylens"})
    assert operator_namespace([serving, deployed("gpu-ops")]) == "gpu-ops"
    assert operator_namespace([serving, {"metadata": {"name": "x", "namespace": "y"}}]) == "energylens-system"
    with pytest.raises(InputError, match="several operators, in a, b: select one with --operator-namespace"):
        operator_namespace([deployed("b"), deployed("a")])


@pytest.mark.parametrize(
    ("on_drift", "named", "read"),
    [("Report", None, []), ("Recalibrate", None, ["gpu-ops"]), ("Recalibrate", "mine", ["mine"])],
)
def test_what_was_learned_is_read_where_the_operator_is(
    monkeypatch: pytest.MonkeyPatch, on_drift: str, named: str | None, read: list[str]
) -> None:
    asked: list[str] = []

    def answer(access: ClusterAccess, *_: object, named: Any = (), **__: object) -> LiveObjects:
        asked.extend(namespace for _, namespace, name in named if name == "energylens-corrections")
        return LiveObjects("team", {"Deployment": [deployed("gpu-ops")]})

    monkeypatch.setattr(world, "read_cluster", answer)
    body = changed(LIVE, {"spec.validation": {"onDrift": on_drift}})
    deployment = parse_llmdeployment(body, strict=False)
    world_of_cluster(ClusterAccess(operator_namespace=named), Asked((deployment,)))
    assert asked == read
