"""What the schema of the CRD says of a value, and what the operator's own reading says, agree."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from tests.support.operator_cluster import llmdeployment
from tests.support.schema_changes import Change, Kind, changes, fields, spec_schema

from energylens.api.parse import InvalidResourceError, parse_llmdeployment

SCHEMA = spec_schema("llmdeployments")


def refusal(change: Change) -> str:
    """Return what the operator says to the spec of a usual deployment with a change; "" where it takes it."""
    body = llmdeployment()
    body["metadata"]["namespace"] = "team"
    body["spec"] = change.applied_to(body["spec"])
    try:
        parse_llmdeployment(body, strict=True)
    except InvalidResourceError as error:
        return str(error)
    return ""


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes(SCHEMA, Kind.INVALID))
def test_what_the_schema_forbids_is_refused_by_name(change: Change) -> None:
    assert change.path[-1] in refusal(change), str(change)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(changes(SCHEMA, Kind.VALID, Kind.BOUNDARY, Kind.ABSENT))
def test_a_rule_that_refuses_what_the_schema_allows_names_the_field_or_what_it_is_in(change: Change) -> None:
    said = refusal(change)
    assert not said or any(part in said for part in change.path), f"{change}: {said}"


def test_every_field_of_the_spec_is_drawn() -> None:
    found = {".".join(path) for path, _, _ in fields(SCHEMA)}
    assert {"suspend", "model.name", "energy.powerCap.wattsPerGPU", "hardware.tolerations", "podTemplate"} <= found
    assert len(found) > 60


@pytest.mark.parametrize(
    ("change", "spec"),
    [
        (Change(("a", "b"), Kind.VALID, 1), {"a": {"b": 1}, "x": 2}),
        (Change(("a", "b"), Kind.ABSENT), {"x": 2}),
        (Change(("x",), Kind.ABSENT), {}),
        (Change(("workload", "concurrency"), Kind.VALID, 4), {"x": 2, "workload": {"concurrency": 4}}),
    ],
)
def test_a_change_is_of_one_field(change: Change, spec: dict[str, object]) -> None:
    before = {"x": 2}
    assert change.applied_to(before) == spec
    assert before == {"x": 2}
