"""Pods keep away from nodes that they would fit on and the planner does not count, and restart for it only in need."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.support.fake_pods import node
from tests.unit.decide.observations import OTHER, PRODUCT, model, observation, plan, pod, snapshot

from energylens.data import load_gpus
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.pods.avoided import MOST, avoided, to_avoid, uncounted
from energylens.decide.deployment.pods.children import Children, children
from energylens.decide.deployment.pods.workloads import template_of
from energylens.decide.reasons import Reason
from energylens.planner.inventory.snapshot import snapshot_from_objects
from energylens.planner.types import ClusterSnapshot, ExcludedNode

SHARED = ExcludedNode("shared", PRODUCT, "its GPUs are shared: 8 allocatable, 1 physical", 8)


def with_excluded(*excluded: ExcludedNode) -> ClusterSnapshot:
    return ClusterSnapshot(snapshot().nodes, excluded)


def after(found: Children, **changes: Any) -> Any:
    """Return the observation once the children of a pass were written."""
    (manifest, *_) = found.manifests
    live = {**manifest, "status": observation().workload["status"]}  # type: ignore[index]
    return observation(workload=live, **changes)


def avoiding(snapshot: ClusterSnapshot) -> Children:
    """Return the children of a first plan."""
    return children(observation(workload=None, pods=(), snapshot=snapshot))


def terms(found: Children) -> list[Any]:
    affinity = template_of(found.manifests[0])["spec"]["affinity"]["nodeAffinity"]
    result: list[Any] = affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    return result


def test_every_term_leaves_the_shared_node_out() -> None:
    found = avoiding(with_excluded(SHARED))
    assert len(terms(found)) == 3
    for term in terms(found):
        assert term["matchFields"] == [{"key": "metadata.name", "operator": "NotIn", "values": ["shared"]}]
    assert avoided(found.manifests[0]) == ("shared",)
    assert all("matchFields" not in term for term in terms(avoiding(snapshot())))


@pytest.mark.parametrize(
    "other",
    [
        ExcludedNode("sick", PRODUCT, "its GPUs are unhealthy"),
        ExcludedNode("another", "NVIDIA-L4", "its GPUs are shared", 8),
        ExcludedNode("sliced", f"{PRODUCT}-MIG-1g.10gb", "its GPUs are partitioned (MIG)", 7),
    ],
    ids=lambda node: str(node.name),
)
def test_a_node_where_no_pod_could_land_is_not_named(other: ExcludedNode) -> None:
    assert avoided(avoiding(with_excluded(other)).manifests[0]) == ()


def test_a_node_that_becomes_shared_or_whole_restarts_nothing() -> None:
    now_shared = children(observation(snapshot=with_excluded(SHARED)))
    assert now_shared.strategy is None
    assert avoided(now_shared.manifests[0]) == ()
    whole_again = children(after(avoiding(with_excluded(SHARED)), snapshot=snapshot()))
    assert whole_again.strategy is None
    assert avoided(whole_again.manifests[0]) == ("shared",)


def test_pods_on_a_node_that_is_shared_by_now_are_moved() -> None:
    found = children(observation(snapshot=with_excluded(SHARED), pods=(pod("p0"), pod("p1", node="shared"))))
    assert found.strategy is not None
    assert avoided(found.manifests[0]) == ("shared",)
    # Once that is written they are on their way, and nothing is written again.
    again = children(after(found, snapshot=with_excluded(SHARED), pods=(pod("p0"), pod("p1", node="shared"))))
    assert again.strategy is None


def test_pods_that_wait_may_use_a_node_that_is_whole_by_now() -> None:
    live = avoiding(with_excluded(SHARED))
    waiting = (pod("p0"), pod("p1", ready=False, unschedulable="0/2 nodes are available"))
    assert avoided(children(after(live, snapshot=with_excluded(SHARED), pods=waiting)).manifests[0]) == ("shared",)
    found = children(after(live, snapshot=snapshot(), pods=waiting))
    assert avoided(found.manifests[0]) == ()


def test_the_next_rollout_goes_by_the_nodes_as_they_are() -> None:
    larger = PlanChoice(plan(OTHER, max_batch_size=64), model(), True, Reason.PLANNED, "")
    found = children(observation(snapshot=with_excluded(SHARED), planning=larger))
    assert found.strategy is not None
    assert avoided(found.manifests[0]) == ("shared",)


def test_the_list_has_an_end() -> None:
    many = with_excluded(*(ExcludedNode(f"n{index:03}", PRODUCT, "shared", 8) for index in range(MOST + 10)))
    assert len(uncounted(many, plan())) == MOST


def test_the_inventory_tells_the_gpus_of_a_shared_node() -> None:
    body = node("virtual")
    body["metadata"]["labels"]["nvidia.com/gpu.count"] = "1"
    (found,) = snapshot_from_objects([body], [], load_gpus()).excluded
    assert found.gpus == 8
    assert "8 allocatable, 1 physical" in found.reason


@pytest.mark.parametrize(
    ("on", "expected"),
    [
        pytest.param("known", ("known",), id="it stays where the list knows of"),
        pytest.param("elsewhere", ("known",), id="it stays on a node that counts"),
        pytest.param("new", ("known", "new"), id="it strayed"),
    ],
)
def test_a_list_changes_for_a_pod_on_a_node_that_does_not_count_and_is_not_on_it(
    on: str, expected: tuple[str, ...]
) -> None:
    assert to_avoid(("known",), ("known", "new"), [pod("p0", node=on)]) == expected


def affine(*fields: dict[str, Any]) -> dict[str, Any]:
    terms = {"nodeSelectorTerms": [{"matchFields": list(fields)}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    return {"kind": "Deployment", "spec": {"template": {"spec": {"affinity": affinity}}}}


def test_only_names_that_are_left_out_are_avoided() -> None:
    out = {"key": "metadata.name", "operator": "NotIn", "values": ["a", "b"]}
    assert avoided(affine(out)) == ("a", "b")
    assert avoided(affine({**out, "operator": "In"}, {**out, "key": "metadata.other"})) == ()


def test_pods_that_end_do_not_change_the_list() -> None:
    ending = [
        replace(pod("p0", node="new"), ends_by="2026-03-01T12:00:00Z"),
        replace(pod("p1", node="new"), finished=True),
    ]
    assert to_avoid((), ("new",), ending) == ()


@pytest.mark.parametrize(
    ("known", "now", "waiting", "expected"),
    [
        # A node that has whole GPUs now may be what a pod waits for.
        (("a",), (), 1, ()),
        (("a", "b"), ("b", "c"), 1, ("b", "c")),
        (("a",), (), 0, ("a",)),
        # A longer list gives no pod more room.
        (("a",), ("a", "b"), 1, ("a",)),
        ((), ("b",), 1, ()),
    ],
)
def test_a_list_changes_for_a_pod_that_waits_while_a_node_has_whole_gpus_again(
    known: tuple[str, ...], now: tuple[str, ...], waiting: int, expected: tuple[str, ...]
) -> None:
    pods = [pod("p0"), *(pod(f"w{at}", ready=False, unschedulable="no node") for at in range(waiting))]
    assert to_avoid(known, now, pods) == expected


def test_only_nodes_that_offer_gpus_of_the_plans_product_are_listed() -> None:
    sick, other = ExcludedNode("sick", PRODUCT, "unhealthy"), ExcludedNode("other", "NVIDIA-L4", "shared", 8)
    assert uncounted(with_excluded(sick, SHARED, other), plan()) == ("shared",)
