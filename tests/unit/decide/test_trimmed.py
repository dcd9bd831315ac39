"""What is kept of watched objects is small, and says whether an object is still as it was written."""

from __future__ import annotations

import json
import random
import sys
from typing import Any

import pytest

from energylens.controller.state.store import Store
from energylens.decide import trimmed
from energylens.decide.deployment.pods.applied import differences, holds
from energylens.decide.trimmed import Digest, Packed, PackedObject, shared, trim_child
from energylens.serving.support import PLAN_KEY, TABLE_KEY

TABLE = "rank,reason\n" + "1,as good as any other\n" * 200


def config_map(**data: str) -> dict[str, Any]:
    metadata = {"name": "llama-plan", "namespace": "team", "uid": "1", "resourceVersion": "1", "managedFields": [{}]}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def test_copies_are_equal_and_share_names_and_short_texts() -> None:
    text = json.dumps({"metadata": {"labels": {"team.example/owner": "somebody else"}}, "items": [1, None, True, 1.5]})
    first, second = shared(json.loads(text)), shared(json.loads(text))
    assert first == second == json.loads(text)
    (name,), (other,) = first["metadata"]["labels"], second["metadata"]["labels"]
    assert name is other
    assert first["metadata"]["labels"][name] is second["metadata"]["labels"][name]
    assert first["metadata"] is not second["metadata"]


def test_a_copy_does_not_follow_its_original() -> None:
    original: dict[str, Any] = {"spec": {"replicas": 1, "args": ["a"]}}
    copy = shared(original)
    original["spec"]["args"].append("b")
    assert copy == {"spec": {"replicas": 1, "args": ["a"]}}


@pytest.mark.parametrize(("stated", "same"), [(TABLE, True), (TABLE + "2,worse\n", False), (TABLE.upper(), False)])
def test_a_long_text_is_known_again_without_being_kept(stated: str, same: bool) -> None:
    kept = trim_child(config_map(**{TABLE_KEY: TABLE, PLAN_KEY: "{}" + " " * 9000}))
    wanted = {"data": {TABLE_KEY: stated, PLAN_KEY: "{}" + " " * 9000}}
    assert TABLE not in str(kept)
    assert holds(kept, wanted) is same
    assert differences(kept, wanted) == ([] if same else [("data", TABLE_KEY)])
    # A plan is read again after a crash.
    assert kept["data"][PLAN_KEY] == "{}" + " " * 9000
    assert "managedFields" not in kept["metadata"]


def test_a_packed_mapping_reads_like_the_one_that_it_was_made_of() -> None:
    plain: dict[str, Any] = {"replicas": 1, "template": {"spec": {"containers": [{"name": "a"}]}}, "empty": {}}
    packed = Packed(plain)
    assert packed == plain
    assert plain == packed
    assert packed == Packed(plain) != Packed({**plain, "replicas": 2})
    assert {**packed} == plain
    assert packed.get("replicas") == 1
    assert packed.get("absent") is None
    assert holds(packed, plain)
    assert differences(packed, {**plain, "replicas": 2}) == [("replicas",)]
    assert not Packed({})
    plain["template"]["spec"]["containers"].append({})
    assert len(packed["template"]["spec"]["containers"]) == 1


def test_a_child_takes_a_fraction_of_the_memory_of_its_object() -> None:
    containers = [
        {"name": f"c{number}", "env": [{"name": f"E{at}", "value": "x"} for at in range(40)]} for number in "ab"
    ]
    body = {"kind": "Deployment", "metadata": {"name": "a", "namespace": "team"}, "spec": {"template": containers}}
    kept = PackedObject(trim_child(body), "Deployment", "", "")
    assert kept == body
    assert sys.getsizeof(kept._data) < len(json.dumps(body)) / 4


def test_an_object_of_a_fleet_takes_what_is_its_own() -> None:
    def child(name: str) -> PackedObject:
        metadata = {"name": name, "namespace": "team", "labels": {"app.kubernetes.io/managed-by": "energylens"}}
        containers = [{"name": "engine", "args": [f"--setting-{at}=value" for at in range(40)]}]
        body = {"kind": "Likeness", "metadata": metadata, "spec": {"template": {"spec": {"containers": containers}}}}
        return PackedObject(body, "Likeness", f"uid of {name}", "7")

    first, second = child("llama-chat"), child("qwen-coder")
    assert (second.uid, second.version) == ("uid of qwen-coder", "7")
    assert second["metadata"]["name"] == "qwen-coder" != first["metadata"]["name"]
    assert len(second._data) < 120


def test_an_object_like_an_earlier_one_takes_little_whatever_it_holds() -> None:
    random_ = random.Random(1)
    text = "".join(random_.choices("abcdefghijklmnopqrstuvwxyz", k=5000))
    first = Packed({"likeNothingElse": text, "name": "a"})
    second = Packed({"likeNothingElse": text, "name": "b"})
    assert len(second._data) < 200
    assert (first["name"], second["name"], second["likeNothingElse"]) == ("a", "b", text)
    assert first != second == Packed({"likeNothingElse": text, "name": "b"})


def test_mappings_of_any_number_of_shapes_are_read_back() -> None:
    plain = [{f"shape{number}": "x" * number} for number in range(200)]
    packed = [Packed(value) for value in plain]
    assert packed == plain
    assert len(trimmed._BASES) <= trimmed._MOST_BASES


@pytest.mark.parametrize(("length", "is_one"), [(128, True), (129, False)])
def test_short_texts_are_one_object(length: int, is_one: bool) -> None:
    first, second = (shared("".join(["a"] * length)) for _ in range(2))
    assert first == second
    assert (first is second) is is_one


def test_a_packed_mapping_is_not_packed_again() -> None:
    once = trimmed.packed({"a": 1})
    assert isinstance(once, Packed)
    assert trimmed.packed(once) is once


def test_digests_of_one_text_are_equal() -> None:
    assert Digest("a") == Digest("a")
    assert hash(Digest("a")) == hash(Digest("a"))
    assert Digest("a") != Digest("b")
    assert Digest("a") != 1


def test_a_store_notices_an_edited_table() -> None:
    store = Store()
    store.put_child("ConfigMap", config_map(**{TABLE_KEY: TABLE}), deleted=False)
    edited = config_map(**{TABLE_KEY: TABLE + "x"})
    edited["metadata"]["resourceVersion"] = "2"
    store.put_child("ConfigMap", edited, deleted=False)
    (child,) = store.children.values()
    assert not holds(child.body, {"data": {TABLE_KEY: TABLE}})
