"""All objects of one plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.predictor.architecture import ModelSpec
from energylens.predictor.types import GpuSpec
from energylens.serving import sglang, vllm
from energylens.serving.arguments import check_extra_args
from energylens.serving.merge import merge_pod_template
from energylens.serving.rollout import Strategy
from energylens.serving.support import disruption_budget, plan_table, service
from energylens.serving.workload import workload


def check(deployment: LLMDeployment) -> None:
    """Check what of a spec can be checked without a plan, so that nothing is planned that could not be served.

    Raises:
        ServingError: Naming the field, its value and what to do instead.
    """
    engine = vllm if deployment.spec.engine.type == "VLLM" else sglang
    check_extra_args(deployment.spec.engine.extra_args, engine.RESERVED)
    merge_pod_template({}, deployment.spec.pod_template or {})


def manifests(
    deployment: LLMDeployment,
    plan: PlanStatus,
    model: ModelSpec,
    *,
    strategy: Strategy,
    gpu: GpuSpec | None = None,
    table: Sequence[Mapping[str, object]] | None = None,
) -> list[dict[str, Any]]:
    """Return the objects that serve a plan, in the order to apply them.

    Args:
        deployment: The owner.
        plan: The plan to serve.
        model: The checkpoint's shape, before ``spec.model.quantization`` is applied.
        strategy: How running pods are replaced.
        gpu: The plan's product, whose names on nodes the pods look for; None where nobody knows it any more.
        table: Every candidate worth showing, for the ConfigMap. None leaves the ConfigMap out: only the planning that
            made a plan knows its table, and the ConfigMap written then is to stay.

    Raises:
        ServingError: The spec contradicts the plan. The message names the field and what to do instead.
    """
    check(deployment)
    objects = [
        workload(deployment, plan, model, strategy, gpu),
        service(deployment, plan),
        disruption_budget(deployment, plan),
    ]
    if table is not None:
        objects.append(plan_table(deployment, plan, table))
    return objects
