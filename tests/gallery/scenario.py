"""Scenarios: what happens to an example over hours, played on the operator's own code and a cluster in memory.

A scenario is a YAML file. ``nodes`` are the GPU nodes; each of ``steps`` is a mapping with one key:

- ``apply: FILE`` applies the LLMDeployment of a file beside the scenario;
- ``approve: pending`` puts the hash of the pending plan into ``spec.planning.approvedPlanHash``;
- ``addNodes: [...]`` adds nodes;
- ``serve: {requestsPerSecond, hours}``: the engines report this rate, in windows of ten minutes;
- ``measure: {joulesPerOutputToken: {PRODUCT: J}, hours}``: energy is measured as said for the product that runs, also
  of the one replica by which a plan is verified, each at the load of its plan;
- ``wait: HOURS`` lets time pass without a measurement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from tests.support.fake_pods import node
from tests.support.world import World

from energylens.cluster.port import Object
from energylens.measure.types import LatencyQuantiles, WindowMeasurement

WINDOW_SECONDS = 600
CONDITIONS = ("PlanReady", "PlanVerified", "Ready")


def play(path: Path) -> str:
    """Play a scenario; return what was done and what was seen of it, a block of lines per step."""
    scenario = yaml.safe_load(path.read_text())
    stage = Stage(path.parent)
    stage.add_nodes(scenario["nodes"])
    return "\n".join(asyncio.run(stage.run(scenario["steps"]))) + "\n"


@dataclass
class Stage:
    """A cluster, its operator, and the deployment of a scenario."""

    folder: Path
    world: World = field(default_factory=World)
    key: tuple[str, str] = ("default", "")
    rate: float | None = None
    """Requests per second that the engines report."""
    joules: dict[str, float] = field(default_factory=dict)
    """Measured J per output token by GPU product."""

    def __post_init__(self) -> None:
        for kind, namespace, name in [key for key in self.world.cluster.objects if key[0] == "Node"]:
            self.world.cluster.remove(kind, namespace, name)
        self.start = self.world.clock.now()
        self.world.reconciler.observing.measurements = lambda key, plan_hash: self._window("plan")
        self.world.reconciler.observing.canary_measurements = lambda key, plan_hash: self._window("canary")

    def add_nodes(self, pools: list[dict[str, Any]]) -> None:
        """Add nodes as in an inventory file."""
        for pool in pools:
            for index in range(pool["count"]):
                name = f"{pool['product'].lower()}-{index}"
                self.world.cluster.put(node(name, pool["product"], pool["gpus"]))

    async def run(self, steps: list[dict[str, Any]]) -> list[str]:
        """Take the steps; return the lines."""
        lines = []
        for step in steps:
            ((action, argument),) = step.items()
            told = len(self.world.cluster.events)
            hours = (self.world.clock.now() - self.start).total_seconds() / 3600
            lines.append(f"after {hours:g} h: {action} {_short(argument)}")
            await getattr(self, f"_{action}")(argument)
            lines += self._seen(told)
        return lines

    async def _apply(self, name: str) -> None:
        body = yaml.safe_load((self.folder / name).read_text())
        body["metadata"].setdefault("namespace", "default")
        self.key = (body["metadata"]["namespace"], body["metadata"]["name"])
        self.world.cluster.put(body)
        await self.world.settle(self.key)

    async def _approve(self, which: str) -> None:
        assert which == "pending", which
        pending = self.world.status(self.key)["plan"]["hash"]
        self.world.cluster.edit(
            "LLMDeployment", *self.key, lambda live: live["spec"]["planning"].update(approvedPlanHash=pending)
        )
        await self.world.settle(self.key)

    async def _addNodes(self, pools: list[dict[str, Any]]) -> None:  # noqa: N802
        self.add_nodes(pools)
        await self.world.settle(self.key)

    async def _serve(self, what: Mapping[str, float]) -> None:
        self.rate = what["requestsPerSecond"]
        await self._pass(what["hours"])

    async def _measure(self, what: Mapping[str, Any]) -> None:
        self.joules = what["joulesPerOutputToken"]
        await self._pass(what["hours"])

    async def _wait(self, hours: float) -> None:
        self.rate, self.joules = None, {}
        self.world.clock.advance(hours * 3600)
        await self.world.settle(self.key)

    async def _pass(self, hours: float) -> None:
        for _ in range(round(hours * 3600 / WINDOW_SECONDS)):
            self.world.clock.advance(WINDOW_SECONDS)
            await self.world.settle(self.key)

    def _window(self, which: Literal["plan", "canary"]) -> WindowMeasurement | None:
        """Return the last window: the rate, or the energy at the load of the plan."""
        status = self.world.status(self.key)
        plan: Object = (status if which == "plan" else status.get("verification", {})).get("plan", {})
        end = self.world.clock.now().timestamp()
        if self.rate is not None:
            return WindowMeasurement(
                "Measured", "measured", end - WINDOW_SECONDS, end,
                requests_per_second=self.rate, mean_running=8.0, mean_waiting=0.0,
            )  # fmt: skip
        if not plan or plan["gpuProduct"] not in self.joules:
            return None
        joules, rate = self.joules[plan["gpuProduct"]], plan["predicted"]["outputTokensPerSecond"]
        return WindowMeasurement(
            "Measured", "measured", end - WINDOW_SECONDS, end, 100.0,
            energy_joules=joules * rate * WINDOW_SECONDS, output_tokens_per_second=rate,
            joules_per_output_token=joules, power_watts=joules * rate, latency=LatencyQuantiles(50.0, 10.0),
        )  # fmt: skip

    def _seen(self, told: int) -> list[str]:
        events = [f"event {event['reason']}: {event['note']}" for event in self.world.cluster.events[told:]]
        status = self.world.status(self.key)
        plan, active = status.get("plan"), status.get("activeRevision", {})
        state = [f"plan {_summary(plan)}, hash {plan['hash']}"] if plan else []
        state += [f"runs {_summary(active)}"] if active.get("layout") else []
        found = {c["type"]: c for c in status["conditions"]}
        state += [f"{kind}={found[kind]['status']} {found[kind]['reason']}" for kind in CONDITIONS if kind in found]
        return [*(f"  {event}" for event in events), "  " + "; ".join(state)]


def _summary(plan: Mapping[str, Any]) -> str:
    return f"{plan['replicas']} x {plan['gpuProduct']} {plan['layout']}"


def _short(argument: Any) -> str:
    if isinstance(argument, str):
        return argument
    text: str = yaml.safe_dump(argument, default_flow_style=True, width=1000)
    return text.split("\n")[0]
