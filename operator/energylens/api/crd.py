"""The CustomResourceDefinitions, generated from the models; ``python -m energylens.api.crd`` writes them to files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from energylens.api.base import GROUP, VERSION, ApiModel
from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import LLMDeployment
from energylens.api.reference import reference
from energylens.api.schema import structural
from energylens.records import dataclass

_HEADER = "# Generated from the models in operator/energylens/api by `make generate`; edit those.\n"
CRD_FOLDER = Path("crds")
CHART_FOLDER = Path("charts/energylens/templates/crds")
REFERENCE = Path("docs/api.md")


@dataclass(frozen=True)
class Column:
    """A column of ``kubectl get``."""

    name: str
    path: str
    description: str
    type: str = "string"
    wide: bool = False
    """Shown with ``-o wide`` only."""

    def to_schema(self) -> dict[str, Any]:
        """Return the entry of ``additionalPrinterColumns``; priority 1 is shown with ``-o wide`` only."""
        entry: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "description": self.description,
            "jsonPath": self.path,
        }
        return entry | ({"priority": 1} if self.wide else {})


@dataclass(frozen=True)
class Kind:
    """A custom resource and how users name and see it."""

    model: type[ApiModel]
    plural: str
    short_name: str
    columns: tuple[Column, ...]
    namespaced: bool = True
    scale: tuple[str, str, str] | None = None
    """Paths of the scale subresource: replicas of the spec and of the status, and the selector of pods."""

    @property
    def name(self) -> str:
        """The kind, such as LLMDeployment."""
        return self.model.__name__


_AGE = Column("Age", ".metadata.creationTimestamp", "Time since the object was made.", "date")
LLM_DEPLOYMENT = Kind(
    LLMDeployment,
    "llmdeployments",
    "llmd",
    (
        Column("Model", ".spec.model.name", "The model served."),
        Column("GPU", ".status.activeRevision.gpuProduct", "GPU product of the plan that runs."),
        Column("GPUs", ".status.activeRevision.gpus", "GPUs of the running revision, over all replicas.", "integer"),
        Column("Plan", ".status.activeRevision.layout", "Parallelism of one replica of the running revision."),
        Column(
            "Ready",
            '.status.conditions[?(@.type=="Ready")].status',
            "Whether the replicas of the running revision are ready.",
        ),
        Column(
            "Planning",
            '.status.conditions[?(@.type=="PlanReady")].reason',
            "Whether the plan is followed, or why it waits.",
        ),
        Column("J/Token", ".status.activeRevision.joulesPerOutputToken", "Predicted GPU energy per output token, J."),
        Column("Measured", ".status.measured.joulesPerOutputToken", "Measured GPU energy per output token, J."),
        _AGE,
        Column("Replicas", ".status.activeRevision.replicas", "Copies of the model.", "integer", wide=True),
        Column(
            "Batch",
            ".status.activeRevision.maxBatchSize",
            "Maximum number of sequences at once per rank.",
            "integer",
            wide=True,
        ),
        Column("Power W", ".status.activeRevision.powerWatts", "Predicted power of all GPUs, W.", "integer", wide=True),
        Column("ITL ms", ".status.activeRevision.itlMilliseconds", "Predicted ITL, ms.", "integer", wide=True),
        Column(
            "Error %", ".status.prediction.energyErrorPercent", "Error of the predicted energy.", "integer", wide=True
        ),
        Column("Confidence", ".status.plan.confidence", "How far the plan's prediction can be trusted.", wide=True),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Reason of condition Ready.", wide=True),
    ),
    scale=(".spec.replicas", ".status.replicas", ".status.selector"),
)
_BUDGET_COLUMNS = (
    Column("Used", ".status.used", "Energy of this period, or power without a limit of energy."),
    Column("Remaining", ".status.remaining", "Energy or power left."),
    Column("Forecast", ".status.forecast", "When the energy runs out at the current rate."),
    Column("Members", ".status.memberCount", "LLMDeployments under the budget.", "integer"),
    Column("Action", ".spec.action", "What happens when the budget is exceeded."),
    Column("Ready", '.status.conditions[?(@.type=="Ready")].status', "Whether the budget can be checked."),
    _AGE,
    Column("Period", ".spec.period", "Period over which the energy counts.", wide=True),
    Column("Reset", ".status.resetTime", "When the next period begins.", wide=True),
    Column("Power W", ".spec.powerWatts", "Maximum power allowed, W.", "integer", wide=True),
    Column("Committed W", ".status.committedPowerWatts", "The members' predicted power, W.", "integer", wide=True),
    Column("Measured W", ".status.measuredPowerWatts", "The members' measured power, W.", "integer", wide=True),
    Column(
        "Burn %",
        ".status.burnRatePercent",
        "Burn rate relative to the rate that lasts until the reset, %.",
        "integer",
        wide=True,
    ),
    Column(
        "Within",
        '.status.conditions[?(@.type=="WithinEnergyBudget")].status',
        "Whether every limit holds.",
        wide=True,
    ),
    Column("Reason", '.status.conditions[?(@.type=="Ready")].reason', "Reason of condition Ready.", wide=True),
)
ENERGY_BUDGET = Kind(EnergyBudget, "energybudgets", "eb", _BUDGET_COLUMNS)
CLUSTER_ENERGY_BUDGET = Kind(ClusterEnergyBudget, "clusterenergybudgets", "ceb", _BUDGET_COLUMNS, namespaced=False)
KINDS = (LLM_DEPLOYMENT, ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET)


def definition(kind: Kind) -> dict[str, Any]:
    """Return the CustomResourceDefinition of ``kind``."""
    fields = kind.model.model_fields
    schema = structural(kind.model)
    schema["properties"] = {
        "apiVersion": {"description": fields["api_version"].description, "type": "string"},
        "kind": {"description": fields["kind"].description, "type": "string"},
        "metadata": {"type": "object"},
        "spec": schema["properties"]["spec"],
        "status": structural(_model_of(kind.model, "status"), status=True),
    }
    schema["required"] = ["spec"]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": kind.name,
                "listKind": f"{kind.name}List",
                "plural": kind.plural,
                "singular": kind.name.lower(),
                "shortNames": [kind.short_name],
                "categories": ["energylens"],
            },
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [column.to_schema() for column in kind.columns],
                    "schema": {"openAPIV3Schema": schema},
                    "subresources": {"status": {}} | _scale(kind),
                }
            ],
        },
    }


def _scale(kind: Kind) -> dict[str, Any]:
    if kind.scale is None:
        return {}
    names = ("specReplicasPath", "statusReplicasPath", "labelSelectorPath")
    return {"scale": dict(zip(names, kind.scale, strict=True))}


def _model_of(model: type[ApiModel], field: str) -> type[ApiModel]:
    annotation = model.model_fields[field].annotation
    if not (isinstance(annotation, type) and issubclass(annotation, ApiModel)):
        raise TypeError(f"{model.__name__}.{field} is not an object of the API")
    return annotation


def crd_text(kind: Kind) -> str:
    """Return the definition as YAML, ready for ``kubectl apply``."""
    return _HEADER + _dump(definition(kind))


def chart_template(kind: Kind) -> str:
    """Return the definition as a Helm template that the chart's ``crds.enabled`` and ``crds.keep`` switch.

    Raises:
        ValueError: the definition holds text that Helm would take for a template.
    """
    body = definition(kind)
    if "{{" in _dump(body):
        raise ValueError(f"the definition of {kind.name} holds '{{{{', which Helm takes for a template")
    head = {"apiVersion": body["apiVersion"], "kind": body["kind"]}
    return (
        _HEADER
        + "{{- if .Values.crds.enabled }}\n"
        + _dump(head)
        + f"metadata:\n  name: {body['metadata']['name']}\n"
        + '  labels:\n    {{- include "energylens.labels" . | nindent 4 }}\n'
        + "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
        + _dump({"spec": body["spec"]})
        + "{{- end }}\n"
    )


def _dump(value: object) -> str:
    text: str = yaml.safe_dump(value, sort_keys=False, width=120, allow_unicode=True)
    return text


def generated_files() -> dict[Path, str]:
    """Return what is generated from the models: path from the repository's root -> text."""
    files = {}
    for kind in KINDS:
        files[CRD_FOLDER / f"{kind.plural}.yaml"] = crd_text(kind)
        files[CHART_FOLDER / f"{kind.plural}.yaml"] = chart_template(kind)
    files[REFERENCE] = reference([(kind.name, kind.plural, kind.short_name, definition(kind)) for kind in KINDS])
    return files


def stale_files(root: Path) -> list[Path]:
    """Return the generated files under ``root`` that are missing or differ from the models."""
    return [
        path
        for path, text in generated_files().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def write_files(root: Path) -> list[Path]:
    """Write the generated files that differ under ``root``; return them."""
    stale = stale_files(root)
    files = generated_files()
    for path in stale:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(files[path], encoding="utf-8")
    return stale


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the generated files of the repository in the current folder."""
    parser = argparse.ArgumentParser(prog="python -m energylens.api.crd", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="only say which files differ from the models; exit code 1")
    root = Path.cwd()
    check = parser.parse_args(arguments).check
    if not (root / "pyproject.toml").is_file():
        print(f"{root} holds no pyproject.toml: run this in the repository's root", file=sys.stderr)  # noqa: T201
        return 2
    stale = stale_files(root) if check else write_files(root)
    for path in stale:
        print(f"{path}: {'differs from the models; run `make generate`' if check else 'written'}")  # noqa: T201
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
