"""Two hashes of a plan: of its action, and of the inputs from which it was made.

The hash of the action is the plan's identity. Users approve it, and pods are compared by it. The hash changes only
with the action, not when a node is added, the operator is upgraded, or the plan is made again. The hash of the inputs
says whether planning is needed again.

Inputs are: the part of the spec that planning reads, the model's shape, the GPUs of the cluster (products and
allocatable GPUs per node, of the nodes that the spec may use; in a large cluster only the part that can affect a plan
of this power), the known figures of those products, the predictor's version, the watts available from budgets if they
restrict the choice, and the learned corrections.

Not inputs are: free GPUs, node names, and whether a node is ready or cordoned. These are temporary; if they were
inputs, a drain or a pod of another owner would trigger a new plan. Fields that only say how a plan is adopted or served
are not inputs either.
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
"""Number of hexadecimal digits of the hash."""
LAYOUT_FIELDS = (
    "gpu_product",
    "nodes_per_replica",
    "tensor_parallel",
    "pipeline_parallel",
    "expert_parallel",
    "data_parallel",
    "max_batch_size",
    "max_batched_tokens",
    "power_cap_watts_per_gpu",
)
"""Fields of a plan that define how one replica runs."""
_ACTION = {"serving_hash", *LAYOUT_FIELDS}
"""Fields of a plan that define its action, without the replicas."""


def serving_hash(spec: LLMDeploymentSpec) -> str:
    """Return the hash of what pods serve and how: the model and its weights, the engine and its settings."""
    dump = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    model = {key: value for key, value in dump["model"].items() if key in ("name", "revision", "quantization")}
    return _digest({"model": model, "engine": dump.get("engine", {})})


def action_hash(plan: PlanStatus) -> str:
    """Return the hash of a plan's action: what it serves, on which GPUs, in which layout, with how many replicas.

    A plan whose replicas a budget shed counts with all of its replicas, because the full plan was approved; a plan
    whose replicas follow the hours of the week counts with the most replicas of any hour. Two plans with the same
    action have the same hash, whatever their inputs and predictions.
    """
    action = plan.model_dump(mode="json", include=_ACTION)
    if plan.max_batched_tokens is None:
        # Plans of older releases had no such field, and their pods stay.
        del action["max_batched_tokens"]
    if plan.prefill is not None:
        action["prefill"] = plan.prefill.model_dump(mode="json")
    return _digest(action | {"replicas": plan.planned_replicas or plan.shed_from_replicas or plan.replicas})


def identified(plan: PlanStatus, spec: LLMDeploymentSpec) -> PlanStatus:
    """Return a plan with its identity under a spec: its layout, with the spec's model and engine."""
    plan = plan.model_copy(update={"serving_hash": serving_hash(spec)})
    return plan.model_copy(update={"hash": action_hash(plan)})


def sealed(plan: PlanStatus, inputs: str) -> PlanStatus:
    """Return a plan with the hash of its inputs.

    ``inputs`` is from :func:`inputs_hash`, or "" to force planning next time.

    The hash also covers the plan's own fields, so that an edited plan is recomputed.
    """
    return plan.model_copy(update={"inputs_hash": _seal(plan, inputs) if inputs else None})


def is_made_from(plan: PlanStatus, inputs: str) -> bool:
    """Return whether a plan was made from these inputs and was not edited since."""
    return plan.inputs_hash is not None and plan.inputs_hash == _seal(plan, inputs)


def _seal(plan: PlanStatus, inputs: str) -> str:
    fields = plan.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"inputs_hash"})
    return _digest({"inputs": inputs, "plan": fields})


def _digest(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


def planning_inputs(spec: LLMDeploymentSpec) -> dict[str, Any]:
    """Return the part of a spec that planning reads, without defaults, so that a new field changes no hash."""
    dump = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    energy = dict(dump.get("energy", {}))
    # A budget that only warns does not constrain plans, and the energy of a period is checked while serving, not while
    # planning. Fields that only decide who sheds power first, and how much, do not affect plans either.
    for name in ("budget", "priority", "minReplicas"):
        energy.pop(name, None)
    planning, workload = dump.get("planning", {}), dump["workload"]
    if "job" in workload:
        # The start time of a job affects none of its plans.
        workload = {**workload, "job": {name: value for name, value in workload["job"].items() if name != "start"}}
    settings = EngineSettings.of(spec.engine)
    drafting = told(settings)
    inputs = {
        "model": {key: value for key, value in dump["model"].items() if key in ("name", "revision", "quantization")},
        "engine": dump.get("engine", {}).get("type"),
        "engineSettings": settings.planning_inputs(),
        "drafting": None if drafting is None else [drafting.method, drafting.draft_tokens],
        "workload": workload,
        "slo": dump.get("slo"),
        "energy": energy,
        "hardware": dump.get("hardware"),
        "scaling": dump.get("scaling"),
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
        spec: The deployment's spec.
        model: The model's shape, as the engine serves it.
        nodes: The nodes that the spec may use.
        gpus: The known GPU products.
        predictor_version: Version of the predictor's code and coefficients.
        allowance: Watts available from budgets.
        corrections: Factors learned from measurement.
        most_gpus: GPUs of a product beyond which no candidate was evaluated; None if all were.
    """
    products = {node.product for node in nodes}
    gpus = with_networks(spec, nodes, gpus)
    document = {
        "spec": planning_inputs(spec),
        "model": _whole(model),
        "inventory": inventory_within(spec, model, nodes, gpus, most_gpus),
        "gpus": {product: _whole(gpus[product]) for product in products if product in gpus},
        "predictor": predictor_version,
        "allowanceWatts": None if allowance is None else round(allowance.watts),
        **({"allowanceByHour": allowance.hours} if allowance is not None and allowance.hours is not None else {}),
        **({"room": allowance.room.document()} if allowance is not None and allowance.room is not None else {}),
        **({"sheds": allowance.source} if allowance is not None and allowance.sheds else {}),
    }
    learned = corrections.document() if corrections is not None else {}
    if learned:
        document["corrections"] = learned
    return _digest(document)


@lru_cache(maxsize=1024)
def _whole(value: ModelSpec | GpuSpec) -> Any:
    """Return a model or a product as plain values, cached because every reconcile of a deployment needs them."""
    return _plain(value)


def _plain(value: Any) -> Any:
    """Return dataclasses as plain values without fields at their default, so that a new field changes no hash.

    Fields that are excluded from comparisons, such as the names of a product, are left out as well.
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
