"""Pods of a plan with separate prefill and decode, behind llm-d's endpoint picker and routing sidecar.

A request reaches the sidecar of a decode pod, with a header that names a prefill pod. The sidecar sends the prompt
there with ``max_tokens: 1``, and then the request to its own engine, which reads the KV cache from the prefill pod.
Without the header, or if the prefill pod answers with a server error, the decode pod processes the prompt as well
(docs/disaggregation.md and pkg/sidecar of llm-d-inference-scheduler). So decode pods alone still serve.

Two engines must agree on the version, the model, the number format of the cache, the attention kernels (which vLLM
chooses by the GPU) and more, which vLLM's connector checks in a handshake (``compute_nixl_compatibility_hash``), and
one tensor-parallel size must divide the other. Every pod therefore has a label with both, from which :func:`exchange`
says whether two pods may work together.

With SGLang, the sidecar sends the request to both engines at once, with a random room number and the address of the
bootstrap server of the prefill pod, at which the engines meet; the prefill engine pushes the KV cache
(``connector_sglang.go``). A decode pod alone serves nothing: it answers a request without a room with status 400.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from energylens.api.llmdeployment import Engine, LLMDeployment, PlanStatus
from energylens.serving.arguments import HTTP_PORT
from energylens.serving.errors import ServingError
from energylens.serving.images import engine_image
from energylens.serving.metadata import DECODE, KV_CACHE_LABEL, PREFILL, ROLE_LABEL

Role = Literal["prefill", "decode"]
LLMD_ROLE_LABEL = "llm-d.ai/role"
"""The label by which the filters of llm-d's endpoint picker know prefill and decode pods (``bylabel/roles.go``)."""
ENGINE_PORT = 8200
"""Port of the engine behind the sidecar, which listens at the operator's port."""
SIDE_CHANNEL_PORT = 5600
"""vLLM's default (``VLLM_NIXL_SIDE_CHANNEL_PORT``), written out because other pods read from it."""
SIDECAR = "routing-sidecar"
CONNECTOR = json.dumps({"kv_connector": "NixlConnector", "kv_role": "kv_both"}, separators=(",", ":"))
"""The connector does not look at the role; with kv_both, a decode pod may also process prompts."""
ENVIRONMENT = ("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_NIXL_SIDE_CHANNEL_PORT")
"""Variables that the operator sets for vLLM's pods with a role."""
BOOTSTRAP_PORT = 8998
"""Port of SGLang's bootstrap server, which the sidecar expects unless ``SGLANG_BOOTSTRAP_PORT`` says another one."""
TRANSFER = "nixl"
"""SGLang's transfer backend unless ``spec.engine.extraArgs`` names one: the one of llm-d's guide, which also works
without RDMA. SGLang's own default is mooncake."""
_SIDECAR_CONNECTOR = {"VLLM": "nixlv2", "SGLang": "sglang"}
"""By the engine, the value of the sidecar's ``--kv-connector``."""


def prefill_plan(plan: PlanStatus) -> PlanStatus:
    """Return the prefill replicas of a plan as a plan of their own, under the hash of the whole plan."""
    prefill = plan.prefill
    if prefill is None:
        raise ValueError(f"plan {plan.hash} has no prefill replicas")
    layout = {name: getattr(prefill, name) for name in type(prefill).model_fields}
    own = {"gpus": prefill.gpus_per_replica * prefill.replicas, "layout": prefill.degrees, "prefill": None}
    return plan.model_copy(update=layout | own | {"nodes_per_replica": 1})


def role_labels(deployment: LLMDeployment, plan: PlanStatus, role: Role | None) -> dict[str, str]:
    """Return the labels of pods with a role; none without a role.

    Args:
        deployment: The owner.
        plan: The plan of the pods: of prefill pods, that of :func:`prefill_plan`.
        role: The role.
    """
    if role is None:
        return {}
    name = PREFILL if role == "prefill" else DECODE
    return {ROLE_LABEL: name, LLMD_ROLE_LABEL: role, KV_CACHE_LABEL: kv_cache(plan, deployment.spec.engine)}


def kv_cache(plan: PlanStatus, engine: Engine) -> str:
    """Return what decides with whom pods of a plan can exchange the KV cache, as the value of a label.

    The image is part of it: without ``spec.engine.image``, a new release of the operator brings a newer engine.
    """
    same = " ".join((str(plan.serving_hash), engine_image(engine), plan.gpu_product))
    if engine.type == "SGLang":
        # Equal sizes only: see the planner's search.
        same += f" {plan.tensor_parallel}"
    return f"{hashlib.sha256(same.encode()).hexdigest()[:16]}-tp{plan.tensor_parallel}"


def exchange(one: str, other: str) -> bool:
    """Return whether pods with two values of :func:`kv_cache` can exchange the KV cache; "" is of a pod without a role.

    A pod without a role exchanges nothing, so that it hinders nobody.
    """
    if not one or not other:
        return True
    (served, _, size), (also_served, _, other_size) = (value.rpartition("-tp") for value in (one, other))
    if served != also_served or not (size.isdigit() and other_size.isdigit()):
        return False
    smaller, larger = sorted((int(size), int(other_size)))
    return smaller > 0 and larger % smaller == 0


def engine_environment(role: Role | None) -> dict[str, str]:
    """Return the variables of an engine with a role."""
    if role is None:
        return {}
    return dict(zip(ENVIRONMENT, ("$(POD_IP)", str(SIDE_CHANNEL_PORT)), strict=True))


def engine_port(role: Role | None) -> int:
    """Return the port at which the engine listens."""
    return ENGINE_PORT if role == "decode" else HTTP_PORT


def sidecar(deployment: LLMDeployment) -> dict[str, Any]:
    """Return the container of the routing sidecar: one that restarts, and that ends after the engine.

    Without ``--secure-proxy=false`` it would serve TLS with a certificate of its own. It answers ``/health`` itself,
    and sends every other path to the engine, ``/metrics`` included.

    Raises:
        ServingError: The spec names no router.
    """
    router = deployment.spec.routing.disaggregation
    if router is None:
        # The API refuses Follow without a router, so that this is a plan from before the spec left out both.
        raise ServingError(
            "spec.routing.disaggregation",
            "not set, and the plan separates prefill and decode; name the router until another plan runs",
        )
    return {
        "name": SIDECAR,
        "image": router.sidecar_image,
        "restartPolicy": "Always",
        "args": [
            f"--port={HTTP_PORT}",
            f"--vllm-port={ENGINE_PORT}",
            f"--kv-connector={_SIDECAR_CONNECTOR[deployment.spec.engine.type]}",
            "--secure-proxy=false",
        ],
        "ports": [{"name": "http", "containerPort": HTTP_PORT}],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": HTTP_PORT},
            "periodSeconds": 5,
            "timeoutSeconds": 5,
            "failureThreshold": 3,
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "runAsNonRoot": True,
        },
    }
