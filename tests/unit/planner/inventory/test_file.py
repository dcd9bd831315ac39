from __future__ import annotations

from typing import Any

import pytest

from energylens.planner.inventory.file import InventoryError, snapshot_from_inventory
from energylens.planner.types import Taint

H100 = "NVIDIA-H100-80GB-HBM3"


def label(name: str) -> str:
    if name in ("H100", H100):
        return H100
    raise LookupError("known: H100")


def test_pools_become_nodes() -> None:
    pools = [
        {"product": "H100", "gpus": 8, "count": 2, "used": 3, "labels": {"zone": "b"}},
        {"product": H100, "gpus": 4, "taints": [{"key": "spot", "value": True}]},
    ]
    nodes = snapshot_from_inventory({"nodes": pools}, label).nodes
    assert [(n.name, n.product, n.allocatable, n.free_now) for n in nodes] == [
        ("node-0", H100, 8, 5),
        ("node-1", H100, 8, 5),
        ("node-2", H100, 4, 4),
    ]
    assert nodes[0].labels == {"nvidia.com/gpu.product": H100, "zone": "b"}
    assert nodes[2].taints == (Taint("spot", "True"),)


def test_names_sort_in_the_order_of_the_file() -> None:
    nodes = snapshot_from_inventory({"nodes": [{"product": "H100", "gpus": 8, "count": 12}]}, label).nodes
    assert [n.name for n in nodes] == sorted(n.name for n in nodes)
    ten = snapshot_from_inventory({"nodes": [{"product": "H100", "gpus": 8, "count": 10}]}, label).nodes
    assert ten[-1].name == "node-9"
    eleven = snapshot_from_inventory({"nodes": [{"product": "H100", "gpus": 8, "count": 11}]}, label).nodes
    assert (eleven[0].name, eleven[-1].name) == ("node-00", "node-10")


def test_the_limits_of_numbers_are_allowed() -> None:
    pool = {"product": "H100", "gpus": 1024, "count": 10_000, "used": 1024}
    nodes = snapshot_from_inventory({"nodes": [pool, {"product": "H100", "gpus": 1, "used": 0}]}, label).nodes
    assert len(nodes) == 10_001
    assert [(n.allocatable, n.free_now) for n in (nodes[0], nodes[-1])] == [(1024, 0), (1, 1)]


def test_the_words_of_an_unknown_product_are_shown_without_quotes() -> None:
    def known(name: str) -> str:
        raise KeyError("known: H100") if name else KeyError

    with pytest.raises(InventoryError, match=r"^nodes\[0\]\.product='V100': known: H100$"):
        snapshot_from_inventory({"nodes": [{"product": "V100", "gpus": 8}]}, known)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "must have a list `nodes`"),
        ({"pools": []}, "must have a list `nodes`"),
        ({"nodes": []}, r"^nodes=\[\]: must be a list of \{product, gpus, count\} with at least one entry$"),
        ({"nodes": 3}, "^nodes=3: must be a list of .* with at least one entry$"),
        ({"nodes": None}, "^nodes=None: must be a list of .* with at least one entry$"),
        ({"nodes": {}}, r"^nodes=\{\}: must be a list of .* with at least one entry$"),
        ([{"product": "H100", "gpus": 8}], "must have a list `nodes`"),
        ({"nodes": ["H100"]}, r"nodes\[0\]: must be a mapping"),
        ({"nodes": [{"product": "H100", "gpu": 8}]}, r"nodes\[0\]: unknown field 'gpu'; allowed: product, gpus, count"),
        ({"nodes": [{"gpus": 8, "count": 2}]}, r"^nodes\[0\]: must have product; the entry has gpus, count$"),
        ({"nodes": [{}]}, r"^nodes\[0\]: must have product; the entry has no field$"),
        ({"nodes": [{"product": "", "gpus": 8}]}, r"nodes\[0\]\.product='': must be a GPU product"),
        ({"nodes": [{"product": 5, "gpus": 8}]}, r"nodes\[0\]\.product=5: must be a GPU product"),
        ({"nodes": [{"product": "H100", "gpus": 8, "count": 10_001}]}, r"nodes\[0\]\.count=10001: .* 1 to 10000"),
        ({"nodes": [{"product": "V100", "gpus": 8}]}, r"nodes\[0\]\.product='V100': known: H100"),
        ({"nodes": [{"product": "H100"}]}, r"^nodes\[0\]: must have gpus; the entry has product$"),
        (
            {"nodes": [{"product": "H100", "gpus": None}]},
            r"nodes\[0\]\.gpus=None: must be a whole number from 1 to 1024",
        ),
        ({"nodes": [{"product": "H100", "gpus": 0}]}, r"nodes\[0\]\.gpus=0: "),
        ({"nodes": [{"product": "H100", "gpus": True}]}, r"nodes\[0\]\.gpus=True: "),
        ({"nodes": [{"product": "H100", "gpus": 8, "used": 9}]}, r"nodes\[0\]\.used=9: must be .* from 0 to 8"),
        ({"nodes": [{"product": "H100", "gpus": 8, "count": 0}]}, r"nodes\[0\]\.count=0: "),
        ({"nodes": [{"product": "H100", "gpus": 8, "labels": ["a"]}]}, r"nodes\[0\]\.labels=\['a'\]: "),
        ({"nodes": [{"product": "H100", "gpus": 8, "taints": [{}]}]}, r"nodes\[0\]\.taints=\[\{\}\]: "),
    ],
)
def test_what_is_wrong_is_named(document: Any, message: str) -> None:
    with pytest.raises(InventoryError, match=message):
        snapshot_from_inventory(document, label)
