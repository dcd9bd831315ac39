"""Every field of the API does something: those of specs are read by some code, those of statuses are written."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import create_model
from tests.support.api_uses import Model, Uses, models_of

from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import BudgetStatus, LLMDeployment, Rollout
from energylens.api.llmdeployment.revision import Revision

PACKAGE = Path(__file__).resolve().parents[3] / "operator" / "energylens"
KINDS: tuple[Model, ...] = (LLMDeployment, EnergyBudget, ClusterEnergyBudget)
READ = {
    "LLMDeploymentSpec.replicas": ("decide/deployment/plans/external.py", r"deployment\.spec\.replicas"),
    "WorkloadSpec.prefix_cache_hit_percent": (
        "api/llmdeployment/shapes.py",
        r"prefix_cache_hit_percent=self\.prefix_cache_hit_percent",
    ),
    "JobForecastRef.key": ("decide/deployment/pods/job_hours.py", r"forecast\.key\b"),
    "Energy.min_replicas": ("decide/planned.py", r'energy\.get\("minReplicas"'),
    "Energy.priority": ("decide/planned.py", r'energy\.get\("priority"'),
    "ClusterEnergyBudgetSpec.node_selector": (
        "decide/budgets/membership.py",
        r"return spec\.node_selector if isinstance",
    ),
    # The API package matches labels itself, and reading there counts for no other field.
    **{
        f"LabelSelectorRequirement.{name}": ("api/selectors.py", rf"requirement\.{name}\b")
        for name in ("key", "operator")
    },
}
"""Fields of specs that are read where types cannot be followed, with the code that does."""
REVISIONS = "decide/deployment/reports/revisions.py"
COPIED = r"left\.model_dump\(include=set\(RejectedPlan\.model_fields\)"
BEFORE = r"before\.model_dump\(include=set\(PreviousRevision\.model_fields\)"
WRITTEN = {
    "PlanStatus.layout": ("api/llmdeployment/plan.py", r"default_factory=_layout"),
    "PlanStatus.prefill": ("planner/explain/disaggregation.py", r'"prefill": PrefillReplicas\('),
    "Alternative.prefill": ("planner/explain/disaggregation.py", r'"prefill": prefill,'),
    "ActiveRevision.prefill": (REVISIONS, r'"prefill": _prefill\(observed\)'),
    **{
        f"ActiveRevision.{name}_replicas": (REVISIONS, rf'"{name}_replicas": state\.{name}')
        for name in ("ready", "updated")
    },
    "PredictionStatus.correction": (
        "decide/deployment/reports/status.py",
        r'prediction\.model_copy\(update=\{"correction":',
    ),
    "CorrectionFactors.energy": ("planner/search/corrections.py", r"CorrectionFactors\(\*\*values\)"),
    **{
        f"ItlPercentiles.p{p}": ("decide/deployment/trials/windows.py", rf'\("p50", [^)]*"p{p}"|"p{p}"')
        for p in (50, 90, 95, 99)
    },
    **{
        f"Alternative.{name}": ("planner/search/placement.py", rf'^        "?{name}"?[:=] ?')
        for name in (
            "gpu_product", "gpus", "replicas", "nodes_per_replica", "tensor_parallel", "pipeline_parallel",
            "expert_parallel", "data_parallel", "max_batch_size", "max_batched_tokens", "power_cap_watts_per_gpu",
        )
    },
    **{
        f"Alternative.{name}": ("planner/search/frontier.py", rf'^        "{name}": ')
        for name in (
            "power_watts", "joules_per_output_token", "ttft_milliseconds", "itl_milliseconds", "tpot_milliseconds",
            "utilization_percent", "end_to_end_milliseconds",
        )
    },
    **{
        f"{owner}.{name}": ("planner/search/placement.py", rf'^        "?{name}"?[:=] ?')
        for owner in ("PlanStatus", "PrefillReplicas")
        for name in (
            "gpu_product", "gpus", "replicas", "nodes_per_replica", "tensor_parallel", "pipeline_parallel",
            "expert_parallel", "data_parallel", "max_batch_size", "max_batched_tokens", "power_cap_watts_per_gpu",
        )
        if owner == "PlanStatus" or name not in ("gpu_product", "gpus", "nodes_per_replica")
    },
    **{
        f"RejectedPlan.{name}": ("decide/deployment/trials/rollback.py", COPIED)
        for name in (
            "hash", "gpu_product", "replicas", "nodes_per_replica", "tensor_parallel", "pipeline_parallel",
            "expert_parallel", "data_parallel", "max_batch_size", "max_batched_tokens", "power_cap_watts_per_gpu",
        )
    },
    **{
        f"ActiveRevision.{name}": (REVISIONS, rf'^            "{name}": ')
        for name in ("measured_joules_per_output_token", "measured_output_tokens_per_second")
    },
    **{f"PreviousRevision.{name}": (REVISIONS, BEFORE) for name in Revision.model_fields},
}  # fmt: skip
"""Fields of statuses that are written by dictionaries of keywords, with the code that does."""


@cache
def trees() -> tuple[ast.Module, ...]:
    """Return the modules of the package but those of the API itself."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.relative_to(PACKAGE).parts[0] != "api"]
    return tuple(ast.parse(path.read_text()) for path in files)


def dead(models: Mapping[str, Model], specs: Mapping[str, Model], statuses: Mapping[str, Model]) -> set[str]:
    """Return the fields of specs that nothing reads, and those of statuses that nothing writes."""
    uses = Uses(dict(models))
    uses.scan(trees())
    found = set()
    for part, used, known in ((specs, uses.read, READ), (statuses, uses.written, WRITTEN)):
        for model in part.values():
            unused = {uses.use(model, name) for name in model.model_fields} - used
            found |= {".".join(use) for use in unused} - set(known)
    return found


def parts(side: str) -> dict[str, Model]:
    found: dict[str, Model] = {}
    for kind in KINDS:
        inner = kind.model_fields[side].annotation
        assert isinstance(inner, type)
        found |= models_of(inner)
    return found


def test_every_field_of_a_spec_is_read_and_every_field_of_a_status_is_written() -> None:
    specs, statuses = parts("spec"), parts("status")
    assert dead(specs | statuses, specs, statuses) == set()


@pytest.mark.parametrize("table", [READ, WRITTEN], ids=["read", "written"])
def test_what_is_said_to_use_a_field_is_there(table: Mapping[str, tuple[str, str]]) -> None:
    for field, (file, pattern) in table.items():
        assert re.search(pattern, (PACKAGE / file).read_text(), re.MULTILINE), field


def test_dead_fields_are_found_whatever_other_models_have_fields_of_their_names() -> None:
    specs, statuses = parts("spec"), parts("status")
    unread, unwritten = ("never_used", "period", "image", "power_watts"), ("never_written", "replicas", "samples")
    specs["Rollout"] = _with(Rollout, unread)
    statuses["BudgetStatus"] = _with(BudgetStatus, unwritten)
    made_up = {f"Rollout.{name}" for name in unread} | {f"BudgetStatus.{name}" for name in unwritten}
    assert dead(specs | statuses, specs, statuses) == made_up


def _with(model: Model, names: tuple[str, ...]) -> Model:
    more: Any = dict.fromkeys(names, (int | None, None))
    found: Model = create_model(model.__name__, __base__=model, **more)
    return found
