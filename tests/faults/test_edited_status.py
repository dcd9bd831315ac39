"""A status that somebody edits changes nothing: what runs stays, and the operator restores the status."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.world import KEY, World, llama, overrides, plain

from energylens.api.llmdeployment import EnergyAccount, PlanStatus
from energylens.decide.deployment.reports.status_check import sane_account
from energylens.planner.search.identity import action_hash

Object = dict[str, Any]
LLMD = ("LLMDeployment", *KEY)


async def ready(**spec: Any) -> World:
    world = World()
    world.cluster.put(llama(**spec))
    await world.settle()
    return world


def consistent(body: Object) -> None:
    """Three replicas, with the figures and the hash that such a plan has."""
    plan = body["status"]["plan"]
    plan |= {"replicas": 3, "gpus": 3}
    plan["hash"] = action_hash(PlanStatus.model_validate(plan))


EDITS: dict[str, Any] = {
    "replicas": lambda body: body["status"]["plan"].update(replicas=3),
    "a whole plan of three replicas": consistent,
    "GPU product": lambda body: body["status"]["plan"].update(gpuProduct="no-such-gpu"),
    "hash": lambda body: body["status"]["plan"].update(hash="f" * 16),
    "layout": lambda body: body["status"]["plan"].update(tensorParallel=8),
    "negative": lambda body: body["status"]["plan"].update(replicas=-1),
    "huge": lambda body: body["status"]["plan"].update(maxBatchSize=10**30),
    "power": lambda body: body["status"]["plan"]["predicted"].update(powerWatts=-5),
    "a budget that took replicas": lambda body: body["status"]["plan"].update(shedBy="x", shedFromReplicas=9),
    "no plan": lambda body: body["status"].pop("plan"),
    "no status": lambda body: body.update(status={}),
    "no time": lambda body: body["status"].update(planAdoptionTime="yesterday"),
    "a time to come": lambda body: body["status"].update(planAdoptionTime="2126-03-01T00:00:00Z"),
    "a foreign condition": lambda body: body["status"]["conditions"].append(
        {"type": "Synced", "status": "True", "reason": "ArgoCD", "message": ""}
    ),
    "no conditions": lambda body: body["status"].pop("conditions"),
    "a condition": lambda body: body["status"]["conditions"][0].update(status="False", reason="Nonsense"),
    "load": lambda body: body["status"].update(
        load={"requestsPerSecond": "0", "declaredRequestsPerSecond": "2", "changeTime": "never"}
    ),
    "a long text": lambda body: body["status"]["plan"].update(bindingConstraint="x" * 100_000),
    "another type": lambda body: body["status"].update(plan=["nonsense"], activeRevision="nothing"),
    "a plan before": lambda body: body["status"].update(
        previousRevision={
            "planHash": "f" * 16,
            "replacedBy": body["status"]["plan"]["hash"],
            "replacedTime": "2126-03-01T00:00:00Z",
        }
    ),
    "a plan before another plan": lambda body: body["status"].update(
        previousRevision={"planHash": "f" * 16, "replacedBy": "e" * 16, "replacedTime": "2026-03-01T00:00:00Z"}
    ),
    "energy": lambda body: body["status"]["activeRevision"].update(measuredJoulesPerOutputToken="-1"),
    "generation": lambda body: body["status"].update(observedGeneration=10**9),
}


def without_others(state: Any) -> Any:
    """Leave out conditions that other controllers may add."""
    state = copy.deepcopy(state)
    conditions = state[LLMD]["status"]["conditions"]
    conditions[:] = [c for c in conditions if c["type"] != "Synced"]
    return state


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", EDITS)
async def test_an_edit_of_the_status_is_undone_and_moves_no_pod(name: str, restart: bool) -> None:
    world = await ready()
    before, pods = world.end_state(), {k: b for k, b in world.cluster.objects.items() if k[0] == "Pod"}
    generation = world.cluster.objects["Deployment", *KEY]["metadata"]["generation"]
    world.cluster.edit(*LLMD, EDITS[name])
    if restart:
        world.clock.advance(3600)
        world.start()
    await world.settle()
    assert without_others(world.end_state()) == before
    assert {k: b for k, b in world.cluster.objects.items() if k[0] == "Pod"} == pods
    assert world.cluster.objects["Deployment", *KEY]["metadata"]["generation"] == generation
    mark = world.mark
    await world.reconciler.reconcile(KEY)
    assert world.writes_since(mark) == []


async def test_an_edit_is_told_once_with_who_and_what() -> None:
    world = await ready()
    events = len(world.cluster.events)

    def edit(body: Object) -> None:
        body["status"]["plan"]["replicas"] = 3
        body["metadata"]["managedFields"] = [
            {"manager": "kubectl-edit", "subresource": "status", "fieldsV1": {"f:status": {"f:plan": {}}}}
        ]

    world.cluster.edit(*LLMD, edit)
    await world.settle()
    (told,) = world.cluster.events[events:]
    assert (told["reason"], told["type"]) == ("StatusRestored", "Warning")
    assert "by field manager kubectl-edit" in told["note"]
    assert "status.plan.replicas" in told["note"]


async def test_a_program_that_edits_the_status_in_a_loop_is_answered_ever_more_slowly() -> None:
    world = await ready()
    mark, events = world.mark, len(world.cluster.events)
    for _ in range(60):
        world.cluster.edit(*LLMD, EDITS["replicas"])
        await world.reconciler.reconcile(KEY)
        world.clock.advance(1.0)
    assert len(world.writes_since(mark)) <= 8
    assert [event["reason"] for event in world.cluster.events[events:]] == ["StatusRestored", "FieldManagerConflict"]
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2


async def test_a_pending_plan_that_was_edited_while_nobody_looked_is_planned_anew() -> None:
    manual = {**overrides(), "mode": "Manual"}
    world = await ready(planning=manual)
    found = world.status()["plan"]["hash"]
    world.cluster.edit(*LLMD, consistent)
    world.start()
    world.cluster.put(llama(planning={**manual, "approvedPlanHash": found}))
    await world.settle()
    assert world.cluster.objects["Deployment", *KEY]["spec"]["replicas"] == 2
    assert world.status()["plan"]["hash"] == found


ACCOUNT_EDITS: dict[str, Any] = {
    "no account": lambda status: status.pop("energyAccount"),
    "nothing measured": lambda status: status["energyAccount"].update(measuredJoules=0),
    "negative": lambda status: status["energyAccount"].update(measuredJoules=-(10**9)),
    "no number": lambda status: status["energyAccount"].update(measuredJoules="NaN"),
    "up to a time to come": lambda status: status["energyAccount"].update(accountedUntil="2126-03-01T00:00:00Z"),
    "a period to come": lambda status: status["energyAccount"].update(periodStart="2126-03-01T00:00:00Z"),
}


@pytest.mark.parametrize("name", ACCOUNT_EDITS)
def test_an_edited_account_of_energy_has_no_less_than_was_measured(name: str) -> None:
    now = datetime(2026, 3, 1, 6, tzinfo=UTC)
    status: Object = {
        "measured": {"energyWattHoursThisPeriod": 1000},
        "energyAccount": {
            "periodStart": "2026-03-01T00:00:00Z",
            "resetTime": "2026-03-02T00:00:00Z",
            "measuredJoules": 3_600_000,
            "predictedJoules": 7200,
            "predictedWatts": 500,
            "accountedUntil": "2026-03-01T06:00:00Z",
        },
    }
    assert sane_account(status, now) == status["energyAccount"]
    ACCOUNT_EDITS[name](status)
    found = sane_account(status, now)
    assert found is not None
    assert found["measuredJoules"] >= 999 * 3600
    assert EnergyAccount.model_validate(found).accounted_until <= "2026-03-01T06:00:00Z"


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


def paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        found += [deeper for name, inner in value.items() for deeper in paths(inner, (*path, name))]
    elif isinstance(value, list):
        found += [deeper for index, inner in enumerate(value) for deeper in paths(inner, (*path, index))]
    return found


MEASURED = ("EnergyMetricsAvailable", "PredictionAccurate", "SLOMet")
Change = tuple[tuple[Any, ...], Any]
"""A path in a status, and what is put there."""


def mutate(body: Object, changes: Sequence[Change]) -> None:
    for path, value in changes:
        parent: Any = body["status"]
        for step in path[:-1]:
            try:
                parent = parent[step]
            except (KeyError, IndexError, TypeError):
                break
        else:
            last = path[-1]
            # An earlier change may have put another kind of value where the path led.
            within = isinstance(parent, list) and isinstance(last, int) and last < len(parent)
            if within or (isinstance(parent, dict) and isinstance(last, str)):
                parent[last] = value


async def ends_as_without(world: World, changes: Sequence[Change], restart: bool) -> None:
    """Mutate the status of a world that is ready, and check that it ends where it was."""
    before = plain(world.end_state())
    world.cluster.edit(*LLMD, lambda body: mutate(body, changes))
    if restart:
        world.start()
    await world.settle()
    after = plain(world.end_state())
    conditions = after[LLMD]["status"]["conditions"]
    own = {c["type"] for c in before[LLMD]["status"]["conditions"]}
    conditions[:] = [c for c in conditions if c.get("type") in own]
    if restart:
        # The text of a verdict on a measurement has no other memory than the condition itself.
        for condition in (*conditions, *before[LLMD]["status"]["conditions"]):
            if condition["type"] in MEASURED:
                condition["message"] = ""
    assert after == before


FOUND: dict[str, list[Change]] = {
    "power with fewer replicas": [(("plan", "fewerReplicas", 0, "powerWatts"), 0)],
    "a verdict on nothing measured": [(("conditions", 7, "status"), "False")],
    "an objective met without a window": [(("conditions", 4, "status"), "True")],
    "a reason of no condition": [(("conditions", 6, "reason"), "Nonsense"), (("conditions", 6, "status"), "True")],
    "a reason of another condition": [(("conditions", 7, "reason"), "PodsReady")],
}
"""What random mutations found."""


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("name", FOUND)
async def test_a_mutation_that_was_believed_once_ends_where_none_ends(name: str, restart: bool) -> None:
    await ends_as_without(await ready(), FOUND[name], restart)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(data=st.data(), restart=st.booleans())
async def test_any_mutation_of_the_status_ends_where_none_ends(data: st.DataObject, restart: bool) -> None:
    world = await ready()
    anywhere = st.tuples(st.sampled_from(paths(world.status())), JUNK)
    await ends_as_without(world, data.draw(st.lists(anywhere, min_size=1, max_size=3)), restart)
