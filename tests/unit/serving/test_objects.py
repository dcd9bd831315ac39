from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.decide.deployment.pods.workloads import workload_revision
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import ServingError, Strategy, manifests, workload_ref
from energylens.serving.support import MAX_TABLE_BYTES
from energylens.serving.timing import progress_deadline_seconds

Deploy = Callable[..., LLMDeployment]
Plan = Callable[..., PlanStatus]
STRATEGY = Strategy("Recreate", 0, 1)


def test_the_same_input_gives_the_same_objects(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    first, second = (manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY) for _ in range(2))
    assert first == second


def test_the_applied_hash_follows_the_content(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    def hashes(**fields: object) -> list[str]:
        objects = manifests(make_deployment(), make_plan(replicas=2, **fields), models["70b"], strategy=STRATEGY)
        return [o["metadata"]["annotations"]["energylens.dev/applied-hash"] for o in objects]

    deployment, service, budget = hashes()
    assert len({deployment, service, budget}) == 3
    assert hashes(max_batch_size=32)[0] != deployment
    assert hashes(max_batch_size=32)[1:] == [service, budget]


def test_every_child_is_owned_and_labelled(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    objects = manifests(make_deployment(), make_plan(replicas=2), models["70b"], strategy=STRATEGY, table=[])
    assert [o["kind"] for o in objects] == ["Deployment", "Service", "PodDisruptionBudget", "ConfigMap"]
    for child in objects:
        (owner,) = child["metadata"]["ownerReferences"]
        assert owner["uid"] == "0b1c"
        assert owner["blockOwnerDeletion"] is False
        assert child["metadata"]["namespace"] == "team-a"
        assert child["metadata"]["labels"]["energylens.dev/llmdeployment"] == "chat"
        assert child["metadata"]["labels"]["energylens.dev/plan"] == "0123456789abcdef"


def test_selectors_never_change_with_the_plan(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    def selectors(plan: PlanStatus) -> list[object]:
        return [o["spec"]["selector"] for o in manifests(make_deployment(), plan, models["70b"], strategy=STRATEGY)]

    assert selectors(make_plan()) == selectors(make_plan(hash="ffffffffffffffff", tensor_parallel=4))


def test_the_strategy_is_carried(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    workload = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY)[0]
    assert workload["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_suspended_deployment_runs_no_pods(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    workload = manifests(make_deployment(suspend=True), make_plan(replicas=3), models["70b"], strategy=STRATEGY)[0]
    assert workload["spec"]["replicas"] == 0


@pytest.mark.parametrize(("asked", "startup", "deadline"), [(60, 700, 60), (9000, 700, 9000), (None, 700, 3600)])
def test_a_deadline_that_was_asked_for_is_the_deadline(asked: int | None, startup: int, deadline: int) -> None:
    assert progress_deadline_seconds(asked, startup) == deadline


def test_without_one_the_deadline_is_longer_than_the_start() -> None:
    assert progress_deadline_seconds(None, 5000) == 5060


def test_the_deadline_is_on_the_deployment(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    deployment = make_deployment(rollout={"progressDeadlineSeconds": 60})
    workload = manifests(deployment, make_plan(), models["405b"], strategy=STRATEGY)[0]
    assert workload["spec"]["progressDeadlineSeconds"] == 60


def test_a_drain_is_never_blocked(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    budget = manifests(make_deployment(), make_plan(replicas=2), models["70b"], strategy=STRATEGY)[2]["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


def test_one_pod_needs_no_disruption_budget(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    objects = manifests(make_deployment(), make_plan(replicas=1), models["70b"], strategy=STRATEGY)
    assert [o["kind"] for o in objects] == ["Deployment", "Service"]


def test_a_replica_over_nodes_is_a_group(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    workload, service, budget = manifests(make_deployment(), plan, models["405b"], strategy=STRATEGY)
    ref = workload_ref(make_deployment(), plan)
    assert (workload["apiVersion"], workload["kind"]) == (ref.api_version, ref.kind)
    assert workload["metadata"]["name"] == ref.name
    # A LeaderWorkerSet owns a headless Service of its own name.
    assert ref.name != service["metadata"]["name"]
    leader, follower = (workload["spec"]["leaderWorkerTemplate"][f"{kind}Template"] for kind in ("leader", "worker"))
    assert selects(service["spec"]["selector"], leader)
    assert not selects(service["spec"]["selector"], follower)
    # The end of a follower is the end of its group.
    assert selects(budget["spec"]["selector"]["matchLabels"], leader)
    assert selects(budget["spec"]["selector"]["matchLabels"], follower)


def selects(selector: dict[str, str], template: dict[str, Any]) -> bool:
    return selector.items() <= template["metadata"]["labels"].items()


def test_one_service_selects_the_pods_of_a_deployment_and_the_leaders_of_groups(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    group = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    several, service, budget = manifests(make_deployment(), group, models["405b"], strategy=STRATEGY)
    plan = make_plan(replicas=2)
    one, other_service, other_budget = manifests(make_deployment(), plan, models["405b"], strategy=STRATEGY)
    assert service["spec"] == other_service["spec"]
    assert budget["spec"] == other_budget["spec"]
    for template in (one["spec"]["template"], several["spec"]["leaderWorkerTemplate"]["leaderTemplate"]):
        assert selects(service["spec"]["selector"], template)


GROUP = {"tensor_parallel": 8, "pipeline_parallel": 2, "nodes_per_replica": 2}


def templates(workload: dict[str, Any]) -> object:
    return workload["spec"].get("template") or workload["spec"]["leaderWorkerTemplate"]


@pytest.mark.parametrize("layout", [{}, GROUP], ids=["Deployment", "LeaderWorkerSet"])
def test_more_replicas_are_the_same_pods(
    layout: dict[str, int], make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    def pods(**changes: Any) -> object:
        plan = make_plan(**{**layout, **changes})
        return templates(manifests(make_deployment(), plan, models["405b"], strategy=STRATEGY)[0])

    assert pods(replicas=1) == pods(replicas=5, hash="f" * 16)
    assert pods() != pods(max_batch_size=7)


@pytest.mark.parametrize(
    "change",
    [
        {"engine": {"extraArgs": ["--seed=2"]}},
        {"engine": {"image": "example.org/vllm:1"}},
        {"podTemplate": {"spec": {"priorityClassName": "high"}}},
        {"model_part": {"revision": "abc"}},
    ],
    ids=["argument", "image", "pod template", "model revision"],
)
def test_other_pods_have_another_revision_also_under_the_same_plan(
    change: dict[str, Any], make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    def revision(**spec: Any) -> str:
        workload = manifests(make_deployment(**spec), make_plan(), models["70b"], strategy=STRATEGY)[0]
        return workload_revision(workload)

    assert revision() != revision(**change)


def test_a_service_named_vllm_is_avoided(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    objects = manifests(make_deployment(name="vllm"), make_plan(), models["70b"], strategy=STRATEGY)
    assert objects[1]["metadata"]["name"] == "vllm-http"
    assert objects[0]["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_table_fits_into_a_configmap(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    rows = [{"rank": i, "reason": "é" * 500} for i in range(2000)]
    config = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY, table=rows)[-1]
    text = config["data"]["candidates.csv"]
    assert MAX_TABLE_BYTES - 2000 < len(text.encode()) <= MAX_TABLE_BYTES
    assert text.endswith("\n")
    assert text.splitlines()[1].startswith("0,")
    assert config["metadata"]["name"] == "chat-plan"


def test_a_name_that_is_too_long_for_a_group_is_refused(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    group = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    with pytest.raises(ServingError, match=r"metadata\.name: 'a{43}' must have at most 42 characters"):
        manifests(make_deployment(name="a" * 43), group, models["405b"], strategy=STRATEGY)
    assert manifests(make_deployment(name="a" * 42), group, models["405b"], strategy=STRATEGY)
    assert manifests(make_deployment(name="a" * 52), make_plan(), models["70b"], strategy=STRATEGY)


def test_a_pool_selects_what_the_service_selects_and_names_the_sites_picker(
    make_deployment: Callable[..., LLMDeployment], make_plan: Callable[..., PlanStatus], models: dict[str, ModelSpec]
) -> None:
    routing = {"inferencePool": {"endpointPicker": {"name": "epp", "port": 9003}}}
    deployment = make_deployment(routing=routing)
    by_kind = {
        body["kind"]: body for body in manifests(deployment, make_plan(), models["70b"], strategy=STRATEGY, table=[])
    }
    pool = by_kind["InferencePool"]
    assert pool["metadata"]["name"] == "chat"
    assert pool["spec"]["selector"]["matchLabels"] == by_kind["Service"]["spec"]["selector"]
    assert pool["spec"]["endpointPickerRef"]["port"] == {"number": 9003}
    assert pool["spec"]["endpointPickerRef"]["failureMode"] == "FailClose"
    plain = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY)
    assert all(body["kind"] != "InferencePool" for body in plain)
