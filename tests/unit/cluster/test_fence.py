"""What has lost its lease writes nothing any more."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from tests.support.fake_cluster import FakeCluster
from tests.support.world import llama

from energylens.cluster.fence import FencedCluster, LeaseLostError
from energylens.cluster.port import Identity
from energylens.cluster.resources import DEPLOYMENT, EVENT, LLM_DEPLOYMENT

BODY = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"namespace": "team", "name": "a"}, "spec": {}}
WRITES: dict[str, Callable[[FencedCluster], Awaitable[object]]] = {
    "apply": lambda cluster: cluster.apply(BODY),
    "apply_status": lambda cluster: cluster.apply_status(BODY | {"status": {"replicas": 1}}),
    "create": lambda cluster: cluster.create(EVENT, BODY | {"kind": "Event"}),
    "replace": lambda cluster: cluster.replace(DEPLOYMENT, BODY | {"spec": {"replicas": 2}}),
    "delete": lambda cluster: cluster.delete(DEPLOYMENT, "team", "a", "uid-2"),
}


@pytest.mark.parametrize("verb", WRITES)
async def test_writes_end_with_the_lease(verb: str) -> None:
    inner, held = FakeCluster(), True
    inner.put(llama())
    inner.put(BODY)
    fenced = FencedCluster(inner, lambda: held)
    held = False
    with pytest.raises(LeaseLostError, match="the lease has run out"):
        await WRITES[verb](fenced)
    assert (inner.writes, inner.events) == ([], [])
    held = True
    await WRITES[verb](fenced)
    assert inner.writes or inner.events


async def test_reads_go_through_without_the_lease() -> None:
    inner = FakeCluster()
    inner.put(llama())
    fenced = FencedCluster(inner, lambda: False)
    (body,) = await fenced.list_objects(LLM_DEPLOYMENT)
    namespace, name = body["metadata"]["namespace"], body["metadata"]["name"]
    assert await fenced.get(LLM_DEPLOYMENT, namespace, name) == body
    identity = Identity(body["metadata"]["uid"], body["metadata"]["resourceVersion"])
    assert await fenced.list_identities(LLM_DEPLOYMENT) == {(namespace, name): identity}
    assert await fenced.serves(LLM_DEPLOYMENT)
    await fenced.may_list(LLM_DEPLOYMENT)
