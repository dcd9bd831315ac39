"""In mode Manual a person approves what a plan does; what it was made from may change meanwhile."""

from __future__ import annotations

from typing import Any

from tests.support.fake_pods import node
from tests.support.world import KEY, World, llama, overrides

MANUAL = {**overrides(), "mode": "Manual"}


def pending(world: World) -> str:
    found: str = world.status()["plan"]["hash"]
    return found


def reasons(world: World) -> list[str]:
    return [event["reason"] for event in world.cluster.events]


def approved(found: str, **planning: Any) -> dict[str, Any]:
    return llama(planning={**MANUAL, **planning, "approvedPlanHash": found})


async def test_an_approval_holds_when_a_node_is_added_before_it_is_acted_on() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    found = pending(world)
    world.cluster.put(node("h100-9"))
    await world.settle()
    world.start()
    await world.settle()
    assert pending(world) == found
    world.cluster.put(approved(found))
    await world.settle()
    assert world.condition("Ready")["status"] == "True"


async def test_an_approval_holds_when_a_node_is_added_after_it_is_acted_on() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    world.cluster.put(approved(pending(world)))
    await world.settle()
    before = world.cluster.children()
    world.cluster.put(node("h100-9"))
    await world.settle()
    assert world.condition("PlanReady")["status"] == "True"
    assert world.cluster.children() == before


async def test_the_pods_of_an_approved_plan_and_its_table_are_made_in_one_pass() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    assert world.cluster.children() == {}
    world.cluster.put(approved(pending(world)))
    await world.reconciler.reconcile(KEY)
    # An edit before the next pass must find which plan the pods run.
    assert {kind for kind, *_ in world.cluster.children()} >= {"Deployment", "ConfigMap"}


async def test_nothing_is_adopted_before_it_is_approved() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    assert reasons(world) == ["PlanPending"]
    assert "planAdoptionTime" not in world.status()
    world.clock.advance(7200)
    world.start()
    world.cluster.put(approved(pending(world)))
    await world.settle()
    assert reasons(world) == ["PlanPending", "PlanAdopted", "BecameReady"]
    assert f"plan {pending(world)} is approved" in world.cluster.events[1]["note"]
    assert world.status()["planAdoptionTime"] == "2026-03-01T02:00:00Z"


async def test_an_approval_that_comes_when_another_plan_is_pending_approves_nothing_and_says_so() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    old = pending(world)
    # The person approves what was shown; the same edit brings another plan.
    world.cluster.put(approved(old, **overrides(maxBatchSize=32)))
    await world.settle()
    assert pending(world) != old
    assert not world.cluster.children()
    message = world.condition("PlanReady")["message"]
    assert f"approvedPlanHash={old} is not the pending plan's hash" in message
    assert pending(world) in message
    world.cluster.put(approved(pending(world), **overrides(maxBatchSize=32)))
    await world.settle()
    assert world.condition("Ready")["status"] == "True"


async def test_another_image_or_argument_needs_another_approval_and_touches_no_pod() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    found = pending(world)
    world.cluster.put(approved(found))
    await world.settle()
    before = world.cluster.children()
    for engine in ({"image": "example.org/vllm:2"}, {"extraArgs": ["--enforce-eager"]}):
        world.cluster.put({**approved(found), "spec": {**approved(found)["spec"], "engine": engine}})
        await world.settle()
        assert world.condition("PlanReady")["reason"] == "AwaitingApproval"
        assert pending(world) != found
        assert world.cluster.children() == before
    world.cluster.put(approved(found))
    await world.settle()
    assert world.condition("PlanReady")["reason"] == "Planned"
    assert world.cluster.children() == before


async def test_what_runs_is_shown_while_another_plan_is_pending() -> None:
    world = World()
    world.cluster.put(llama(planning=MANUAL))
    await world.settle()
    found = pending(world)
    world.cluster.put(approved(found))
    await world.settle()
    world.cluster.put(approved(found, **overrides(replicas=3)))
    await world.settle()
    status = world.status()
    assert status["plan"]["gpus"] == 3
    active = status["activeRevision"]
    assert (active["planHash"], active["gpus"], active["replicas"], active["layout"]) == (found, 2, 2, "TP1")
    assert world.condition("Ready")["status"] == "True"
    assert reasons(world)[-1] == "PlanPending"
    world.start()
    await world.settle(KEY)
    assert world.status() == status


async def test_a_plan_that_is_only_shown_is_never_adopted() -> None:
    world = World()
    world.cluster.put(llama(planning={**overrides(), "mode": "Advisory"}))
    await world.settle()
    assert reasons(world) == ["PlanShown"]
    world.cluster.put(llama(planning=overrides()))
    await world.settle()
    assert reasons(world) == ["PlanShown", "PlanAdopted", "BecameReady"]
