"""What a decision about one LLMDeployment is made from, put together in one place from what was seen. Pure.

The operator's pass sees it in its watches, a preview in files or in a cluster that it reads once, and a fleet plans as
if nothing ran yet: all of them plan from the same inputs, made here.
"""

from __future__ import annotations

from datetime import datetime

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.following import followed_load
from energylens.decide.deployment.inputs import Inputs, adopted_at
from energylens.decide.deployment.model_config import model_config
from energylens.decide.deployment.observation import Body, standing_plan
from energylens.decide.deployment.replica import SeenPods, beside, is_asked, whole_load
from energylens.decide.deployment.rollouts import late_rollout
from energylens.decide.deployment.workloads import NO_WORKLOADS, Workloads
from energylens.decide.learned.corrections import Pool
from energylens.measure.types import WindowMeasurement
from energylens.planner.types import ClusterSnapshot, PowerAllowance


def gather(
    deployment: LLMDeployment,
    *,
    now: datetime,
    snapshot: ClusterSnapshot,
    allowance: PowerAllowance | None,
    learned: Pool,
    serves_lws: bool,
    config_map: Body | None = None,
    unreadable: str = "",
    workloads: Workloads = NO_WORKLOADS,
    table: Body | None = None,
    window: WindowMeasurement | None = None,
    want_table: bool = False,
    seen: SeenPods | None = None,
) -> Inputs:
    """Return what planning reads.

    Args:
        deployment: With its last status.
        now: The present moment.
        snapshot: The nodes, with all GPUs taken that are not for this deployment.
        allowance: What budgets leave to it; None where none limits it.
        learned: What measurement taught.
        serves_lws: Whether the cluster has LeaderWorkerSet.
        config_map: The one of ``spec.model.configRef``; None where it does not exist, or none is named.
        unreadable: Why that ConfigMap may not be read; "" where it may.
        workloads: What runs.
        table: The ConfigMap beside the pods, with the plan that they were made from.
        window: The last full measurement of the plan in status.
        want_table: The table of plans has to be written.
        seen: What the pods do, where new plans are verified beside those that run; None where nobody looks.
    """
    workload = workloads.running(deployment.status.plan)
    verifies = seen is not None and is_asked(deployment)
    config, missing = model_config(deployment, config_map, unreadable)
    return Inputs(
        deployment=deployment,
        config=config,
        missing=missing,
        snapshot=snapshot,
        allowance=allowance,
        serves_lws=serves_lws,
        adopted_at=adopted_at(deployment),
        now=now,
        want_table=want_table,
        standing=standing_plan(deployment, table, workload),
        corrections=learned.for_planning(deployment),
        late=late_rollout(deployment, deployment.status.plan, workload),
        load=followed_load(deployment, whole_load(window, seen) if seen is not None else window),
        beside=beside(deployment, workload, table, seen, window) if seen is not None and verifies else None,
    )
