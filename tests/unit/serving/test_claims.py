"""Claims that one pod or one node may mount: never a surge, and never more pods than can mount them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.planner.types import ClusterSnapshot, GpuNode
from energylens.serving import choose_strategy
from energylens.serving.claims import Claims, claim_fields, conflict

Deploy = Callable[..., LLMDeployment]
Plan = Callable[..., PlanStatus]
ROOM = ClusterSnapshot(tuple(GpuNode(f"n{i}", "NVIDIA-H100-80GB-HBM3", 8) for i in range(4)))
CACHE = {"model_part": {"cache": {"persistentVolumeClaim": "models"}}}
TEMPLATE = {
    "podTemplate": {
        "spec": {
            "volumes": [
                {"name": "scratch", "emptyDir": {}},
                {"name": "lora", "persistentVolumeClaim": {"claimName": "adapters"}},
            ]
        }
    }
}
POD, NODE, MANY, READ = ("ReadWriteOncePod",), ("ReadWriteOnce",), ("ReadWriteMany",), ("ReadOnlyMany",)


def test_claims_of_the_cache_and_of_the_pod_template_are_known(make_deployment: Deploy) -> None:
    assert claim_fields(make_deployment()) == {}
    assert claim_fields(make_deployment(**CACHE, **TEMPLATE)) == {
        "models": "spec.model.cache.persistentVolumeClaim",
        "adapters": "spec.podTemplate.spec.volumes[1].persistentVolumeClaim",
    }


@pytest.mark.parametrize("wanted", ["Auto", "Surge", "Recreate"])
@pytest.mark.parametrize(
    ("modes", "limits"),
    [(POD, (0, 1)), (NODE, (0, 3)), ((*NODE, *POD), (0, 1)), (MANY, (1, 0)), (READ, (1, 0)), ((*NODE, *MANY), (1, 0))],
    ids=["one pod", "one node", "pod or node", "many", "many readers", "node or many"],
)
def test_a_claim_that_is_not_shared_rules_out_a_surge(
    modes: Sequence[str], limits: tuple[int, int], wanted: str, make_deployment: Deploy, make_plan: Plan
) -> None:
    if wanted == "Recreate" and limits[0]:
        limits = (0, 1)
    replicas = 3 if limits == (0, 3) else 1
    plan = make_plan(replicas=replicas)
    deployment = make_deployment(**CACHE, rollout={"strategy": wanted})
    found = choose_strategy(deployment, plan, plan, ROOM, Claims({"models": modes}))
    assert (found.max_surge, found.max_unavailable) == limits
    assert ("claim models is" in found.message) == (modes not in (MANY, READ) and "ReadWriteMany" not in modes)


SEVERAL = {"nodes_per_replica": 2, "tensor_parallel": 16, "replicas": 1}


@pytest.mark.parametrize(
    ("modes", "plan", "said"),
    [
        (POD, {"replicas": 1}, ""),
        (POD, {"replicas": 2}, "one pod may mount it, and the plan has 2"),
        (POD, SEVERAL, "one pod may mount it, and the plan has 2"),
        (NODE, {"replicas": 2}, ""),
        (NODE, SEVERAL, "one node may mount it, and a replica spans 2 nodes"),
        (MANY, SEVERAL, ""),
        (READ, {"replicas": 9}, ""),
        ((), {"replicas": 9}, ""),
    ],
)
@pytest.mark.parametrize(("spec", "claim"), [(CACHE, "models"), (TEMPLATE, "adapters")], ids=["cache", "template"])
def test_pods_that_can_never_all_mount_a_claim_are_refused_by_the_field(
    modes: Sequence[str],
    plan: dict[str, Any],
    said: str,
    spec: dict[str, Any],
    claim: str,
    make_deployment: Deploy,
    make_plan: Plan,
) -> None:
    found = conflict(make_deployment(**spec), make_plan(**plan), Claims({claim: modes} if modes else {}))
    assert bool(found) == bool(said)
    assert said in found
    if said:
        assert found.startswith(f"{claim_fields(make_deployment(**spec))[claim]}={claim} is {modes[0]}: ")
