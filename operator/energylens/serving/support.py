"""Objects beside the pods: a Service, a PodDisruptionBudget, and a ConfigMap with the full plan table."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import InferencePool, LLMDeployment, PlanStatus
from energylens.serving.arguments import HTTP_PORT
from energylens.serving.metadata import DECODE, ROLE_LABEL, child, group_labels, selector_labels

MAX_TABLE_BYTES = 900 * 1024
"""The API server refuses objects of more than 1 MiB, metadata and managed fields included."""
POOL_API_VERSION, POOL_KIND = "inference.networking.k8s.io/v1", "InferencePool"
"""Gateway API inference extension (https://gateway-api-inference-extension.sigs.k8s.io/api-types/inferencepool/)."""
TABLE_KEY = "candidates.csv"
PLAN_KEY = "plan.json"


def service_name(deployment: LLMDeployment) -> str:
    """Return the Service's name: the deployment's, except ``vllm``, whose VLLM_PORT would break other vLLM pods."""
    name = deployment.metadata.name
    return f"{name}-http" if name == "vllm" else name


def table_name(deployment: LLMDeployment) -> str:
    """Return the name of the ConfigMap with the plan's table, which must not clash with a user's ConfigMap."""
    return f"{deployment.metadata.name}-plan"


def service(
    deployment: LLMDeployment, plan: PlanStatus, *, sidecars: bool = False, to_decode: bool = False
) -> dict[str, Any]:
    """Return the Service in front of the pods that answer requests, of Deployments and LeaderWorkerSets alike.

    A plan that moves between one node and several has pods of both for a while; the ready pods serve. With
    ``sidecars``, decode pods of a plan with separate prefill and decode are among them, and with ``to_decode``, only
    these serve.
    """
    # Before 1.32, Kubernetes does not look for the port's name in a sidecar (kubernetes/kubernetes issue 127958).
    port: str | int = HTTP_PORT if sidecars else "http"
    body = {
        "type": "ClusterIP",
        "selector": selector_labels(deployment) | ({ROLE_LABEL: DECODE} if to_decode else {}),
        "ports": [{"name": "http", "port": HTTP_PORT, "targetPort": port, "protocol": "TCP", "appProtocol": "http"}],
    }
    return child(deployment, "v1", "Service", service_name(deployment), {"spec": body}, plan)


def inference_pool(deployment: LLMDeployment, plan: PlanStatus, pool: InferencePool) -> dict[str, Any]:
    """Return the InferencePool of the pods that answer requests, whatever plan and role they are of.

    Gateways route to pods that the site's endpoint picker chooses among them.
    """
    picker = pool.endpoint_picker
    body = {
        "selector": {"matchLabels": selector_labels(deployment)},
        "targetPorts": [{"number": HTTP_PORT}],
        "endpointPickerRef": {
            "group": "",
            "kind": "Service",
            "name": picker.name,
            "port": {"number": picker.port},
            "failureMode": picker.failure_mode,
        },
    }
    return child(deployment, POOL_API_VERSION, POOL_KIND, deployment.metadata.name, {"spec": body}, plan)


def needs_disruption_budget(plan: PlanStatus) -> bool:
    """Return whether a PodDisruptionBudget has an effect: with one pod, ``maxUnavailable: 1`` allows everything."""
    return plan.prefill is not None or plan.replicas * plan.nodes_per_replica > 1


def disruption_budget(deployment: LLMDeployment, plan: PlanStatus) -> dict[str, Any]:
    """Return the PodDisruptionBudget: drains take one replica at a time, and never wait for one that is not ready.

    The node of a single replica may be drained; ``minAvailable: 1`` would block the drain for ever.
    All pods of all groups count: the end of a follower ends its group, and no other pod may be evicted until the group
    is back.
    """
    body = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": group_labels(deployment)},
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
    }
    name = deployment.metadata.name
    return child(deployment, "policy/v1", "PodDisruptionBudget", name, {"spec": body}, plan)


def plan_table(deployment: LLMDeployment, plan: PlanStatus, table: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """Return the ConfigMap with the plan as JSON and its candidates as CSV, best first, as many as fit."""
    data = {
        PLAN_KEY: plan.model_dump_json(by_alias=True, exclude_none=True, exclude={"fewer_replicas"}, indent=2),
        TABLE_KEY: _csv(table),
    }
    return child(deployment, "v1", "ConfigMap", table_name(deployment), {"data": data}, plan)


def _csv(table: Sequence[Mapping[str, object]]) -> str:
    text = io.StringIO()
    if table:
        writer = csv.DictWriter(text, fieldnames=list(table[0]), lineterminator="\n")
        writer.writeheader()
        for row in table:
            before = text.tell()
            writer.writerow(dict(row))
            if len(text.getvalue().encode()) > MAX_TABLE_BYTES:
                text.truncate(before)
                break
    return text.getvalue()
