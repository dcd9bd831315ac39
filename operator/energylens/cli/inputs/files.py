"""Kubernetes objects from files and folders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import ConfigMapKeyRef, LLMDeployment
from energylens.api.parse import (
    InvalidResourceError,
    parse_clusterenergybudget,
    parse_energybudget,
    parse_llmdeployment,
)
from energylens.cli.errors import InputError
from energylens.documents import DocumentError, json_document, yaml_documents
from energylens.planner.inventory.snapshot import DeviceObjects
from energylens.predictor.huggingface.config import UnsupportedConfigError, model_from_config
from energylens.records import dataclass
from energylens.serving import ServingError, check

Object = dict[str, Any]
Key = tuple[str, str]
_Parse = Callable[..., EnergyBudget | ClusterEnergyBudget]
_BUDGETS: Mapping[str, _Parse] = {"EnergyBudget": parse_energybudget, "ClusterEnergyBudget": parse_clusterenergybudget}
_SUFFIXES = (".yaml", ".yml", ".json")
_MOST_BYTES = 2**30
"""Largest file, bytes; all nodes and pods of the largest clusters take a few hundred MB."""


@dataclass(frozen=True)
class Asked:
    """Contents of the files of ``-f``."""

    deployments: tuple[LLMDeployment, ...]
    """Deployments in the order of the files."""
    budgets: tuple[Object, ...] = ()
    """EnergyBudgets and ClusterEnergyBudgets, checked."""
    config_maps: tuple[Object, ...] = ()


def read_asked(paths: Iterable[Path], namespace: str | None = None) -> Asked:
    """Return the objects of files and folders; kinds that planning does not read are skipped.

    Args:
        paths: YAML or JSON files, or folders, which are read with their subfolders.
        namespace: Namespace of objects that name none; None for ``default``.

    Raises:
        InputError: A path cannot be read, holds no LLMDeployment, or an invalid object, or names one twice.
    """
    deployments: dict[Key, LLMDeployment] = {}
    budgets: list[Object] = []
    config_maps: list[Object] = []
    for path in paths:
        found = 0
        for where, document in _located(path):
            kind = document.get("kind")
            if kind not in ("LLMDeployment", *_BUDGETS, "ConfigMap"):
                continue
            placed = document if kind == "ClusterEnergyBudget" else _placed(document, namespace)
            if kind == "LLMDeployment":
                deployment = _deployment(placed, where)
                key = deployment.metadata.namespace, deployment.metadata.name
                if key in deployments:
                    raise InputError(f"{where}: LLMDeployment {key[0]}/{key[1]} appears twice")
                deployments[key] = deployment
                found += 1
            elif kind in _BUDGETS:
                budgets.append(_budget(placed, where))
            else:
                config_maps.append(placed)
        if not found:
            raise InputError(f"{path}: holds no object of kind LLMDeployment")
    return Asked(tuple(deployments.values()), tuple(budgets), tuple(config_maps))


def read_documents(path: Path) -> list[Any]:
    """Return the YAML or JSON documents of a file, empty ones left out.

    Raises:
        InputError: The file cannot be read, is not YAML, or has a key twice.
    """
    try:
        return yaml_documents(read_text(path))
    except DocumentError as error:
        raise InputError(f"{path}: {error}") from error


def objects_of(documents: Sequence[Any]) -> list[Any]:
    """Return Kubernetes objects, Lists unfolded."""
    objects: list[Any] = []
    for document in documents:
        is_list = isinstance(document, Mapping) and isinstance(document.get("items"), list)
        objects += document["items"] if is_list else [document]
    return objects


def device_objects(objects: Mapping[str, list[Object]]) -> DeviceObjects:
    """Return the objects of dynamic resource allocation among objects by kind.

    Without one of the kinds, as for a user who may not list it, there are none: GPUs of slices without their claims
    would all seem free. The operator does the same. DeviceTaintRules are served by few clusters and may be absent.
    """
    slices, claims, classes = (objects.get(kind) for kind in ("ResourceSlice", "ResourceClaim", "DeviceClass"))
    if slices is None or claims is None or classes is None:
        return DeviceObjects()
    return DeviceObjects(slices, claims, classes, objects.get("DeviceTaintRule", ()))


def read_text(path: Path) -> str:
    """Return the text of a file; ``-`` stands for the standard input.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        raw = _stdin() if path == Path("-") else _bytes(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name, or a closed stream
        raise InputError(f"{path}: {(error.strerror if isinstance(error, OSError) else None) or error}") from error
    if len(raw) > _MOST_BYTES:
        raise InputError(f"{path}: larger than {_MOST_BYTES // 2**20} MiB")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 at byte {error.start}") from error


def _bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_MOST_BYTES + 1)


def _stdin() -> bytes:
    # The stream is missing when the shell closed it (<&-).
    if sys.stdin is None:
        raise ValueError("standard input is closed")
    return sys.stdin.buffer.read(_MOST_BYTES + 1)


def with_model_config(asked: Asked, path: Path) -> Asked:
    """Return the deployments as if each had its model's config.json from a file.

    Raises:
        InputError: The file is not the config.json of a model of a known shape.
    """
    text = read_text(path)
    try:
        config = json_document(text, infinite=True)
        for deployment in asked.deployments:
            model_from_config(config, deployment.spec.model.name)
    except (DocumentError, UnsupportedConfigError) as error:
        raise InputError(f"{path}: {error}") from error
    ref = ConfigMapKeyRef(name="model-config")
    changed = tuple(
        d.model_copy(
            update={
                "spec": d.spec.model_copy(update={"model": d.spec.model.model_copy(update={"config_ref": ref})}),
            }
        )
        for d in asked.deployments
    )
    maps = tuple(
        {"kind": "ConfigMap", "metadata": {"name": ref.name, "namespace": namespace}, "data": {ref.key: text}}
        for namespace in sorted({d.metadata.namespace for d in changed})
    )
    return Asked(changed, asked.budgets, maps)


def _located(path: Path) -> Iterator[tuple[str, Object]]:
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix in _SUFFIXES and file.is_file())
    for file in files:
        for number, document in enumerate(objects_of(read_documents(file)), 1):
            if isinstance(document, Mapping):
                yield f"{file}: object {number}", dict(document)


def _placed(document: Object, namespace: str | None) -> Object:
    metadata = document.get("metadata")
    if namespace is None or not isinstance(metadata, Mapping) or metadata.get("namespace"):
        return document
    return {**document, "metadata": {**metadata, "namespace": namespace}}


def _deployment(document: Object, where: str) -> LLMDeployment:
    try:
        deployment = parse_llmdeployment(document, strict=True)
        check(deployment)
    except (InvalidResourceError, ServingError) as error:
        raise InputError(f"{where}: {error}") from error
    return deployment


def _budget(document: Object, where: str) -> Object:
    try:
        budget = _BUDGETS[document["kind"]](document, strict=True)
    except InvalidResourceError as error:
        raise InputError(f"{where}: {error}") from error
    namespace = {"namespace": budget.metadata.namespace} if isinstance(budget, EnergyBudget) else {}
    metadata = {**document["metadata"], "name": budget.metadata.name, **namespace}
    return {"metadata": metadata, "spec": document["spec"], "status": document.get("status") or {}}
