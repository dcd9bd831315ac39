"""Which way to GPUs the pods of a plan use where nodes differ."""

from __future__ import annotations

import pytest

from energylens.planner.inventory.access import access_to, of_another_access, with_one_access
from energylens.planner.types import BY_RESOURCE, GpuAccess, GpuNode

H100 = "NVIDIA-H100-80GB-HBM3"
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
    assert [node.name for node in with_one_access(nodes)] == [used]
    (left,) = of_another_access(nodes)
    assert left.name == ({"resource", "claim"} - {used}).pop()


def test_each_product_has_a_way_of_its_own() -> None:
    nodes = (GpuNode("resource", H100, 8, access=BY_RESOURCE), GpuNode("claim", "NVIDIA-L4", 8, access=BY_CLAIM))
    assert with_one_access(nodes) == nodes
    assert of_another_access(nodes) == []


def test_without_claims_every_node_counts() -> None:
    nodes = (GpuNode("a", H100, 8), GpuNode("b", H100, 4))
    assert with_one_access(nodes) == nodes


@pytest.mark.parametrize(("gpus", "used"), [(8, ["either"]), (7, ["either", "claim"])])
def test_a_node_of_both_ways_counts_for_the_one_that_is_used(gpus: int, used: list[str]) -> None:
    nodes = (GpuNode("either", H100, gpus, access=EITHER), GpuNode("claim", H100, 8, access=BY_CLAIM))
    assert [node.name for node in with_one_access(nodes)] == used


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
