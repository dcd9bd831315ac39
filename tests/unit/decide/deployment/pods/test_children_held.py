"""Children while a plan is not followed or its canary serves, what surges give way, and how GPUs are reached."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.decide.observations import (
    MODEL,
    OLD,
    OTHER,
    PRODUCT,
    RECREATE,
    deployment,
    model,
    observation,
    plan,
    pod,
    without_plan,
    workload,
)

from energylens.api.llmdeployment import JobStartStatus, PlanStatus, PrefillReplicas
from energylens.decide.deployment.observed.observation import Observation, PlanChoice
from energylens.decide.deployment.pods.children import (
    SAFE_MESSAGE,
    STOPS_MESSAGE,
    children,
    kv_cache_of,
    same_template,
    shape_of,
)
from energylens.decide.deployment.pods.rollouts import EXCEEDED_QUOTA
from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.decide.reasons import Reason
from energylens.planner.search.identity import serving_hash
from energylens.planner.types import ClusterSnapshot, GpuAllocation, GpuNode
from energylens.serving import Strategy, canary_manifests
from energylens.serving.claims import Claims
from energylens.serving.gpus import Placement, access_of
from energylens.serving.metadata import APPLIED_HASH

SERVES = serving_hash(deployment().spec)
RUNNING = plan(serving_hash=SERVES)
REPLICA = plan(OTHER, replicas=1, gpus=1, max_batch_size=64)
WIDE = plan(OTHER, replicas=1, gpus=16, tensor_parallel=16, nodes_per_replica=2)


def verifying(replica: PlanStatus | None = REPLICA, made: PlanStatus = RUNNING, **changes: Any) -> Observation:
    """Return a plan that runs while a replica of another plan is verified beside its pods."""
    planning = PlanChoice(made, model(), True, Reason.VERIFYING, "", replica=replica, held=True)
    return observation(**{"planning": planning, **changes})


def kinds(observed: Observation) -> list[tuple[str, str]]:
    return [(body["kind"], body["metadata"]["name"]) for body in children(observed).manifests]


MAIN = [("Deployment", "llama"), ("Service", "llama"), ("PodDisruptionBudget", "llama")]


def test_a_canary_runs_beside_the_children_of_the_running_plan() -> None:
    found = children(verifying())
    assert kinds(verifying()) == [*MAIN, ("Deployment", "llama-canary")]
    assert (found.acting, found.reason, found.canary) == (True, None, ("Deployment", "llama-canary"))
    alone = children(verifying(None))
    assert kinds(verifying(None)) == MAIN
    assert alone.canary is None


def test_pods_stay_unchanged_while_the_plan_for_another_engine_is_verified() -> None:
    # The plan was made for other serving fields than the spec's: the live template is kept, or nothing written.
    found = children(verifying(None, plan()))
    assert not found.acting
    assert [body["kind"] for body in found.manifests] == ["Deployment", "Service", "PodDisruptionBudget"]
    edited = deployment(engine={"extraArgs": ["--enforce-eager"]})
    assert children(verifying(None, plan(), deployment=edited)).manifests == ()


@pytest.mark.parametrize(("planned", "known"), [(None, model()), (RUNNING, None)])
def test_without_a_plan_or_its_model_no_canary_is_made(planned: PlanStatus | None, known: Any) -> None:
    for held in (True, False):
        choice = PlanChoice(planned, known, True, Reason.VERIFYING, "", replica=REPLICA, held=held)
        found = children(observation(planning=choice))
        assert (found.manifests, found.acting, found.canary) == ((), False, None)


def test_a_canary_over_several_nodes_needs_leader_worker_set() -> None:
    found = children(verifying(WIDE))
    assert (found.reason, found.canary) == (Reason.LEADER_WORKER_SET_MISSING, None)
    assert found.message.startswith("a replica spans 2 nodes")
    assert len(found.manifests) == 3
    served = children(verifying(WIDE, serves_lws=True))
    assert served.reason is None
    assert served.canary is not None
    assert served.canary[0] == "LeaderWorkerSet"


@pytest.mark.parametrize(("nodes", "reason"), [(1, None), (2, Reason.LEADER_WORKER_SET_MISSING)])
def test_only_a_plan_over_several_nodes_needs_leader_worker_set(nodes: int, reason: Reason | None) -> None:
    made = plan(nodes_per_replica=nodes, tensor_parallel=2, gpus=4)
    found = children(observation(planning=PlanChoice(made, model(), True, Reason.PLANNED, ""), workload=None, pods=()))
    assert (found.reason, found.acting) == (reason, reason is None)


def test_a_spec_that_contradicts_the_running_plan_stops_the_verification() -> None:
    spec: dict[str, Any] = {"podTemplate": {"spec": {"nodeName": "h100-0"}}}
    found = children(
        verifying(made=plan(serving_hash=serving_hash(deployment(**spec).spec)), deployment=deployment(**spec))
    )
    assert (found.acting, found.reason, found.manifests) == (False, Reason.INVALID_ENGINE_SETTINGS, ())
    other = children(verifying(made=plan(), deployment=deployment(**spec)))
    assert (other.acting, other.reason, other.canary) == (False, Reason.INVALID_ENGINE_SETTINGS, None)


def test_both_plans_share_one_claim_template() -> None:
    node = GpuNode("n", PRODUCT, 8, access=frozenset({"Claim"}))
    names = kinds(verifying(snapshot=ClusterSnapshot((node,)), workload=None, pods=()))
    assert len(names) == len(set(names))
    assert [kind for kind, _ in names].count("ResourceClaimTemplate") >= 1


def test_a_claim_that_cannot_be_shared_starts_nothing() -> None:
    spec = deployment(model={"name": MODEL, "cache": {"persistentVolumeClaim": "models"}})
    found = children(observation(deployment=spec, claims=Claims({"models": ("ReadWriteOncePod",)})))
    assert (found.acting, found.reason, found.manifests) == (False, Reason.CLAIM_NOT_SHAREABLE, ())


def test_a_job_waits_for_its_start_and_no_longer() -> None:
    job = {"requests": 100, "completeWithinSeconds": 3600}
    start = {"completeBy": "2026-03-02T00:00:00Z", "forecastConfigMapRef": {"name": "grid"}}
    asked = deployment(workload={"inputTokens": 1, "outputTokens": 1, "job": {**job, "start": start}})

    def found(time: str) -> Any:
        waits = JobStartStatus(state="Waiting", start_time=time, reason="BestHours", message="because")
        return children(observation(deployment=asked, job_start=waits, workload=None, pods=()))

    later = found("2026-03-01T13:00:00Z")
    assert (later.acting, later.reason, later.message, later.manifests) == (
        False,
        Reason.START_SCHEDULED,
        "because",
        (),
    )
    assert found("2026-03-01T11:00:00Z").acting


def test_a_plan_without_a_good_answer_makes_no_first_pods() -> None:
    bad = without_plan(Reason.BUDGET_EXCEEDED, plan())
    found = children(observation(planning=bad, workload=None, pods=()))
    assert (found.acting, found.manifests) == (False, ())
    edited = children(observation(planning=bad, deployment=deployment(engine={"extraArgs": ["--enforce-eager"]})))
    assert (edited.acting, edited.manifests, edited.reason) == (False, (), None)
    assert children(observation(planning=bad)).acting


def test_limits_that_somebody_edited_become_safe_ones() -> None:
    live = workload()
    live["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    (manifest, *_) = children(observation(workload=live)).manifests
    assert manifest["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


@pytest.mark.parametrize(("unread", "ends"), [("", False), ("claims cannot be read", True)])
def test_a_rollout_says_that_claims_could_not_be_read(unread: str, ends: bool) -> None:
    new = PlanChoice(plan(OTHER, max_batch_size=64), model(), True, Reason.PLANNED, "")
    found = children(observation(planning=new, claims=Claims({}, unread=unread)))
    assert found.acting
    assert found.strategy is not None
    assert found.strategy.message.endswith("; claims cannot be read") is ends
    assert found.strategy.message


def test_one_pod_that_serves_has_no_disruption_budget() -> None:
    one = PlanChoice(plan(replicas=1, gpus=1), model(), True, Reason.PLANNED, "")
    assert children(observation(planning=one)).unguarded
    assert not children(observation()).unguarded


CANARY = dict(canary_manifests(deployment(), REPLICA, model(), placement=Placement(None))[0])


@pytest.mark.parametrize(
    ("free", "canary", "pods", "strategy"),
    [
        (0, None, (), "Recreate"),
        (0, CANARY, (pod("c", "x", canary=True),), "Surge"),
        (0, CANARY, (), "Recreate"),
        (0, CANARY, (pod("c", "x", canary=True, node="elsewhere"),), "Recreate"),
    ],
)
def test_the_gpus_of_the_canary_are_free_for_its_plan(
    free: int, canary: dict[str, Any] | None, pods: tuple[Any, ...], strategy: str
) -> None:
    held = GpuAllocation("team/llama", 1)
    node = GpuNode("h100-0", PRODUCT, free + 3, allocations=(held, held, held))
    new = PlanChoice(plan(OTHER, max_batch_size=64), model(), True, Reason.PLANNED, "")
    cluster = ClusterSnapshot((node,))
    found = children(observation(planning=new, snapshot=cluster, canary=canary, canary_pods=pods))
    assert found.strategy is not None
    assert found.strategy.name == strategy
    # While the canary is still needed, its GPUs are not free.
    kept = replace(new, replica=REPLICA)
    while_needed = children(observation(planning=kept, snapshot=cluster, canary=canary, canary_pods=pods)).strategy
    assert while_needed is not None
    assert while_needed.name == "Recreate"


NEW_WAITS = pod("new", ready=False, node="", unschedulable="no GPU")
OLD_POD = pod("old", OLD)
QUEUED = pod("new", ready=False, node="", queued="a gate", waits_for_quota=True, created="2026-03-01T11:50:00Z")
STUCK: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"workload": workload(strategy=RECREATE)}, False),
    ({"deployment": deployment(rollout={"strategy": "Surge"})}, False),
    ({"deployment": deployment(rollout={"strategy": "Surge"}), "claims": Claims({"m": ("ReadWriteOncePod",)})}, True),
    ({"canary_pods": (pod("c", canary=True),)}, False),
    ({"canary_pods": (pod("c", canary=True),), "planning": replace(observation().planning, replica=REPLICA)}, True),
    ({"pods": (NEW_WAITS,)}, False),
    ({"pods": (OLD_POD, pod("new", ready=False))}, False),
    ({"pods": (replace(OLD_POD, finished=True), NEW_WAITS)}, False),
    ({"pods": (replace(OLD_POD, node="h200-0"), NEW_WAITS)}, False),
    ({"pods": (OLD_POD, replace(OLD_POD, name="far", node="h200-0"), NEW_WAITS)}, True),
    ({"pods": (OLD_POD, NEW_WAITS, pod("new2"))}, True),
    ({"snapshot": ClusterSnapshot((GpuNode("h100-0", "NVIDIA-H200", 8),))}, False),
    ({"pods": (OLD_POD, QUEUED), "snapshot": ClusterSnapshot(())}, True),
    ({"pods": (QUEUED,), "snapshot": ClusterSnapshot(())}, False),
    ({"pods": (OLD_POD, pod("new", ready=False)), "refused_pods": EXCEEDED_QUOTA}, True),
    ({"pods": (OLD_POD, pod("new", ready=False)), "refused_pods": "forbidden"}, False),
]


@pytest.mark.parametrize(("changes", "is_stuck"), STUCK)
def test_old_pods_give_way_to_a_surge_only_where_they_hold_what_it_waits_for(
    changes: dict[str, Any], is_stuck: bool
) -> None:
    fields: dict[str, Any] = {"workload": workload(updated=1), "pods": (OLD_POD, NEW_WAITS)}
    made = children(observation(**{**fields, **changes}))
    found = made.strategy
    assert made.acting
    assert (found is not None and found.message == SAFE_MESSAGE) is is_stuck
    if is_stuck:
        assert found is not None
        assert (found.max_surge, found.max_unavailable) == (0, 2)


def test_a_surge_of_a_plan_without_replicas_may_lack_one_at_least() -> None:
    none = PlanChoice(plan(replicas=0, gpus=0), model(), True, Reason.PLANNED, "")
    found = children(observation(planning=none, workload=workload(updated=1), pods=(OLD_POD, NEW_WAITS))).strategy
    assert found is not None
    assert found.max_unavailable == 1


def test_the_way_to_gpus_is_looked_up_where_a_node_has_more_than_device_plugins() -> None:
    plain, claims = GpuNode("a", PRODUCT, 8), GpuNode("b", PRODUCT, 8, access=frozenset({"Claim"}))
    other = GpuNode("c", "NVIDIA-H200", 8)
    cases = ((plain,), "Resource"), ((plain, claims), "Resource"), ((claims,), "Claim"), ((other, claims), "Claim")
    for nodes, access in cases:
        found = children(observation(workload=None, pods=(), snapshot=ClusterSnapshot(nodes))).manifests
        (template,) = [body["spec"]["template"] for body in found if body["kind"] == "Deployment"]
        assert access_of(template) == access


def test_the_shape_of_groups_counts_the_gpus_of_all_their_pods() -> None:
    made = plan(nodes_per_replica=2, tensor_parallel=16, gpus=32, pipeline_parallel=1)
    planning = PlanChoice(made, model(), True, Reason.PLANNED, "")
    first = children(observation(planning=planning, serves_lws=True, workload=None, pods=())).manifests
    live = next(body for body in first if body["kind"] == "LeaderWorkerSet")
    shape = shape_of(live, plan(tensor_parallel=4, pipeline_parallel=2, data_parallel=2))
    layout = (shape.tensor_parallel, shape.pipeline_parallel, shape.data_parallel, shape.nodes_per_replica)
    assert layout == (16, 1, 1, 2)
    assert same_template(live, live)
    part = live["spec"]["leaderWorkerTemplate"]
    other = {**live, "spec": {**live["spec"], "leaderWorkerTemplate": {**part, "size": 9}}}
    assert not same_template(live, other)


PREFILL = PrefillReplicas(
    replicas=1, tensor_parallel=1, pipeline_parallel=1, expert_parallel=1, data_parallel=1, max_batch_size=4
)


def test_prefill_pods_of_an_earlier_plan_go_when_the_new_pods_are_ready() -> None:
    left = {"prefill": workload(plan(OTHER)), "prefill_pods": (pod("f0"),)}
    assert children(observation(**left)).drops_prefill
    assert not children(observation(**left, workload=workload(ready=1), pods=(pod("p0"),))).drops_prefill
    assert not children(observation()).drops_prefill


ROUTED: dict[str, Any] = {
    "planning": {"disaggregation": "Follow"},
    "routing": {
        "inferencePool": {"endpointPicker": {"name": "epp"}},
        "disaggregation": {"router": "LLMD", "sidecarImage": "example.org/sidecar:v1"},
    },
}
BOTH = PlanChoice(plan(prefill=PREFILL), model(), True, Reason.PLANNED, "")


def made_of_roles(**changes: Any) -> Any:
    fields: dict[str, Any] = {"deployment": deployment(**ROUTED), "planning": BOTH, "workload": None, "pods": ()}
    return children(observation(**{**fields, **changes}))


def named(found: Any, name: str) -> dict[str, Any]:
    return next(body for body in found.manifests if (body["kind"], body["metadata"]["name"]) == ("Deployment", name))


def test_a_plan_of_two_roles_starts_both_at_once() -> None:
    found = made_of_roles()
    assert found.reason is None
    assert named(found, "llama-prefill")["spec"]["replicas"] == 1
    assert named(found, "llama")["spec"]["replicas"] == 2
    assert not found.drops_prefill


def test_prefill_pods_have_limits_of_their_own() -> None:
    first = made_of_roles()
    live, prefill = named(first, "llama"), named(first, "llama-prefill")
    running = {"workload": live, "prefill": prefill, "pods": ()}
    kept = named(made_of_roles(**running), "llama-prefill")
    assert kept["spec"] == prefill["spec"]
    foreign = {**prefill, "spec": {**prefill["spec"], "strategy": {"type": "Recreate"}}}
    safe = named(made_of_roles(**{**running, "prefill": foreign}), "llama-prefill")
    assert safe["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    # Another layout of the prefill pods is a rollout of theirs alone.
    wider = replace(BOTH, plan=plan(prefill=PREFILL.model_copy(update={"max_batch_size": 8})))
    moved = made_of_roles(**running, planning=wider, snapshot=ClusterSnapshot(()))
    assert named(moved, "llama-prefill")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    room = ClusterSnapshot((GpuNode("h100-0", PRODUCT, 8),))
    surged = made_of_roles(**running, planning=wider, snapshot=room)
    assert named(surged, "llama-prefill")["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize(("replicas", "unavailable"), [(1, 1), (2, 2)])
def test_old_prefill_pods_give_way_to_new_ones_that_wait_for_their_gpus(replicas: int, unavailable: int) -> None:
    planning = replace(BOTH, plan=plan(prefill=PREFILL.model_copy(update={"replicas": replicas})))
    first = made_of_roles(planning=planning)
    live, prefill = named(first, "llama"), named(first, "llama-prefill")
    surging = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    prefill = {**prefill, "spec": {**prefill["spec"], "strategy": surging}}
    new = pod("new", workload_revision(prefill), ready=False, unschedulable="no GPU", prefill=True)
    pods = (pod("old", OLD, prefill=True), new)
    found = made_of_roles(planning=planning, workload=live, prefill=prefill, prefill_pods=pods)
    limits = named(found, "llama-prefill")["spec"]["strategy"]["rollingUpdate"]
    assert limits == {"maxSurge": 0, "maxUnavailable": unavailable}
    goes_on = made_of_roles(planning=planning, workload=live, prefill=prefill, prefill_pods=(new,))
    assert named(goes_on, "llama-prefill")["spec"]["strategy"] == surging


def roles_of(engine: str, image: str) -> dict[str, Any]:
    return {**ROUTED, "engine": {"type": engine, "image": f"example.org/engine:{image}"}}


def names_of(found: Any) -> list[str]:
    return [body["metadata"]["name"] for body in found.manifests if body["kind"] == "Deployment"]


def test_decode_pods_that_could_not_read_from_running_prefill_pods_wait_for_these_to_end() -> None:
    before, now = deployment(**roles_of("VLLM", "v1")), deployment(**roles_of("VLLM", "v2"))
    first = made_of_roles(deployment=before)
    live, prefill = named(first, "llama"), named(first, "llama-prefill")
    pods = {"pods": (pod("d0", kv_cache=kv_cache_of(live)),)}
    runs = (pod("f0", kv_cache=kv_cache_of(prefill), prefill=True),)
    old = {"deployment": now, "workload": live, "prefill": prefill, **pods}
    waits = made_of_roles(**old, prefill_pods=runs)
    assert names_of(waits) == ["llama-prefill"]
    assert named(waits, "llama-prefill")["spec"]["replicas"] == 0
    gone = made_of_roles(**old)
    assert names_of(gone) == ["llama", "llama-prefill"]
    assert named(gone, "llama")["spec"]["template"] != live["spec"]["template"]
    # The decode pods are written already: foreign edits of their Deployment are reverted meanwhile.
    written = made_of_roles(**{**old, "workload": named(gone, "llama")}, prefill_pods=runs)
    assert names_of(written) == ["llama", "llama-prefill"]
    # Without decode pods nothing waits.
    unserved = made_of_roles(**{**old, "workload": None, "pods": ()}, prefill_pods=runs)
    assert names_of(unserved) == ["llama", "llama-prefill"]


def test_pods_without_a_role_replace_decode_pods_while_prefill_pods_run() -> None:
    before, now = deployment(**roles_of("VLLM", "v1")), deployment(**roles_of("VLLM", "v2"))
    first = made_of_roles(deployment=before)
    live, prefill = named(first, "llama"), named(first, "llama-prefill")
    runs = (pod("f0", kv_cache=kv_cache_of(prefill), prefill=True),)
    single = PlanChoice(plan(OTHER), model(), True, Reason.PLANNED, "")
    fields = {"deployment": now, "planning": single, "workload": live, "prefill": prefill, "prefill_pods": runs}
    assert names_of(made_of_roles(**fields)) == ["llama"]


@pytest.mark.parametrize(("caches", "port"), [(("k-tp1", ""), 8000), (("", ""), "http")])
def test_the_service_reaches_the_sidecars_of_decode_pods_while_one_of_them_serves(
    caches: tuple[str, ...], port: int | str
) -> None:
    pods = tuple(pod(f"p{index}", kv_cache=cache) for index, cache in enumerate(caches))
    (service,) = [body for body in children(observation(pods=pods)).manifests if body["kind"] == "Service"]
    assert service["spec"]["ports"][0]["targetPort"] == port


@pytest.mark.parametrize(("runs", "planned", "unavailable"), [(1, 1, 1), (3, 2, 3), (1, 2, 2), (0, 0, 1)])
def test_all_pods_stop_where_decode_pods_alone_serve_nothing(runs: int, planned: int, unavailable: int) -> None:
    def choice(replicas: int) -> PlanChoice:
        return replace(BOTH, plan=plan(prefill=PREFILL, replicas=replicas))

    before, now = deployment(**roles_of("SGLang", "v1")), deployment(**roles_of("SGLang", "v2"))
    live = named(made_of_roles(deployment=before, planning=choice(runs)), "llama")
    found = made_of_roles(deployment=now, planning=choice(planned), workload=live)
    assert found.strategy == Strategy("Recreate", 0, unavailable, STOPS_MESSAGE)
    assert named(found, "llama")["spec"]["strategy"]["rollingUpdate"] == {
        "maxSurge": 0,
        "maxUnavailable": unavailable,
    }


def awaiting(live: dict[str, Any], **spec: Any) -> Any:
    return children(
        observation(workload=live, deployment=deployment(planning={"mode": "Manual"}, **spec), standing=plan())
    )


def test_the_running_plan_keeps_its_limits_and_template_while_another_one_waits_for_approval() -> None:
    live = workload()
    live["spec"]["template"]["spec"]["containers"][0]["args"] = ["--foreign"]
    (manifest, *_) = awaiting(live).manifests
    assert manifest["spec"]["template"]["spec"]["containers"][0]["args"] != ["--foreign"]
    assert manifest["spec"]["strategy"] == live["spec"]["strategy"]
    live = workload()
    live["spec"]["strategy"] = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}}
    (manifest, *_) = awaiting(live).manifests
    assert manifest["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    # A change of the spec waits together with the plan.
    assert awaiting(live, engine={"extraArgs": ["--enforce-eager"]}).manifests == ()


def test_a_template_that_already_is_as_wanted_stays_without_the_hash_of_what_was_applied() -> None:
    live = workload()
    del live["metadata"]["annotations"][APPLIED_HASH]
    assert [body["kind"] for body in awaiting(live).manifests] == ["Deployment", "Service", "PodDisruptionBudget"]
