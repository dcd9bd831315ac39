"""Which children must be there before earlier workloads may go."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from tests.support.fake_cluster import FakeCluster

from energylens.clock import SystemClock
from energylens.cluster.errors import NotFoundError, RefusedError
from energylens.cluster.port import Object
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.state.store import Store
from energylens.controller.writing.child_writer import ChildWriter
from energylens.serving.metadata import APPLIED_HASH, OWNER_LABEL


class Refusing(FakeCluster):
    """An API server that refuses one kind of child."""

    refused = ""

    async def apply(self, manifest: Mapping[str, Any]) -> Object:
        if manifest["kind"] == self.refused:
            raise RefusedError("denied by policy") if self.refused == "Service" else NotFoundError("no such kind")
        return await super().apply(manifest)


def manifest(api_version: str, kind: str) -> dict[str, Any]:
    metadata = {
        "name": "chat",
        "namespace": "team",
        "labels": {OWNER_LABEL: "chat"},
        "annotations": {APPLIED_HASH: kind},
        "ownerReferences": [{"kind": "LLMDeployment", "name": "chat", "uid": "u"}],
    }
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": {}}


@pytest.mark.parametrize(("refused", "complete"), [("", True), ("InferencePool", True), ("Service", False)])
async def test_an_inference_pool_that_cannot_be_made_keeps_no_earlier_pods(refused: str, complete: bool) -> None:
    cluster = Refusing()
    cluster.refused = refused
    writer = ChildWriter(cluster, Store(), SystemClock(), Metrics())
    pool = manifest("inference.networking.k8s.io/v1", "InferencePool")
    written = await writer.apply(
        ("team", "chat"),
        [manifest("apps/v1", "Deployment"), manifest("v1", "Service"), pool, manifest("v1", "ConfigMap")],
    )
    assert bool(written.refused) == bool(refused)
    assert written.complete == complete


async def test_what_was_refused_is_written_immediately_once_the_operator_deleted_the_child() -> None:
    cluster, key, service = Refusing(), ("team", "chat"), manifest("v1", "Service")
    cluster.refused = "Service"
    writer = ChildWriter(cluster, Store(), SystemClock(), Metrics())
    assert (await writer.apply(key, [service])).refused
    cluster.refused = ""
    assert (await writer.apply(key, [service])).refused
    writer.removed(("Service", *key))
    assert not (await writer.apply(key, [service])).refused
