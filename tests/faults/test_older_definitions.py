"""An operator that is newer than its CustomResourceDefinitions writes what they know of a status, and says so."""

from __future__ import annotations

import logging

import pytest
from tests.support.fake_cluster import FakeCluster
from tests.support.metrics_page import scrape
from tests.support.world import KEY, NAMESPACE, World, llama

from energylens.cluster.errors import RefusedError
from energylens.cluster.undeclared import ELEMENT
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.state.schema_gaps import AGAIN_SECONDS

PLAN = ("status", "plan", "kvCacheTokens")
OLD = frozenset({PLAN, ("status", "conditions", ELEMENT, "observedGeneration"), ("status", "activeRevision")})


def older(**kinds: frozenset[tuple[str, ...]]) -> World:
    return World(FakeCluster(undeclared=kinds))


async def undeclared(metrics: Metrics, kind: str = "LLMDeployment") -> float | None:
    return (await scrape(metrics)).value("energylens_undeclared_status_fields", kind=kind)


async def test_a_status_has_what_the_older_definition_declares(caplog: pytest.LogCaptureFixture) -> None:
    world = older(LLMDeployment=OLD)
    metrics = Metrics(world.store)
    assert await undeclared(metrics) == 0
    world.cluster.put(llama())
    with caplog.at_level(logging.WARNING, "energylens"):
        await world.settle()
    status = world.status()
    assert world.condition("Ready")["status"] == "True"
    assert "kvCacheTokens" not in status["plan"]
    assert "activeRevision" not in status
    assert not any("observedGeneration" in condition for condition in status["conditions"])
    assert await undeclared(metrics) == len(OLD)
    said = [record.message for record in caplog.records if "older than this operator" in record.message]
    assert "status.plan.kvCacheTokens" in said[-1]
    assert "status.conditions[].observedGeneration" in said[-1]
    # The plan is told once, not at each of the passes that follow.
    assert len(said) <= 2


async def test_what_is_left_out_costs_no_writes_and_is_no_edit_of_somebody_else() -> None:
    world = older(LLMDeployment=OLD)
    world.cluster.put(llama())
    await world.settle()
    mark = world.mark
    for _ in range(3):
        await world.settle()
    assert world.mark == mark
    assert not world.store.edited
    # What the API server cannot keep is remembered while the operator lives.
    assert world.store.deployments[KEY]["status"]["plan"]["kvCacheTokens"]


async def test_a_definition_that_is_replaced_later_gets_the_whole_status(caplog: pytest.LogCaptureFixture) -> None:
    world = older(LLMDeployment=OLD)
    metrics = Metrics(world.store)
    world.cluster.put(llama())
    await world.settle()
    world.cluster.undeclared = {"LLMDeployment": frozenset({PLAN})}
    world.clock.advance(AGAIN_SECONDS + 1)
    world.cluster.put(llama(energy={"priority": 1}))
    await world.settle()
    assert await undeclared(metrics) == 1
    world.cluster.undeclared = {}
    world.clock.advance(AGAIN_SECONDS + 1)
    world.cluster.put(llama(energy={"priority": 2}))
    with caplog.at_level(logging.INFO, "energylens"):
        await world.settle()
    assert await undeclared(metrics) == 0
    assert any("declares every field of the status again" in record.message for record in caplog.records)
    assert world.status()["plan"]["kvCacheTokens"]


async def test_a_status_without_the_fields_says_nothing_of_the_definition() -> None:
    world = older(LLMDeployment=frozenset({PLAN}))
    metrics = Metrics(world.store)
    world.cluster.put(llama())
    await world.settle()
    world.clock.advance(AGAIN_SECONDS + 1)
    # Without a plan there is nothing in the status that the definition lacks.
    world.cluster.put(llama("other", model={"name": "nobody/knows"}))
    await world.settle((NAMESPACE, "other"))
    assert await undeclared(metrics) == 1


async def test_budgets_are_written_as_far_as_they_are_declared() -> None:
    world = older(
        EnergyBudget=frozenset({("status", "members", ELEMENT, "measuredPowerWatts"), ("status", "timeZone")})
    )
    world.cluster.put(llama())
    await world.settle()
    world.meter = {KEY: 500.0}
    world.cluster.put(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "cap", "namespace": NAMESPACE},
            "spec": {"powerWatts": 9000},
        }
    )
    await world.look(seconds=120)
    await world.look(seconds=120)
    status = world.cluster.objects["EnergyBudget", NAMESPACE, "cap"]["status"]
    assert status["conditions"]
    assert status["members"]
    assert not world.store.edited_budgets


async def test_another_refusal_is_no_older_definition() -> None:
    world = World()
    world.cluster.put(llama())
    metrics = Metrics(world.store)
    body = world.store.deployments[KEY]

    async def refuse(manifest: object) -> None:
        raise RefusedError("PATCH x: 422 status.plan.gpus: Required value")

    world.cluster.apply_status = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(RefusedError, match="Required value"):
        await world.reconciler.reconcile(KEY)
    assert await undeclared(metrics) == 0
    assert world.store.deployments[KEY] is body
