"""Which way to GPUs the pods of a plan use where nodes differ."""

from __future__ import annotations

import pytest

from energylens.planner.inventory.access import access_to, of_another_access, with_one_access
from energylens.planner.types import BY_RESOURCE, GpuAccess, GpuAllocation, GpuNode

H100 = "NVIDIA-H100-80GB-HBM3"
CHAT = "team/chat"
BY_CLAIM: frozenset[GpuAccess] = frozenset({"Claim"})
EITHER: frozenset[GpuAccess] = frozenset({"Claim", "Resource"})


@pytest.mark.parametrize(
    ("by_resource", "by_claim", "used"),
    [(8, 8, "resource"), (7, 9, "claim"), (9, 7, "resource"), (7, 8, "claim"), (0, 8, "claim")],
)
def test_requests_are_used_where_they_give_half_of_the_gpus(by_resource: int, by_claim: int, used: str) -> None:
    nodes = (
        GpuNode("resource", H100, by_resource, access=BY_RESOURCE),
        GpuNode("claim", H100, by_claim, access=BY_CLAIM),
    )
    assert [node.name for node in with_one_access(nodes, (CHAT,))] == [used]
    (left,) = of_another_access(nodes, CHAT)
    assert left.name == ({"resource", "claim"} - {used}).pop()
    part = "at least half" if used == "resource" else "most"
    assert f"but {part} of the free GPUs of {H100} are for " in left.reason


def test_each_product_has_a_way_of_its_own() -> None:
    nodes = (GpuNode("resource", H100, 8, access=BY_RESOURCE), GpuNode("claim", "NVIDIA-L4", 8, access=BY_CLAIM))
    assert with_one_access(nodes, (CHAT,)) == nodes
    assert of_another_access(nodes, CHAT) == []


def test_without_claims_every_node_counts() -> None:
    nodes = (GpuNode("a", H100, 8), GpuNode("b", H100, 4))
    assert with_one_access(nodes, (CHAT,)) == nodes


@pytest.mark.parametrize(("gpus", "used"), [(8, ["either"]), (7, ["either", "claim"])])
def test_a_node_of_both_ways_counts_for_the_one_that_is_used(gpus: int, used: list[str]) -> None:
    nodes = (GpuNode("either", H100, gpus, access=EITHER), GpuNode("claim", H100, 8, access=BY_CLAIM))
    assert [node.name for node in with_one_access(nodes, (CHAT,))] == used


@pytest.mark.parametrize(
    ("ways", "live", "found"),
    [
        ([BY_RESOURCE], None, "Resource"),
        ([BY_CLAIM], None, "Claim"),
        ([EITHER], None, "Resource"),
        ([EITHER, BY_CLAIM], None, "Claim"),
        ([EITHER], "Claim", "Claim"),
        ([BY_RESOURCE], "Claim", "Resource"),
        ([BY_CLAIM], "Resource", "Claim"),
        ([BY_RESOURCE, BY_CLAIM], None, "Resource"),
        ([], None, "Resource"),
        ([], "Claim", "Claim"),
    ],
)
def test_pods_keep_their_way_while_it_is_possible(
    ways: list[frozenset[GpuAccess]], live: GpuAccess | None, found: GpuAccess
) -> None:
    nodes = [GpuNode(f"n{i}", H100, 8, access=way) for i, way in enumerate(ways)]
    # Nodes of other products do not count.
    nodes += [GpuNode("other", "NVIDIA-L4", 8, access=BY_CLAIM), GpuNode("more", "NVIDIA-L4", 8, access=BY_RESOURCE)]
    assert access_to(nodes, H100, live) == found


def node(name: str, way: GpuAccess, gpus: int, **held: int) -> GpuNode:
    """Return a node of one way; ``held`` are the GPUs of deployments in namespace team."""
    taken = tuple(GpuAllocation(f"team/{owner}", count, way) for owner, count in held.items())
    return GpuNode(name, H100, gpus, taken, access=frozenset({way}))


@pytest.mark.parametrize(
    ("by_resource", "by_claim", "used", "reason"),
    [
        # GPUs of others are not free, so a second deployment goes where GPUs are.
        ({"rag": 8}, {}, "claim", "most of the free GPUs of NVIDIA-H100-80GB-HBM3 are for ResourceClaims"),
        ({"rag": 5}, {"rag": 4}, "claim", "are for ResourceClaims"),
        ({"rag": 4}, {"rag": 4}, "resource", "are for requests of nvidia.com/gpu"),
        ({"rag": 8}, {"rag": 8}, "resource", "are for requests of nvidia.com/gpu"),
        # Pods that run keep their way, however many GPUs the other way has free.
        ({"chat": 1, "rag": 7}, {}, "resource", "the deployment's pods hold GPUs of NVIDIA-H100-80GB-HBM3 by requests"),
        ({}, {"chat": 1, "rag": 7}, "claim", "the deployment's pods hold GPUs of NVIDIA-H100-80GB-HBM3 by Resource"),
        # While a rollout changes the way, most pods decide.
        ({"chat": 1}, {"chat": 2}, "claim", "hold GPUs"),
        ({"chat": 2}, {"chat": 2}, "resource", "hold GPUs"),
    ],
)
def test_a_deployment_uses_the_way_with_free_gpus_and_keeps_it(
    by_resource: dict[str, int], by_claim: dict[str, int], used: str, reason: str
) -> None:
    nodes = (node("resource", "Resource", 8, **by_resource), node("claim", "Claim", 8, **by_claim))
    assert [node.name for node in with_one_access(nodes, (CHAT,))] == [used]
    (left,) = of_another_access(nodes, CHAT)
    assert reason in left.reason


@pytest.mark.parametrize(("free", "used"), [(8, "claim"), (7, "resource")])
def test_pods_change_to_the_way_of_most_gpus_once_they_find_room_there(free: int, used: str) -> None:
    nodes = (node("resource", "Resource", 8, chat=8), node("claim", "Claim", 9, rag=9 - free))
    assert [node.name for node in with_one_access(nodes, (CHAT,))] == [used]
    assert "most GPUs" not in of_another_access(nodes, CHAT)[0].reason or used == "claim"


def test_nodes_that_take_no_pods_have_no_free_gpus() -> None:
    shut = GpuNode("resource", H100, 8, schedulable=False)
    nodes = (shut, node("claim", "Claim", 4))
    assert [node.name for node in with_one_access(nodes, (CHAT,))] == ["claim"]


@pytest.mark.parametrize("way", ["Resource", "Claim"])
@pytest.mark.parametrize("held_by", ["Resource", "Claim", None])
def test_nodes_of_one_way_count_even_if_nothing_is_free(way: GpuAccess, held_by: GpuAccess | None) -> None:
    # Pods outlive a node's change from the device plugin to slices.
    taken = () if held_by is None else (GpuAllocation(CHAT, 1, held_by),)
    nodes = tuple(GpuNode(f"n{i}", H100, 8, taken, schedulable=False, access=frozenset({way})) for i in range(2))
    assert with_one_access(nodes, (CHAT,)) == nodes
    assert of_another_access(nodes, CHAT) == []


def test_the_gpus_of_every_deployment_of_a_fleet_count_as_free() -> None:
    nodes = (node("resource", "Resource", 8, rag=4), node("claim", "Claim", 9, chat=6))
    assert [node.name for node in with_one_access(nodes, ("team/rag", CHAT))] == ["claim"]
    assert [node.name for node in with_one_access(nodes, ("team/rag",))] == ["resource"]
