"""Which optional kinds are used, and that a server that does not answer is asked again."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest
from tests.support.fake_cluster import FakeCluster

from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError, TransientError
from energylens.cluster.resources import Resource
from energylens.controller.kinds import AGAIN_SECONDS, OptionalKinds


@dataclass
class Server(FakeCluster):
    """A cluster whose lists end as told first; it notes what was listed."""

    failures: list[ClusterError] = field(default_factory=list)
    listed: list[tuple[str, str | None]] = field(default_factory=list)

    async def list_uids(
        self, resource: Resource, *, namespace: str | None = None, label_selector: str = ""
    ) -> dict[tuple[str, str], str]:
        self.listed.append((resource.kind, namespace))
        if self.failures:
            raise self.failures.pop(0)
        return {}


def kinds(server: Server, *namespaces: str) -> tuple[OptionalKinds, list[float]]:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    return OptionalKinds(server, namespaces, sleep), slept


def test_a_kind_that_is_not_served_is_not_listed() -> None:
    server = Server()
    assert asyncio.run(kinds(server)[0].leader_worker_sets()) is False
    assert server.listed == []


def test_leader_worker_sets_must_be_listable_in_every_namespace() -> None:
    server = Server(served={"LeaderWorkerSet"})
    assert asyncio.run(kinds(server, "a", "b")[0].leader_worker_sets()) is True
    assert server.listed == [("LeaderWorkerSet", "a"), ("LeaderWorkerSet", "b")]
    server.failures = [ForbiddenError("no")]
    assert asyncio.run(kinds(server, "a", "b")[0].leader_worker_sets()) is False


@pytest.mark.parametrize("error", [ForbiddenError("no"), NotFoundError("no such kind")])
def test_budgets_of_the_cluster_are_kept_only_where_they_can_be_listed(error: ClusterError) -> None:
    assert asyncio.run(kinds(Server(failures=[error]))[0].cluster_budgets()) is False
    server = Server()
    assert asyncio.run(kinds(server)[0].cluster_budgets()) is True
    assert [kind for kind, _ in server.listed] == ["ClusterEnergyBudget", "Namespace"]


def test_a_server_that_does_not_answer_is_asked_again() -> None:
    for ask in (OptionalKinds.leader_worker_sets, OptionalKinds.cluster_budgets):
        server = Server(served={"LeaderWorkerSet"}, failures=[TransientError("timed out")] * 2)
        found, slept = kinds(server)
        assert asyncio.run(ask(found)) is True
        assert slept == [AGAIN_SECONDS] * 2
