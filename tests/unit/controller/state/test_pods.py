"""Pods are kept small, are found by their LLMDeployment, and an event that is older than another changes nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from energylens.controller.state.pods import PodChange, Pods

OWNER = ("team", "chat")
LABEL = "energylens.dev/llmdeployment"


def pod(name: str, version: int, labels: Mapping[str, str] = {}, *, gpus: int = 0, uid: str = "u") -> dict[str, Any]:
    resources = {"limits": {"nvidia.com/gpu": str(gpus)}} if gpus else {}
    return {
        "metadata": {
            "name": name,
            "namespace": "team",
            "uid": uid,
            "resourceVersion": str(version),
            "labels": dict(labels),
        },
        "spec": {"nodeName": "n", "containers": [{"resources": resources}]},
        "status": {"phase": "Running", "podIP": "10.0.0.1"},
    }


def owned(name: str, version: int, *, gpus: int = 0, uid: str = "u") -> dict[str, Any]:
    return pod(name, version, {LABEL: OWNER[1]}, gpus=gpus, uid=uid)


def names(pods: Pods) -> list[str]:
    return [body["metadata"]["name"] for body in pods.owned(OWNER)]


def put(pods: Pods, body: dict[str, Any], *, deleted: bool = False) -> PodChange | None:
    return pods.put(("team", body["metadata"]["name"]), body, deleted)


def test_pods_of_a_deployment_are_told_by_name_until_they_go() -> None:
    pods = Pods()
    for name in ("b", "a", "c"):
        assert put(pods, owned(name, 1, gpus=1, uid=name)) == PodChange(OWNER, True)
    assert names(pods) == ["a", "b", "c"]
    assert put(pods, owned("b", 2, uid="b"), deleted=True) == PodChange(OWNER, True)
    assert names(pods) == ["a", "c"]


def test_a_pod_that_loses_its_label_is_of_nobody() -> None:
    pods = Pods()
    put(pods, owned("a", 1))
    # Its LLMDeployment is told.
    assert put(pods, pod("a", 2)) == PodChange(OWNER, False)
    assert names(pods) == []


def test_a_change_of_nothing_that_is_kept_is_none_but_its_version_counts() -> None:
    pods = Pods()
    put(pods, owned("a", 1))
    first = pods.bodies["team", "a"]
    touched = owned("a", 5)
    touched["metadata"]["annotations"] = {"seen": "now"}
    assert put(pods, touched) is None
    # The same object, so that who rests on it rests on.
    assert pods.bodies["team", "a"] is first
    assert first.version == "5"
    late = owned("a", 3, gpus=4)
    assert put(pods, late) is None
    assert pods.bodies["team", "a"] == first


@pytest.mark.parametrize("deleted", [False, True])
def test_another_pod_of_the_name_takes_the_place_whatever_its_version(deleted: bool) -> None:
    pods = Pods()
    put(pods, owned("a", 9, uid="old"))
    assert put(pods, owned("a", 4, uid="new", gpus=1)) == PodChange(OWNER, True)
    # The end of the earlier one is heard of late.
    assert put(pods, owned("a", 10, uid="old"), deleted=True) is None
    assert names(pods) == ["a"]
    if deleted:
        assert put(pods, owned("a", 5, uid="new"), deleted=True) == PodChange(OWNER, True)
        assert names(pods) == []


def test_exporters_are_known_by_their_labels() -> None:
    pods = Pods()
    named = pod("z", 1, {"app.kubernetes.io/name": "dcgm-exporter"}, uid="z")
    put(pods, pod("x", 1, {"app": "nvidia-dcgm-exporter"}, uid="x"))
    put(pods, pod("y", 1, {"app": "dcgm"}, uid="y"))
    put(pods, named)
    assert pods.exporters == {("team", "x"), ("team", "z")}
    put(pods, pod("x", 2, uid="x"))
    put(pods, named, deleted=True)
    assert pods.exporters == set()
