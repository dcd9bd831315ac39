"""`energylens plan`: the operator's plan, without a cluster."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.cli.errors import one_line_errors
from energylens.cli.plan_report import report, with_status
from energylens.data import find_gpu, load_gpus, load_model, load_predictor
from energylens.planner import plan as make_plan
from energylens.planner.inventory import snapshot_from_objects
from energylens.planner.inventory_file import InventoryError, snapshot_from_inventory
from energylens.planner.types import ClusterSnapshot, Infeasible, PlanningResult
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.hf_config import UnsupportedConfigError, model_from_config
from energylens.serving import ServingError, check

INFEASIBLE = 3
"""Exit code when at least one deployment has no plan; bad input is 2."""
ENGINES = {"VLLM": "vllm", "SGLang": "sglang"}


class PlanInputError(ValueError):
    """A file is not what it must be. The message names the file and what is wrong in it."""


@click.command()
@click.option(
    "-f",
    "--filename",
    "files",
    type=click.Path(path_type=Path),
    required=True,
    multiple=True,
    metavar="FILE",
    help="YAML or JSON with one or more LLMDeployments; may be repeated.",
)
@click.option(
    "--inventory",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The cluster: the output of `kubectl get nodes,pods -A -o json` (nodes alone work, too), or a YAML list of "
    "pools: {nodes: [{product: H100, gpus: 8, count: 2}]}.",
)
@click.option(
    "--model-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="config.json of the model, for models that are not in the catalogue.",
)
@click.option("-o", "--output", type=click.Choice(["table", "json", "yaml"]), default="table", show_default=True)
def plan(files: tuple[Path, ...], inventory: Path, model_config: Path | None, output: str) -> None:
    """Plan LLMDeployments for a cluster that is written down in a file, as the operator would.

    Exit code 0: every deployment has a plan; 3: at least one has none; 2: bad input.
    """
    with one_line_errors(PlanInputError):
        snapshot = read_inventory(inventory)
        deployments = [deployment for path in files for deployment in read_deployments(path)]
        planned = [(deployment, _plan(deployment, snapshot, model_config)) for deployment in deployments]
    if output == "table":
        click.echo("\n\n".join(report(deployment, result) for deployment, result in planned))
    else:
        documents = [with_status(deployment, result) for deployment, result in planned]
        click.echo(_dump(documents, output), nl=False)
    if any(isinstance(result, Infeasible) for _, result in planned):
        raise SystemExit(INFEASIBLE)


def read_deployments(path: Path) -> list[LLMDeployment]:
    """Return the LLMDeployments of a file; other kinds in it are passed over.

    Raises:
        PlanInputError: The file cannot be read, holds no LLMDeployment, or an invalid one.
    """
    found = []
    for number, document in enumerate(_objects(_documents(path)), 1):
        if not isinstance(document, Mapping) or document.get("kind") != "LLMDeployment":
            continue
        try:
            deployment = parse_llmdeployment(document, strict=True)
            check(deployment)
        except (InvalidResourceError, ServingError) as error:
            raise PlanInputError(f"{path}: object {number}: {error}") from error
        found.append(deployment)
    if not found:
        raise PlanInputError(f"{path}: holds no object of kind LLMDeployment")
    return found


def read_inventory(path: Path) -> ClusterSnapshot:
    """Return the cluster that a file describes.

    Raises:
        PlanInputError: The file cannot be read or is no inventory.
    """
    documents = _documents(path)
    objects = [o for o in _objects(documents) if isinstance(o, Mapping) and o.get("kind") in ("Node", "Pod")]
    if objects:
        nodes = [o for o in objects if o["kind"] == "Node"]
        return snapshot_from_objects(nodes, [o for o in objects if o["kind"] == "Pod"])
    try:
        return snapshot_from_inventory(
            documents[0] if len(documents) == 1 else documents, lambda name: find_gpu(name).product
        )
    except InventoryError as error:
        raise PlanInputError(f"{path}: {error}") from error


def _plan(deployment: LLMDeployment, snapshot: ClusterSnapshot, model_config: Path | None) -> PlanningResult:
    try:
        model = _model(deployment, model_config)
        predictor = load_predictor(ENGINES[deployment.spec.engine.type])
    except LookupError as error:
        raise PlanInputError(f"{deployment.metadata.name}: {error.args[0]}") from error
    return make_plan(deployment, model, snapshot, load_gpus(), predictor)


def _model(deployment: LLMDeployment, model_config: Path | None) -> ModelSpec:
    name = deployment.spec.model.name
    if model_config is None:
        return load_model(name)
    try:
        config = json.loads(_text(model_config))
        return model_from_config(config, name)
    except (json.JSONDecodeError, UnsupportedConfigError) as error:
        raise PlanInputError(f"{model_config}: {error}") from error


def _documents(path: Path) -> list[Any]:
    try:
        return [document for document in yaml.load_all(_text(path), Loader=_LOADER) if document is not None]
    except yaml.YAMLError as error:
        raise PlanInputError(f"{path}: not YAML: {error}") from error


# The C loader reads a thousand nodes in a second instead of ten; it is missing where PyYAML was built without libyaml.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise PlanInputError(f"{path}: {reason}") from error


def _objects(documents: list[Any]) -> list[Any]:
    """Return Kubernetes objects, Lists unfolded."""
    objects: list[Any] = []
    for document in documents:
        is_list = isinstance(document, Mapping) and isinstance(document.get("items"), list)
        objects += document["items"] if is_list else [document]
    return objects


def _dump(documents: list[dict[str, Any]], output: str) -> str:
    if output == "yaml":
        return str(yaml.safe_dump_all(documents, sort_keys=False))
    whole: Any = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
    return json.dumps(whole, indent=2) + "\n"
