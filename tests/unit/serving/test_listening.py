"""Where an engine's server listens, and which pods of a group are asked for their health."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import Strategy, manifests

Deploy = Callable[..., LLMDeployment]
Plan = Callable[..., PlanStatus]


def containers(deployment: LLMDeployment, plan: PlanStatus, model: ModelSpec) -> dict[str, dict[str, Any]]:
    """Return the engine's container in each kind of pod."""
    spec = manifests(deployment, plan, model, strategy=Strategy("Surge", 1, 0))[0]["spec"]
    group = spec.get("leaderWorkerTemplate", spec)
    kinds = (kind for kind in ("template", "leaderTemplate", "workerTemplate") if kind in group)
    return {kind: group[kind]["spec"]["containers"][0] for kind in kinds}


@pytest.mark.parametrize("engine", ["VLLM", "SGLang"])
@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize(("pod_ip", "host"), [("10.2.0.7", "0.0.0.0"), ("fd00:10:244::7", "::")])
def test_a_server_listens_at_the_family_of_its_pods_address(
    engine: str,
    nodes: int,
    pod_ip: str,
    host: str,
    make_deployment: Deploy,
    make_plan: Plan,
    models: dict[str, ModelSpec],
) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=nodes, nodes_per_replica=nodes)
    found = containers(make_deployment(engine={"type": engine}), plan, models["70b"])
    leader = found.get("template") or found["leaderTemplate"]
    assert leader["env"][0] == {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    program = leader["command"][leader["command"].index("-c") + 2 :]
    # The shell runs what the pod would, with a program that shows its arguments in place of the engine.
    shown = ["/bin/sh", "-c", leader["command"][2], "printf", "%s\\n", *program[1:], *leader["args"]]
    lines = subprocess.run(shown, env={"POD_IP": pod_ip}, capture_output=True, text=True, check=True).stdout.split("\n")
    assert program[0] in ("vllm", "python3")
    assert lines[:-1] == [*program[1:], *leader["args"], f"--host={host}"]


def test_a_follower_is_asked_for_its_health_where_it_answers(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    found = {
        engine: containers(make_deployment(engine={"type": engine}), plan, models["70b"])
        for engine in ("VLLM", "SGLang")
    }
    follower = found["SGLang"]["workerTemplate"]
    assert follower["readinessProbe"]["httpGet"] == {"path": "/health", "port": 8000}
    assert follower["command"] == found["SGLang"]["leaderTemplate"]["command"]
    # An engine that waits for its leader is not to be killed for it.
    assert {"startupProbe", "livenessProbe", "ports"}.isdisjoint(follower)
    assert {"startupProbe", "readinessProbe", "livenessProbe"}.isdisjoint(found["VLLM"]["workerTemplate"])
    assert "--headless" in found["VLLM"]["workerTemplate"]["args"]
    for each in found.values():
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(each["leaderTemplate"])
