"""A pass that fails says so on the object that it failed for, stops no other, and is forgotten by the next good one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.world import KEY, NAMESPACE, Faults, World, llama, overrides

from energylens.api.parse import parse_llmdeployment
from energylens.cluster.errors import ClusterError, RefusedError, TransientError
from energylens.cluster.port import Object
from energylens.cluster.resources import Resource
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.energy.budget_keeper import BudgetKeeper
from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.reconciling.workers import Workers
from energylens.controller.state.store import Body, Key
from energylens.controller.writing.failures import DEPLOYMENT_VERDICTS, SHOWN_AFTER, Failures, said
from energylens.described import described
from energylens.planner.answers import SearchNeededError

OTHER: Key = (NAMESPACE, "other")
DECIDED = [str(kind) for kind in DEPLOYMENT_VERDICTS if kind != "Degraded"]


DEFECT = (
    "ValueError: cannot convert float NaN to integer "
    "(in energylens.controller.reconciling.reconcile.Reconciler._in_planner)"
)


class PatientQueue(KeyQueue):
    """Retries come when the test asks for them."""

    def add_later(self, key: Key, seconds: float) -> None:
        pass


def defect(request: Any, **_: Any) -> Any:
    """Fail as the planner once did."""
    raise ValueError("cannot convert float NaN to integer")


def break_planning(world: World, patch: pytest.MonkeyPatch) -> None:
    """Let every pass fail from now on; a deployment at rest would have none."""
    patch.setattr(world.reconciler._planning, "planning_for", defect)
    for namespace, name in list(world.store.deployments):
        world.reconciler._resting.wake((namespace, name))


def never(key: Key, needed: SearchNeededError) -> None:
    """Refuse searches beside the passes, which make their own."""
    raise AssertionError(key)


async def passes(world: World, *keys: Key) -> None:
    """Let the workers make one pass over each key, with all that they do about a failure."""
    queue = workers(world)
    for key in keys:
        queue[0].add(key)
        await queue[1].step()


def workers(world: World) -> tuple[KeyQueue, Workers]:
    found = getattr(world, "made_workers", None)
    if found is None:
        queue, metrics = PatientQueue(lambda key: True), Metrics(world.store)
        failures = Failures(world.port, world.store, world.clock, metrics, "test")
        found = queue, Workers(queue, world.reconciler.reconcile, failures.show, metrics, world.clock, never)
        world.made_workers = found  # type: ignore[attr-defined]
    return found


async def ready(*names: str) -> World:
    world = World()
    for name in names or ("llama",):
        world.cluster.put(llama(name))
    await world.settle(*((NAMESPACE, name) for name in names or ("llama",)))
    return world


def told(world: World) -> list[tuple[str, str]]:
    return [(event["type"], event["note"]) for event in world.cluster.events if event["reason"] == "ReconcileFailed"]


async def test_a_defect_shows_on_the_object_with_the_generation_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await ready()
    plan, windows = world.status()["plan"], world.condition("SLOMet")
    break_planning(world, monkeypatch)
    world.cluster.put(llama(planning=overrides(replicas=1)))
    await passes(world, KEY)
    generation = world.cluster.objects["LLMDeployment", *KEY]["metadata"]["generation"]
    degraded = world.condition("Degraded")
    assert (degraded["status"], degraded["reason"]) == ("True", "InternalError")
    assert degraded["observedGeneration"] == world.status()["observedGeneration"] == generation == 2
    assert degraded["message"] == f"internal error: {DEFECT}; retrying"
    for kind in DECIDED:
        found = world.condition(kind)
        assert (found["status"], found["reason"], found["observedGeneration"]) == ("Unknown", "InternalError", 2), kind
    assert "before that it was True, PodsReady: 2 of 2 replicas" in world.condition("Ready")["message"]
    # What the pass did not decide stays, and so does what status remembers.
    assert world.condition("SLOMet") == windows
    assert world.status()["plan"] == plan
    assert told(world) == [("Warning", f"InternalError: {DEFECT}")]
    # The API server would take what was written.
    parse_llmdeployment(world.cluster.objects["LLMDeployment", *KEY], strict=True)


async def test_a_defect_that_stays_is_written_once_and_told_once_per_generation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = await ready()
    break_planning(world, monkeypatch)
    await passes(world, KEY)
    mark = world.mark
    for _ in range(5):
        world.clock.advance(30)
        await passes(world, KEY)
    assert (world.writes_since(mark), len(told(world))) == ([], 1)
    world.cluster.put(llama(planning=overrides(replicas=1)))
    await passes(world, KEY, KEY)
    assert len(told(world)) == 2


async def test_the_next_good_pass_clears_it(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await ready()
    before = world.end_state()
    with monkeypatch.context() as broken:
        break_planning(world, broken)
        await passes(world, KEY)
    await passes(world, KEY)
    assert world.end_state() == before


async def test_a_first_pass_that_fails_shows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    break_planning(world, monkeypatch)
    world.cluster.put(llama())
    await passes(world, KEY)
    assert world.condition("Degraded")["reason"] == "InternalError"
    assert world.condition("PlanReady")["message"] == "the last reconcile failed, see condition Degraded"


async def test_a_spec_that_cannot_be_read_afterwards_is_not_called_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    world = await ready()
    with monkeypatch.context() as broken:
        break_planning(world, broken)
        await passes(world, KEY)
    world.cluster.put(llama(workload={"inputTokens": -1}))
    await passes(world, KEY)
    assert (world.condition("Degraded")["status"], world.condition("PlanReady")["reason"]) == ("False", "InvalidSpec")
    assert (world.condition("Ready")["status"], world.condition("Ready")["reason"]) == ("Unknown", "InvalidSpec")


@pytest.mark.parametrize(
    "status",
    [{"conditions": "none"}, {"conditions": ["x", {"type": "Ready"}, {}]}, {"conditions": [{"type": "FromTomorrow"}]}],
    ids=["no list", "halves", "an unknown type"],
)
async def test_whatever_the_status_holds_a_failure_is_written(status: Object, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    break_planning(world, monkeypatch)
    world.cluster.put(llama())
    world.store.deployments[KEY]["status"] = status
    await passes(world, KEY)
    assert world.condition("Degraded")["reason"] == "InternalError"
    assert world.condition("Ready")["status"] == "Unknown"


async def test_a_failed_request_shows_only_when_it_keeps_failing(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    answer = TransientError("GET /api/v1/namespaces/team/configmaps/config: 503 unavailable")

    async def unavailable(*_: Any) -> Any:
        raise answer

    monkeypatch.setattr(world.reconciler, "_decide", unavailable)
    world.cluster.put(llama())
    await passes(world, *[KEY] * (SHOWN_AFTER - 1))
    assert world.status() == {}
    await passes(world, KEY)
    degraded = world.condition("Degraded")
    assert (degraded["reason"], degraded["message"]) == ("APIServerError", f"{answer}; retrying")
    assert world.condition("Ready")["status"] == "Unknown"
    assert len(told(world)) == 1


@pytest.mark.parametrize("refusal", [TransientError("reset"), RefusedError("status: Invalid"), KeyError("ours")])
async def test_a_status_that_cannot_be_written_stops_no_worker(
    refusal: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    world = World()

    class NoStatus(Faults):
        async def apply_status(self, manifest: Any) -> Object:
            raise refusal

    world.start(NoStatus(world.cluster))
    break_planning(world, monkeypatch)
    world.cluster.put(llama())
    await passes(world, KEY, KEY)
    assert "its status cannot be written to report the failure" in caplog.text


async def test_a_defect_for_one_object_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    planned = world.reconciler._planning.planning_for

    def half(request: Any, **how: Any) -> Any:
        return defect(request) if request.deployment.metadata.name == "llama" else planned(request, **how)

    monkeypatch.setattr(world.reconciler._planning, "planning_for", half)
    world.cluster.put(llama())
    world.cluster.put(llama("other"))
    await passes(world, KEY, OTHER)
    assert world.condition("Degraded")["reason"] == "InternalError"
    assert world.condition("PlanReady", OTHER)["status"] == "True"


# Budgets


def budget(kind: str, **spec: Any) -> Object:
    namespace = {"namespace": NAMESPACE} if kind == "EnergyBudget" else {}
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": kind,
        "metadata": {"name": "cap", **namespace},
        "spec": {"action": "Deny", "powerWatts": 9000, **spec},
    }


def verdict(world: World, kind: str) -> dict[str, tuple[str, str]]:
    space = NAMESPACE if kind == "EnergyBudget" else ""
    conditions = world.cluster.objects[kind, space, "cap"]["status"]["conditions"]
    return {c["type"]: (c["status"], c["reason"]) for c in conditions}


@pytest.mark.parametrize("kind", ["EnergyBudget", "ClusterEnergyBudget"])
async def test_a_budget_whose_look_fails_says_so_denies_growth_and_recovers(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.cluster.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    world.cluster.put(llama())
    world.cluster.put(budget(kind))
    await world.look(KEY)
    assert verdict(world, kind)["Ready"] == ("True", "Checked")

    def broken(*arguments: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as patch:
        patch.setattr(BudgetKeeper, "_member", broken)
        world.asked.clear()
        await world.look(KEY)
        found = verdict(world, kind)
        assert (found["Ready"], found["WithinEnergyBudget"]) == (
            ("False", "InternalError"),
            ("Unknown", "InternalError"),
        )
        assert world.asked == {KEY}
        within = world.condition("WithinEnergyBudget")
        assert (within["status"], within["reason"]) == ("Unknown", "BudgetNotChecked")
        assert "internal error: ZeroDivisionError: division by zero" in within["message"]
        mark = world.mark
        await world.look(KEY, seconds=10)
        assert world.writes_since(mark) == []
    await world.look(KEY, seconds=10)
    assert verdict(world, kind)["Ready"] == ("True", "Checked")
    assert world.condition("WithinEnergyBudget")["status"] == "True"


async def test_a_budget_that_the_api_server_keeps_failing_says_so() -> None:
    world = World()
    carbon = {"forecastConfigMapRef": {"name": "forecast", "key": "csv"}, "gramsPerPeriod": 1000}

    class Failing(Faults):
        async def get(self, resource: Resource, namespace: str, name: str) -> Object:
            raise TransientError("GET /api/v1/namespaces/team/configmaps/forecast: 500 etcd is down")

    world.cluster.put(budget("EnergyBudget", carbon=carbon))
    world.start(Failing(world.cluster))
    for _ in range(SHOWN_AFTER - 1):
        await world.keeper.step()
    assert world.mark == 0
    await world.keeper.step()
    assert verdict(world, "EnergyBudget")["Ready"] == ("False", "APIServerError")


# Words


def raised(make: Callable[[], object]) -> BaseException:
    try:
        make()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def test_an_error_is_named_with_its_place_in_our_code() -> None:
    from energylens.api.quantity import parse_quantity

    error = raised(lambda: parse_quantity("x"))
    assert described(error).startswith("ValueError: 'x' is not a Kubernetes quantity")
    assert described(error).endswith("(in energylens.api.quantity.parse_quantity)")


class Mute(Exception):  # noqa: N818
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Bare:
    pass


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("a\n  b\tc"), "ValueError: a b c"),
        (KeyError(), "KeyError"),
        (Mute(), "Mute"),
        (ExceptionGroup("two", [ExceptionGroup("one", [TypeError("deep")])]), "TypeError: deep"),
        (ValueError(Bare()), f"ValueError: <{__name__}.Bare object at 0x...>"),
    ],
)
def test_an_error_is_one_line_that_is_the_same_each_time(error: BaseException, text: str) -> None:
    assert described(error) == text


@pytest.mark.parametrize(
    ("error", "text"), [(ClusterError("GET /x: 500 no"), "GET /x: 500 no"), (ClusterError(), "ClusterError")]
)
def test_a_failed_request_is_told_in_the_words_of_the_api_server(error: ClusterError, text: str) -> None:
    assert said(error) == text


def test_an_error_is_short() -> None:
    assert len(described(ValueError("x" * 10_000))) < 500


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer SECRET",
        "cannot open https://user:SECRET@prometheus:9090/api",
        "{'token': 'SECRET', 'a': 1}",
        "password=SECRET",
        "HF_TOKEN=SECRET",
        "api-key: SECRET",
        "hf_SECRET123456",
        "eyJhbGciOiSECRET.eyJzdWIiOiIx.SECRET",
    ],
)
def test_an_error_has_no_credentials(text: str) -> None:
    assert "SECRET" not in described(ValueError(text))


def test_an_error_about_tokens_is_left_whole() -> None:
    assert described(ValueError("output tokens = 5 of 7")) == "ValueError: output tokens = 5 of 7"


async def test_a_stop_while_a_failure_is_written_is_a_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    class Stopping(Faults):
        async def apply_status(self, manifest: Any) -> Object:
            raise asyncio.CancelledError

    world.start(Stopping(world.cluster))
    break_planning(world, monkeypatch)
    world.cluster.put(llama())
    with pytest.raises(asyncio.CancelledError):
        await passes(world, KEY)


def test_a_body_without_a_generation_is_of_the_first() -> None:
    from energylens.controller.writing.failures import failed_budget_status

    body: Body = {"metadata": {"name": "cap"}, "status": {}}
    world = World()
    assert failed_budget_status(body, KeyError("x"), world.clock.now())["observedGeneration"] == 1
