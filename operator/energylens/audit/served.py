"""The LLM servers of a cluster: the pods with GPUs, grouped by the object that runs them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from functools import partial
from typing import Any

from energylens.audit.arguments import EngineArguments, ReadOptions, read_engine
from energylens.audit.containers import (
    ConfigMaps,
    Environment,
    engine_container,
    environment_of,
    holding_containers,
    mounted_options,
    other_accelerators,
    pod_spec,
    reference_of,
    stored_model,
)
from energylens.audit.invocation import Invocation, Unread, find_invocation, version_of_image
from energylens.audit.shell import command_lines
from energylens.measure.types import PodRef
from energylens.planner.engines.versions import PROVED, display
from energylens.planner.inventory.snapshot import OWNER_LABEL, gpus_of_pod
from energylens.records import dataclass
from energylens.serving.metadata import LWS_GROUP_INDEX, LWS_WORKER_INDEX

Object = Mapping[str, Any]

LLM_DEPLOYMENT = "LLMDeployment"
_LWS_NAME = "leaderworkerset.sigs.k8s.io/name"
_PLATFORMS: tuple[tuple[str, str], ...] = (
    ("serving.kserve.io/inferenceservice", "InferenceService"),
    ("nvidia.com/dynamo-graph-deployment-name", "DynamoGraphDeployment"),
    ("ray.io/cluster", "RayCluster"),
    (_LWS_NAME, "LeaderWorkerSet"),
)
"""Labels with the name of the platform object that runs a pod, to the object's kind; the first label that a pod has
counts."""
_LLM_INFERENCE_SERVICE = ("app.kubernetes.io/part-of", "llminferenceservice")
_COMPONENT = "nvidia.com/dynamo-component"
_HASH_LABEL = "pod-template-hash"


@dataclass(frozen=True, order=True)
class Owner:
    """The object by which users know a served model."""

    namespace: str
    name: str
    kind: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name} ({self.kind})"

    @property
    def is_planned(self) -> bool:
        """Whether an LLMDeployment already runs the model."""
        return self.kind == LLM_DEPLOYMENT


@dataclass(frozen=True)
class ServedModel:
    """One model as it is served now: all replicas that one object runs."""

    owner: Owner
    image: str
    arguments: EngineArguments | None
    """The engine's arguments; None if the command was not recognised."""
    unread: str
    """Why the command was not recognised; "" if it was."""
    invocation: Invocation | None
    version: str | None
    """Version of the engine from the image's tag."""
    model: str
    """Hugging Face id; "" if neither arguments nor annotations name it."""
    environment: Environment
    product: str
    """Product label of most of its GPUs; "" if no pod has a node."""
    products: Mapping[str, int]
    """GPUs that its pods hold, by product label."""
    replicas: int
    """Number of running copies of the model."""
    pods: tuple[PodRef, ...]
    """All running pods."""
    engine_pods: tuple[PodRef, ...]
    """Pods that answer requests and provide metrics."""
    gpus: int
    """GPUs that all of its pods hold."""
    notes: tuple[str, ...] = field(default=())
    shared: str = ""
    """Why its power is not that of whole GPUs of its own; "" if it is."""
    layout_doubt: str = ""
    """Why the layout that its arguments state is not how it runs; "" if it is."""
    tolerations: tuple[Object, ...] = ()
    node_selector: Mapping[str, str] = field(default_factory=dict)


def served_models(
    pods: Iterable[Object],
    product_by_node: Mapping[str, str],
    config_maps: ConfigMaps,
    model_ids: Mapping[str, str] | None = None,
    shared_nodes: Mapping[str, str] | None = None,
) -> list[ServedModel]:
    """Return the served models, by namespace and name.

    Args:
        pods: Pods of all requested namespaces.
        product_by_node: GPU product label of each node.
        config_maps: The readable ConfigMaps.
        model_ids: Hugging Face ids by ``name`` or ``namespace/name`` of the owner, for models that the cluster does not
            name.
        shared_nodes: Why pods share the GPUs of a node, by node.
    """
    groups: dict[Owner, list[Object]] = {}
    for pod in pods:
        if (_holds_gpus(pod) or other_accelerators(pod)) and _is_live(pod):
            groups.setdefault(owner_of(pod), []).append(pod)
    return [
        _served(owner, group, product_by_node, config_maps, model_ids or {}, shared_nodes or {})
        for owner, group in sorted(groups.items(), key=lambda item: item[0])
    ]


def owner_of(pod: Object) -> Owner:
    """Return the object by which users know a pod: a platform's object, otherwise the Deployment or set above it."""
    metadata = pod["metadata"]
    labels, namespace = metadata.get("labels") or {}, metadata.get("namespace") or "default"
    if labels.get(OWNER_LABEL):
        return Owner(namespace, labels[OWNER_LABEL], LLM_DEPLOYMENT)
    if labels.get(_LLM_INFERENCE_SERVICE[0]) == _LLM_INFERENCE_SERVICE[1] and labels.get("app.kubernetes.io/name"):
        component = labels.get("app.kubernetes.io/component", "")
        role = f"/{component}" if component else ""
        return Owner(namespace, labels["app.kubernetes.io/name"] + role, "LLMInferenceService")
    for label, kind in _PLATFORMS:
        if labels.get(label):
            component = labels.get(_COMPONENT, "") if kind == "DynamoGraphDeployment" else ""
            return Owner(namespace, labels[label] + (f"/{component}" if component else ""), kind)
    controller = next((o for o in metadata.get("ownerReferences") or () if o.get("controller")), None)
    if controller is None:
        return Owner(namespace, metadata["name"], "Pod")
    name, kind = str(controller["name"]), str(controller["kind"])
    template = labels.get(_HASH_LABEL)
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return Owner(namespace, name.removesuffix(f"-{template}"), "Deployment")
    return Owner(namespace, name, kind)


def _holds_gpus(pod: Object) -> bool:
    try:
        return gpus_of_pod(pod) > 0
    except ValueError:
        return False


def _is_live(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Running", "Pending") and not pod["metadata"].get(
        "deletionTimestamp"
    )


def _served(
    owner: Owner,
    pods: Sequence[Object],
    product_by_node: Mapping[str, str],
    config_maps: ConfigMaps,
    model_ids: Mapping[str, str],
    shared_nodes: Mapping[str, str],
) -> ServedModel:
    running = [pod for pod in pods if (pod.get("status") or {}).get("phase") == "Running"]
    notes = [f"{len(pods) - len(running)} of {len(pods)} pods are not running"] if len(running) < len(pods) else []
    leaders = [pod for pod in running if _is_leader(pod)]
    shown = (leaders or running or list(pods))[0]
    container = engine_container(shown) or {}
    image = str(container.get("image") or "")
    environment = environment_of(container, owner.namespace, config_maps)
    variants = {_signature(pod) for pod in leaders}
    if len(variants) > 1:
        notes.append(
            f"its pods run {len(variants)} different commands or images (a rollout?); only the first one is read"
        )
    version = version_of_image(image)
    lines = command_lines(container.get("command") or (), container.get("args") or (), environment.values)
    invocation = find_invocation(lines, image, has_command=bool(container.get("command")))
    if apart := _not_one_engine(shown):
        invocation = Unread(apart)
    options = partial(mounted_options, shown, container, owner.namespace, config_maps)
    arguments, unread = _arguments(invocation, version, options)
    if arguments is not None and not isinstance(invocation, Unread):
        notes += [*arguments.notes, *_unknown_version(invocation, image, version)]
    products = Counter[str]()
    for pod in running:
        products[product_by_node.get(pod_spec(pod).get("nodeName") or "", "")] += gpus_of_pod(pod)
    gpus = sum(map(gpus_of_pod, running))
    doubts: list[str] = []
    product = max((p for p in products if p), key=lambda p: (products[p], p), default="")
    if len([p for p in products if p]) > 1:
        doubts.append(f"its pods run on several GPU products: {', '.join(sorted(filter(None, products)))}")
    replicas = _replicas(leaders, arguments, gpus, notes, doubts)
    return ServedModel(
        owner=owner,
        image=image,
        arguments=arguments,
        unread=unread,
        invocation=None if isinstance(invocation, Unread) else invocation,
        version=version,
        model=_model_id(owner, arguments, shown, model_ids),
        environment=environment,
        product=product,
        products=dict(products),
        replicas=replicas,
        pods=tuple(sorted(map(reference_of, running))),
        engine_pods=tuple(sorted(map(reference_of, leaders))),
        gpus=gpus,
        notes=(*notes, *doubts),
        shared=next((why for pod in running if (why := shared_nodes.get(pod_spec(pod).get("nodeName") or ""))), ""),
        layout_doubt="; ".join(doubts),
        tolerations=tuple(pod_spec(shown).get("tolerations") or ()),
        node_selector=pod_spec(shown).get("nodeSelector") or {},
    )


def _arguments(
    invocation: Invocation | Unread, version: str | None, read_file: ReadOptions
) -> tuple[EngineArguments | None, str]:
    """Return the configuration in the arguments of an engine, or None and why it is not known."""
    if isinstance(invocation, Unread):
        return None, invocation.reason
    found = read_engine(invocation, None if version is None else tuple(map(int, version.split("."))), read_file)
    if found.open_words:
        return None, f"its arguments are in {' '.join(found.open_words)}, whose value is not known here"
    return found, ""


def _not_one_engine(pod: Object) -> str:
    """Return why a pod's GPUs are not those of one engine; "" if they are."""
    others = other_accelerators(pod)
    if others and not _holds_gpus(pod):
        part = others[0].startswith("nvidia.com/")
        kind = "a part of a GPU, whose energy no counter states" if part else "no NVIDIA GPU"
        return f"it holds {', '.join(others)}: {kind}"
    holding = [str(container.get("name") or "") for container in holding_containers(pod)]
    if len(holding) > 1:
        return f"several containers of a pod hold GPUs ({', '.join(holding)}): their loads and powers are not separate"
    return ""


def _unknown_version(invocation: Invocation, image: str, version: str | None) -> list[str]:
    """Return a note if the version of the engine is not known."""
    if version is not None or invocation.engine not in PROVED:
        return []
    repository = image.partition("@")[0]
    return [
        f"the engine's version is not visible in image {repository}; predicted as "
        f"{display(invocation.engine, PROVED[invocation.engine])}"
    ]


def _is_leader(pod: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return bool(LWS_GROUP_INDEX not in labels or labels.get(LWS_WORKER_INDEX, "0") == "0")


def _signature(pod: Object) -> tuple[str, ...]:
    container = engine_container(pod) or {}
    return (
        str(container.get("image")),
        *map(str, container.get("command") or ()),
        *map(str, container.get("args") or ()),
    )


def _model_id(owner: Owner, arguments: EngineArguments | None, pod: Object, model_ids: Mapping[str, str]) -> str:
    told = model_ids.get(f"{owner.namespace}/{owner.name}") or model_ids.get(owner.name)
    if told:
        return told
    if arguments is None:
        return ""
    if not arguments.model.startswith(("/", ".", "s3://", "gs://")):
        return arguments.model
    # The path of a snapshot in the Hugging Face cache contains the id.
    cached = re.search(r"models--([^/]+?)--([^/]+)", arguments.model)
    if cached:
        return f"{cached[1]}/{cached[2]}"
    return stored_model(pod, arguments.model) or (arguments.served_name if "/" in arguments.served_name else "")


def _replicas(
    leaders: Sequence[Object], arguments: EngineArguments | None, gpus: int, notes: list[str], doubts: list[str]
) -> int:
    """Return the number of running copies; pods that form a copy without declaring it are recognised by their GPUs."""
    if arguments is None or not leaders or not gpus:
        return len(leaders)
    each, size = gpus / len(leaders), arguments.layout.gpus
    if size == each:
        return len(leaders)
    if size > each and gpus % size == 0:
        notes.append(f"a replica of {size} GPUs spans {round(size / each)} pods")
        return gpus // size
    doubts.append(f"each replica holds {each:g} GPUs, but its engine uses {size}")
    return len(leaders)
