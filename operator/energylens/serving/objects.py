"""All objects of one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import Engine, LLMDeployment, PlanStatus
from energylens.planner.engines import EngineSettings, SettingError
from energylens.planner.engines.versions import NAMES, other_engine
from energylens.predictor.model.architecture import ModelSpec
from energylens.records import dataclass
from energylens.serving import reserved
from energylens.serving.errors import ServingError
from energylens.serving.gpus import BY_REQUEST, Placement, claim_template
from energylens.serving.merge import ENGINE_CONTAINER, merge_pod_template
from energylens.serving.metadata import labels
from energylens.serving.queues import pod_labels
from energylens.serving.roles import ENVIRONMENT, LLMD_ROLE_LABEL, SIDECAR, prefill_plan
from energylens.serving.rollout import Strategy
from energylens.serving.support import disruption_budget, inference_pool, needs_disruption_budget, plan_table, service
from energylens.serving.workload import workload

_FIRST = Strategy("Surge", 1, 0, "first rollout")


@dataclass(frozen=True)
class Roles:
    """How the two roles of a plan with separate prefill and decode go on."""

    prefill_strategy: Strategy = _FIRST
    prefill_runs: bool = True
    """False: prefill pods stop, since running decode pods could not read their KV cache."""
    only_decode_serves: bool = True
    """The Service selects decode pods only; False while pods without a role serve."""


_ONE = Strategy("Recreate", 0, 1)
"""Strategy for a single replica: its replacement waits for its GPUs."""


def check(deployment: LLMDeployment) -> None:
    """Check the parts of a spec that need no plan, before anything is planned that could not be served.

    Raises:
        ServingError: Naming the field, its value and what to do instead.
    """
    check_engine(deployment.spec.engine)
    if deployment.spec.planning.disaggregation == "Follow":
        _check_roles(deployment.spec.engine)
        _check_template_of_roles(deployment.spec.pod_template or {})
    settings, steps = EngineSettings.of(deployment.spec.engine), deployment.spec.planning.overrides.max_batched_tokens
    if steps is not None and settings.fixes_steps:
        raise ServingError(
            "spec.planning.overrides.maxBatchedTokens",
            f"{steps}, and {settings.arguments.written(settings.names.step)!r} in spec.engine.extraArgs sets the same; "
            "leave one of the two out",
        )
    template = deployment.spec.pod_template or {}
    # With the labels that pods of every plan have, so that a clash is found before there is a plan.
    every = pod_labels(deployment.metadata) | labels(deployment)
    merge_pod_template({"metadata": {"labels": every}}, template)
    scheduling = deployment.spec.scheduling.model_dump(by_alias=True, exclude_none=True)
    for field, value in scheduling.items():
        other = (template.get("spec") or {}).get(field, value)
        if other != value:
            raise ServingError(
                f"spec.podTemplate.spec.{field}",
                f"{other!r}, and spec.scheduling.{field} is {value!r}; leave one of them out",
            )


def _check_roles(engine: Engine) -> None:
    settings = EngineSettings.of(engine)
    undone = reserved.undone(settings.arguments, reserved.WITH_ROLES[engine.type])
    if undone is not None:
        raise ServingError("spec.engine.extraArgs", undone)
    for name in ENVIRONMENT:
        if name in settings.env:
            raise ServingError("spec.engine.env", f"{name} is set for each pod of the two roles; leave it out")


def _check_template_of_roles(template: Mapping[str, Any]) -> None:
    """Check a pod template for the pods of two roles, which a plan may have later."""
    if LLMD_ROLE_LABEL in ((template.get("metadata") or {}).get("labels") or {}):
        raise ServingError(
            "spec.podTemplate.metadata.labels", f"{LLMD_ROLE_LABEL} is set by the operator; use another label"
        )
    spec = template.get("spec") or {}
    for container in spec.get("containers") or ():
        names = {variable.get("name") for variable in container.get("env") or ()}
        for name in ENVIRONMENT:
            if container.get("name") == ENGINE_CONTAINER and name in names:
                raise ServingError(
                    f"spec.podTemplate.spec.containers[{ENGINE_CONTAINER}].env",
                    f"{name} is set for each pod of the two roles; leave it out",
                )
    for container in spec.get("initContainers") or ():
        for field in ("args", "command", "image"):
            if container.get("name") == SIDECAR and field in container:
                raise ServingError(
                    f"spec.podTemplate.spec.initContainers[{SIDECAR}].{field}",
                    "set by the operator; its image is spec.routing.disaggregation.sidecarImage",
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
    roles: Roles | None = None,
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
        roles: How the two roles of a plan with separate prefill and decode go on; both start if None. For a plan
            without roles: given while decode pods of an earlier plan serve beside its pods.

    Raises:
        ServingError: The spec contradicts the plan. The message names the field and what to do instead.
    """
    check(deployment)
    parts = [plan] if plan.prefill is None else [plan, prefill_plan(plan)]
    objects = [claim_template(deployment, part, placement) for part in parts] if placement.access == "Claim" else []
    if plan.prefill is None:
        objects.append(workload(deployment, plan, model, strategy, placement))
        objects.append(service(deployment, plan, sidecars=roles is not None))
    else:
        roles = roles or Roles()
        objects.append(workload(deployment, plan, model, strategy, placement, role="decode"))
        # Before the prefill pods: decode pods answer requests, too, while those of prefill cannot be written.
        objects.append(service(deployment, plan, sidecars=True, to_decode=roles.only_decode_serves))
        objects.append(prefill_workload(deployment, plan, model, roles, placement))
    if needs_disruption_budget(plan):
        objects.append(disruption_budget(deployment, plan))
    pool = deployment.spec.routing.inference_pool
    if pool is not None:
        objects.append(inference_pool(deployment, plan, pool))
    if table is not None:
        objects.append(plan_table(deployment, plan, table))
    return list({(each["kind"], each["metadata"]["name"]): each for each in objects}.values())


def prefill_workload(
    deployment: LLMDeployment, plan: PlanStatus, model: ModelSpec, roles: Roles, placement: Placement
) -> dict[str, Any]:
    """Return the Deployment of the prefill pods of a plan with separate prefill and decode.

    Raises:
        ServingError: The spec contradicts the plan.
    """
    own, runs = prefill_plan(plan), roles.prefill_runs
    return workload(deployment, own, model, roles.prefill_strategy, placement, role="prefill", runs=runs, whole=plan)


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
