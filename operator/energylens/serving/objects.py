"""All objects of one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import Engine, LLMDeployment, PlanStatus
from energylens.planner.engines import EngineSettings, SettingError
from energylens.planner.engines.versions import NAMES, other_engine
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import reserved
from energylens.serving.errors import ServingError
from energylens.serving.gpus import BY_REQUEST, Placement, claim_template
from energylens.serving.merge import merge_pod_template
from energylens.serving.rollout import Strategy
from energylens.serving.support import disruption_budget, inference_pool, needs_disruption_budget, plan_table, service
from energylens.serving.workload import workload

_ONE = Strategy("Recreate", 0, 1)
"""Strategy for a single replica: its replacement waits for its GPUs."""


def check(deployment: LLMDeployment) -> None:
    """Check the parts of a spec that need no plan, before anything is planned that could not be served.

    Raises:
        ServingError: Naming the field, its value and what to do instead.
    """
    check_engine(deployment.spec.engine)
    settings, steps = EngineSettings.of(deployment.spec.engine), deployment.spec.planning.overrides.max_batched_tokens
    if steps is not None and settings.fixes_steps:
        raise ServingError(
            "spec.planning.overrides.maxBatchedTokens",
            f"{steps}, and {settings.arguments.written(settings.names.step)!r} in spec.engine.extraArgs says it, too; "
            "leave one of them out",
        )
    template = deployment.spec.pod_template or {}
    merge_pod_template({}, template)
    scheduling = deployment.spec.scheduling.model_dump(by_alias=True, exclude_none=True)
    for field, value in scheduling.items():
        other = (template.get("spec") or {}).get(field, value)
        if other != value:
            raise ServingError(
                f"spec.podTemplate.spec.{field}",
                f"{other!r}, and spec.scheduling.{field} is {value!r}; leave one of them out",
            )


def check_engine(engine: Engine) -> None:
    """Check that an engine starts with its arguments and environment, and that these do not undo the plan.

    Raises:
        ServingError: Naming the argument or variable, and what to do instead.
    """
    other = other_engine(engine)
    if other is not None:
        raise ServingError(
            "spec.engine.image",
            f"{engine.image!r} is an image of {NAMES[other]}, and spec.engine.type is {engine.type}; "
            f"set spec.engine.type={other}, or name an image of {NAMES[engine.type]}",
        )
    settings = EngineSettings.of(engine)
    undone = reserved.undone(settings.arguments, reserved.VLLM if engine.type == "VLLM" else reserved.SGLANG)
    if undone is not None:
        raise ServingError("spec.engine.extraArgs", undone)
    for name in reserved.ENVIRONMENT:
        if name in settings.env:
            raise ServingError("spec.engine.env", f"{name} is decided by the plan; leave it out")
    try:
        settings.check()
    except SettingError as error:
        raise ServingError("spec.engine.extraArgs", str(error)) from error


def manifests(
    deployment: LLMDeployment,
    plan: PlanStatus,
    model: ModelSpec,
    *,
    strategy: Strategy,
    placement: Placement = BY_REQUEST,
    table: Sequence[Mapping[str, object]] | None = None,
) -> list[dict[str, Any]]:
    """Return the objects that serve a plan, in the order to apply them.

    Args:
        deployment: The owner.
        plan: The plan to serve.
        model: The checkpoint's shape, before ``spec.model.quantization`` is applied.
        strategy: How running pods are replaced.
        placement: Where the pods may run, and how they get their GPUs.
        table: Every candidate worth showing, for the ConfigMap. None leaves the ConfigMap out: only the planning that
            made a plan knows its table, and the ConfigMap written then is to stay.

    Raises:
        ServingError: The spec contradicts the plan. The message names the field and what to do instead.
    """
    check(deployment)
    objects = [claim_template(deployment, plan, placement)] if placement.access == "Claim" else []
    objects += [workload(deployment, plan, model, strategy, placement), service(deployment, plan)]
    if needs_disruption_budget(plan):
        objects.append(disruption_budget(deployment, plan))
    pool = deployment.spec.routing.inference_pool
    if pool is not None:
        objects.append(inference_pool(deployment, plan, pool))
    if table is not None:
        objects.append(plan_table(deployment, plan, table))
    return objects


def canary_manifests(
    deployment: LLMDeployment, replica: PlanStatus, model: ModelSpec, *, placement: Placement = BY_REQUEST
) -> list[dict[str, Any]]:
    """Return the objects that run one replica of a plan beside the pods of another one, in the order to apply them.

    Args:
        deployment: The owner.
        replica: The plan with one replica, its GPUs and its power, under the hash of the whole plan.
        model: The checkpoint's shape, before ``spec.model.quantization`` is applied.
        placement: Where the pods may run, and how they get their GPUs.

    Raises:
        ServingError: The spec contradicts the plan. The message names the field and what to do instead.
    """
    check(deployment)
    objects = [claim_template(deployment, replica, placement)] if placement.access == "Claim" else []
    return [*objects, workload(deployment, replica, model, _ONE, placement, canary=True)]
