"""Who owns a field, by managedFields as an API server writes them."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.cluster.managers import managers_of, status_managers
from energylens.decide.deployment.pods.applied import differences


def entry(manager: str, fields: dict[str, Any], time: str = "2026-03-01T00:00:00Z", **more: str) -> dict[str, Any]:
    return {"manager": manager, "operation": "Update", "time": time, "fieldsV1": fields, **more}


OURS = entry("energylens", {"f:spec": {"f:replicas": {}}})
HPA = entry("kube-controller-manager", {"f:status": {"f:replicas": {}}}, "2026-03-02T00:00:00Z", subresource="status")
SCALER = entry("scaler", {"f:spec": {"f:replicas": {}}})
IMAGES = entry(
    "images",
    {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"engine"}': {"f:image": {}}}}}}},
)
ARGS = entry(
    "arguments", {"f:spec": {"f:template": {"f:spec": {"f:containers": {'k:{"name":"engine"}': {"f:args": {}}}}}}}
)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (("spec", "replicas"), ["scaler"]),
        (("spec", "template", "spec", "containers", "engine", "image"), ["images"]),
        (("spec", "template", "spec", "containers", "engine", "args"), ["arguments"]),
        (("spec", "template", "spec", "containers", "engine"), ["images", "arguments"]),
        # Nobody owns it: whoever wrote last.
        (("spec", "strategy"), ["kube-controller-manager"]),
    ],
)
def test_the_owner_of_a_field_is_found(path: tuple[str, ...], found: list[str]) -> None:
    assert managers_of([OURS, HPA, SCALER, IMAGES, ARGS], [path]) == found


def test_we_are_never_the_other_one() -> None:
    assert managers_of([OURS], [("spec", "replicas")]) == []
    assert managers_of([], [("spec",)]) == []
    assert managers_of([{}], [("spec",)]) == []


def test_only_writers_of_the_status_edited_the_status() -> None:
    editor = entry("kubectl-edit", {"f:status": {"f:plan": {"f:replicas": {}}}}, subresource="status")
    assert status_managers([OURS, SCALER, editor]) == ["kubectl-edit"]


def test_fields_that_differ_are_named_as_managed_fields_name_them() -> None:
    applied = {"spec": {"replicas": 2, "containers": [{"name": "engine", "args": ["a"], "image": "i"}], "list": [1]}}
    live = {
        "spec": {
            "replicas": 1,
            "containers": [{"name": "sidecar"}, {"name": "engine", "args": ["b"], "image": "i"}],
            "list": [2],
        }
    }
    assert differences(live, applied) == [
        ("spec", "replicas"),
        ("spec", "containers", "engine", "args"),
        ("spec", "list"),
    ]
    assert differences(applied, applied) == []
    assert differences({}, {"spec": {"replicas": 2}}) == [("spec", "replicas")]
