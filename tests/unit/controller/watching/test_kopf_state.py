"""kopf hands events on, and neither copies nor remembers the objects."""

from __future__ import annotations

import asyncio
from typing import Any

import kopf
from kopf._cogs.structs.ephemera import AnyMemo, Memo
from kopf._cogs.structs.references import Resource as KopfResource
from kopf._core.engines.indexing import OperatorIndexers
from kopf._core.reactor.processing import process_resource_event

from energylens.cluster.resources import NODE
from energylens.controller.watching.handlers import settings_for
from energylens.controller.watching.kopf_state import NoMemories

NODES = KopfResource(group="", version="v1", plural="nodes", kind="Node", namespaced=False)


class Uncopied(dict[str, Any]):
    """A part of an object that must not be copied."""

    def __deepcopy__(self, memo: object) -> Any:
        raise AssertionError("kopf copied an object")


async def test_an_event_is_handed_on_without_a_copy_and_nothing_is_kept() -> None:
    registry, heard = kopf.OperatorRegistry(), list[Any]()

    @kopf.on.event("", "v1", "nodes", registry=registry)
    async def handler(event: Any, **_: Any) -> None:
        heard.append(event["object"])

    memories = NoMemories()
    node = {"metadata": {"name": "n1", "uid": "u1"}, "spec": Uncopied(podCIDR="10.0.0.0/24")}
    await process_resource_event(
        lifecycle=kopf.lifecycles.all_at_once,
        indexers=OperatorIndexers(),
        registry=registry,
        settings=settings_for((NODE,)),
        memories=memories,
        memobase=AnyMemo(Memo()),
        resource=NODES,
        raw_event={"type": "MODIFIED", "object": node},  # type: ignore[typeddict-item]
        event_queue=asyncio.Queue(),
    )
    assert heard == [node]
    assert list(memories.iter_all_memories()) == []
