"""Calls to the API server and processor time of each kind of pass of the operator, on an API server in memory.

Run it from a checkout: ``.venv/bin/python bench/pass_cost.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import scale_fleet
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.energy.budget_keeper import BudgetKeeper
from energylens.controller.energy.energy_accounts import EnergyAccounts
from energylens.controller.reconciling.reconcile import Reconciler
from energylens.controller.settings import BudgetSettings, Settings
from energylens.controller.state.status_memory import remembering
from energylens.controller.state.store import Key, Store
from energylens.controller.watching.handlers import takers
from energylens.decide.budgets.status_check import checked_budget_status
from energylens.decide.budgets.status_check import own_part as own_budget_part
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.reports.status_check import checked_status, own_part
from energylens.measure.energy import EnergySpan
from energylens_dev.devcluster.nodes import node_manifests
from pass_server import MemoryServer

MOE = "Qwen/Qwen3-30B-A3B"
MOST_ROUNDS = 10


@dataclass
class Clock:
    """A clock that stands still until it is moved."""

    moment: datetime = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        """Return the moment."""
        return self.moment

    def monotonic(self) -> float:
        """Return the moment in seconds."""
        return self.moment.timestamp()


@dataclass
class Cost:
    """What passes of one kind took together, the API server in memory left out."""

    passes: int = 0
    cpu_seconds: float = 0.0
    calls: Counter[str] = field(default_factory=Counter)


def _never_measured(key: Key, since: float, nodes: frozenset[str] | None) -> EnergySpan | None:
    return None


class Operator:
    """The operator's own parts without its watches: events come from the server in memory at once."""

    def __init__(self, server: MemoryServer, clock: Clock) -> None:
        """Start, and hear of all objects that there are."""
        self.server = server
        self.clock = clock
        self.due: dict[Key, None] = {}
        self.store = Store(
            statuses=remembering(checked_status, own_part, clock),
            budget_statuses=remembering(checked_budget_status, own_budget_part, clock),
        )
        metrics, budgets = Metrics(self.store), BudgetSettings()
        accounts = EnergyAccounts(self.store, _never_measured, clock, budgets, self._ask)
        planning = PlanningService()
        self.reconciler = Reconciler(
            server, self.store, planning, clock, Settings(), metrics, instance="bench", accounts=accounts
        )
        allowances = self.reconciler.allowances
        self.keeper = BudgetKeeper(server, self.store, allowances, _never_measured, clock, budgets, metrics, self._ask)
        handles = {resource.kind: handle for resource, handle in takers(self.store, self._ask).items()}

        def hear(kind: str, text: str, deleted: bool) -> None:
            if kind in handles:
                handles[kind](json.loads(text), deleted)

        server.listener = hear
        for (kind, _, _), text in server.objects.items():
            hear(kind, text, False)

    def _ask(self, key: Key) -> None:
        self.due[key] = None

    @contextmanager
    def _measured(self, cost: Cost, passes: int) -> Iterator[None]:
        self.server.calls.clear()
        self.server.spent = 0.0
        before = time.process_time()
        yield
        cost.cpu_seconds += time.process_time() - before - self.server.spent
        cost.calls.update(self.server.calls)
        cost.passes += passes

    async def passes(self, keys: Iterable[Key], cost: Cost) -> None:
        """Reconcile deployments once each."""
        for key in list(keys):
            self.due.pop(key, None)
            with self._measured(cost, 1):
                await self.reconciler.reconcile(key)

    async def look_at_budgets(self, cost: Cost) -> None:
        """Look at all budgets once, in the next minute, so that their statuses are due."""
        self.clock.moment += timedelta(seconds=60)
        with self._measured(cost, 1):
            await self.keeper.step()


def _model(body: scale_fleet.Object) -> str:
    return str(body["spec"]["model"]["name"])


async def run(objects: int, distinct: int, nodes: int) -> dict[str, Cost]:
    """Go through the life of a fleet; return what each kind of pass took."""
    server, clock, costs = MemoryServer(), Clock(), dict[str, Cost]()
    for manifest in node_manifests(scale_fleet.pools(nodes * scale_fleet.PER_NODE)):
        server.put(manifest)
    for name in scale_fleet.namespaces(objects):
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for budget in scale_fleet.budgets(objects):
        server.put(budget)
    operator = Operator(server, clock)

    def cost(kind: str) -> Cost:
        return costs.setdefault(kind, Cost())

    # A budget that nobody has looked at leaves nothing.
    await operator.look_at_budgets(Cost())
    seen = set[str]()
    for body in scale_fleet.fleet(objects, distinct):
        server.put(body)
        asked = json.dumps(body["spec"], sort_keys=True)
        kind = "a mixture of experts" if _model(body) == MOE else "a dense model"
        what = "first pass, of a question that was asked before" if asked in seen else f"first pass, of {kind}"
        seen.add(asked)
        await operator.passes([(body["metadata"]["namespace"], body["metadata"]["name"])], cost(what))
        server.run_pods()
    await operator.passes(list(operator.due), cost("pass that finds it Ready, and says so"))
    for _ in range(MOST_ROUNDS):
        await operator.passes(list(operator.due), Cost())
        await operator.look_at_budgets(Cost())
    everyone = list(operator.store.deployments)
    await operator.passes(everyone, Cost())
    await operator.passes(everyone, cost("look at a deployment at rest"))
    await operator.look_at_budgets(cost("look at all budgets, with the writes of a minute"))
    operator = Operator(server, clock)
    await operator.passes(everyone, cost("whole pass that finds nothing to do, after a restart"))
    return costs


def table(costs: dict[str, Cost]) -> str:
    """Return what each kind of pass took, as a table in Markdown."""
    lines = ["| pass | of these | calls each | CPU each |", "|---|---|---|---|"]
    for kind, cost in costs.items():
        calls = ", ".join(f"{count / cost.passes:.3g} {call}" for call, count in sorted(cost.calls.items()))
        lines.append(
            f"| {kind} | {cost.passes} | {calls or 'none'} | {1000.0 * cost.cpu_seconds / cost.passes:.2f} ms |"
        )
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100, help="LLMDeployments (default: %(default)s)")
    parser.add_argument("--distinct", type=int, default=20, help="distinct specs (default: %(default)s)")
    parser.add_argument("--nodes", type=int, default=1000, help="GPU nodes of five products (default: %(default)s)")
    options = parser.parse_args()
    print(table(asyncio.run(run(options.objects, options.distinct, options.nodes))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
