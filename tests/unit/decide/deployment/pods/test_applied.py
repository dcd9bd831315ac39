"""A live object holds a manifest when it has all of it, whatever else it has."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.decide.observations import deployment, plan

from energylens.decide.deployment.pods.applied import differences, holds
from energylens.serving.metadata import APPLIED_HASH, child

NAMES = st.text("abcdefgh", min_size=1, max_size=4)
LEAVES = st.one_of(st.integers(1, 9), st.booleans(), st.text("xyz", min_size=1, max_size=3))
STRINGS = st.lists(st.text("xyz-=", min_size=1, max_size=4), max_size=3)


def keyed_lists(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Lists as of containers, ports and variables: objects told apart by ``name``."""
    return st.dictionaries(NAMES, st.dictionaries(NAMES, children, max_size=3), max_size=3).map(
        lambda items: [{**item, "name": f"n-{name}"} for name, item in items.items()]
    )


VALUES = st.recursive(
    st.one_of(LEAVES, STRINGS),
    lambda children: st.one_of(st.dictionaries(NAMES, children, max_size=3), keyed_lists(children)),
    max_leaves=20,
)
MANIFESTS = st.dictionaries(NAMES, VALUES, min_size=1, max_size=4)


def keyed(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(i, dict) and "name" in i for i in value)


def with_more(value: Any) -> Any:
    """Return what another manager may make of it: more keys everywhere, more items in lists merged by key."""
    if isinstance(value, dict):
        return {**{key: with_more(item) for key, item in value.items()}, "zzForeign": {"added": True}}
    if keyed(value):
        return [{"name": "foreign", "x": 1}, *(with_more(item) for item in reversed(value))]
    return value


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for index, item in enumerate(value) for leaf in leaves(item, (*path, index))]
    return [path]


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@given(MANIFESTS)
def test_a_manifest_holds_itself(manifest: dict[str, Any]) -> None:
    assert holds(copy.deepcopy(manifest), manifest)


@given(MANIFESTS)
def test_what_other_managers_add_is_none_of_our_business(manifest: dict[str, Any]) -> None:
    assert holds(with_more(manifest), manifest)


@given(MANIFESTS, st.data())
def test_any_changed_value_is_seen(manifest: dict[str, Any], data: st.DataObject) -> None:
    paths = leaves(manifest)
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    live = with_more(copy.deepcopy(manifest))
    changed = copy.deepcopy(manifest)
    at(changed, path[:-1])[path[-1]] = "something else"
    assert holds(live, manifest)
    assert not holds(live, changed)
    assert not holds(changed, manifest)


@given(MANIFESTS, st.data())
def test_any_removed_value_is_seen(manifest: dict[str, Any], data: st.DataObject) -> None:
    paths = leaves(manifest)
    if not paths:
        return
    path = data.draw(st.sampled_from(paths))
    live = copy.deepcopy(manifest)
    del at(live, path[:-1])[path[-1]]
    assert not holds(live, manifest)


@given(MANIFESTS)
def test_no_value_holds_in_nothing(manifest: dict[str, Any]) -> None:
    assert not (leaves(manifest) and holds(None, manifest))


@pytest.mark.parametrize("key", ["name", "mountPath", "containerPort", "topologyKey", "key", "type", "uid"])
def test_the_order_of_lists_that_are_merged_by_key_does_not_matter(key: str) -> None:
    applied = [{key: "a", "value": 1}, {key: "b", "value": 2}]
    assert holds([{key: "b", "value": 2, "more": 0}, {key: "c"}, {key: "a", "value": 1}], applied)
    assert not holds([{key: "b", "value": 1}, {key: "a", "value": 2}], applied)
    assert not holds([{key: "a", "value": 1}], applied)


def test_the_order_of_arguments_matters() -> None:
    assert holds(["--a", "--b"], ["--a", "--b"])
    assert not holds(["--b", "--a"], ["--a", "--b"])
    assert not holds(["--a", "--b", "--c"], ["--a", "--b"])


def test_objects_with_the_same_key_are_compared_in_their_order() -> None:
    applied = [{"key": "gpu", "effect": "NoSchedule"}, {"key": "gpu", "effect": "NoExecute"}]
    assert holds(copy.deepcopy(applied), applied)
    assert not holds(list(reversed(applied)), applied)


@pytest.mark.parametrize("empty", [None, "", {}, []])
def test_what_the_api_server_drops_for_being_empty_is_not_missed(empty: Any) -> None:
    assert holds({}, {"field": empty})
    assert not holds({"field": "foreign"}, {"field": empty})


def test_zero_and_false_are_values() -> None:
    assert not holds({}, {"replicas": 0})
    assert not holds({}, {"automountServiceAccountToken": False})
    assert holds({"replicas": 0}, {"replicas": 0})


def test_the_stamp_is_the_hash_of_all_of_the_manifest_and_changes_nothing_else() -> None:
    def made(port: int) -> dict[str, Any]:
        return child(deployment(), "v1", "Service", "a", body[port], plan())

    body: dict[int, dict[str, Any]] = {port: {"spec": {"ports": [port]}} for port in (1, 2)}
    before = copy.deepcopy(body)
    once, again = made(1), made(1)
    assert body == before
    assert once == again
    assert holds(once, body[1])
    assert made(2)["metadata"]["annotations"][APPLIED_HASH] != once["metadata"]["annotations"][APPLIED_HASH]


@pytest.mark.parametrize(
    ("live", "applied", "paths"),
    [
        ([{"name": "a", "x": 1}], [{"name": "a", "x": 2}], [("a", "x")]),
        ([{"name": "a"}], [{"name": "a"}, {"name": "b"}], [("b", "name")]),
        (["y"], ["x"], [()]),
        (None, [{"name": "a"}], [()]),
        ([{"name": "a"}], [{"name": "a", "x": 1}, "name"], [()]),
        ([{"name": "a"}], [{"name": "a", "x": 1}, {"name": "a", "x": 2}], [()]),
        ([{"name": "a"}], [{"name": "a", "x": 1}, {"x": 2}], [()]),
    ],
)
def test_a_list_is_compared_by_item_only_where_every_item_has_a_key_of_its_own(
    live: list[Any], applied: list[Any], paths: list[tuple[str, ...]]
) -> None:
    assert differences(live, applied) == paths
