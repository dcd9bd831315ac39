"""Which kinds are watched, what is said of those that cannot be, and that kinds come and go."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from tests.support.fake_cluster import FakeCluster

from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError, TransientError
from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    ENERGY_BUDGET,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    NAMESPACE,
    NODE,
    OLDER_DEVICE_TAINT_RULE,
    Resource,
)
from energylens.controller.watching.kinds import (
    AGAIN_SECONDS,
    ALL_KINDS,
    DYNAMIC_KINDS,
    NEEDED,
    OPTIONAL,
    TAINT_RULE_KINDS,
    Kinds,
    WatchableKinds,
)


class StillWaitingError(Exception):
    """Ends a wait that would go on for ever."""


@dataclass
class Server(FakeCluster):
    """A cluster that notes what was listed, and changes while somebody waits."""

    listed: list[tuple[str, str | None]] = field(default_factory=list)
    heals: bool = False

    async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
        self.listed.append((resource.kind, namespace))
        await super().may_list(resource, namespace=namespace)

    async def sleep(self, seconds: float) -> None:
        assert seconds == AGAIN_SECONDS
        if not self.heals:
            raise StillWaitingError
        self.withheld.clear()


@dataclass
class Asked:
    server: Server
    namespaces: tuple[str, ...] = ()
    said: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kinds = Kinds(self.server, self.namespaces, self._report, self.server.sleep)

    def _report(self, what: str, problem: str) -> None:
        self.said[what] = problem

    @property
    def problems(self) -> dict[str, str]:
        return {what: problem for what, problem in self.said.items() if problem}


async def test_everything_is_watched_where_everything_is_served_and_may_be_listed() -> None:
    asked = Asked(Server(served={"LeaderWorkerSet"}))
    assert await asked.kinds.settled() == WatchableKinds(ALL_KINDS - {OLDER_DEVICE_TAINT_RULE})
    assert asked.problems == {}


async def test_rights_are_asked_for_in_every_namespace() -> None:
    asked = Asked(Server(served={"LeaderWorkerSet"}), ("a", "b"))
    await asked.kinds.settled()
    for resource in (*NEEDED, *OPTIONAL):
        where = ["a", "b"] if resource.namespaced else [None]
        where *= len([other for other in OPTIONAL if other.kind == resource.kind]) or 1
        assert [namespace for kind, namespace in asked.server.listed if kind == resource.kind] == where


@pytest.mark.parametrize("resource", [*NEEDED, ENERGY_BUDGET], ids=lambda resource: str(resource.kind))
@pytest.mark.parametrize("error", [ForbiddenError("cannot list"), TransientError("timed out")])
async def test_what_is_needed_and_cannot_be_listed_is_said_and_waited_for(
    resource: Resource, error: ClusterError
) -> None:
    asked = Asked(Server(withheld={resource.kind: error}))
    with pytest.raises(StillWaitingError):
        await asked.kinds.settled()
    assert asked.problems == {f"listing {resource.plural}": str(error)}
    asked.server.heals = True
    assert resource in (await asked.kinds.settled()).kinds
    assert asked.problems == {}


async def test_all_rights_that_are_missing_are_said_at_once() -> None:
    asked = Asked(Server(withheld={kind: ForbiddenError("no") for kind in ("Pod", "Node", "Service")}))
    with pytest.raises(StillWaitingError):
        await asked.kinds.settled()
    assert set(asked.problems) == {"listing pods", "listing nodes", "listing services"}


async def test_an_operator_without_its_own_resources_says_what_to_install() -> None:
    asked = Asked(Server(withheld={"LLMDeployment": NotFoundError("no such kind")}))
    with pytest.raises(StillWaitingError):
        await asked.kinds.settled()
    (problem,) = asked.problems.values()
    assert problem == (
        "the API server does not serve llmdeployments of energylens.dev/v1alpha1; install the CustomResourceDefinitions"
    )


@pytest.mark.parametrize("resource", OPTIONAL, ids=lambda resource: str(resource.kind))
async def test_an_optional_kind_that_is_not_served_is_left_out(resource: Resource) -> None:
    server = Server(served={"LeaderWorkerSet"}, withheld={resource.kind: NotFoundError("no such kind")})
    asked = Asked(server)
    found = await asked.kinds.settled()
    without = {resource, NAMESPACE} if resource is CLUSTER_ENERGY_BUDGET else {resource}
    # GPUs of dynamic resource allocation cannot be counted by some of its kinds.
    without |= {*DYNAMIC_KINDS, *TAINT_RULE_KINDS} if resource in DYNAMIC_KINDS else set()
    without |= set(TAINT_RULE_KINDS) if resource in TAINT_RULE_KINDS else set()
    assert found.kinds == ALL_KINDS - without - {OLDER_DEVICE_TAINT_RULE}
    assert found.unserved == {kind for kind in OPTIONAL if kind.kind == resource.kind}
    assert resource.plural in found.left_out[resource]
    assert asked.problems == {}


@pytest.mark.parametrize("served", TAINT_RULE_KINDS, ids=lambda resource: str(resource.version))
async def test_taint_rules_are_watched_in_the_version_that_is_served(served: Resource) -> None:
    class OneVersion(Server):
        async def may_list(self, resource: Resource, *, namespace: str | None = None) -> None:
            if resource in TAINT_RULE_KINDS and resource != served:
                raise NotFoundError("no such version")
            await super().may_list(resource, namespace=namespace)

    found = await Asked(OneVersion(served={"LeaderWorkerSet"})).kinds.settled()
    assert found.kinds & set(TAINT_RULE_KINDS) == {served}


@pytest.mark.parametrize("kind", ["LeaderWorkerSet", "ClusterEnergyBudget", "Namespace"])
async def test_a_kind_that_only_some_operators_may_list_is_left_out_with_the_reason(kind: str) -> None:
    server = Server(served={"LeaderWorkerSet"}, withheld={kind: ForbiddenError(f"cannot list {kind}")})
    found = await Asked(server).kinds.settled()
    resource = LEADER_WORKER_SET if kind == "LeaderWorkerSet" else CLUSTER_ENERGY_BUDGET
    assert found.left_out == {resource: f"cannot list {kind}"}
    assert found.unserved == set()
    assert resource not in found.kinds


@pytest.mark.parametrize("resource", [*OPTIONAL, LLM_DEPLOYMENT], ids=lambda resource: str(resource.kind))
async def test_a_kind_that_goes_and_comes_back_is_noticed(resource: Resource) -> None:
    server = Server(served={"LeaderWorkerSet"})
    asked = Asked(server, ("a", "b"))
    found = await asked.kinds.settled()
    assert await asked.kinds.changed(found) is False
    server.withheld[resource.kind] = NotFoundError("no such kind")
    assert await asked.kinds.changed(found) is True
    if resource is not LLM_DEPLOYMENT:
        without = await asked.kinds.settled()
        assert await asked.kinds.changed(without) is False
        server.withheld.clear()
        assert await asked.kinds.changed(without) is True


@pytest.mark.parametrize("kind", ["EnergyBudget", "LeaderWorkerSet", "LLMDeployment"])
async def test_a_server_that_does_not_answer_changes_no_watch_but_is_said(kind: str) -> None:
    server = Server(served={"LeaderWorkerSet"})
    asked = Asked(server)
    found = await asked.kinds.settled()
    server.withheld[kind] = TransientError("timed out")
    assert await asked.kinds.changed(found) is False
    assert list(asked.problems.values()) == ["timed out"]
    server.withheld.clear()
    assert await asked.kinds.changed(found) is False
    assert asked.problems == {}


async def test_looking_for_changes_costs_the_same_however_many_namespaces_there_are() -> None:
    server = Server(served={"LeaderWorkerSet"})
    asked = Asked(server, tuple(f"team-{number}" for number in range(50)))
    found = await asked.kinds.settled()
    server.listed.clear()
    await asked.kinds.changed(found)
    assert len(server.listed) <= len(OPTIONAL) + 2
    assert NODE.kind not in {kind for kind, _ in server.listed}
