"""A deployment whose measured load differs from the declared one, over passes, edits and restarts of the operator."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from tests.support.world import World, llama

from energylens.api.quantity import parse_quantity
from energylens.cluster.port import Object
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.plans import scheduled
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.measure.types import WindowMeasurement
from energylens.planner.explain import relaxations
from energylens.planner.types import Infeasible
from energylens.planner.week.planning import WeekPlan, WeekProblem, plan_week_in_steps

FREE = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}, "followLoad": "Auto"}
LOAD = {"inputTokens": 512, "outputTokens": 256}


@dataclass
class Served(World):
    """A world whose engines report a rate."""

    rate: float | None = None
    waiting: float = 0.0
    prompt: float | None = None
    """Mean tokens of a prompt."""
    minutes: int = 10
    """Length of a window."""

    def start(self, port: Any = None) -> None:
        super().start(port)
        self.reconciler.observing.measurements = lambda key, plan_hash: self.window()

    def window(self) -> WindowMeasurement | None:
        if self.rate is None:
            return None
        end = self.clock.now()
        start = end - timedelta(minutes=self.minutes)
        return WindowMeasurement(
            "Measured",
            "measured",
            window_start=start.timestamp(),
            window_end=end.timestamp(),
            requests_per_second=self.rate,
            mean_running=8.0,
            mean_waiting=self.waiting,
            requests=600.0 * self.rate,
            prompt_tokens=None if self.prompt is None else 600.0 * self.rate * self.prompt,
            output_tokens=600.0 * self.rate * LOAD["outputTokens"],
        )

    async def serve(self, rate: float, *, minutes: int = 10, waiting: float = 0.0) -> Object:
        """Let windows of a rate pass, and return the status."""
        self.rate, self.waiting = rate, waiting
        for _ in range(minutes // self.minutes):
            self.clock.advance(60 * self.minutes)
            await self.settle()
        return self.status()


async def world(rate: str = "2", **planning: Any) -> Served:
    served = Served()
    served.cluster.put(llama(planning=FREE | planning, workload=LOAD | {"requestsPerSecond": rate}))
    await served.settle()
    return served


def planned(status: Object) -> float:
    return float(parse_quantity(status["load"]["requestsPerSecond"]))


def events(served: World, reason: str) -> list[str]:
    return [event["note"] for event in served.cluster.events if event["reason"] == reason]


async def test_a_higher_load_is_planned_for_at_once_and_said() -> None:
    served = await world()
    before = served.status()["plan"]
    status = await served.serve(60.0)
    assert planned(status) >= 60.0
    assert status["plan"]["gpus"] > before["gpus"]
    (note,) = events(served, "LoadFollowed")
    assert note.endswith(" requests per second instead of 2")
    assert events(served, "PlanAdopted")[-1].startswith("NoLongerValid: the running plan no longer meets the spec: ")


async def test_longer_prompts_are_planned_for_and_said_with_both_numbers() -> None:
    served = await world("60", followLengths="Auto")
    served.prompt = 4000.0
    before = served.status()["plan"]
    status = await served.serve(60.0)
    assert status["load"]["inputTokens"]["tokens"] >= 4000
    assert status["load"]["outputTokens"] == {"tokens": 256, "declaredTokens": 256, "steps": 0}
    assert status["plan"]["gpus"] > before["gpus"]
    (note,) = events(served, "LoadFollowed")
    assert note == f"plans are made for prompts of {status['load']['inputTokens']['tokens']} tokens instead of 512"
    mark = served.mark
    served.start()
    await served.settle()
    assert served.writes_since(mark) == []


async def test_a_followed_length_stays_within_the_context_of_the_model() -> None:
    served = await world("0.1", followLengths="Auto")
    # The step above 115,000 tokens is 136,000, and the model has a context of 131,072.
    served.prompt = 115_000.0
    served.minutes = 60
    status = await served.serve(0.5, minutes=60)
    assert status["load"]["inputTokens"]["tokens"] == 136_000
    assert served.condition("PlanReady")["reason"] == "Planned", served.condition("PlanReady")


async def test_lengths_beyond_any_plan_leave_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())
    served = await world("60", followLengths="Auto")
    before, spec = served.status()["plan"], deployment_of(served)["spec"]
    served.prompt = 100_000.0
    for _ in range(2):
        status = await served.serve(60.0)
        assert status["plan"] == before
        assert deployment_of(served)["spec"] == spec
        assert served.condition("Ready")["status"] == "True"
        found = served.condition("PlanReady")
        assert (found["status"], found["reason"]) == ("False", "LoadTooHigh")
        assert found["message"].endswith("; the running plan stays")
        served.start()


async def test_lengths_are_not_followed_unless_asked() -> None:
    served = await world("60")
    served.prompt = 4000.0
    status = await served.serve(60.0)
    assert "inputTokens" not in status["load"]
    assert events(served, "LoadFollowed") == []


async def test_a_lower_load_is_planned_for_after_the_cooldown() -> None:
    served = await world("60")
    before = served.status()["plan"]
    status = await served.serve(2.0, minutes=50)
    assert (planned(status), status["plan"]["hash"]) == (60.0, before["hash"])
    assert status["load"]["highestBelowRequestsPerSecond"] == "2000m"
    status = await served.serve(2.0, minutes=20)
    assert planned(status) < 8.0
    assert status["plan"]["gpus"] < before["gpus"]
    assert events(served, "PlanAdopted")[-1].startswith("EnergySaving: ")


async def test_a_restart_changes_nothing_of_the_followed_load() -> None:
    served = await world()
    await served.serve(60.0)
    mark, status = served.mark, served.status()
    served.rate = None
    served.start()
    await served.settle()
    assert served.writes_since(mark) == []
    assert served.status() == status


async def test_another_declared_load_begins_anew() -> None:
    served = await world()
    await served.serve(60.0)
    served.rate = None
    served.cluster.put(llama(planning=FREE, workload=LOAD | {"requestsPerSecond": "4"}))
    await served.settle()
    assert served.status()["load"] == {"requestsPerSecond": "4000m", "declaredRequestsPerSecond": "4000m"}


async def test_what_no_plan_carries_is_planned_for_as_far_as_it_goes() -> None:
    served = await world()
    status = await served.serve(100_000.0)
    assert status["plan"]["gpus"] > 8
    assert served.condition("PlanReady")["status"] == "True"
    assert 2.0 < planned(status) < 100_000.0
    mark = served.mark
    again = await served.serve(100_000.0)
    assert again["plan"] == status["plan"]
    assert planned(again) == planned(status)
    assert {write.key[0] for write in served.writes_since(mark)} == {"LLMDeployment"}


async def test_engines_that_let_requests_wait_are_given_more() -> None:
    served = await world("20")
    status = await served.serve(20.0, waiting=50.0)
    assert planned(status) == 25.0


async def test_never_follows_nothing() -> None:
    served = await world(followLoad="Never")
    status = await served.serve(60.0)
    assert "load" not in status
    assert status["plan"]["replicas"] == 1


async def test_the_rates_of_a_week_are_learned_and_its_replicas_follow_them() -> None:
    served = Served(minutes=60)
    load = LOAD | {"requestsPerSecond": "60", "profile": {"timeZone": "UTC", "learned": {"minCoveragePercent": 60}}}
    served.cluster.put(llama(planning={"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}, workload=load))
    await served.settle()
    declared, template = served.status()["plan"]["replicas"], deployment_of(served)["spec"]["template"]
    assert declared > 1
    text = (
        "spec.workload.profile.learned: 0 of 168 hours of the week were measured, and minCoveragePercent=60 needs 101"
    )
    assert text in served.condition("PlanReady")["message"]
    seen = set()
    for hour in range(8 * 24):
        # The clock starts on a Sunday, at midnight.
        status = await served.serve(60.0 if 8 <= hour % 24 < 18 else 4.0, minutes=60)
        if hour < 100:
            assert status["plan"]["replicas"] == declared
        elif hour >= 7 * 24:
            seen.add((8 <= (hour + 1) % 24 < 18, status["schedule"]["replicas"]))
    assert "spec.workload.profile.learned" not in served.condition("PlanReady")["message"]
    # At night one replica; before eight o'clock the others start early, if the pass is late enough.
    assert {replicas for is_day, replicas in seen if is_day} == {declared}
    assert 1 in {replicas for is_day, replicas in seen if not is_day}
    learned = status["learnedLoad"]
    assert (learned["coveredHours"], len(learned["plannedSteps"])) == (168, 168)
    assert len(status["schedule"]["hours"]) == 14
    assert deployment_of(served)["spec"]["template"] == template
    assert not events(served, "RolloutStarted")

    # What was learned survives a restart, and the same window counts once.
    mark = served.mark
    served.start()
    await served.settle()
    assert not served.writes_since(mark)
    # Nonsense in the status begins anew.
    body = served.cluster.objects["LLMDeployment", "team", "llama"]
    edited = {**learned, "requestsPerSecond": ["-1"] * 168}
    served.cluster.put({**body, "status": {**body["status"], "learnedLoad": edited}})
    served.start()
    await served.settle()
    assert served.status()["learnedLoad"]["coveredHours"] == 1


def _weeks_planned_at_once(monkeypatch: pytest.MonkeyPatch) -> list[WeekProblem]:
    """Return the weeks that are planned while no other deployment can be planned, as far as they are from now on."""
    found: list[WeekProblem] = []
    in_one_turn = [False]
    in_steps, planning_for = plan_week_in_steps, PlanningService.planning_for

    def planned(self: PlanningService, inputs: Inputs, *, searching: bool = True) -> PlanChoice:
        in_one_turn[0] = True
        try:
            return planning_for(self, inputs, searching=searching)
        finally:
            in_one_turn[0] = False

    def week(asked: WeekProblem) -> Generator[None, None, WeekPlan | Infeasible]:
        found.extend([asked] if in_one_turn[0] else [])
        return in_steps(asked)

    monkeypatch.setattr(scheduled, "plan_week_in_steps", week)
    monkeypatch.setattr(PlanningService, "planning_for", planned)
    return found


async def test_an_hour_with_more_load_than_any_plan_sustains_leaves_the_other_hours_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relaxations, "_loads", lambda *_: ())
    at_once = _weeks_planned_at_once(monkeypatch)
    served = Served()
    load = LOAD | {"requestsPerSecond": "60", "profile": {"timeZone": "UTC", "learned": {}}}
    served.cluster.put(llama(planning={"overrides": {"tensorParallel": 1, "maxBatchSize": 64}}, workload=load))
    await served.settle()
    before, template = served.status()["plan"], deployment_of(served)["spec"]["template"]
    # Sunday from 0:00, when the clock starts, and from 6:00.
    steps = [0] * 168
    steps[144], steps[150] = 3, 20
    learned = {
        "timeZone": "UTC",
        "declaredRequestsPerSecond": "60",
        "windowEnd": "2026-03-01T00:00:00Z",
        "coveredHours": 0,
        "requestsPerSecond": ["0"] * 168,
        "measuredSeconds": [0] * 168,
        "plannedSteps": steps,
    }
    body = served.cluster.objects["LLMDeployment", "team", "llama"]
    served.cluster.put({**body, "status": {**body["status"], "learnedLoad": learned}})
    served.start()
    await served.settle()
    status, condition = served.status(), served.condition("PlanReady")
    assert status["plan"]["replicas"] > before["replicas"]
    assert deployment_of(served)["spec"]["template"] == template
    assert condition["status"] == "True"
    most = max(float(parse_quantity(entry["requestsPerSecond"])) for entry in status["schedule"]["hours"])
    assert 60 * 1.25**3 < most < 60 * 1.25**20
    # The highest step that a plan sustains is searched for in steps, too: other deployments are planned meanwhile.
    assert at_once == []
    text = f"; no learned hour is planned for more than {most:g} requests per second: Sun 06:00, "
    assert text in condition["message"]
    mark = served.mark
    served.start()
    await served.settle()
    assert not served.writes_since(mark)


def deployment_of(served: Served) -> Object:
    return served.cluster.objects["Deployment", "team", "llama"]
