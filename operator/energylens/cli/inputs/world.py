"""The operator's view of a cluster, from a file or from a live cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.cli.errors import InputError
from energylens.cli.inputs.files import Asked, Key, Object, device_objects, objects_of, read_documents
from energylens.cli.inputs.live import ClusterAccess, read_cluster
from energylens.data import find_gpu, load_gpus
from energylens.decide.budgets.budget import budget_of
from energylens.decide.budgets.forecasts import place
from energylens.decide.deployment.observed.named_maps import names_of
from energylens.decide.deployment.observed.observation import PodState, pod_state
from energylens.decide.deployment.pods.workloads import NO_WORKLOADS, Workloads
from energylens.decide.learned.corrections import CONFIG_MAP_NAME, DATA_KEY, CorrectionsError, Pool
from energylens.decide.planned import key_of, name_of
from energylens.decide.preview import World
from energylens.decide.trimmed import trim_pod
from energylens.planner.inventory.file import InventoryError, snapshot_from_inventory
from energylens.planner.inventory.snapshot import OWNER_LABEL, snapshot_from_objects
from energylens.serving.claims import claim_fields
from energylens.serving.support import table_name

OPERATOR_NAMESPACE = "energylens-system"
"""Namespace in the chart's instructions, where the operator stores its learned corrections."""
_OPERATOR_LABELS = {"app.kubernetes.io/name": "energylens", "app.kubernetes.io/managed-by": "Helm"}
"""Labels of the operator's own Deployment in the chart."""
_KINDS = (
    "Node",
    "Pod",
    "Namespace",
    "LLMDeployment",
    "EnergyBudget",
    "ClusterEnergyBudget",
    "ConfigMap",
    "Deployment",
    "LeaderWorkerSet",
    "PersistentVolumeClaim",
    "ResourceSlice",
    "ResourceClaim",
    "DeviceClass",
    "DeviceTaintRule",
)


def world_of_file(path: Path) -> World:
    """Return the cluster that a file describes: objects as kubectl prints them, or a short list of node pools.

    Raises:
        InputError: The file cannot be read or is no inventory.
    """
    documents = read_documents(path)
    objects = [o for o in objects_of(documents) if isinstance(o, Mapping) and o.get("kind") in _KINDS]
    by_kind: dict[str, list[Object]] = {kind: [dict(o) for o in objects if o["kind"] == kind] for kind in _KINDS}
    if by_kind["Node"]:
        try:
            return world_of_objects(by_kind)
        except KeyError as error:
            raise InputError(f"{path}: an object lacks the field {error.args[0]!r}, which kubectl prints") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{path}: an object is not as kubectl prints it: {error}") from error
    pools = [document for document in documents if not (isinstance(document, Mapping) and document.get("kind"))]
    try:
        snapshot = snapshot_from_inventory(pools[0] if len(pools) == 1 else pools, lambda name: find_gpu(name).product)
    except InventoryError as error:
        raise InputError(f"{path}: {error}") from error
    return replace(world_of_objects(by_kind), snapshot=snapshot)


def world_of_cluster(access: ClusterAccess, asked: Asked) -> World:
    """Return the objects of a live cluster; of ConfigMaps only the requested ones.

    Raises:
        InputError: It cannot be read.
    """
    from energylens.cluster.resources import (
        CLUSTER_ENERGY_BUDGET,
        CONFIG_MAP,
        DEPLOYMENT,
        DEVICE_OBJECTS,
        ENERGY_BUDGET,
        LEADER_WORKER_SET,
        LLM_DEPLOYMENT,
        NAMESPACE,
        NODE,
        PERSISTENT_VOLUME_CLAIM,
        POD,
    )

    own = (LLM_DEPLOYMENT, ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET, LEADER_WORKER_SET)
    refs = {(d.metadata.namespace, name) for d in asked.deployments for name in names_of(d)}
    # In Manual mode a waiting plan may have a ConfigMap beside the running plan's pods.
    refs |= {(d.metadata.namespace, table_name(d)) for d in asked.deployments if d.spec.planning.mode == "Manual"}
    claims = {(d.metadata.namespace, name) for d in asked.deployments for name in claim_fields(d)}
    found = read_cluster(
        access,
        everywhere=(NODE, POD, NAMESPACE, DEPLOYMENT, *DEVICE_OBJECTS, *own),
        optional=(*DEVICE_OBJECTS, *own),
        if_allowed=(*DEVICE_OBJECTS, CLUSTER_ENERGY_BUDGET, NAMESPACE, PERSISTENT_VOLUME_CLAIM),
        named=[
            *((CONFIG_MAP, *ref) for ref in sorted(refs)),
            *((PERSISTENT_VOLUME_CLAIM, *ref) for ref in sorted(claims)),
        ],
    )
    objects = dict(found.objects)
    for body in asked.budgets:
        spec, namespace = budget_of(body)[0], key_of(body)[0]
        if spec.carbon is not None:
            refs.add(place(namespace, spec))
    if any(d.spec.validation.on_drift == "Recalibrate" for d in asked.deployments):
        namespace = access.operator_namespace or operator_namespace(objects.get(DEPLOYMENT.kind, ()))
        learned = read_cluster(access, named=[(CONFIG_MAP, namespace, CONFIG_MAP_NAME)]).objects
        objects[CONFIG_MAP.kind] = [*objects.get(CONFIG_MAP.kind, ()), *learned.get(CONFIG_MAP.kind, ())]
    return replace(world_of_objects(objects), serves_lws=LEADER_WORKER_SET.kind in objects)


def operator_namespace(deployments: Iterable[Mapping[str, Any]]) -> str:
    """Return the operator's namespace: that of its Deployment, else the one in the chart's instructions.

    Raises:
        InputError: Several namespaces have an operator.
    """
    found = {
        body["metadata"]["namespace"]
        for body in deployments
        if _OPERATOR_LABELS.items() <= (body["metadata"].get("labels") or {}).items()
    }
    if len(found) > 1:
        raise InputError(f"several operators, in {', '.join(sorted(found))}: select one with --operator-namespace")
    return found.pop() if found else OPERATOR_NAMESPACE


def world_of_objects(objects: Mapping[str, list[Object]]) -> World:
    """Return the world that consists of objects, given by kind; a missing kind has no objects."""

    def keyed(kind: str) -> dict[Key, Object]:
        return {_key(body): body for body in objects.get(kind, ())}

    deployments = keyed("LLMDeployment")
    owned: dict[Key, Workloads] = {}
    for body in (*objects.get("Deployment", ()), *objects.get("LeaderWorkerSet", ())):
        if owner := _owner(body):
            key = _key(body)[0], owner
            owned[key] = Workloads((*owned.get(key, NO_WORKLOADS).bodies, body))
    pods: dict[Key, tuple[PodState, ...]] = {}
    for pod in objects.get("Pod", ()):
        if owner := _owner(pod):
            key = _key(pod)[0], owner
            pods[key] = (*pods.get(key, ()), pod_state(trim_pod(pod)))
    config_maps = keyed("ConfigMap")
    return World(
        snapshot=snapshot_from_objects(
            objects.get("Node", ()), objects.get("Pod", ()), load_gpus(), device_objects(objects)
        ),
        deployments={key: {"status": {}, **_placed(body)} for key, body in deployments.items()},
        budgets=[*map(_placed, objects.get("EnergyBudget", ())), *map(_bare, objects.get("ClusterEnergyBudget", ()))],
        namespaces={
            body["metadata"]["name"]: body["metadata"].get("labels") or {} for body in objects.get("Namespace", ())
        },
        config_maps=config_maps,
        workloads=owned,
        claims=keyed("PersistentVolumeClaim"),
        pods=pods,
        learned=_learned(config_maps),
    )


def _learned(config_maps: Mapping[Key, Object]) -> Pool:
    """Return the corrections that the operator learned, from its ConfigMap; none without the ConfigMap."""
    pool = Pool()
    for (namespace, name), body in sorted(config_maps.items()):
        if name == CONFIG_MAP_NAME:
            try:
                pool.load((body.get("data") or {}).get(DATA_KEY, ""))
            except CorrectionsError as error:
                raise InputError(f"ConfigMap {namespace}/{name}, key {DATA_KEY}: {error}") from error
    return pool


def join(asked: Asked, world: World) -> tuple[list[LLMDeployment], World]:
    """Return the deployments asked for with the status that they have in the world, and the world with the budgets.

    Raises:
        InputError: A deployment of the world cannot be understood.
    """
    budgets = {name_of(body): body for body in (*world.budgets, *asked.budgets)}
    maps = {**world.config_maps, **{_key(body): body for body in asked.config_maps}}
    found = [_with_live(deployment, world.deployments) for deployment in asked.deployments]
    return found, replace(world, budgets=tuple(budgets.values()), config_maps=maps)


def _with_live(deployment: LLMDeployment, live: Mapping[Key, Mapping[str, Any]]) -> LLMDeployment:
    body = live.get((deployment.metadata.namespace, deployment.metadata.name))
    if body is None:
        return deployment
    try:
        known = parse_llmdeployment(body, strict=False)
    except InvalidResourceError as error:
        raise InputError(f"the LLMDeployment in the cluster: {error}") from error
    generation = known.metadata.generation + (known.spec != deployment.spec)
    metadata = deployment.metadata.model_copy(update={"uid": known.metadata.uid, "generation": generation})
    return deployment.model_copy(update={"metadata": metadata, "status": known.status})


def _key(body: Mapping[str, Any]) -> Key:
    metadata = body["metadata"]
    return str(metadata.get("namespace") or "default"), str(metadata["name"])


def _placed(body: Object) -> Object:
    namespace, name = _key(body)
    return {**body, "metadata": {**body["metadata"], "namespace": namespace, "name": name}}


def _bare(body: Object) -> Object:
    return {**body, "metadata": {key: value for key, value in body["metadata"].items() if key != "namespace"}}


def _owner(body: Mapping[str, Any]) -> str:
    return str((body["metadata"].get("labels") or {}).get(OWNER_LABEL, ""))
