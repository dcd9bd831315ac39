"""Queues of Kueue, KAI and Volcano: what of an LLMDeployment reaches its workload and pods."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.predictor.model.architecture import ModelSpec
from energylens.serving import ServingError, Strategy, canary_manifests, check, manifests
from energylens.serving.metadata import REVISION_LABEL

KUEUE = {"kueue.x-k8s.io/queue-name": "serving", "kueue.x-k8s.io/priority-class": "high"}
KAI = {"kai.scheduler/queue": "team-a"}
VOLCANO = {"scheduling.volcano.sh/queue-name": "q"}
MakeDeployment = Callable[..., LLMDeployment]
MakePlan = Callable[..., PlanStatus]
Models = dict[str, ModelSpec]


def queued(deployment: LLMDeployment, **metadata: Any) -> LLMDeployment:
    return deployment.model_copy(update={"metadata": deployment.metadata.model_copy(update=metadata)})


def made(deployment: LLMDeployment, plan: PlanStatus, model: ModelSpec) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the workload and its pod templates."""
    workload = manifests(deployment, plan, model, strategy=Strategy("Surge", 1, 0))[0]
    group = workload["spec"].get("leaderWorkerTemplate")
    templates = [workload["spec"]["template"]] if group is None else [group["leaderTemplate"], group["workerTemplate"]]
    return workload, templates


@pytest.mark.parametrize("nodes", [1, 2])
def test_queue_and_priority_of_kueue_go_to_what_runs_the_pods(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models, nodes: int
) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=nodes, nodes_per_replica=nodes)
    plain, before = made(make_deployment(), plan, models["405b"])
    deployment = queued(make_deployment(), labels={**KUEUE, "team": "a", "kueue.x-k8s.io/other": "x"})
    workload, templates = made(deployment, plan, models["405b"])
    labels = workload["metadata"]["labels"]
    assert labels == plain["metadata"]["labels"] | KUEUE
    # Kueue hands them on: in our template they would restart the pods whenever the queue changes.
    assert [t["metadata"] for t in templates] == [t["metadata"] for t in before]


def test_another_object_than_the_workload_has_no_queue(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    deployment = queued(make_deployment(), labels=KUEUE)
    _, *others = manifests(deployment, make_plan(replicas=2), models["70b"], strategy=Strategy("Surge", 1, 0))
    assert len(others) == 2
    assert all(not KUEUE.keys() & body["metadata"]["labels"].keys() for body in others)


def test_a_replica_that_verifies_a_plan_is_in_the_same_queue(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    (workload,) = canary_manifests(queued(make_deployment(), labels=KUEUE), make_plan(), models["70b"])
    assert KUEUE.items() <= workload["metadata"]["labels"].items()


def test_queues_of_kai_and_volcano_reach_the_pods(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    scheduling = {"schedulerName": "volcano", "priorityClassName": "serving"}
    deployment = queued(make_deployment(scheduling=scheduling), labels=KAI, annotations={**VOLCANO, "note": "x"})
    workload, (template,) = made(deployment, make_plan(), models["70b"])
    assert KAI.items() <= workload["metadata"]["labels"].items()
    assert KAI.items() <= template["metadata"]["labels"].items()
    assert VOLCANO.items() <= template["metadata"]["annotations"].items()
    assert "note" not in template["metadata"]["annotations"]
    assert template["spec"]["schedulerName"] == "volcano"
    assert template["spec"]["priorityClassName"] == "serving"


def test_followers_are_in_the_queue_of_their_leader(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    plan = make_plan(tensor_parallel=8, pipeline_parallel=2, nodes_per_replica=2)
    deployment = queued(make_deployment(), labels=KAI, annotations=VOLCANO)
    for template in made(deployment, plan, models["405b"])[1]:
        assert KAI.items() <= template["metadata"]["labels"].items()
        assert VOLCANO.items() <= template["metadata"]["annotations"].items()


def test_without_a_queue_pods_stay_as_they_were(
    make_deployment: MakeDeployment, make_plan: MakePlan, models: Models
) -> None:
    plain, other = (
        made(d, make_plan(), models["70b"])[1][0] for d in (make_deployment(), queued(make_deployment(), labels=KUEUE))
    )
    assert plain["metadata"]["labels"][REVISION_LABEL] == other["metadata"]["labels"][REVISION_LABEL]
    assert not {"schedulerName", "priorityClassName"} & plain["spec"].keys()


def test_a_scheduler_that_two_fields_name_differently_is_refused(make_deployment: MakeDeployment) -> None:
    template = {"spec": {"schedulerName": "volcano"}}
    check(make_deployment(podTemplate=template))
    check(make_deployment(podTemplate=template, scheduling={"schedulerName": "volcano"}))
    with pytest.raises(ServingError, match=r"podTemplate.spec.schedulerName: 'volcano'.*'kai-scheduler'"):
        check(make_deployment(podTemplate=template, scheduling={"schedulerName": "kai-scheduler"}))
