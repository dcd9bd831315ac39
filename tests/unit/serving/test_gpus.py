"""Pods that claim their GPUs from dynamic resource allocation, beside pods that request them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.data import load_gpus
from energylens.planner.inventory.snapshot import gpus_of_pod
from energylens.predictor.gpu_names import node_label_values
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import Placement, ServingError, Strategy, canary_manifests, check, manifests
from energylens.serving.gpus import CLAIM, access_of, gpus_of, product_of

H100 = "NVIDIA-H100-80GB-HBM3"
CLAIMS = Placement(load_gpus()[H100], (), "Claim")
STRATEGY = Strategy("Surge", 1, 0)
MakeDeployment = Callable[..., LLMDeployment]
MakePlan = Callable[..., PlanStatus]
Models = dict[str, ModelSpec]


def objects(
    deployment: LLMDeployment, plan: PlanStatus, model: ModelSpec, placement: Placement = CLAIMS
) -> list[dict[str, Any]]:
    return manifests(deployment, plan, model, strategy=STRATEGY, placement=placement)


def test_each_pod_claims_whole_gpus_of_the_product(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    claims, workload, *_ = objects(make_deployment(), make_plan(tensor_parallel=4, replicas=2), models["70b"])
    (request,) = claims["spec"]["spec"]["devices"]["requests"]
    exactly = request["exactly"]
    assert (exactly["deviceClassName"], exactly["allocationMode"], exactly["count"]) == (
        "gpu.nvidia.com",
        "ExactCount",
        4,
    )
    (selector,) = exactly["selectors"]
    names = json.dumps(node_label_values(load_gpus()[H100]))
    expected = f'device.attributes["gpu.nvidia.com"].productName.replace(" ", "-") in {names}'
    assert selector["cel"]["expression"] == expected
    assert claims["metadata"]["ownerReferences"][0]["kind"] == "LLMDeployment"
    assert claims["spec"]["metadata"]["labels"] == {"energylens.dev/llmdeployment": "chat"}
    pod = workload["spec"]["template"]["spec"]
    assert pod["resourceClaims"] == [{"name": CLAIM, "resourceClaimTemplateName": claims["metadata"]["name"]}]
    assert pod["containers"][0]["resources"] == {"claims": [{"name": CLAIM}]}


def test_pods_with_claims_need_no_label_of_the_product(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    placement = Placement(load_gpus()[H100], ("bad",), "Claim")
    workload = objects(make_deployment(), make_plan(), models["70b"], placement)[1]
    affinity = workload["spec"]["template"]["spec"]["affinity"]["nodeAffinity"]
    (term,) = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [e["key"] for e in term["matchExpressions"]] == ["kubernetes.io/os"]
    assert term["matchFields"][0]["values"] == ["bad"]


@pytest.mark.parametrize("access", ["Resource", "Claim"])
def test_what_pods_hold_is_read_from_their_template(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models, access: Any
) -> None:
    placement = Placement(load_gpus()[H100], (), access)
    made = objects(make_deployment(), make_plan(tensor_parallel=2), models["70b"], placement)
    template = next(body for body in made if body["kind"] == "Deployment")["spec"]["template"]
    assert (access_of(template), gpus_of(template), product_of(template)) == (access, 2, H100)
    assert gpus_of_pod({**template, "status": {"phase": "Running"}}) == 2
    assert gpus_of_pod({**template, "status": {"phase": "Failed"}}) == 0


def test_an_edited_label_of_claimed_gpus_is_no_gpu(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    made = objects(make_deployment(), make_plan(), models["70b"])
    template = next(body for body in made if body["kind"] == "Deployment")["spec"]["template"]
    template["metadata"]["labels"]["energylens.dev/claimed-gpus"] = "eight"
    assert gpus_of(template) == 0


def test_another_claim_gets_another_template_and_the_same_one_stays(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    def name(**fields: Any) -> str:
        made: str = objects(make_deployment(), make_plan(**fields), models["70b"])[0]["metadata"]["name"]
        return made

    assert name(replicas=1) == name(replicas=3, max_batch_size=8)
    assert name() != name(tensor_parallel=2)


def test_every_pod_of_a_group_claims_the_gpus_of_its_node(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    claims, workload, *_ = objects(make_deployment(), plan, models["405b"])
    assert claims["spec"]["spec"]["devices"]["requests"][0]["exactly"]["count"] == 8
    group = workload["spec"]["leaderWorkerTemplate"]
    for template in (group["leaderTemplate"], group["workerTemplate"]):
        assert template["spec"]["resourceClaims"][0]["resourceClaimTemplateName"] == claims["metadata"]["name"]


def test_a_replica_that_verifies_a_plan_claims_too(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    claims, workload = canary_manifests(make_deployment(), make_plan(), models["70b"], placement=CLAIMS)
    assert claims["kind"] == "ResourceClaimTemplate"
    assert workload["metadata"]["name"] == "chat-canary"


def test_claims_of_the_users_own_stay_beside_ours(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    own = {"name": "channel", "resourceClaimTemplateName": "imex-channel"}
    engine = {"name": "engine", "resources": {"claims": [{"name": "channel"}]}}
    deployment = make_deployment(podTemplate={"spec": {"resourceClaims": [own], "containers": [engine]}})
    for placement, names in ((CLAIMS, [CLAIM, "channel"]), (Placement(load_gpus()[H100]), ["channel"])):
        made = objects(deployment, make_plan(), models["70b"], placement)
        pod = next(body for body in made if body["kind"] == "Deployment")["spec"]["template"]["spec"]
        assert [claim["name"] for claim in pod["resourceClaims"]] == names
        assert [claim["name"] for claim in pod["containers"][0]["resources"]["claims"]] == names


@pytest.mark.parametrize(
    ("template", "field"),
    [
        ({"spec": {"resourceClaims": [{"name": CLAIM, "resourceClaimName": "mine"}]}}, "spec.resourceClaims"),
        ({"metadata": {"labels": {"energylens.dev/claimed-gpus": "8"}}}, "metadata.labels"),
    ],
)
def test_what_the_plan_claims_is_not_for_the_pod_template(
    make_deployment: MakeDeployment, template: dict[str, Any], field: str
) -> None:
    deployment = make_deployment(podTemplate=template)
    with pytest.raises(ServingError, match=rf"spec.podTemplate.{field}"):
        check(deployment)
