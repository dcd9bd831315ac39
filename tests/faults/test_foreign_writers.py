"""Somebody else changes what the operator wrote: once is put right at once, in a loop ever more slowly."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.fake_pods import run_pods
from tests.support.world import KEY, World, llama, overrides

from energylens.cluster.errors import ClusterError, ForbiddenError, RefusedError, TransientError

Object = dict[str, Any]
MANAGED = {
    "manager": "replicas-bot",
    "operation": "Update",
    "time": "2026-03-01T00:00:00Z",
    "fieldsType": "FieldsV1",
    "fieldsV1": {"f:spec": {"f:replicas": {}}},
}
OTHER = {**MANAGED, "manager": "labeller", "fieldsV1": {"f:metadata": {"f:labels": {"f:team": {}}}}}


async def ready() -> World:
    world = World()
    world.cluster.put(llama())
    await world.settle()
    return world


def set_replicas(body: Object) -> None:
    body["spec"]["replicas"] = 1
    body["metadata"]["managedFields"] = [OTHER, MANAGED]


def drop_selector(body: Object) -> None:
    body["spec"]["selector"] = {"app": "mine"}
    body["metadata"]["managedFields"] = [MANAGED]


async def fight(world: World, kind: str, edit: Callable[[Object], None], seconds: int) -> list[float]:
    """Edit a child every second; return when the operator wrote the child."""
    times, start = [], world.clock.monotonic()
    for _ in range(seconds):
        world.cluster.edit(kind, *KEY, edit)
        mark = world.mark
        await world.reconciler.reconcile(KEY)
        if any(write.key[0] == kind for write in world.writes_since(mark)):
            times.append(world.clock.monotonic() - start)
        world.clock.advance(1.0)
    return times


@pytest.mark.parametrize(("kind", "edit"), [("Deployment", set_replicas), ("Service", drop_selector)])
async def test_a_single_edit_is_put_right_at_once(kind: str, edit: Callable[[Object], None]) -> None:
    world = await ready()
    for _ in range(2):
        world.cluster.edit(kind, *KEY, edit)
        await world.reconciler.reconcile(KEY)
        assert world.condition("Degraded")["status"] == "False"
        assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2
        world.clock.advance(3600)


@pytest.mark.parametrize(("kind", "edit"), [("Deployment", set_replicas), ("Service", drop_selector)])
async def test_a_writer_in_a_loop_is_answered_by_a_handful_of_writes(kind: str, edit: Callable[[Object], None]) -> None:
    world = await ready()
    mark, events = world.mark, len(world.cluster.events)
    times = await fight(world, kind, edit, 60)
    assert times == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0]
    statuses = [write for write in world.writes_since(mark) if write.key[0] == "LLMDeployment"]
    assert len(statuses) <= 2 * len(times)
    reasons = [event["reason"] for event in world.cluster.events[events:]]
    assert reasons.count("FieldManagerConflict") == 1
    assert len(reasons) <= 2
    later = await fight(world, kind, edit, 1200)
    assert [round(b - a) for a, b in itertools.pairwise(later)][-2:] == [300, 300]


async def test_the_other_writer_and_the_field_are_named_for_as_long_as_they_fight() -> None:
    world = await ready()
    await fight(world, "Deployment", set_replicas, 10)
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "FieldManagerConflict")
    assert degraded["message"].startswith(
        "Deployment llama: field manager replicas-bot repeatedly changes spec.replicas; "
    )
    # The other one stops.
    stopped = world.clock.monotonic()
    again = await world.reconciler.reconcile(KEY)
    while world.condition("Degraded")["status"] == "True":
        assert again is not None
        world.clock.advance(again)
        again = await world.reconciler.reconcile(KEY)
    assert 60 <= world.clock.monotonic() - stopped <= 120
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2


def set_image(body: Object) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["image"] = "mine:1"
    body["metadata"]["managedFields"] = [MANAGED]


@pytest.mark.parametrize(
    ("kind", "edit"), [("Deployment", set_replicas), ("Deployment", set_image), ("Service", drop_selector)]
)
async def test_ready_is_never_true_for_a_moment_while_somebody_fights_over_what_serves(
    kind: str, edit: Callable[[Object], None]
) -> None:
    world, found = await ready(), list[Object]()
    for second in range(400):
        if second % 2 == 0:
            world.cluster.edit(kind, *KEY, edit)
        await world.reconciler.reconcile(KEY)
        run_pods(world.cluster)
        await world.reconciler.reconcile(KEY)
        found.append(world.condition("Ready"))
        world.clock.advance(1.0)
    # The first repairs follow at once, and nobody knows yet that it goes on.
    assert {condition["status"] for condition in found[5:]} == {"False"}
    assert world.condition("Ready")["reason"] in ("FieldManagerConflict", "PodsNotReady")
    assert len([e for e in world.cluster.events if e["reason"] == "FieldManagerConflict"]) == 1
    # The other one stops: what was written last stays for a minute, and is counted on again.
    stopped = world.clock.monotonic()
    again: float | None = 0.0
    while world.condition("Ready")["status"] != "True":
        assert again is not None
        world.clock.advance(again)
        again = await world.reconciler.reconcile(KEY)
        run_pods(world.cluster)
    assert 60 <= world.clock.monotonic() - stopped <= 300 + 60
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2


async def test_the_operator_does_not_fight_itself() -> None:
    world = await ready()
    for replicas in (3, 2, 3, 2, 3, 2):
        world.cluster.put(llama(planning=overrides(replicas=replicas)))
        await world.settle()
        assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == replicas
    assert world.condition("Degraded")["status"] == "False"


class Policy:
    """Refuses writes of some kinds while it is there."""

    def __init__(self, world: World, kinds: tuple[str, ...], error: ClusterError) -> None:
        self.inner, self.kinds, self.error, self.tries = world.cluster, kinds, error, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    async def apply(self, manifest: Any) -> Object:
        if manifest["kind"] in self.kinds:
            self.tries += 1
            raise self.error
        return await self.inner.apply(manifest)


REFUSALS = [
    (ForbiddenError("exceeded quota"), "ApplyRefused"),
    (RefusedError('admission webhook "policy" denied the request'), "ApplyRefused"),
    (TransientError('500 failed calling webhook "policy": context deadline exceeded'), "APIServerError"),
]


@pytest.mark.parametrize(("error", "reason"), REFUSALS, ids=lambda value: str(value)[:12])
@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "ConfigMap"])
async def test_a_policy_is_shown_after_the_first_refusal_and_its_end_is_noticed_within_a_minute(
    kind: str, error: ClusterError, reason: str
) -> None:
    world = World()
    policy = Policy(world, (kind,), error)
    world.start(policy)
    world.cluster.put(llama())
    again = await world.reconciler.reconcile(KEY)
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", reason)
    assert degraded["message"] == f"{kind} llama{'-plan' * (kind == 'ConfigMap')}: {error}; retrying"
    assert world.status()["plan"]["replicas"] == 2
    # Other news make no more tries.
    for _ in range(5):
        await world.reconciler.reconcile(KEY)
    assert policy.tries == 1
    pauses = []
    for _ in range(10):
        assert again is not None
        pauses.append(again)
        world.clock.advance(again)
        again = await world.reconciler.reconcile(KEY)
    assert policy.tries == 11
    assert max(pauses) <= 60.0
    assert pauses[0] <= 2.0
    policy.kinds = ()
    assert again is not None
    assert again <= 60.0
    world.clock.advance(again)
    await world.settle()
    assert world.condition("Degraded")["status"] == "False"
    assert world.condition("Ready")["status"] == "True"
    # The first plan has none of its own where its workload came up in the first pass.
    adopted = [event["reason"] for event in world.cluster.events].count("PlanAdopted")
    assert adopted == (1 if kind == "Deployment" else 0)


async def test_what_changes_is_tried_at_once_whatever_was_refused_before() -> None:
    world = World()
    policy = Policy(world, ("Deployment",), ForbiddenError("exceeded quota"))
    world.start(policy)
    world.cluster.put(llama())
    for _ in range(6):
        again = await world.reconciler.reconcile(KEY)
        world.clock.advance(again or 0.0)
    tries = policy.tries
    world.cluster.put(llama(planning=overrides(replicas=1)))
    await world.reconciler.reconcile(KEY)
    assert policy.tries == tries + 1
