"""A plan's identity: the hash of the inputs that decide it.

What counts: the part of the spec that planning reads, the model's shape, the GPUs that the cluster has (products and
allocatable GPUs per node, of the nodes that the spec may use), the figures known of those products, the predictor's
version, the watts that budgets leave, and what measurement taught.

What does not: free GPUs, node names, whether a node is ready or cordoned. These pass; were they inputs, somebody
else's pod or a drain would start a new plan. Nor do fields that only say how a plan is adopted or served.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

from energylens.api.llmdeployment import LLMDeploymentSpec
from energylens.planner.corrections import Corrections
from energylens.planner.engine_limits import EngineLimits
from energylens.planner.types import GpuNode, PowerAllowance
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.types import GpuSpec

HASH_LENGTH = 16
"""Hexadecimal digits."""


def planning_inputs(spec: LLMDeploymentSpec) -> dict[str, Any]:
    """Return the part of a spec that planning reads. Defaults are left out, so that a new field changes no hash."""
    dump = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    energy = dict(dump.get("energy", {}))
    # A budget that only warns constrains no plan; the energy of a period is checked while serving, not while planning.
    # Nor do the fields that only say who gives power up first, and how far.
    for name in ("budget", "priority", "minReplicas"):
        energy.pop(name, None)
    planning = dump.get("planning", {})
    inputs = {
        "model": {key: value for key, value in dump["model"].items() if key in ("name", "revision", "quantization")},
        "engine": dump.get("engine", {}).get("type"),
        "stepTokens": EngineLimits.of(spec.engine).step_tokens,
        "workload": dump["workload"],
        "slo": dump.get("slo"),
        "energy": energy,
        "hardware": dump.get("hardware"),
        "overrides": planning.get("overrides"),
        "disaggregation": planning.get("disaggregation"),
        "safetyMarginPercent": planning.get("safetyMarginPercent"),
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
) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of the canonical JSON of a plan's inputs.

    Args:
        spec: What is asked for.
        model: The model's shape, as the engine serves it.
        nodes: The nodes that the spec may use.
        gpus: The known GPU products.
        predictor_version: Version of the predictor's code and coefficients.
        allowance: Watts that budgets leave.
        corrections: Factors learned from measurement.
    """
    inventory = Counter((node.product, node.allocatable) for node in nodes if node.allocatable > 0)
    document = {
        "spec": planning_inputs(spec),
        "model": _plain(model),
        "inventory": sorted([product, size, count] for (product, size), count in inventory.items()),
        "gpus": {product: _plain(gpus[product]) for product, _ in inventory if product in gpus},
        "predictor": predictor_version,
        "allowanceWatts": None if allowance is None else round(allowance.watts),
        **({"sheds": allowance.source} if allowance is not None and allowance.sheds else {}),
    }
    learned = corrections.document() if corrections is not None else {}
    if learned:
        document["corrections"] = learned
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]


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
