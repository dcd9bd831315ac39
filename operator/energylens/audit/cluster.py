"""All served models of a cluster, each with the plan that could replace it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from energylens.audit.assessment import NOTHING_ASKED, Assessment, AuditOptions, assess
from energylens.audit.containers import reference_of
from energylens.audit.conversion import LONGEST_NAME, deployment_name
from energylens.audit.served import ServedModel
from energylens.audit.telemetry import Telemetry
from energylens.decide.preview import World
from energylens.measure.types import PodRef
from energylens.planner.inventory.snapshot import NO_DEVICE_OBJECTS, OWNER_LABEL, DeviceObjects, snapshot_from_objects
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.types import GpuSpec

Object = Mapping[str, Any]


def product_by_node(snapshot: ClusterSnapshot) -> dict[str, str]:
    """Return the GPU product label of each node that has GPUs."""
    left_out = {node.name: node.product for node in snapshot.excluded}
    return left_out | {node.name: node.product for node in snapshot.nodes}


def shared_nodes(snapshot: ClusterSnapshot) -> dict[str, str]:
    """Return why pods share the GPUs of a node, by node: partitioned, shared or virtual GPUs."""
    kinds = ("its GPUs are shared", "its GPUs are partitioned", "its GPUs are virtual")
    return {node.name: node.reason for node in snapshot.excluded if node.reason.startswith(kinds)}


def assessments(
    models: Sequence[ServedModel],
    nodes: Sequence[Object],
    pods: Sequence[Object],
    telemetry: Telemetry,
    gpus: Mapping[str, GpuSpec],
    now: datetime,
    question: AuditOptions = NOTHING_ASKED,
    devices: DeviceObjects = NO_DEVICE_OBJECTS,
) -> Iterator[Assessment]:
    """Yield the audit's result for each served model.

    Each model is planned on the GPUs that it holds and on free GPUs, so the plans of several models need not fit
    together.

    Args:
        models: From :func:`~energylens.audit.served.served_models`.
        nodes: Nodes of the cluster.
        pods: Pods of all namespaces, since their GPUs are not free.
        telemetry: The measurements.
        gpus: Known products by label.
        now: Current time for the previews.
        question: The parameters of the audit.
        devices: The objects of dynamic resource allocation.
    """
    names = _names(models)
    owners = {pod: name for model, name in zip(models, names, strict=True) for pod in model.pods}
    world = World(snapshot_from_objects(nodes, [_owned(pod, owners) for pod in pods], gpus, devices))
    for model, name in zip(models, names, strict=True):
        yield assess(model, name, telemetry, world, gpus, now, question)


def _names(models: Sequence[ServedModel]) -> list[str]:
    """Return a name for each model's LLMDeployment, unique within its namespace."""
    taken: set[tuple[str, str]] = set()
    names = []
    for model in models:
        name, number = deployment_name(model), 1
        while (model.owner.namespace, name) in taken:
            number += 1
            end = f"-{number}"
            name = deployment_name(model)[: LONGEST_NAME - len(end)].rstrip("-") + end
        taken.add((model.owner.namespace, name))
        names.append(name)
    return names


def _owned(pod: Object, owners: Mapping[PodRef, str]) -> Object:
    """Return a pod as if it belonged to the LLMDeployment that would replace it, so that its GPUs are free for that."""
    metadata = pod["metadata"]
    owner = owners.get(reference_of(pod))
    labels = dict(metadata.get("labels") or {})
    labels.pop(OWNER_LABEL, None)
    if owner is not None:
        labels[OWNER_LABEL] = owner
    return {**pod, "metadata": {**metadata, "labels": labels}}
