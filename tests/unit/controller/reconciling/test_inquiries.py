"""What Kueue says about pods that it holds back."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_cluster import FakeCluster

from energylens.clock import SystemClock
from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError
from energylens.cluster.port import Object
from energylens.cluster.resources import Resource
from energylens.controller.reconciling.inquiries import why_queued
from energylens.controller.reconciling.observing import Observing
from energylens.controller.state.store import Store
from energylens.serving.claims import NO_CLAIMS
from energylens.serving.metadata import OWNER_LABEL


def workload(uid: str, message: str, status: str = "False", reason: str = "Pending") -> Object:
    condition = {"type": "QuotaReserved", "status": status, "reason": reason, "message": message}
    return {
        "kind": "Workload",
        "metadata": {"name": uid, "namespace": "team", "labels": {"kueue.x-k8s.io/job-uid": uid}},
        "status": {"conditions": [{"type": "Admitted", "status": "False", "message": "no"}, condition]},
    }


async def test_the_first_pod_that_kueue_says_something_of_is_quoted() -> None:
    cluster = FakeCluster()
    for body in (workload("p0", "quota reserved", "True"), workload("p1", "no quota"), workload("other", "full")):
        cluster.put(body)
    assert await why_queued(cluster, "team", ["group", "p0", "p1"]) == ("no quota", True)
    assert await why_queued(cluster, "elsewhere", ["p1"]) == ("", True)


class Serving(FakeCluster):
    """A cluster that serves Kueue's Workloads in one version."""

    version = "v1beta1"

    async def list_objects(self, resource: Resource, **asked: Any) -> list[Object]:
        if resource.version != self.version:
            raise NotFoundError(f"{resource.plural} in {resource.version}")
        return await super().list_objects(resource, **asked)


@pytest.mark.parametrize(("version", "said"), [("v1beta2", "no quota"), ("v1beta1", "no quota"), ("v1alpha1", "")])
async def test_workloads_are_read_in_the_version_that_is_served(version: str, said: str) -> None:
    cluster = Serving()
    cluster.version = version
    cluster.put(workload("p0", "no quota"))
    assert await why_queued(cluster, "team", ["p0"]) == (said, True)


async def test_only_quota_may_be_held_by_older_pods() -> None:
    cluster = FakeCluster()
    for body in (
        workload("p0", "quota reserved", "True", "QuotaReserved"),
        workload("p1", "LocalQueue serving doesn't exist", reason="Inadmissible"),
        workload("p2", "no quota"),
    ):
        cluster.put(body)
    assert await why_queued(cluster, "team", ["p0"]) == ("", False)
    assert await why_queued(cluster, "team", ["p0", "p1"]) == ("LocalQueue serving doesn't exist", False)
    assert await why_queued(cluster, "team", ["p1", "p2"]) == ("no quota", True)


@pytest.mark.parametrize(
    ("kind", "name", "about"), [("LeaderWorkerSet", "chat-canary", "set"), ("Deployment", "chat", "p2")]
)
async def test_workloads_of_groups_and_of_single_pods_are_asked_for(kind: str, name: str, about: str) -> None:
    store, cluster, labels = Store(), FakeCluster(), {OWNER_LABEL: "chat"}
    metadata = {"name": name, "namespace": "team", "uid": "set", "labels": labels}
    store.put_child(kind, {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": {}}, deleted=False)
    for pod in ("p0", "p1", "p2"):
        body = {
            "metadata": {"name": pod, "namespace": "team", "uid": pod, "labels": labels},
            "spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
        }
        store.put_pod(body, deleted=False)
    cluster.put(workload(about, "no quota"))
    found = await Observing(cluster, store, SystemClock()).running(("team", "chat"), None, NO_CLAIMS)
    assert [pod.queued for pod in found.pods] == ["admission by Kueue: no quota"] * 3


@pytest.mark.parametrize("error", [ForbiddenError("no"), NotFoundError("no such kind")])
async def test_without_kueue_or_the_right_nothing_is_quoted(error: ClusterError) -> None:
    class Refusing(FakeCluster):
        async def list_objects(self, resource: Resource, **_: Any) -> list[Object]:
            raise error

    assert await why_queued(Refusing(), "team", ["p0"]) == ("", True)
