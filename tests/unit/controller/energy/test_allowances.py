"""What is counted again only where something changed is what looking at every member would give."""

from __future__ import annotations

import random
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.world import ManualClock

from energylens.controller.energy.allowances import Allowances
from energylens.controller.state.inventory import Inventory
from energylens.controller.state.store import Store
from energylens.decide.budgets.allowance import allowance
from energylens.decide.budgets.budget import read_budget
from energylens.decide.planned import planned

NAMES = ("a", "b", "c", "d")
TEAMS = ("red", "blue")


def deployment(namespace: str, name: str, version: int, watts: int, labels: dict[str, str]) -> dict[str, Any]:
    plan = {"hash": "x", "gpus": 1, "gpuProduct": "H100", "predicted": {"powerWatts": watts}}
    plan |= {"tensorParallel": 1, "pipelineParallel": 1, "dataParallel": 1}
    metadata = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "resourceVersion": str(version)}
    return {"metadata": {**metadata, "labels": labels}, "spec": {}, "status": {"plan": plan}}


def budget(namespace: str, name: str, version: int, **spec: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": name, "resourceVersion": str(version), "generation": 1}
    return {"metadata": {**metadata, **({"namespace": namespace} if namespace else {})}, "spec": spec}


def node(name: str, row: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-L40S", "row": row}},
        "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
    }


def pod(name: str, namespace: str, owner: str, host: str) -> dict[str, Any]:
    labels = {"energylens.dev/llmdeployment": owner}
    return {
        "metadata": {"name": name, "namespace": namespace, "uid": name, "labels": labels},
        "spec": {"nodeName": host, "containers": [{"resources": {"requests": {"nvidia.com/gpu": "1"}}}]},
        "status": {"phase": "Running"},
    }


@pytest.mark.parametrize("seed", range(4))
def test_after_any_changes_the_allowance_is_that_of_looking_at_everybody(seed: int) -> None:
    random_, store, clock = random.Random(seed), Store(), ManualClock(datetime(2026, 11, 25, tzinfo=UTC))
    inventory = Inventory(store)
    kept = Allowances(store, inventory, clock)
    for name, row in (("n1", "b"), ("n2", "c")):
        store.put_node(node(name, row), deleted=False)
    for team in TEAMS:
        store.put_namespace({"metadata": {"name": team, "labels": {"tier": team}}}, deleted=False)
    selecting = {"selector": {"matchLabels": {"tier": "gold"}}}
    for version, (namespace, name, spec) in enumerate(
        (
            ("red", "team", {"powerWatts": 2000, "action": "Deny"}),
            ("blue", "gold", {"powerWatts": 1500, "action": "Deny", **selecting}),
            ("", "all", {"powerWatts": 5000, "action": "Deny"}),
            ("", "row", {"powerWatts": 900, "action": "Deny", "nodeSelector": {"row": "b"}}),
        )
    ):
        store.put_budget(budget(namespace, name, version, **spec), deleted=False)
    for step in range(100, 180):
        key = random_.choice(TEAMS), random_.choice(NAMES)
        action = random_.randrange(7)
        made = deployment(*key, step, random_.randrange(50, 900), {"tier": random_.choice(("gold", "tin"))})
        if action <= 1:
            store.put_deployment(made, deleted=False)
        elif action == 2:
            store.put_deployment(made, deleted=True)
        elif action == 3:
            inventory.adopt(key, made["status"]["plan"])
        elif action == 4:
            inventory.settle(key)
        elif action == 5:
            there = bool(random_.randrange(3))
            store.put_pod(pod(f"{key[1]}-0", key[0], key[1], random_.choice(("n1", "n2"))), deleted=not there)
        else:
            changed = {"powerWatts": random_.randrange(500, 3000), "action": "Deny", **random_.choice(({}, selecting))}
            store.put_budget(budget("red", "team", step, **changed), deleted=False)
            labels = {"tier": random_.choice(TEAMS)}
            store.put_namespace({"metadata": {"name": "blue", "labels": labels}}, deleted=False)
        for asked, body in store.deployments.items():
            capping = [read_budget(b) for k, b in store.budgets.items() if k[0] in ("", asked[0])]
            everybody = kept.deployments().values()
            anew = allowance(planned(body), capping, everybody, clock.now(), kept.surroundings())
            assert kept.of(body) == anew, f"step {step}"
