"""Which child objects a deployment should have now. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from energylens.api.llmdeployment import PlanStatus
from energylens.data import load_gpus
from energylens.decide.deployment.observed.observation import Observation, plan_label
from energylens.decide.deployment.pods.applied import holds
from energylens.decide.deployment.pods.avoided import avoided, to_avoid, uncounted
from energylens.decide.deployment.pods.deadlines import queued_for_long
from energylens.decide.deployment.pods.handover import Handover, handover
from energylens.decide.deployment.pods.job_start import is_held
from energylens.decide.deployment.pods.replaced import replaced
from energylens.decide.deployment.pods.roles import decode_waits, only_decode_serves, prefill_goes, prefill_runs
from energylens.decide.deployment.pods.rollouts import EXCEEDED_QUOTA, main_rollout, prefill_view, refused_pods
from energylens.decide.deployment.pods.workloads import (
    WORKLOADS,
    group_size,
    live_strategy,
    replicas_of,
    template_of,
    workload_revision,
)
from energylens.decide.deployment.trials.approval import waits, why_it_waits
from energylens.decide.reasons import Reason
from energylens.planner.engines.disaggregation import DECODES_ALONE
from energylens.planner.inventory.access import access_to
from energylens.planner.inventory.nodes import usable_nodes
from energylens.planner.search.identity import serving_hash
from energylens.planner.types import BY_RESOURCE, ClusterSnapshot, GpuAccess, GpuAllocation
from energylens.predictor.model.architecture import ModelSpec
from energylens.records import dataclass
from energylens.serving import (
    Roles,
    ServingError,
    Strategy,
    canary_manifests,
    canary_ref,
    choose_strategy,
    manifests,
    prefill_workload,
)
from energylens.serving.claims import conflict, one_at_a_time
from energylens.serving.gpus import Placement, access_of, gpus_of, product_of
from energylens.serving.metadata import APPLIED_HASH, KV_CACHE_LABEL
from energylens.serving.roles import exchange, prefill_plan
from energylens.serving.support import needs_disruption_budget

SAFE_MESSAGE = "new replicas wait for resources that old ones hold; old replicas stop first"
STOPS_MESSAGE = "old and new replicas cannot exchange the KV cache, and decode replicas alone serve nothing; all stop"
FOREIGN_MESSAGE = "the limits of the rolling update were edited; an old replica stops before a new one starts"


@dataclass(frozen=True)
class Children:
    """The desired manifests, or why there are none."""

    manifests: tuple[dict[str, Any], ...]
    acting: bool
    reason: Reason | None = None
    message: str = ""
    strategy: Strategy | None = None
    """Strategy of the rollout that this change starts; None if no rollout starts."""
    handover: Handover | None = None
    """Handover from the workload of the other kind; None if there is none, or if the plan is not followed."""
    canary: tuple[str, str] | None = None
    """Kind and name of the canary's workload; canaries of other kinds or names are deleted."""
    unguarded: bool = False
    """Whether a single pod serves, so that the PodDisruptionBudget of an earlier plan is deleted."""
    drops_prefill: bool = False
    """Whether the prefill pods of an earlier plan are deleted."""
    replaced: tuple[Mapping[str, Any], ...] = ()
    """Workloads that are deleted now, and made again in the next reconcile: Kueue rejects their change."""


def children(observed: Observation) -> Children:
    """Return the children of the followed plan; none with mode Advisory."""
    spec, planning = observed.deployment.spec, observed.planning
    plan, model = planning.plan, planning.model
    if plan is None or model is None:
        return Children((), False)
    if spec.planning.mode == "Advisory":
        return Children((), False, Reason.ADVISORY, "planning.mode is Advisory: the plan is shown and not acted on")
    if planning.held:
        return _held(observed, plan, model)
    # Stopping needs no approval.
    stops = spec.is_stopped and observed.workload is not None
    if waits(observed.deployment, plan) and not stops:
        return Children(
            _kept(observed, observed.standing),
            False,
            Reason.AWAITING_APPROVAL,
            why_it_waits(observed.deployment, plan, plan_label(observed.workload)),
        )
    start = observed.job_start
    if start is not None and is_held(start, observed.now):
        reason = Reason.BUDGET_EXCEEDED if start.start_time is None else Reason.START_SCHEDULED
        return Children((), False, reason, start.message)
    if plan.nodes_per_replica > 1 and not observed.serves_lws:
        return Children(
            (),
            False,
            Reason.LEADER_WORKER_SET_MISSING,
            _needs_groups(plan),
        )
    unshareable = conflict(observed.deployment, plan, observed.claims)
    if unshareable:
        return Children((), False, Reason.CLAIM_NOT_SHAREABLE, unshareable)
    try:
        return _act(observed, plan, model)
    except ServingError as error:
        return Children((), False, Reason.INVALID_ENGINE_SETTINGS, str(error))


def _held(observed: Observation, plan: PlanStatus, model: ModelSpec) -> Children:
    """Return the children while a new plan is not followed: the children of the running plan, and the canary.

    If the spec names another engine or other arguments, the running pods stay unchanged: such a change is part of the
    new plan.
    """
    deployment, replica = observed.deployment, observed.planning.replica
    main = Children(_kept(observed, plan), False)
    if plan.serving_hash == serving_hash(deployment.spec):
        try:
            main = _act(observed, plan, model)
        except ServingError as error:
            return Children((), False, Reason.INVALID_ENGINE_SETTINGS, str(error))
    if replica is None:
        return main
    if replica.nodes_per_replica > 1 and not observed.serves_lws:
        return replace(main, reason=Reason.LEADER_WORKER_SET_MISSING, message=_needs_groups(replica))
    ref, live = canary_ref(deployment, replica), observed.canary
    now = uncounted(observed.snapshot, replica)
    avoid = to_avoid(avoided(live), now, observed.canary_pods) if live is not None else now
    try:
        beside = canary_manifests(deployment, replica, model, placement=_placement(observed, replica, live, avoid))
    except ServingError as error:
        return replace(main, reason=Reason.INVALID_ENGINE_SETTINGS, message=str(error))
    # Both plans may share a ResourceClaimTemplate.
    known = {_name(manifest) for manifest in main.manifests}
    more = [manifest for manifest in beside if _name(manifest) not in known]
    return replace(main, manifests=(*main.manifests, *more), canary=(ref.kind, ref.name))


def _name(manifest: Mapping[str, Any]) -> tuple[str, str]:
    return manifest["kind"], manifest["metadata"]["name"]


def _placement(
    observed: Observation, plan: PlanStatus, live: Mapping[str, Any] | None, avoid: tuple[str, ...]
) -> Placement:
    """Return where the pods of a plan may run, and how they get their GPUs; if possible as the live pods do."""
    before = None if live is None else access_of(template_of(live))
    gpus = load_gpus()
    access: GpuAccess = "Resource"
    # Most clusters have device plugins only, so that the nodes need no closer inspection.
    if before == "Claim" or any(node.access != BY_RESOURCE for node in observed.snapshot.nodes):
        usable = usable_nodes(observed.deployment.spec, observed.deployment.owner, observed.snapshot, gpus)
        access = access_to(usable, plan.gpu_product, before)
    return Placement(gpus.get(plan.gpu_product), avoid, access)


def _needs_groups(plan: PlanStatus) -> str:
    return (
        f"a replica spans {plan.nodes_per_replica} nodes, which needs LeaderWorkerSet (leaderworkerset.x-k8s.io/v1); "
        "install it, or allow GPUs on which a replica fits one node"
    )


def _without_canary(observed: Observation) -> ClusterSnapshot:
    """Return the nodes with the GPUs of the canary free, which are released when its plan is followed."""
    live = observed.canary
    if live is None or observed.planning.replica is not None:
        return observed.snapshot
    template = template_of(live)
    gone = GpuAllocation(observed.deployment.owner, gpus_of(template), access_of(template))
    nodes = []
    for node in observed.snapshot.nodes:
        left = list(node.allocations)
        for pod in observed.canary_pods:
            if pod.node == node.name and gone in left:
                left.remove(gone)
        nodes.append(replace(node, allocations=tuple(left)))
    return replace(observed.snapshot, nodes=tuple(nodes))


def _act(observed: Observation, plan: PlanStatus, model: ModelSpec) -> Children:
    found = _acted(observed, plan, model)
    if not found.acting:
        return found
    leftover = plan.prefill is None and observed.prefill is not None
    stopped = observed.deployment.spec.is_stopped
    # Without a plan for the spec, a workload that is deleted would not be made again.
    replaceable = (observed.workload, observed.prefill) if stopped or observed.planning.good else ()
    first = replaced(replaceable, found.manifests, stopped=stopped)
    names = {_name(body) for body in first}
    return replace(
        found,
        manifests=tuple(m for m in _in_order(observed, plan, found.manifests) if _name(m) not in names),
        replaced=first,
        unguarded=not needs_disruption_budget(plan),
        drops_prefill=leftover and prefill_goes(observed, main_rollout(observed)),
    )


def _in_order(
    observed: Observation, plan: PlanStatus, wanted: tuple[dict[str, Any], ...]
) -> tuple[dict[str, Any], ...]:
    """Return the manifests to write now: those of decode pods wait for prefill pods that could not feed them to end."""
    live = observed.workload
    if plan.prefill is None or live is None or not decode_waits(observed, plan):
        return wanted
    main = _workload(wanted)
    return wanted if same_template(live, main) else tuple(each for each in wanted if each is not main)


def _acted(observed: Observation, plan: PlanStatus, model: ModelSpec) -> Children:
    deployment, planning, live = observed.deployment, observed.planning, observed.workload
    now = uncounted(observed.snapshot, plan)

    def made(strategy: Strategy, avoid: tuple[str, ...]) -> list[dict[str, Any]]:
        placement = _placement(observed, plan, live, avoid)
        roles = _roles(observed, plan, model, placement)
        return manifests(
            deployment, plan, model, strategy=strategy, placement=placement, table=planning.table, roles=roles
        )

    if live is None:
        if not planning.good:
            return Children((), False)
        first = choose_strategy(deployment, None, plan, observed.snapshot, observed.claims)
        return Children(tuple(made(first, now)), True, strategy=first)
    current = live_strategy(live) or Strategy("Recreate", 0, 1, FOREIGN_MESSAGE)
    kept = to_avoid(avoided(live), now, observed.pods)
    wanted = made(current, kept)
    main = _workload(wanted)
    same = same_template(live, main)
    if not planning.good and not same and _digest(live) != _digest(main):
        # The spec has no plan, so its pod settings belong to no plan either.
        return Children((), False)
    if not same:
        running = shape_of(live, plan)
        chosen = choose_strategy(deployment, running, plan, _without_canary(observed), observed.claims)
        before, alone = kv_cache_of(live), deployment.spec.engine.type in DECODES_ALONE
        if plan.prefill is not None and not alone and not (before and exchange(before, kv_cache_of(main))):
            chosen = Strategy("Recreate", 0, max(1, plan.replicas, running.replicas), STOPS_MESSAGE)
        if observed.claims.unread:
            chosen = replace(chosen, message=f"{chosen.message}; {observed.claims.unread}")
        return Children(tuple(made(chosen, now)), True, strategy=chosen, handover=handover(observed))
    if _stuck(observed, current):
        safe = Strategy("Recreate", 0, max(1, plan.replicas), SAFE_MESSAGE)
        return Children(tuple(made(safe, kept)), True, strategy=safe, handover=handover(observed))
    return Children(tuple(wanted), True, handover=handover(observed))


def _roles(observed: Observation, plan: PlanStatus, model: ModelSpec, placement: Placement) -> Roles | None:
    """Return how the prefill pods of a plan replace those that run, and whether they may run now.

    None for a plan without roles, unless decode pods of an earlier plan still serve.
    """
    if plan.prefill is None:
        return Roles(only_decode_serves=False) if any(pod.kv_cache for pod in observed.pods) else None
    runs, narrow, live = prefill_runs(observed, plan), only_decode_serves(observed), observed.prefill
    if live is None:
        return Roles(prefill_runs=runs, only_decode_serves=narrow)
    current = Roles(live_strategy(live) or Strategy("Recreate", 0, 1, FOREIGN_MESSAGE), runs, narrow)
    made = prefill_workload(observed.deployment, plan, model, current, placement)
    own = prefill_plan(plan)
    if not same_template(live, made):
        chosen = choose_strategy(
            observed.deployment, shape_of(live, own), own, _without_canary(observed), observed.claims
        )
        return replace(current, prefill_strategy=chosen)
    if _stuck(prefill_view(observed), current.prefill_strategy):
        return replace(current, prefill_strategy=Strategy("Recreate", 0, max(1, own.replicas), SAFE_MESSAGE))
    return current


def _kept(observed: Observation, plan: PlanStatus | None) -> tuple[dict[str, Any], ...]:
    """Return the children of the running plan while another plan waits, so that edits by others are reverted meanwhile.

    There are none if the spec changes the running pods: the change waits together with the plan.
    """
    deployment, model, live = observed.deployment, observed.planning.model, observed.workload
    if plan is None or model is None or live is None:
        return ()
    strategy = live_strategy(live) or Strategy("Recreate", 0, 1, FOREIGN_MESSAGE)
    try:
        gpu, access = load_gpus().get(plan.gpu_product), access_of(template_of(live))
        placement = Placement(gpu, avoided(live), access)
        roles = _roles(observed, plan, model, placement)
        wanted = manifests(deployment, plan, model, strategy=strategy, placement=placement, roles=roles)
    except ServingError:
        return ()
    main = _workload(wanted)
    unchanged = same_template(live, main) or _digest(live) == _digest(main)
    return tuple(wanted) if unchanged else ()


def same_template(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether applying ``wanted`` would start no rollout."""
    if live["kind"] != wanted["kind"]:
        return False
    part = "template" if live["kind"] == "Deployment" else "leaderWorkerTemplate"
    return holds(live["spec"].get(part), wanted["spec"][part])


def kv_cache_of(body: Mapping[str, Any]) -> str:
    """Return the label by which pods of a workload exchange the KV cache; "" for pods without a role."""
    return str(((template_of(body).get("metadata") or {}).get("labels") or {}).get(KV_CACHE_LABEL, ""))


def shape_of(live: Mapping[str, Any], plan: PlanStatus) -> PlanStatus:
    """Return ``plan`` with the product, replicas and GPUs per pod of the live workload.

    The workload is read, because the last status may contain a plan that was never followed: a plan that waits for
    approval, or a plan whose workload could not be written.
    """
    template, nodes = template_of(live), group_size(live)
    gpus = gpus_of(template)
    return plan.model_copy(
        update={
            "gpu_product": product_of(template),
            "replicas": replicas_of(live),
            "nodes_per_replica": nodes,
            "tensor_parallel": gpus * nodes,
            "pipeline_parallel": 1,
            "data_parallel": 1,
        }
    )


def _workload(wanted: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the manifest that runs the pods, of two roles that of the decode pods, which comes first."""
    return next(manifest for manifest in wanted if manifest["kind"] in WORKLOADS)


def _digest(manifest: Mapping[str, Any]) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get(APPLIED_HASH, ""))


def _stuck(observed: Observation, strategy: Strategy) -> bool:
    """Return whether a surging rollout waits for resources of old pods: GPUs, a volume, or their share of a quota.

    Old pods on another product hold no GPU that a new pod could use: stopping them would only reduce capacity.
    """
    plan, live = observed.planning.plan, observed.workload
    if plan is None or live is None or strategy.max_surge == 0:
        return False
    if observed.canary_pods and observed.planning.replica is None:
        # Terminating pods still hold GPUs.
        return False
    if observed.deployment.spec.rollout.strategy == "Surge" and one_at_a_time(observed.claims) is None:
        # With strategy Surge, the rollout waits.
        return False
    revision = workload_revision(live)
    old = [pod for pod in observed.pods if pod.revision != revision and not pod.finished]
    new = [pod for pod in observed.pods if pod.revision == revision]
    if old and (EXCEEDED_QUOTA in refused_pods(observed) or queued_for_long(new, observed.now)):
        return True
    nodes = {node.name for node in observed.snapshot.nodes if node.product == plan.gpu_product}
    in_the_way = any(pod.node in nodes for pod in old)
    return in_the_way and any(pod.unschedulable for pod in new)
