"""Fields that an API server names in its refusals are found, and nothing else is left out."""

from __future__ import annotations

import pytest

from energylens.cluster.undeclared import ELEMENT, as_text, refused_paths, without

APPLY = "PATCH /x/status: 500 failed to create typed patch object (a/b; energylens.dev/v1alpha1, Kind=LLMDeployment): "


@pytest.mark.parametrize(
    ("message", "paths"),
    [
        (f"{APPLY}.status.extra: field not declared in schema", {("status", "extra")}),
        (
            f"{APPLY}errors:\n  .status.plan.newField: field not declared in schema\n"
            '  .status.conditions[type="Ready"].since: field not declared in schema\n'
            "  .status.plan.alternatives[3].inner.x-y: field not declared in schema",
            {
                ("status", "plan", "newField"),
                ("status", "conditions", ELEMENT, "since"),
                ("status", "plan", "alternatives", ELEMENT, "inner", "x-y"),
            },
        ),
        (
            f'{APPLY}.status.members[name="a.b]\\"c",namespace="n"].watts: field not declared in schema',
            {("status", "members", ELEMENT, "watts")},
        ),
        (
            'LLMDeployment.energylens.dev "a" is invalid: [status.plan.confidence: Unsupported value: "Fair": '
            'supported values: "High", status.plan.parts[2].kind: Unsupported value: "b": supported values: "a"]',
            {("status", "plan", "confidence"), ("status", "plan", "parts", ELEMENT, "kind")},
        ),
        ("PATCH /x/status: 422 status.plan.gpus: Required value", set()),
        (f"{'a-b_c.' * 4000}: field not declared", set()),
        (f"{'x' * 20000}[: field not declared in schema", set()),
        ("PATCH /x/status: 409 the object has been modified", set()),
    ],
)
def test_the_named_fields_are_found(message: str, paths: set[tuple[str, ...]]) -> None:
    assert refused_paths(message) == paths


def test_only_the_named_fields_are_left_out() -> None:
    status = {"plan": {"gpus": 1, "new": 2, "list": [{"a": 1, "b": 2}, {"b": 3}, 4]}, "plain": [1, 2]}
    paths = {("plan", "new"), ("plan", "list", ELEMENT, "b"), ("plain", ELEMENT, "x"), ("absent", "y"), ()}
    assert without(status, paths) == {"plan": {"gpus": 1, "list": [{"a": 1}, {}, 4]}, "plain": [1, 2]}
    assert without(status, ()) is status
    assert without({"a": 1}, {("a",), ("a", "b")}) == {}
    assert as_text(("status", "plan", "list", ELEMENT, "b")) == "status.plan.list[].b"
