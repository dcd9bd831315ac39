"""Measuring a deployment in memory: what is collected, published once per window, and counted once."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from tests.support.world import KEY, NAMESPACE, World, llama, overrides

from energylens.controller.energy.measuring import Measuring
from energylens.controller.settings import MeasurementSettings
from energylens.controller.state.store import Key
from energylens.measure.scrape import Page, TargetFailure

EXPORTER = "http://exporter/metrics"
OTHER: Key = (NAMESPACE, "other")
SETTINGS = MeasurementSettings(
    dcgm_endpoints=(EXPORTER,), engine_endpoint_template="http://engines/{namespace}/{pod}", scrape_seconds=15
)


class Lab:
    """A world whose two pods hold a GPU each at 500 W and generate 100 tokens a second."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dead = False
        self.changed: list[Key] = []
        self.joules = 0.0
        self.measuring = Measuring(
            world.store, SETTINGS, self, world.clock, self.changed.append, count_energy=self.count  # type: ignore[arg-type]
        )  # fmt: skip

    def count(self, key: Key, joules: float) -> None:
        assert key in (KEY, OTHER)
        self.joules += joules

    async def fetch(self, url: str) -> Page | TargetFailure:
        now = self.world.clock.now().timestamp()
        if url != EXPORTER:
            return Page(url, f"vllm:generation_tokens_total {100 * now}\nvllm:num_requests_running 4\n", now)
        if self.dead:
            return TargetFailure(url, "Timeout", "no answer within 5 s")
        keys = [key for key in (KEY, OTHER) if key in self.world.store.deployments]
        pods = [pod["metadata"]["name"] for key in keys for pod in self.world.store.pods_owned(key)]
        lines = [
            f'DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{{UUID="{number}",pod="{pod}",namespace="{KEY[0]}"}} {500 * now}\n'
            for number, pod in enumerate(pods)
        ]
        return Page(url, "".join(lines), now)

    async def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 15)):
            self.world.clock.advance(15)
            await self.measuring.step()


async def lab(**validation: object) -> Lab:
    world = World()
    world.cluster.put(llama(validation={"warmupSeconds": 0, "windowSeconds": 120, **validation}))
    await world.settle()
    return Lab(world)


async def test_a_window_is_published_once_and_its_energy_counted_once() -> None:
    made = await lab()
    await made.run(1215)
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert (found.reason, found.source) == ("Measured", "dcgm-exporter")
    assert found.joules_per_output_token == 5.0
    # One for the first verdict, one for the first window, then one a window.
    assert len(made.changed) in (10, 11)
    # The first look only begins.
    assert 1000 * (1215 - 2 * 120) <= made.joules <= 1000 * 1215
    assert made.joules % 15_000 == 0


async def test_energy_that_a_dead_exporter_missed_is_counted_when_it_is_back() -> None:
    made = await lab()
    await made.run(300)
    before = made.joules
    made.dead = True
    await made.run(300)
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert found.reason == "SourceUnreachable"
    assert made.joules - before <= 1000 * 120
    made.dead = False
    await made.run(300)
    assert made.joules >= 1000 * (900 - 2 * 120)


async def test_a_deployment_that_goes_while_its_budget_is_looked_at_is_not_measured() -> None:
    made = await lab()
    await made.run(300)
    assert made.measuring.energy(KEY, 0.0) is not None
    # A budget has its members from before, and looks at them one after the other.
    made.world.cluster.remove("LLMDeployment", *KEY)
    assert made.measuring.energy(KEY, 0.0) is None


async def test_only_the_source_that_the_spec_names_is_believed() -> None:
    made = await lab(source="Prometheus")
    await made.run(300)
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert (found.reason, found.energy_joules) == ("NoSource", None)


async def test_nothing_is_measured_where_the_spec_says_so() -> None:
    made = await lab(source="None")
    await made.run(300)
    assert (made.changed, made.joules) == ([], 0.0)


async def test_the_longest_window_that_the_api_takes_can_be_measured() -> None:
    made = await lab(windowSeconds=7200)
    await made.run(7500)
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert found.reason == "Measured"
    # Published as soon as 80 % of it are there.
    assert found.window_end - found.window_start >= 0.8 * 7200


async def test_a_plan_of_fewer_replicas_is_measured_from_when_its_pods_serve_alone() -> None:
    made = await lab()
    await made.run(600)
    before = made.world.status()["plan"]["hash"]
    made.world.cluster.put(llama(planning=overrides(replicas=1), validation={"warmupSeconds": 0, "windowSeconds": 120}))
    await made.world.settle()
    changed, plan_hash = made.world.clock.now().timestamp(), made.world.status()["plan"]["hash"]
    assert plan_hash != before
    await made.run(60)
    first = made.measuring.latest(KEY, plan_hash)
    assert first is not None
    assert first.reason == "Collecting"
    await made.run(120)
    found = made.measuring.latest(KEY, plan_hash)
    assert found is not None
    assert found.reason == "Measured"
    assert found.window_start is not None
    assert found.window_start >= changed


async def test_nothing_is_measured_of_a_plan_while_pods_of_it_are_missing() -> None:
    made = await lab()
    made.world.pods_run = False
    made.world.cluster.put(llama(planning=overrides(replicas=3), validation={"warmupSeconds": 0, "windowSeconds": 120}))
    await made.world.settle()
    await made.run(300)
    assert made.measuring.latest(KEY, made.world.status()["plan"]["hash"]) is None
    assert made.joules == 0


async def test_a_pod_that_was_evicted_long_ago_keeps_nothing_from_being_measured() -> None:
    made = await lab()
    old = copy.deepcopy(made.world.cluster.objects["Pod", NAMESPACE, "llama-0"])
    old["metadata"] |= {"name": "llama-evicted", "uid": "gone", "resourceVersion": "1"}
    old["status"] = {"phase": "Failed", "reason": "Evicted"}
    made.world.store.put_pod(old, deleted=False)
    await made.run(300)
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert found.reason == "Measured"


async def two() -> Lab:
    made = await lab()
    made.world.cluster.put(llama("other", validation={"warmupSeconds": 0, "windowSeconds": 120}))
    await made.world.settle(KEY, OTHER)
    return made


async def test_a_defect_in_one_deployment_is_told_and_the_next_one_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await two()
    measure = made.measuring._measure

    def defective(group: Any, *rest: Any) -> None:
        if group.key == KEY:
            raise ZeroDivisionError("ours")
        measure(group, *rest)

    monkeypatch.setattr(made.measuring, "_measure", defective)
    made.world.clock.advance(15)
    (failure,) = (await made.measuring.step()).failures
    assert (failure.target, failure.reason) == ("team/llama", "Defect")
    assert made.changed == [KEY, OTHER]
    # The object says so, once, until it can be measured again.
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert (found.reason, found.message[:45]) == ("InternalError", "measuring failed: internal error: ZeroDivisio")
    made.world.clock.advance(15)
    await made.measuring.step()
    assert made.changed.count(KEY) == 1
    monkeypatch.undo()
    made.world.clock.advance(15)
    await made.measuring.step()
    found = made.measuring.latest(KEY, made.world.status()["plan"]["hash"])
    assert found is not None
    assert found.reason == "Collecting"


async def test_a_defect_in_collecting_shows_on_all_that_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await two()

    async def defective(targets: Any) -> None:
        raise KeyError("ours")

    monkeypatch.setattr(made.measuring._collector, "collect", defective)
    made.world.clock.advance(15)
    report = await made.measuring.step()
    assert [failure.reason for failure in report.failures] == ["Defect", "Defect"]
    assert made.changed == [KEY, OTHER]


async def test_a_deployment_that_cannot_be_looked_at_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await two()
    serving = made.measuring._serving

    def defective(key: Key) -> Any:
        if key == KEY:
            raise TypeError("ours")
        return serving(key)

    monkeypatch.setattr(made.measuring, "_serving", defective)
    made.world.clock.advance(15)
    (failure,) = (await made.measuring.step()).failures
    assert (failure.target, failure.reason) == ("team/llama", "Defect")
    assert made.changed == [OTHER]


async def test_the_watches_have_a_turn_between_two_deployments_which_may_be_gone_by_then() -> None:
    made = await two()
    turns: list[int] = []

    async def watch() -> None:
        while len(made.changed) < 1:
            turns.append(len(made.changed))
            await asyncio.sleep(0)
        made.world.cluster.remove("LLMDeployment", *OTHER)

    watching = asyncio.create_task(watch())
    made.world.clock.advance(15)
    assert (await made.measuring.step()).failures == ()
    await watching
    assert made.changed == [KEY]
    assert len(turns) > 1


async def test_the_replica_of_a_new_plan_is_measured_apart_and_its_energy_is_the_deployments() -> None:
    asked: dict[str, Any] = {
        "rollout": {"verify": "Measured"},
        "validation": {"warmupSeconds": 0, "windowSeconds": 120},
    }
    world = World()
    world.cluster.put(llama(**asked))
    await world.settle()
    world.cluster.put(llama(**asked, planning=overrides(maxBatchSize=16)))
    await world.settle()
    made = Lab(world)
    await made.run(300)
    status = world.status()
    running, trial = status["plan"]["hash"], status["verification"]["plan"]["hash"]
    main, beside = made.measuring.latest(KEY, running), made.measuring.latest_of_canary(KEY, trial)
    assert main is not None
    assert beside is not None
    assert (main.reason, main.power_watts, main.output_tokens_per_second) == ("Measured", 1000.0, 200.0)
    assert (beside.reason, beside.power_watts, beside.output_tokens_per_second) == ("Measured", 500.0, 100.0)
    # Neither is taken for the other, whichever plan is followed next.
    assert made.measuring.latest(KEY, trial) is None
    assert made.measuring.latest_of_canary(KEY, running) is None
    assert made.joules % (3 * 500 * 15) == 0
    assert made.joules > 0
    # Without its pod nothing is said of it, and the others are measured as before.
    (pod,) = [name for (kind, _, name) in world.cluster.objects if kind == "Pod" and "canary" in name]
    world.cluster.remove("Pod", NAMESPACE, pod)
    await made.run(120)
    assert made.measuring.latest_of_canary(KEY, trial) is None
    assert made.measuring.latest(KEY, running) is not None


@pytest.mark.parametrize("late_seconds", range(15, 120, 15))
async def test_a_replica_is_compared_with_the_running_pods_whenever_its_windows_begin(late_seconds: int) -> None:
    asked: dict[str, Any] = {
        "rollout": {"verify": "Measured"},
        "validation": {"warmupSeconds": 0, "windowSeconds": 120},
    }
    world = World()
    world.cluster.put(llama(**asked))
    await world.settle()
    made = Lab(world)
    await made.run(300 + late_seconds)
    world.cluster.put(llama(**asked, planning=overrides(maxBatchSize=16)))
    await world.settle()
    status = world.status()
    running, trial = status["plan"]["hash"], status["verification"]["plan"]["hash"]
    compared: dict[float | None, bool | None] = {}
    for _ in range(5 * 120 // 15):
        await made.run(15)
        main, beside = made.measuring.latest(KEY, running), made.measuring.latest_of_canary(KEY, trial)
        if main is not None and beside is not None and beside.reason == "Measured":
            # A window is judged once, as soon as it is published.
            compared.setdefault(beside.window_end, beside.shares_half(main))
    # The first is published as soon as it is complete.
    assert list(compared.values()).count(True) >= 3
