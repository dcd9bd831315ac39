"""The pod of an engine: one container with the plan's GPUs, probes that fit its start-up time, and a clean shutdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.inventory.capacity import GPU_TOLERATION
from energylens.planner.inventory.node_gpus import OS_LABEL, OTHER_OS
from energylens.planner.inventory.products import GKE_LABEL, PRODUCT_LABEL
from energylens.predictor.gpu_names import node_label_values
from energylens.serving import timing
from energylens.serving.arguments import HTTP_PORT, EngineCommand, gpus_per_pod
from energylens.serving.gpus import Placement, claim_labels, pod_claims, resources
from energylens.serving.images import engine_image
from energylens.serving.merge import ENGINE_CONTAINER, merge_pod_template
from energylens.serving.metadata import FOLLOWER_APPLICATION, POWER_LIMIT, labels
from energylens.serving.queues import pod_annotations, pod_labels
from energylens.serving.roles import Role, engine_port, role_labels, sidecar
from energylens.serving.weights import source_environment, source_volumes

SHARED_MEMORY_GIB_PER_GPU = 2
"""NCCL and the engines' queues between processes live in /dev/shm; the container runtime's default is 64 MiB."""
HEALTH_PATH = "/health"
CACHE_PATH = "/models"
TEMPORARY_PATH, TEMPORARY_VOLUME = "/tmp", "energylens-tmp"
_CACHES = {
    "VLLM": {"VLLM_CACHE_ROOT": "vllm", "FLASHINFER_WORKSPACE_BASE": "flashinfer"},
    "SGLang": {"SGLANG_CACHE_DIR": "sglang"},
}
"""Variables for the locations of compiled graphs and kernels, and the folder beside the weights for each.

vLLM 0.33 keeps FlashInfer's kernels in ``$HOME`` unless FlashInfer is told otherwise (``flashinfer/jit/env.py``);
SGLang 0.5.23 derives those of Triton, Inductor, FlashInfer and TileLang from one variable (``sglang/srt/environ.py``).
"""
_PROBE_TIMEOUT_SECONDS = 5
"""SGLang's health check takes more than the kubelet's default of 1 s."""


def grace_period_seconds(deployment: LLMDeployment) -> int:
    """Return the pod's grace period: the pod template's, otherwise the time that running requests need to end."""
    template = (deployment.spec.pod_template or {}).get("spec") or {}
    return int(template.get("terminationGracePeriodSeconds", timing.DEFAULT_GRACE_PERIOD_SECONDS))


NODE_NAME_FIELD = "metadata.name"
"""The only field that a node affinity term may select."""


def pod_template(
    deployment: LLMDeployment,
    plan: PlanStatus,
    command: EngineCommand,
    startup_seconds: int,
    placement: Placement,
    role: Role | None = None,
) -> dict[str, Any]:
    """Return the pod template of one kind of pod of a plan, the user's ``spec.podTemplate`` merged into it.

    Args:
        deployment: The owner.
        plan: The plan to serve.
        command: How the engine is started in this kind of pod.
        startup_seconds: How long the engine may take to start.
        placement: Where the pods may run, and how they get their GPUs.
        role: The role of the pods in a plan with separate prefill and decode; None in any other plan.

    Raises:
        ServingError: ``spec.podTemplate`` sets what the plan decides.
    """
    # Nothing in a template may depend on the number of replicas: a changed template restarts every pod.
    template = {
        "metadata": _metadata(deployment, plan, command, placement, role),
        "spec": {
            "containers": [_container(deployment, plan, command, startup_seconds, placement, role)],
            **_around_container(deployment, plan, placement, role),
        },
    }
    merged = merge_pod_template(template, deployment.spec.pod_template or {})
    _give_room_to_write(merged["spec"])
    if plan.power_cap_watts_per_gpu is not None:
        # After the merge: the plan's figures hold for this cap only.
        merged["metadata"].setdefault("annotations", {})[POWER_LIMIT] = str(plan.power_cap_watts_per_gpu)
    return merged


def _metadata(
    deployment: LLMDeployment, plan: PlanStatus, command: EngineCommand, placement: Placement, role: Role | None
) -> dict[str, Any]:
    annotations: dict[str, str] = {}
    if command.serves_http:
        annotations = {
            "prometheus.io/scrape": "true",
            "prometheus.io/port": str(HTTP_PORT),
            "prometheus.io/path": "/metrics",
        }
    annotations |= pod_annotations(deployment.metadata)
    own_labels = pod_labels(deployment.metadata) | labels(deployment) | claim_labels(plan, placement)
    own_labels |= role_labels(deployment, plan, role)
    if not command.serves_http:
        own_labels["app.kubernetes.io/name"] = FOLLOWER_APPLICATION
    return {"labels": own_labels} | ({"annotations": annotations} if annotations else {})


def _around_container(
    deployment: LLMDeployment, plan: PlanStatus, placement: Placement, role: Role | None
) -> dict[str, Any]:
    """Return the fields of the pod's spec besides the engine's container."""
    spec = deployment.spec
    found: dict[str, Any] = {
        "affinity": {"nodeAffinity": _node_affinity(plan.gpu_product, placement)},
        "automountServiceAccountToken": False,
        # Variables of every Service in the namespace clash with the engines' own: VLLM_PORT of a Service named vllm.
        "enableServiceLinks": False,
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        "terminationGracePeriodSeconds": grace_period_seconds(deployment),
        "tolerations": _tolerations(deployment),
        "volumes": _volumes(deployment, plan),
    }
    scheduling = spec.scheduling
    names = {"schedulerName": scheduling.scheduler_name, "priorityClassName": scheduling.priority_class_name}
    found |= {field: name for field, name in names.items() if name is not None}
    if role == "decode":
        found["initContainers"] = [sidecar(deployment)]
    claims = pod_claims(deployment, plan, placement)
    if claims:
        found["resourceClaims"] = claims
    if spec.hardware.node_selector:
        found["nodeSelector"] = dict(spec.hardware.node_selector)
    return found


def _container(
    deployment: LLMDeployment,
    plan: PlanStatus,
    command: EngineCommand,
    startup_seconds: int,
    placement: Placement,
    role: Role | None,
) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": ENGINE_CONTAINER,
        "image": engine_image(deployment.spec.engine),
        "command": list(command.command),
        "args": list(command.args),
        "env": _environment(deployment, command),
        "resources": resources(deployment, plan, placement),
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [
            {"name": "shm", "mountPath": "/dev/shm"},
            {"name": "models", "mountPath": _cache_path(deployment)},
            *(mount for _, mount in source_volumes(deployment.spec.model)),
        ],
    }
    if command.serves_http:
        # Behind a sidecar, which has the port http, the engine has another port and another name of it.
        name = "engine" if role == "decode" else "http"
        container |= {
            "ports": [{"name": name, "containerPort": engine_port(role)}],
            "lifecycle": {"preStop": {"sleep": {"seconds": timing.PRE_STOP_SECONDS}}},
            "startupProbe": _probe(
                timing.STARTUP_PERIOD_SECONDS, startup_seconds // timing.STARTUP_PERIOD_SECONDS, name
            ),
            "readinessProbe": _probe(5, 3, name),
            "livenessProbe": _probe(10, 10, name),
        }
    elif command.answers_health:
        # No probe: the engine itself ends a follower that waits for its leader, and knows the reason.
        container["readinessProbe"] = _probe(5, 3, HTTP_PORT)
    return container


def _give_room_to_write(pod: dict[str, Any]) -> None:
    """Give an engine whose root file system is read-only a writable ``/tmp`` and ``$HOME``, as far as the user has not.

    Both engines compile kernels and make sockets there.
    """
    (engine,) = [container for container in pod["containers"] if container["name"] == ENGINE_CONTAINER]
    if not (engine.get("securityContext") or {}).get("readOnlyRootFilesystem"):
        return
    if all(mount["mountPath"].rstrip("/") != TEMPORARY_PATH for mount in engine["volumeMounts"]):
        engine["volumeMounts"] = [*engine["volumeMounts"], {"name": TEMPORARY_VOLUME, "mountPath": TEMPORARY_PATH}]
        pod["volumes"] = [*pod["volumes"], {"name": TEMPORARY_VOLUME, "emptyDir": {}}]
    if all(variable["name"] != "HOME" for variable in engine["env"]):
        engine["env"] = [*engine["env"], {"name": "HOME", "value": TEMPORARY_PATH}]


def _probe(period_seconds: int, failures: int, port: str | int = "http") -> dict[str, Any]:
    return {
        "httpGet": {"path": HEALTH_PATH, "port": port},
        "periodSeconds": period_seconds,
        "timeoutSeconds": _PROBE_TIMEOUT_SECONDS,
        "failureThreshold": failures,
    }


def _environment(deployment: LLMDeployment, command: EngineCommand) -> list[dict[str, Any]]:
    spec, cache = deployment.spec, _cache_path(deployment)
    folders = {"HF_HUB_CACHE": "hub", **_CACHES[spec.engine.type]}
    values = {name: f"{cache}/{folder}" for name, folder in folders.items()} | dict(command.env)
    values |= source_environment(spec.model)
    own = {variable.name: variable.value for variable in spec.engine.env}
    env: list[dict[str, Any]] = [{"name": name, "value": value} for name, value in (values | own).items()]
    secret = spec.model.token_secret_ref
    if secret is not None and "HF_TOKEN" not in own:
        reference = {"secretKeyRef": {"name": secret.name, "key": secret.key}}
        env.append({"name": "HF_TOKEN", "valueFrom": reference})
    # First, because Kubernetes expands $(POD_IP) only from earlier variables.
    return [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}, *env]


def _cache_path(deployment: LLMDeployment) -> str:
    cache = deployment.spec.model.cache
    return cache.path.rstrip("/") if cache is not None else CACHE_PATH


def _volumes(deployment: LLMDeployment, plan: PlanStatus) -> list[dict[str, Any]]:
    gib = SHARED_MEMORY_GIB_PER_GPU * gpus_per_pod(plan)
    models: dict[str, Any] = {"name": "models", "emptyDir": {}}
    cache = deployment.spec.model.cache
    if cache is not None and cache.persistent_volume_claim:
        models = {"name": "models", "persistentVolumeClaim": {"claimName": cache.persistent_volume_claim}}
    elif cache is not None and cache.host_path:
        models = {"name": "models", "hostPath": {"path": cache.host_path, "type": "DirectoryOrCreate"}}
    sources = [volume for volume, _ in source_volumes(deployment.spec.model)]
    return [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{gib}Gi"}}, models, *sources]


def _node_affinity(product: str, placement: Placement) -> dict[str, Any]:
    """Return a node affinity for a product, by every label that the planner reads, without the excluded nodes.

    A claim selects the product by the devices themselves: nodes of dynamic resource allocation need no such label.
    """
    gpu, avoid = placement.gpu, placement.avoid
    by_claim = placement.access == "Claim"
    terms: list[dict[str, Any]] = [_term() if by_claim else _term((PRODUCT_LABEL, "In", (product,)))]
    if gpu is not None and not by_claim:
        older = tuple(value for value in node_label_values(gpu) if value != product)
        terms.append(_term((PRODUCT_LABEL, "In", older)))
        if gpu.gke_accelerators:
            # The label of GPU feature discovery has precedence: it distinguishes shared and partitioned GPUs.
            terms.append(_term((GKE_LABEL, "In", gpu.gke_accelerators), (PRODUCT_LABEL, "DoesNotExist", ())))
    # The API server takes one name in each.
    fields = [{"key": NODE_NAME_FIELD, "operator": "NotIn", "values": [name]} for name in avoid]
    for term in terms if fields else ():
        term["matchFields"] = fields
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def _term(*expressions: tuple[str, str, Sequence[str]]) -> dict[str, Any]:
    linux = (OS_LABEL, "NotIn", (OTHER_OS,))
    return {
        "matchExpressions": [
            {"key": key, "operator": operator, **({"values": list(values)} if values else {})}
            for key, operator, values in (*expressions, linux)
        ]
    }


def _tolerations(deployment: LLMDeployment) -> list[dict[str, Any]]:
    """Return our tolerations first: the first matching toleration decides how long a taint is tolerated."""
    every = dict.fromkeys((GPU_TOLERATION, *deployment.spec.hardware.tolerations))
    return [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in every]
