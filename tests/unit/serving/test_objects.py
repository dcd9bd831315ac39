from __future__ import annotations

from collections.abc import Callable

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.predictor.architecture import ModelSpec
from energylens.serving import ServingError, Strategy, manifests, workload_ref
from energylens.serving.support import MAX_TABLE_BYTES

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
        objects = manifests(make_deployment(), make_plan(**fields), models["70b"], strategy=STRATEGY)
        return [o["metadata"]["annotations"]["energylens.dev/applied-hash"] for o in objects]

    deployment, service, budget = hashes()
    assert len({deployment, service, budget}) == 3
    assert hashes(max_batch_size=32)[0] != deployment
    assert hashes(max_batch_size=32)[1:] == [service, budget]


def test_every_child_is_owned_and_labelled(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    objects = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY, table=[])
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


def test_the_deadline_is_longer_than_the_start(
    make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]
) -> None:
    deployment = make_deployment(rollout={"progressDeadlineSeconds": 60})
    workload = manifests(deployment, make_plan(), models["405b"], strategy=STRATEGY)[0]
    probe = workload["spec"]["template"]["spec"]["containers"][0]["startupProbe"]
    assert workload["spec"]["progressDeadlineSeconds"] > probe["periodSeconds"] * probe["failureThreshold"]


def test_a_drain_is_never_blocked(make_deployment: Deploy, make_plan: Plan, models: dict[str, ModelSpec]) -> None:
    budget = manifests(make_deployment(), make_plan(replicas=1), models["70b"], strategy=STRATEGY)[2]["spec"]
    assert budget["maxUnavailable"] == 1
    assert "minAvailable" not in budget


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
    leaders = {"leaderworkerset.sigs.k8s.io/worker-index": "0"}
    assert leaders.items() <= service["spec"]["selector"].items()
    assert leaders.items() <= budget["spec"]["selector"]["matchLabels"].items()


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
    config = manifests(make_deployment(), make_plan(), models["70b"], strategy=STRATEGY, table=rows)[3]
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
