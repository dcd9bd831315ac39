"""Which rights the operator asks about, what is said of those that lack, and that the chart grants each of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.support.fake_cluster import FakeCluster

from energylens.cluster.errors import ClusterError, ForbiddenError, TransientError
from energylens.cluster.resources import Resource
from energylens.controller.watching.rights import AGAIN_SECONDS, LOOK_SECONDS, RIGHTS, WHAT, Rights

CHART = Path(__file__).resolve().parents[4] / "charts" / "energylens" / "templates" / "_helpers.tpl"


class LookedOftenEnoughError(Exception):
    """Ends a watch that goes on for ever."""


@dataclass
class Server(FakeCluster):
    """A cluster that notes what was asked, and answers reviews with an error where there is one."""

    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    error: ClusterError | None = None

    async def may(self, verb: str, resource: Resource, subresource: str = "", *, namespace: str | None = None) -> bool:
        if self.error is not None:
            raise self.error
        self.asked.append((verb, resource.plural, namespace))
        return await super().may(verb, resource, subresource, namespace=namespace)


@dataclass
class Asked:
    server: Server
    namespaces: tuple[str, ...] = ()
    said: dict[str, str] = field(default_factory=dict)
    slept: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rights = Rights(self.server, self.namespaces, self._report, self._sleep)

    def _report(self, what: str, problem: str) -> None:
        self.said[what] = problem

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) == 2:
            raise LookedOftenEnoughError

    async def watch(self) -> None:
        with pytest.raises(LookedOftenEnoughError):
            await self.rights.watch()


async def test_nothing_is_said_where_all_is_granted() -> None:
    asked = Asked(Server())
    assert not await asked.rights.look()
    assert asked.said == {WHAT: ""}
    assert {namespace for _, _, namespace in asked.server.asked} == {None}


async def test_every_right_that_lacks_is_named() -> None:
    asked = Asked(Server(denied={("patch", "deployments"), ("patch", "llmdeployments/status"), ("create", "events")}))
    assert await asked.rights.look()
    assert asked.said[WHAT] == (
        "not granted: patch llmdeployments.energylens.dev/status, patch deployments.apps, create events.events.k8s.io"
    )


async def test_each_namespace_is_asked_about_and_named() -> None:
    asked = Asked(Server(denied={("patch", "services")}), ("a", "b"))
    assert await asked.rights.look()
    assert asked.said[WHAT] == "not granted: patch services in namespace a; patch services in namespace b"
    assert {place for _, plural, place in asked.server.asked if plural == "clusterenergybudgets"} == {None}
    assert {place for _, plural, place in asked.server.asked if plural == "services"} == {"a", "b"}


@pytest.mark.parametrize("plural", ["leaderworkersets", "clusterenergybudgets"])
async def test_a_kind_that_is_left_out_needs_no_rights(plural: str) -> None:
    denied = {("list", plural), ("patch", plural), ("delete", plural), ("patch", f"{plural}/status")}
    asked = Asked(Server(denied=denied))
    assert not await asked.rights.look()
    asked.server.denied = denied - {("list", plural)}
    assert await asked.rights.look()


async def test_what_lacks_is_asked_about_again_soon() -> None:
    asked = Asked(Server(denied={("patch", "deployments")}))
    await asked.watch()
    assert asked.slept == [AGAIN_SECONDS, AGAIN_SECONDS]
    asked = Asked(Server())
    await asked.watch()
    assert asked.slept == [LOOK_SECONDS, LOOK_SECONDS]


async def test_an_api_server_that_does_not_answer_changes_nothing() -> None:
    asked = Asked(Server(denied={("patch", "deployments")}))
    await asked.rights.look()
    before = dict(asked.said)
    asked.server.error = TransientError("timed out")
    await asked.watch()
    assert asked.said == before


async def test_who_may_not_ask_is_not_told_that_rights_lack() -> None:
    asked = Asked(Server(denied={("patch", "deployments")}))
    await asked.rights.look()
    asked.server.error = ForbiddenError("selfsubjectaccessreviews is forbidden")
    await asked.watch()
    assert asked.said == {WHAT: ""}


def granted() -> set[tuple[str, str, str]]:
    """Return group, resource and verb of every rule that the chart has for the operator."""
    text, rules = CHART.read_text(), list[dict[str, Any]]()
    for name in ("namespaceRules", "gpuRules", "podRules"):
        begin = re.escape(f'{{{{- define "energylens.{name}" -}}}}')
        found = re.search(begin + r"\n(.*?)\n{{(?: include .*?\n{{)?- end", text, re.DOTALL)
        assert found is not None, name
        rules += yaml.safe_load(found[1])
    return {
        (group, resource, verb)
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_chart_grants_what_is_asked_about_and_nothing_else_but_lists_and_watches() -> None:
    asked = {(r.resource.group, "/".join(filter(None, (r.resource.plural, r.subresource))), r.verb) for r in RIGHTS}
    assert asked - granted() == set()
    assert [right for right in granted() - asked if right[2] not in ("list", "watch")] == []
