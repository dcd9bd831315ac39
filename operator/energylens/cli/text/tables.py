"""Tables and documents as the commands print them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import yaml

from energylens.api.llmdeployment import PlanStatus, describe_plan
from energylens.api.quantity import parse_quantity


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of cells as lines with aligned columns, indented by two blanks."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  " + "  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]


def joules(quantity: str) -> str:
    """Return a quantity of joules with three significant digits, without its unit."""
    return f"{float(parse_quantity(quantity)):.3g}"


def correction_text(plan: PlanStatus | None) -> str:
    """Return the corrections from measurement in a plan's predictions: ``energy x 1.2, ITL x 1.05``; "" without any."""
    if plan is None or plan.correction is None:
        return ""
    names = {"energy": "energy", "power": "power", "itl": "ITL", "ttft": "TTFT"}
    factors = {name: float(parse_quantity(getattr(plan.correction, field))) for field, name in names.items()}
    return ", ".join(f"{name} x {factor:.3g}" for name, factor in factors.items() if factor != 1.0)


def cache_text(plan: PlanStatus) -> str:
    """Return the size of a plan's KV cache and the longest request; "" if the plan does not state them."""
    longest = plan.longest_request_tokens
    if longest is None:
        return ""
    room = "" if plan.kv_cache_tokens is None else f"{plan.kv_cache_tokens:,} tokens in each replica, "
    return f"{room}requests of up to {longest:,} tokens"


def confidence_text(plan: PlanStatus) -> str:
    """Return how far a plan's prediction can be trusted: ``Interpolated: vLLM 0.33.0 was not measured, ...``."""
    return f"{plan.confidence}: {plan.confidence_reason}" if plan.confidence_reason else plan.confidence


def plan_with_hash(plan: PlanStatus) -> str:
    """Return a short description of a plan, with its total of GPUs and its hash."""
    return f"{describe_plan(plan)} ({plan.gpus} GPU{'' if plan.gpus == 1 else 's'})   hash {plan.hash}"


def dump(documents: Sequence[dict[str, Any]], output: str) -> str:
    """Return objects as JSON (several as a v1 List, as kubectl does) or as a stream of YAML documents.

    Args:
        documents: Plain objects.
        output: ``json`` or ``yaml``.
    """
    if output == "yaml":
        return str(yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=120))
    whole: Any = documents[0] if len(documents) == 1 else {"apiVersion": "v1", "kind": "List", "items": documents}
    return json.dumps(whole, indent=2, ensure_ascii=False) + "\n"
