"""Processor time until deployments are planned beside the searches of others, on an API server in memory.

Run it from a checkout: ``.venv/bin/python bench/reaction_cost.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import scale_fleet
from energylens.cli.commands.operator import SWITCH_SECONDS
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.queueing.searches import Searches
from energylens.controller.reconciling.workers import Workers
from energylens.controller.state.store import Key, Store
from energylens.controller.watching.handlers import takers
from energylens.decide.deployment.reports.status import is_unplanned
from energylens_dev.devcluster.nodes import node_manifests
from pass_cost import Clock, Cost, Operator
from pass_server import MemoryServer

NAMESPACE = "reaction"
WORKERS = 32
"""As by default."""


async def filled(server: MemoryServer, objects: int, distinct: int, besides: int) -> Operator:
    """Return an operator whose deployments are rolled out, on nodes for ``besides`` more."""
    for manifest in node_manifests(scale_fleet.pools(objects, besides)):
        server.put(manifest)
    for name in (*scale_fleet.namespaces(objects), NAMESPACE):
        server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    for budget in scale_fleet.budgets(objects):
        server.put(budget)
    operator = Operator(server, Clock())
    await operator.look_at_budgets(Cost())
    for body in scale_fleet.fleet(objects, distinct):
        server.put(body)
        await operator.passes([(body["metadata"]["namespace"], body["metadata"]["name"])], Cost())
        server.run_pods()
    for _ in range(3):
        await operator.passes(list(operator.due), Cost())
    return operator


async def reactions(operator: Operator, count: int, distinct: int) -> list[float]:
    """Apply deployments all at once; return the processor time of the process until each had a plan, s, ascending."""
    store, planned = operator.store, dict[str, float]()
    queue = KeyQueue(lambda key: (body := store.deployments.get(key)) is not None and is_unplanned(body))
    handles = {resource.kind: handle for resource, handle in takers(store, queue.add).items()}
    started = time.process_time()

    def hear(kind: str, text: str, deleted: bool) -> None:
        body = json.loads(text)
        metadata = body["metadata"]
        if kind == "LLMDeployment" and metadata["namespace"] == NAMESPACE and (body.get("status") or {}).get("plan"):
            planned.setdefault(metadata["name"], time.process_time() - started)
        if kind in handles:
            handles[kind](body, deleted)

    async def show(key: Key, error: Exception, failures: int) -> None:
        raise error

    operator.server.listener = hear
    searches = Searches(queue)
    workers = Workers(queue, operator.reconciler.attempt, show, Metrics(Store()), operator.clock, searches.put)
    tasks = [asyncio.create_task(searches.run()), *(asyncio.create_task(workers.work()) for _ in range(WORKERS))]
    specs = scale_fleet.specs(distinct)
    for index in range(count):
        operator.server.put(scale_fleet.deployment(f"r-{index:04d}", NAMESPACE, specs[index % len(specs)]))
    while len(planned) < count:
        for task in tasks:
            if task.done():
                task.result()
        await asyncio.sleep(0.02)
    for task in tasks:
        task.cancel()
    return sorted(planned.values())


async def run(objects: int, distinct: int, count: int) -> list[float]:
    """Return the processor time until each of ``count`` deployments beside ``objects`` others had a plan, s."""
    return await reactions(await filled(MemoryServer(), objects, distinct, count), count, distinct)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--objects", type=int, default=100, help="LLMDeployments at rest (default: %(default)s)")
    parser.add_argument("--reactions", type=int, default=100, help="LLMDeployments applied (default: %(default)s)")
    parser.add_argument("--distinct", type=int, default=50, help="distinct specs (default: %(default)s)")
    options = parser.parse_args()
    sys.setswitchinterval(SWITCH_SECONDS)
    found = asyncio.run(run(options.objects, options.distinct, options.reactions))
    shown = ", ".join(
        f"P{percent} {found[(len(found) - 1) * percent // 100]:.2f} s" for percent in (10, 50, 75, 90, 100)
    )
    print(f"processor time until planned: {shown}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
