"""What users do to LLMDeployments, step by step, each in a namespace with nodes of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.support.operator_cluster import Object, llmdeployment
from tests.support.spaces import L40S, Space, replicas

from energylens.cluster.resources import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENERGY_BUDGET,
    LLM_DEPLOYMENT,
    NODE,
    POD,
    SERVICE,
)
from energylens_dev.devcluster import eventually

STEP_SECONDS = 240.0
"""For one step, faults and a machine that is shared included; nothing is asserted about the time that it takes."""
POLL_SECONDS = 0.25
LLAMA = "llama"
Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Scenario:
    """What is done in a namespace; its end is when nothing moves any more."""

    name: str
    run: Callable[[Space], None]
    nodes: int = 2
    gpus: int = 4


def until(check: Callable[[], object]) -> None:
    """Wait for a step."""
    eventually(check, STEP_SECONDS, interval=POLL_SECONDS)


def condition(place: Space, kind: str, name: str = LLAMA) -> Object:
    """Return a condition that is about the spec as it is now."""
    body = place.api.get(LLM_DEPLOYMENT, place.namespace, name)
    assert body is not None, f"no LLMDeployment {name}"
    found = [c for c in (body.get("status") or {}).get("conditions", ()) if c["type"] == kind]
    assert found, f"{place.namespace}/{name} has no condition {kind}"
    assert found[0].get("observedGeneration") == body["metadata"]["generation"], f"not seen yet: {found[0]}"
    result: Object = found[0]
    return result


def says(place: Space, kind: str, status: str, reason: str, name: str = LLAMA) -> None:
    """Wait until a condition of the present spec has a status and a reason."""

    def check() -> bool:
        found = condition(place, kind, name)
        assert (found["status"], found["reason"]) == (status, reason), f"{place.namespace}/{name}: {found}"
        return True

    until(check)


def settled(place: Space, name: str = LLAMA) -> Object:
    """Wait until the present spec serves and nothing rolls out; return the object."""
    says(place, "Ready", "True", "PodsReady", name)
    says(place, "Progressing", "False", "Complete", name)
    body = place.api.get(LLM_DEPLOYMENT, place.namespace, name)
    assert body is not None
    return body


def runs(place: Space, count: int, name: str = LLAMA) -> None:
    """Wait until so many replicas are asked for and ready."""

    def check() -> bool:
        body = place.api.get(DEPLOYMENT, place.namespace, name)
        assert body is not None, f"no Deployment {place.namespace}/{name}"
        seen = body["spec"]["replicas"], body.get("status", {}).get("readyReplicas", 0)
        assert seen == (count, count), f"{place.namespace}/{name}: {seen} replicas, not {count}"
        return True

    until(check)


def applied(place: Space, **spec: Any) -> None:
    """Apply the deployment with a spec, and wait until it serves so."""
    place.apply(llmdeployment(**spec))
    settled(place)


def create(place: Space) -> None:
    """Make a deployment."""
    applied(place)


def scale(place: Space) -> None:
    """Ask for more replicas, then for fewer."""
    for count in (1, 3, 2):
        place.apply(llmdeployment(planning=replicas(count)))
        runs(place, count)
        settled(place)


def replan(place: Space) -> None:
    """Raise the load of a deployment whose layout the planner chooses, then change what is bounded."""
    load = {"inputTokens": 512, "outputTokens": 256}
    free = {"replan": {"cooldownSeconds": 0, "minEnergySavingPercent": 0}}
    applied(place, planning=free, workload={**load, "requestsPerSecond": 1})
    applied(place, planning=free, workload={**load, "requestsPerSecond": 12})
    applied(place, planning=free, workload={**load, "requestsPerSecond": 2}, slo={"tpotMilliseconds": 60})


def energy_budget(watts: int, action: str) -> Object:
    """Return a budget of the namespace."""
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": "cap"},
        "spec": {"powerWatts": watts, "action": action},
    }


def budget(place: Space) -> None:
    """Deny growth by a budget that cannot be checked, since nothing is measured here; then take it away."""
    applied(place, planning=replicas(1))
    place.apply(energy_budget(100_000, "Deny"))
    says(place, "WithinEnergyBudget", "Unknown", "BudgetNotChecked")
    place.apply(llmdeployment(planning=replicas(3)))
    says(place, "PlanReady", "False", "BudgetExceeded")
    place.api.delete(ENERGY_BUDGET, place.namespace, "cap")
    runs(place, 3)
    settled(place)


def over_budget(place: Space) -> None:
    """Report that a budget is exceeded, then change the budget: the plan stays."""
    applied(place)
    place.apply(energy_budget(1, "Report"))
    says(place, "WithinEnergyBudget", "False", "OverBudget")
    place.apply(energy_budget(2, "Report"))
    until(lambda: "powerWatts=2 W" in condition(place, "WithinEnergyBudget")["message"])
    until(lambda: _silence_is_seen(place))


def _silence_is_seen(place: Space) -> bool:
    # Nothing is measured here: a run that faults make longer would otherwise end in another state than a short one.
    body = place.api.get(ENERGY_BUDGET, place.namespace, "cap")
    assert body is not None, f"no budget in {place.namespace}"
    status = body["status"]
    ready = next(found for found in status["conditions"] if found["type"] == "Ready")
    assert status["observedGeneration"] == body["metadata"]["generation"], status
    return bool(ready["reason"] == "MetricsMissing")


def delete(place: Space) -> None:
    """Delete a deployment, and make another one of its name at once; a second one goes for good."""
    applied(place)
    place.apply(llmdeployment("gone", planning=replicas(1)))
    settled(place, "gone")
    for name in (LLAMA, "gone"):
        place.api.delete(LLM_DEPLOYMENT, place.namespace, name)
    place.apply(llmdeployment(planning=replicas(1)))
    runs(place, 1)
    settled(place)
    collected(place, "gone")


def collected(place: Space, name: str) -> None:
    """Wait until the garbage collector has removed the children of a deployment that was deleted."""

    def check() -> bool:
        children = ((DEPLOYMENT, name), (SERVICE, name), (CONFIG_MAP, f"{name}-plan"))
        left = [kind.kind for kind, child in children if place.api.get(kind, place.namespace, child) is not None]
        pods = [
            pod["metadata"]["labels"].get("app.kubernetes.io/instance") for pod in place.api.list(POD, place.namespace)
        ]
        assert not left, f"{place.namespace}/{name}: {', '.join(left)} left"
        assert name not in pods, f"{place.namespace}/{name}: pods left"
        return True

    until(check)


def node_loss(place: Space) -> None:
    """Lose a node with its pods."""
    applied(place, planning=replicas(2))
    lost = place.nodes[0]
    place.api.delete(NODE, "", lost)
    for pod in place.api.list(POD, place.namespace):
        if pod["spec"].get("nodeName") == lost:
            # As the pod garbage collector does after a minute.
            place.api.delete(POD, place.namespace, pod["metadata"]["name"], grace_seconds=0)
    runs(place, 2)
    settled(place)


def approve(place: Space) -> None:
    """Approve a plan by its hash."""
    manual = {**replicas(2), "mode": "Manual"}
    place.apply(llmdeployment(planning=manual))
    says(place, "PlanReady", "False", "AwaitingApproval")
    body = place.api.get(LLM_DEPLOYMENT, place.namespace, LLAMA)
    assert body is not None
    place.apply(llmdeployment(planning={**manual, "approvedPlanHash": body["status"]["plan"]["hash"]}))
    settled(place)


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("create", create, nodes=1),
    Scenario("scale", scale, nodes=1),
    Scenario("replan", replan),
    Scenario("budget", budget, nodes=1),
    Scenario("over-budget", over_budget, nodes=1),
    Scenario("delete", delete, nodes=1),
    Scenario("node-loss", node_loss),
    Scenario("approve", approve, nodes=1),
)

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "torch_dtype": "bfloat16",
    "tie_word_embeddings": True,
}  # fmt: skip

WORKLOAD = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 1}
FIELDS: dict[str, Spec] = {
    "model.name": {"model": {"name": "Qwen/Qwen3-8B"}},
    "model.revision": {"model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "revision": "main"}},
    "model.quantization": {"model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "quantization": "FP8"}},
    "model.configRef": {"model": {"name": "acme/llama-1b", "configRef": {"name": "config"}}},
    "model.tokenSecretRef": {
        "model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "tokenSecretRef": {"name": "token"}}
    },
    "model.cache": {"model": {"name": "meta-llama/Llama-3.1-8B-Instruct", "cache": {"hostPath": "/var/models"}}},
    "engine.type": {"engine": {"type": "SGLang"}},
    "engine.image": {"engine": {"image": "vllm/vllm-openai:v0.33.0-patched"}},
    "engine.extraArgs": {"engine": {"extraArgs": ["--disable-log-requests"]}},
    "engine.env": {"engine": {"env": [{"name": "VLLM_LOGGING_LEVEL", "value": "DEBUG"}]}},
    "workload.inputTokens": {"workload": {**WORKLOAD, "inputTokens": 6000}},
    "workload.outputTokens": {"workload": {**WORKLOAD, "outputTokens": 3000}},
    "workload.prefixCacheHitPercent": {"workload": {**WORKLOAD, "prefixCacheHitPercent": 50}},
    "workload.speculative": {
        "workload": {**WORKLOAD, "speculative": {"method": "NGram", "draftTokens": 3, "acceptancePercent": 50}}
    },
    "energy.powerCap": {"energy": {"powerCap": {"mode": "Fixed", "wattsPerGPU": 250}}},
    "hardware.tolerations": {
        "hardware": {"gpuProducts": [L40S], "tolerations": [{"key": "team", "operator": "Exists"}]}
    },
    "planning.overrides.tensorParallel": {"planning": replicas(1, tensorParallel=2)},
    "planning.overrides.maxBatchSize": {"planning": replicas(2, maxBatchSize=64)},
    "rollout.strategy": {"rollout": {"strategy": "Recreate"}, "planning": replicas(2, maxBatchSize=64)},
    "podTemplate": {"podTemplate": {"metadata": {"labels": {"team": "a"}}}},
    "suspend": {"suspend": True},
}
"""By field: the parts of the spec that differ from the default of :func:`llmdeployment`. Each changes the pods."""


def config_map(namespace: str) -> Object:
    """Return the ConfigMap of ``model.configRef``."""
    metadata = {"name": "config", "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"config.json": json.dumps(CONFIG)}}


def update(field: str, place: Space) -> None:
    """Change one field of a deployment that serves."""
    if field == "model.configRef":
        place.api.apply(CONFIG_MAP, config_map(place.namespace))
    applied(place)
    place.apply(llmdeployment(**FIELDS[field]))
    if field == "suspend":
        says(place, "Ready", "False", "Suspended")
    else:
        settled(place)


UPDATES = tuple(Scenario(f"update {field}", partial(update, field), nodes=1) for field in FIELDS)
