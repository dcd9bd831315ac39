"""The inputs of a decision about one LLMDeployment, assembled in one place from the observed objects. Pure.

A reconcile observes through watches, a preview through files or a single read of a cluster, and ``fleet`` plans as if
no pods ran. All three plan from the inputs that are assembled here.
"""

from __future__ import annotations

from datetime import datetime

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.loads.following import followed_load, measured_load
from energylens.decide.deployment.loads.learned_hours import learned_hours, with_learned
from energylens.decide.deployment.observed.model_config import model_config
from energylens.decide.deployment.observed.named_maps import NamedMaps
from energylens.decide.deployment.observed.observation import Body, standing_plan
from energylens.decide.deployment.observed.profile_hours import with_hours
from energylens.decide.deployment.plans.external import is_external
from energylens.decide.deployment.plans.inputs import Inputs, adopted_at
from energylens.decide.deployment.plans.replica import SeenPods, beside, is_asked, whole_load
from energylens.decide.deployment.pods.deadlines import late_rollout
from energylens.decide.deployment.pods.job_hours import job_hours
from energylens.decide.deployment.pods.job_start import own_workload
from energylens.decide.deployment.pods.workloads import NO_WORKLOADS, Workloads, replicas_of
from energylens.decide.learned.corrections import Pool
from energylens.measure.types import WindowMeasurement
from energylens.planner.search.identity import action_hash
from energylens.planner.types import ClusterSnapshot, PowerAllowance
from energylens.records import dataclass


@dataclass(frozen=True)
class Offered:
    """The resources of the cluster for a deployment, and the learned corrections."""

    snapshot: ClusterSnapshot
    """The nodes, with all GPUs taken that this deployment may not use."""
    allowance: PowerAllowance | None
    """Power from budgets; None if no budget limits the deployment."""
    learned: Pool
    """Factors learned from measurement."""
    serves_lws: bool
    """Whether the cluster has LeaderWorkerSet."""


@dataclass(frozen=True)
class Present:
    """The existing objects of a deployment; none by default."""

    workloads: Workloads = NO_WORKLOADS
    """The running workloads."""
    table: Body | None = None
    """The ConfigMap ``<name>-plan``, with the plan from which the pods were created."""
    want_table: bool = False
    """Whether the table of plans must be written."""
    window: WindowMeasurement | None = None
    """The last full measurement of the plan in status."""
    seen: SeenPods | None = None
    """The state of the pods, if new plans are verified beside the running ones; None if nobody observes it."""


NOTHING_PRESENT = Present()


def gather(
    deployment: LLMDeployment,
    offered: Offered,
    named: NamedMaps,
    present: Present = NOTHING_PRESENT,
    *,
    now: datetime,
) -> Inputs:
    """Return the inputs of planning.

    Args:
        deployment: The LLMDeployment, with its last status.
        offered: The resources of the cluster.
        named: The ConfigMaps that the spec names.
        present: The existing objects of the deployment.
        now: The current time.
    """
    deployment, no_hours = with_hours(_as_scaled(deployment), named.hours)
    seen, window = present.seen, present.window
    workload = present.workloads.running(deployment.status.plan)
    load_window = whole_load(window, seen) if seen is not None else window
    learned = learned_hours(deployment, measured_load(load_window))
    deployment = with_learned(deployment, learned)
    verifies = seen is not None and is_asked(deployment)
    own = own_workload(deployment, workload)
    config, missing = model_config(deployment, named.config)
    return Inputs(
        deployment=deployment,
        config=config,
        missing=missing,
        no_hours=no_hours,
        job_hours=job_hours(deployment, named.job_hours),
        snapshot=offered.snapshot,
        allowance=offered.allowance,
        serves_lws=offered.serves_lws,
        adopted_at=adopted_at(deployment),
        now=now,
        want_table=present.want_table,
        standing=standing_plan(deployment, present.table, workload),
        corrections=offered.learned.for_planning(deployment),
        late=late_rollout(deployment, deployment.status.plan, workload, () if seen is None else seen.running_pods, now),
        load=followed_load(deployment, load_window),
        learned=learned,
        runs=own is not None and replicas_of(own) > 0,
        beside=beside(deployment, workload, present.table, seen, window) if seen is not None and verifies else None,
    )


def _as_scaled(deployment: LLMDeployment) -> LLMDeployment:
    """Return a deployment with the replicas that scaling.mode Fixed sets as an override.

    After a change back to planned replicas and a constant load, the plan in the status counts as a plan of the running
    number of replicas.
    """
    spec, plan = deployment.spec, deployment.status.plan
    if spec.scaling is not None and spec.scaling.mode == "Fixed":
        overrides = spec.planning.overrides.model_copy(update={"replicas": spec.replicas})
        planning = spec.planning.model_copy(update={"overrides": overrides})
        deployment = deployment.model_copy(update={"spec": spec.model_copy(update={"planning": planning})})
    varies = spec.workload.profile is not None or is_external(deployment)
    if varies or plan is None or plan.planned_replicas is None:
        return deployment
    constant = plan.model_copy(update={"planned_replicas": None, "peak_power_watts": None})
    constant = constant.model_copy(update={"hash": action_hash(constant)})
    status = deployment.status.model_copy(update={"plan": constant})
    return deployment.model_copy(update={"status": status})
