"""Whatever goes wrong on the way, the end is the same, and nothing is written twice for nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.fake_pods import node
from tests.support.world import KEY, NAMESPACE, CrashError, Faults, World, llama, overrides, plain

from energylens.cluster.errors import (
    BusyError,
    ClusterError,
    ConflictError,
    ForbiddenError,
    RefusedError,
    TransientError,
)


@pytest.fixture
def world() -> World:
    return World()


async def clean(*specs: dict[str, Any]) -> World:
    """Return a world in which the specs were applied one after the other without any fault."""
    world = World()
    for spec in specs:
        world.cluster.put(spec)
        await world.settle()
    return world


async def test_a_deployment_becomes_ready_with_few_writes(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.condition("PlanReady")["status"] == "True"
    kinds = sorted(key[0] for key in world.cluster.children())
    assert kinds == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]
    # Four children and two statuses: planned, ready.
    assert len(world.cluster.writes) == 6
    assert [event["reason"] for event in world.cluster.events] == ["BecameReady"]


async def test_one_replica_has_no_disruption_budget_also_where_there_were_more(world: World) -> None:
    for replicas, writes in ((2, 6), (1, None), (2, None)):
        mark = world.mark
        world.cluster.put(llama(planning=overrides(replicas=replicas)))
        await world.settle()
        assert (("PodDisruptionBudget", *KEY) in world.cluster.objects) == (replicas == 2)
        assert writes is None or len(world.writes_since(mark)) == writes
    alone = await clean(llama(planning=overrides(replicas=1)))
    assert len(alone.cluster.writes) == 5


async def test_a_disruption_budget_of_somebody_else_stays(world: World) -> None:
    theirs = {"metadata": {"name": KEY[1], "namespace": KEY[0]}, "spec": {"minAvailable": 1}}
    world.cluster.put({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", **theirs})
    world.cluster.put(llama(planning=overrides(replicas=1)))
    await world.settle()
    assert world.condition("Ready")["status"] == "True"
    assert world.cluster.objects["PodDisruptionBudget", *KEY]["spec"] == theirs["spec"]


async def test_a_second_pass_writes_nothing(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    mark = world.mark
    for _ in range(3):
        world.clock.advance(400)
        await world.reconciler.reconcile(KEY)
    assert world.writes_since(mark) == []


async def test_a_restart_writes_nothing_and_says_nothing(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    mark, events = world.mark, len(world.cluster.events)
    world.clock.advance(86_400)
    world.start()
    await world.settle()
    assert world.writes_since(mark) == []
    assert len(world.cluster.events) == events


async def writes_of(*specs: dict[str, Any]) -> int:
    """Return how many writes, events included, the last of the specs takes."""
    world = await clean(*specs[:-1])
    counting = Faults(world.cluster)
    world.start(counting)
    world.cluster.put(specs[-1])
    await world.settle()
    return counting.count


CHANGES = {
    "create": (llama(),),
    "change": (llama(), llama(planning=overrides(maxBatchSize=32, replicas=3))),
    "larger pods": (llama(), llama(planning=overrides(tensorParallel=2))),
    "suspend": (llama(), llama(suspend=True)),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_a_crash_after_any_write_changes_nothing_of_the_end(name: str) -> None:
    specs = CHANGES[name]
    wanted = (await clean(*specs)).end_state()
    for number in range(1, await writes_of(*specs) + 1):
        world = await clean(*specs[:-1])
        world.start(Faults(world.cluster, crash_after=number))
        world.cluster.put(specs[-1])
        with pytest.raises(CrashError):
            await world.settle()
        world.start()
        await world.settle()
        assert world.end_state() == wanted, f"crashed after write {number}"
        mark = world.mark
        world.start()
        await world.settle()
        assert world.writes_since(mark) == []


PASSING = [
    ConflictError("the object has been modified"),
    BusyError("too many requests", 1.0),
    TransientError("the connection was reset"),
]


@pytest.mark.parametrize("error", PASSING, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("name", ["create", "change"])
async def test_an_error_that_passes_changes_nothing_of_the_end(name: str, error: ClusterError) -> None:
    specs = CHANGES[name]
    wanted = (await clean(*specs)).end_state()
    for number in range(1, await writes_of(*specs) + 1):
        world = await clean(*specs[:-1])
        world.start(Faults(world.cluster, errors={number: error}))
        world.cluster.put(specs[-1])
        await world.settle()
        assert world.end_state() == wanted, f"write {number} failed"


@pytest.mark.parametrize("name", ["create", "change"])
async def test_an_answer_that_is_lost_changes_nothing_of_the_end(name: str) -> None:
    specs = CHANGES[name]
    wanted = (await clean(*specs)).end_state()
    for number in range(1, await writes_of(*specs) + 1):
        world = await clean(*specs[:-1])
        world.start(Faults(world.cluster, lost_answers={number: TransientError("time-out")}))
        world.cluster.put(specs[-1])
        await world.settle()
        assert world.end_state() == wanted, f"the answer to write {number} was lost"


@pytest.mark.parametrize("error", [RefusedError("spec.replicas: Invalid"), ForbiddenError("exceeded quota")])
async def test_a_child_that_is_refused_is_a_condition_and_heals(world: World, error: ClusterError) -> None:
    world.start(Faults(world.cluster, errors={1: error}))
    world.cluster.put(llama())
    world.pods_run = False
    await world.reconciler.reconcile(KEY)
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "ApplyRefused")
    assert str(error) in degraded["message"]
    assert world.condition("Ready")["status"] == "False"
    world.pods_run = True
    await world.settle()
    assert world.condition("Degraded")["status"] == "False"
    assert world.end_state() == (await clean(llama())).end_state()


async def test_late_watch_events_lead_to_no_write_and_no_older_state(world: World) -> None:
    world.pods_run = False
    world.cluster.put(llama())
    world.delayed = []
    await world.reconciler.reconcile(KEY)
    first = world.mark
    # The store knows the answers to its own writes, although no watch event has come.
    await world.reconciler.reconcile(KEY)
    assert world.writes_since(first) == []
    world.deliver()
    await world.reconciler.reconcile(KEY)
    assert world.writes_since(first) == []


async def test_an_operator_that_sees_the_past_undoes_nothing_for_good(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    world.delayed = []
    world.cluster.put(llama(planning=overrides(replicas=3)))
    await world.reconciler.reconcile(KEY)
    world.deliver()
    await world.settle()
    assert world.end_state() == (await clean(llama(), llama(planning=overrides(replicas=3)))).end_state()


async def test_a_way_round_ends_where_the_straight_way_ends() -> None:
    first, second = llama(), llama(planning=overrides(replicas=3, maxBatchSize=16))
    third = llama(planning=overrides(replicas=1, maxBatchSize=128))
    round_about, straight = await clean(first, second, third), await clean(first, third)
    previous = [world.status().pop("previousRevision") for world in (round_about, straight)]
    assert [revision["replicas"] for revision in previous] == [3, 2]
    assert round_about.end_state() == straight.end_state()


async def test_there_and_back_ends_where_it_began() -> None:
    first, second = llama(), llama(planning=overrides(maxBatchSize=16))
    assert (await clean(first, second, first)).end_state() == (await clean(first)).end_state()


BAD = {
    "unknown model": (llama(model={"name": "meta-llama/Llama-9.9-70B"}), "ModelUnknown", "spec.model.name"),
    "model too large": (
        llama(
            model={"name": "meta-llama/Llama-3.1-405B-Instruct"},
            hardware={"nodeSelector": {"kubernetes.io/hostname": "h100-0"}},
            planning={},
        ),
        "ModelTooLarge",
        "405B",
    ),
    "impossible SLO": (llama(slo={"itlMilliseconds": 1}), "SLOInfeasible", "spec.slo.itlMilliseconds"),
    "no such GPUs": (llama(hardware={"gpuProducts": ["NVIDIA-B200"]}), "NoMatchingGPUs", "NVIDIA-B200"),
    "too many GPUs": (llama(planning=overrides(replicas=40)), "InsufficientGPUs", "replicas"),
    "plan flag in extraArgs": (
        llama(engine={"extraArgs": ["--tensor-parallel-size=8"]}),
        "InvalidEngineSettings",
        "spec.engine.extraArgs",
    ),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_spec_is_a_condition_and_touches_nothing_that_runs(name: str) -> None:
    bad, reason, word = BAD[name]
    world = await clean(llama())
    before, pods = world.cluster.children(), pods_of(world)
    status = world.status()
    world.cluster.put(bad)
    await world.settle()
    plan_ready = world.condition("PlanReady")
    assert (plan_ready["status"], plan_ready["reason"]) == ("False", reason), plan_ready
    assert word in plan_ready["message"]
    assert world.cluster.children() == before
    assert pods_of(world) == pods
    assert world.condition("Ready")["status"] == "True"
    assert world.status()["plan"] == status["plan"]
    world.cluster.put(llama())
    await world.settle()
    assert world.end_state() == (await clean(llama())).end_state()
    assert world.cluster.children() == before


async def test_under_a_bad_spec_a_foreign_edit_is_still_put_right_and_a_suspension_still_obeyed() -> None:
    world = await clean(llama())
    world.cluster.put(llama(slo={"itlMilliseconds": 1}))
    await world.settle()
    before = {key: plain(body) for key, body in world.cluster.children().items()}
    world.cluster.edit("Deployment", *KEY, edit_arguments)
    await world.settle()
    assert {key: plain(body) for key, body in world.cluster.children().items()} == before
    world.cluster.put(llama(slo={"itlMilliseconds": 1}, suspend=True))
    await world.settle()
    assert pods_of(world) == {}


async def test_a_bad_edit_takes_no_good_edit_with_it() -> None:
    world = await clean(llama())
    before, pods = world.cluster.children(), pods_of(world)
    world.cluster.put(llama(slo={"itlMilliseconds": 1}, engine={"extraArgs": ["--enforce-eager"]}))
    await world.settle()
    assert world.condition("PlanReady")["reason"] == "SLOInfeasible"
    assert (world.cluster.children(), pods_of(world)) == (before, pods)


async def test_a_rollout_that_is_tried_again_is_still_measured_against_what_runs() -> None:
    """The limits that keep a rollout from hanging depend on the plan of the live pods, whatever was tried since."""
    first, second = llama(planning=overrides(replicas=1)), llama(planning=overrides(replicas=3, maxBatchSize=16))
    world = await clean(first)
    wanted = (await clean(first, second)).cluster.objects["Deployment", *KEY]["spec"]["strategy"]
    world.start(Faults(world.cluster, errors={1: TransientError("the connection was reset")}))
    world.cluster.put(second)
    await world.settle()
    assert world.cluster.objects["Deployment", *KEY]["spec"]["strategy"] == wanted


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_spec_from_the_start_makes_no_child(name: str) -> None:
    bad, reason, _ = BAD[name]
    world = await clean(bad)
    assert world.cluster.children() == {}
    assert world.condition("PlanReady")["reason"] == reason
    assert world.condition("Ready")["reason"] == "NotStarted"
    assert "plan" not in world.status()


async def test_a_spec_that_cannot_be_read_is_a_condition_and_touches_nothing(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    before = world.cluster.children()

    def break_it(body: dict[str, Any]) -> None:
        body["spec"]["workload"] = {"inputTokens": "many"}

    world.cluster.edit("LLMDeployment", *KEY, break_it)
    await world.settle()
    plan_ready = world.condition("PlanReady")
    assert (plan_ready["status"], plan_ready["reason"]) == ("False", "InvalidSpec")
    assert "spec.workload" in plan_ready["message"]
    assert world.cluster.children() == before


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget", "ConfigMap"])
async def test_a_child_that_somebody_deleted_comes_back(world: World, kind: str) -> None:
    world.cluster.put(llama())
    await world.settle()
    before = world.end_state()
    (key,) = [key for key in world.cluster.children() if key[0] == kind]
    world.cluster.remove(*key)
    await world.settle()
    assert world.end_state() == before


def edit_replicas(body: dict[str, Any]) -> None:
    body["spec"]["replicas"] = 7


def edit_arguments(body: dict[str, Any]) -> None:
    body["spec"]["template"]["spec"]["containers"][0]["args"][-1] = "--enforce-eager"


def drop_probe(body: dict[str, Any]) -> None:
    del body["spec"]["template"]["spec"]["containers"][0]["startupProbe"]


@pytest.mark.parametrize("edit", [edit_replicas, edit_arguments, drop_probe], ids=lambda e: e.__name__)
async def test_a_foreign_edit_of_what_we_set_is_put_right(world: World, edit: Any) -> None:
    world.cluster.put(llama())
    await world.settle()
    before = {key: plain(body) for key, body in world.cluster.children().items()}
    world.cluster.edit("Deployment", *KEY, edit)
    await world.settle()
    assert {key: plain(body) for key, body in world.cluster.children().items()} == before


async def test_what_others_add_is_left_alone(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()

    def add(body: dict[str, Any]) -> None:
        body["metadata"].setdefault("annotations", {})["team.example/owner"] = "someone"
        body["spec"]["template"]["spec"]["containers"].append({"name": "sidecar", "image": "example.org/mesh"})

    world.cluster.edit("Deployment", *KEY, add)
    world.pods_run = False
    mark = world.mark
    await world.reconciler.reconcile(KEY)
    assert [write for write in world.writes_since(mark) if write.verb == "apply"] == []


async def test_deleting_the_deployment_leaves_nothing_and_writes_nothing(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    mark = world.mark
    world.cluster.remove("LLMDeployment", *KEY)
    assert await world.reconciler.reconcile(KEY) is None
    assert world.writes_since(mark) == []
    assert {key[0] for key in world.cluster.objects} == {"Node"}


async def test_a_deployment_that_is_being_deleted_gets_no_child_back(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    world.cluster.edit(
        "LLMDeployment", *KEY, lambda body: body["metadata"].update(deletionTimestamp="2026-03-01T00:00:00Z")
    )
    world.cluster.remove("Service", *KEY)
    mark = world.mark
    await world.reconciler.reconcile(KEY)
    assert world.writes_since(mark) == []


async def test_children_are_never_doubled(world: World) -> None:
    for spec in (llama(), llama(planning=overrides(maxBatchSize=16)), llama(planning=overrides(tensorParallel=2))):
        world.cluster.put(spec)
        await world.settle()
        kinds = sorted(key[0] for key in world.cluster.children())
        assert kinds == ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service"]


async def test_two_deployments_never_both_get_the_last_gpus() -> None:
    world = World()
    world.pods_run = False
    world.cluster.remove("Node", "", "h100-1")
    one, two = (NAMESPACE, "one"), (NAMESPACE, "two")
    for name in ("one", "two"):
        world.cluster.put(llama(name, planning=overrides(tensorParallel=8, replicas=1)))
    await world.settle(one, two)
    assert world.condition("PlanReady", one)["status"] == "True"
    refused = world.condition("PlanReady", two)
    assert (refused["status"], refused["reason"]) == ("False", "InsufficientGPUs")
    assert [key for key in world.cluster.children() if key[0] == "Deployment"] == [("Deployment", NAMESPACE, "one")]
    # A restart before any pod is bound must not forget what was promised.
    world.start()
    await world.settle(two, one)
    assert world.condition("PlanReady", two)["status"] == "False"
    # Room comes: the second one gets it.
    world.cluster.put(node("h100-9"))
    await world.settle(one, two)
    assert world.condition("PlanReady", two)["status"] == "True"


async def test_a_power_budget_is_never_overcommitted() -> None:
    alone = await clean(llama())
    watts = alone.status()["plan"]["predicted"]["powerWatts"]
    world = World()
    world.cluster.put(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "team", "namespace": NAMESPACE},
            "spec": {"powerWatts": int(watts * 1.5), "action": "Deny"},
        }
    )
    one, two = (NAMESPACE, "one"), (NAMESPACE, "two")
    for name in ("one", "two"):
        world.cluster.put(llama(name))
    await world.settle(one, two)
    assert world.condition("PlanReady", one)["status"] == "True"
    refused = world.condition("PlanReady", two)
    assert (refused["status"], refused["reason"]) == ("False", "BudgetExceeded")
    assert "EnergyBudget team/team" in refused["message"]
    assert world.condition("WithinEnergyBudget", one)["status"] == "True"


async def test_a_budget_that_shrinks_never_stops_what_runs(world: World) -> None:
    world.cluster.put(llama())
    await world.settle()
    before = world.cluster.children()
    world.cluster.put(
        {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "EnergyBudget",
            "metadata": {"name": "team", "namespace": NAMESPACE},
            "spec": {"powerWatts": 1, "action": "Deny"},
        }
    )
    await world.settle()
    assert world.condition("WithinEnergyBudget")["status"] == "False"
    assert world.cluster.children() == before


def pods_of(world: World) -> dict[str, str]:
    return {name: body["metadata"]["uid"] for (kind, _, name), body in world.cluster.objects.items() if kind == "Pod"}
