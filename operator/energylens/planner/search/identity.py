"""Two hashes of a plan: of what the plan does, and of the inputs that it was made from.

The first is the plan's identity. People approve it, pods are compared by it, and it stays while the action stays: with
one node more, under a newer operator, after planning again. The second says whether there is anything to plan again.

Inputs are: the part of the spec that planning reads, the model's shape, the GPUs that the cluster has (products and
allocatable GPUs per node, of the nodes that the spec may use; of a large cluster only as much as a plan of this power
can depend on), the known figures of those products, the predictor's version, the watts available from budgets if these
restrict the choice, and the learned corrections.

Inputs are not: free GPUs, node names, whether a node is ready or cordoned. These pass; were they inputs, somebody
else's pod or a drain would start a new plan. Nor are fields that only say how a plan is adopted or served.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import lru_cache
from typing import Any

from energylens.api.llmdeployment import LLMDeploymentSpec, PlanStatus
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.speculation import told
from energylens.planner.inventory.network import with_networks
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.reach import inventory_within
from energylens.planner.types import GpuNode, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

HASH_LENGTH = 16
"""Hexadecimal digits."""
LAYOUT_FIELDS = (
    "gpu_product",
    "nodes_per_replica",
    "tensor_parallel",
    "pipeline_parallel",
    "expert_parallel",
    "data_parallel",
    "max_batch_size",
    "power_cap_watts_per_gpu",
)
"""Fields of a plan that say how one replica runs."""
_ACTION = {"serving_hash", *LAYOUT_FIELDS}
"""Fields of a plan that say what it does, replicas apart."""


def serving_hash(spec: LLMDeploymentSpec) -> str:
    """Return the hash of what pods serve and with what: the model and its weights, the engine and its settings."""
    dump = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    model = {key: value for key, value in dump["model"].items() if key in ("name", "revision", "quantization")}
    return _digest({"model": model, "engine": dump.get("engine", {})})


def action_hash(plan: PlanStatus) -> str:
    """Return the hash of what a plan does: what it serves, on which GPUs, in which layout, how many times.

    A plan from which a budget took replicas counts with all of them: what was approved is the whole plan. Two plans
    that do the same have the same hash, whatever they were made from and whatever is predicted of them.
    """
    action = plan.model_dump(mode="json", include=_ACTION)
    return _digest(action | {"replicas": plan.shed_from_replicas or plan.replicas})


def identified(plan: PlanStatus, spec: LLMDeploymentSpec) -> PlanStatus:
    """Return a plan with the identity that it has under a spec: its layout, with the spec's model and engine."""
    plan = plan.model_copy(update={"serving_hash": serving_hash(spec)})
    return plan.model_copy(update={"hash": action_hash(plan)})


def sealed(plan: PlanStatus, inputs: str) -> PlanStatus:
    """Return a plan that says what it was made from; ``inputs`` is of :func:`inputs_hash`, "" to plan again next time.

    The hash covers the plan's own fields as well, so that a plan which somebody edited is made again.
    """
    return plan.model_copy(update={"inputs_hash": _seal(plan, inputs) if inputs else None})


def is_made_from(plan: PlanStatus, inputs: str) -> bool:
    """Return whether a plan was made from these inputs, and is as it was then."""
    return plan.inputs_hash is not None and plan.inputs_hash == _seal(plan, inputs)


def _seal(plan: PlanStatus, inputs: str) -> str:
    fields = plan.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"inputs_hash"})
    return _digest({"inputs": inputs, "plan": fields})


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def planning_inputs(spec: LLMDeploymentSpec) -> dict[str, Any]:
    """Return the part of a spec that planning reads. Defaults are left out, so that a new field changes no hash."""
    dump = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    energy = dict(dump.get("energy", {}))
    # A budget that only warns constrains no plan; the energy of a period is checked while serving, not while planning.
    # Nor do the fields that only say who gives power up first, and how far.
    for name in ("budget", "priority", "minReplicas"):
        energy.pop(name, None)
    planning = dump.get("planning", {})
    settings = EngineSettings.of(spec.engine)
    drafting = told(settings)
    inputs = {
        "model": {key: value for key, value in dump["model"].items() if key in ("name", "revision", "quantization")},
        "engine": dump.get("engine", {}).get("type"),
        "engineSettings": settings.planning_inputs(),
        "drafting": None if drafting is None else [drafting.method, drafting.draft_tokens],
        "workload": dump["workload"],
        "slo": dump.get("slo"),
        "energy": energy,
        "hardware": dump.get("hardware"),
        "overrides": planning.get("overrides"),
        "disaggregation": planning.get("disaggregation"),
        "safetyMarginPercent": planning.get("safetyMarginPercent"),
        "headroomPercent": planning.get("headroomPercent"),
        "spareReplicas": planning.get("spareReplicas"),
    }
    return {key: value for key, value in inputs.items() if value is not None and value != {}}


def inputs_hash(
    spec: LLMDeploymentSpec,
    model: ModelSpec,
    nodes: tuple[GpuNode, ...],
    gpus: Mapping[str, GpuSpec],
    predictor_version: str,
    allowance: PowerAllowance | None,
    corrections: Corrections | None = None,
    most_gpus: int | None = None,
) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the canonical JSON of a plan's inputs.

    Args:
        spec: What is asked for.
        model: The model's shape, as the engine serves it.
        nodes: The nodes that the spec may use.
        gpus: The known GPU products.
        predictor_version: Version of the predictor's code and coefficients.
        allowance: Watts available from budgets.
        corrections: Factors learned from measurement.
        most_gpus: GPUs of a product beyond which no candidate was evaluated; None: all were.
    """
    products = {node.product for node in nodes if node.allocatable > 0}
    gpus = with_networks(spec, nodes, gpus)
    document = {
        "spec": planning_inputs(spec),
        "model": _whole(model),
        "inventory": inventory_within(spec, model, nodes, gpus, most_gpus),
        "gpus": {product: _whole(gpus[product]) for product in products if product in gpus},
        "predictor": predictor_version,
        "allowanceWatts": None if allowance is None else round(allowance.watts),
        **({"sheds": allowance.source} if allowance is not None and allowance.sheds else {}),
    }
    learned = corrections.document() if corrections is not None else {}
    if learned:
        document["corrections"] = learned
    return _digest(document)


@lru_cache(maxsize=1024)
def _whole(value: ModelSpec | GpuSpec) -> Any:
    """Return a model or a product as plain values; each is needed in every reconcile of a deployment."""
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return dataclasses as plain values, without the fields that have their default: a new field changes no hash.

    Nor with those that do not count in comparisons, such as the names of a product.
    """
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if not is_dataclass(value):
        return value
    named: dict[str, Any] = {"type": type(value).__name__}
    for f in fields(value):
        if not f.compare:
            continue
        default = f.default_factory() if f.default_factory is not MISSING else f.default
        entry = getattr(value, f.name)
        if entry != default:
            named[f.name] = _plain(entry)
    return named
