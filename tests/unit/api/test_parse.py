from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.api.objects import BASES, DEPLOYMENT, GOOD, RULES, SCHEMA, Bad, changed, good_object

from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import (
    InvalidResourceError,
    parse_clusterenergybudget,
    parse_energybudget,
    parse_llmdeployment,
)
from energylens.documents import DocumentError, yaml_documents


def parse(kind: str, obj: dict[str, Any], *, strict: bool = True) -> LLMDeployment | EnergyBudget | ClusterEnergyBudget:
    if kind == "LLMDeployment":
        return parse_llmdeployment(obj, strict=strict)
    if kind == "EnergyBudget":
        return parse_energybudget(obj, strict=strict)
    return parse_clusterenergybudget(obj, strict=strict)


@pytest.mark.parametrize(("kind", "changes"), GOOD, ids=lambda value: str(value)[:60])
def test_good_objects_are_read(kind: str, changes: dict[str, Any]) -> None:
    assert parse(kind, good_object(kind, changes)).kind == kind


@pytest.mark.parametrize("strict", [True, False], ids=["file", "api-server"])
@pytest.mark.parametrize("bad", RULES + SCHEMA, ids=lambda bad: bad.id)
def test_a_bad_object_is_refused_in_one_line_that_names_field_value_and_what_is_allowed(bad: Bad, strict: bool) -> None:
    with pytest.raises(InvalidResourceError) as refused:
        parse(bad.kind, bad.object, strict=strict)
    message = str(refused.value)
    assert "\n" not in message
    assert refused.value.problems[0].field == bad.field
    if bad in RULES:
        assert [words for words in bad.said if words not in message] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"spec.slo": {"itlMs": 40}},
            "spec.slo.itlMs: unknown field (did you mean itlMilliseconds?); known fields are percentile, "
            "ttftMilliseconds, itlMilliseconds, tpotMilliseconds, endToEndMilliseconds, joulesPerOutputToken",
        ),
        (
            {"spec.hardware": {"maxGpus": 8}},
            "spec.hardware.maxGpus: unknown field (did you mean maxGPUs?); known fields are gpuProducts, maxGPUs, "
            "maxGPUsPerReplica, interNodeGigabitsPerSecond, nodeSelector, tolerations",
        ),
        (
            {"spec.hardware": {"tolerations": [{"operater": "Exists", "key": "a"}]}},
            "spec.hardware.tolerations[0].operater: unknown field (did you mean operator?); known fields are key, "
            "operator, value, effect, tolerationSeconds",
        ),
        (
            {"spec.engine.type": "vLLM"},
            'spec.engine.type: "vLLM" is not allowed (did you mean VLLM?); use VLLM or SGLang',
        ),
        (
            {"spec.workload.requestsPerSecond": 0.5},
            'spec.workload.requestsPerSecond: 0.5 is a number with a fraction; write it as a string: "0.5" or "500m"',
        ),
        ({"spec.slo.itlMilliseconds": -5}, "spec.slo.itlMilliseconds: -5 must be at least 1"),
        ({"spec.suspend": "yes"}, 'spec.suspend: "yes" must be true or false'),
        ({"spec.model.name": ""}, "spec.model.name: must not be empty"),
        ({"spec.engine": {"extraArgs": [""]}}, "spec.engine.extraArgs[0]: must not be empty"),
        (
            {"spec.engine": {"extraArgs": ["-"] * 129}},
            "spec.engine.extraArgs: [" + '"-", ' * 11 + '"... must have at most 128 entries',
        ),
        ({"spec.workload.inputTokens": "512"}, 'spec.workload.inputTokens: "512" must be a whole number: write 512'),
        (
            {"spec.workload.inputTokens": ...},
            "spec.workload: inputTokens not set; set inputTokens and outputTokens, or classes",
        ),
        ({"spec.slo": 3}, "spec.slo: 3 must be an object with named fields"),
        ({"kind": "Deployment"}, 'kind: "Deployment" is not allowed (did you mean LLMDeployment?); use LLMDeployment'),
        ({"apiVersion": "v1"}, 'apiVersion: "v1" is not allowed; use energylens.dev/v1alpha1'),
    ],
)
def test_messages_for_files(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidResourceError) as refused:
        parse_llmdeployment(changed(DEPLOYMENT, changes), strict=True)
    assert str(refused.value) == message


def test_a_list_with_a_bad_entry_is_not_empty() -> None:
    entry = {"sharePercent": 100, "inputTokens": 0, "outputTokens": 3}
    load = {"requestsPerSecond": "2", "classes": [entry]}
    with pytest.raises(InvalidResourceError) as raised:
        parse_llmdeployment(changed(DEPLOYMENT, {"spec.workload": load}), strict=True)
    assert str(raised.value) == "spec.workload.classes[0].inputTokens: 0 must be at least 1"
    load["classes"] = []
    with pytest.raises(InvalidResourceError, match=r"spec\.workload\.classes: must not be empty"):
        parse_llmdeployment(changed(DEPLOYMENT, {"spec.workload": load}), strict=True)


def test_several_problems_are_one_line_with_a_count() -> None:
    bad = changed(DEPLOYMENT, {"spec.slo": {"a": 1, "b": 2, "c": 3, "d": 4, "itlMilliseconds": 0}})
    with pytest.raises(InvalidResourceError, match=r"; and 2 more$") as refused:
        parse_llmdeployment(bad, strict=True)
    assert len(refused.value.problems) == 5


def test_a_file_may_not_use_the_names_of_the_code() -> None:
    bad = changed(DEPLOYMENT, {"spec.hardware": {"max_gpus": 8}})
    with pytest.raises(InvalidResourceError, match=r"max_gpus: unknown field \(did you mean maxGPUs\?\)"):
        parse_llmdeployment(bad, strict=True)


def read(text: str) -> LLMDeployment:
    (document,) = yaml_documents(text)
    return parse_llmdeployment(document, strict=True)


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2", "a: b: c", "- 1", "3", "kind: 2026-13-45", "2026-01-01: x",
        "a: &a {b: *a}", "spec: .nan", "? [a]\n: b", "a: " + "[" * 100 + "]" * 100, "\0", "{1: 2}",
        "kind: " + "9" * 5000, '"\\ud800": 1', 'apiVersion: "a\\n\\nb"',
    ],
)  # fmt: skip
def test_text_that_holds_no_llmdeployment_is_refused_in_one_line(text: str) -> None:
    with pytest.raises((InvalidResourceError, DocumentError)) as refused:
        read(text)
    assert "\n" not in str(refused.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def test_a_line_break_in_a_name_does_not_break_the_line() -> None:
    with pytest.raises(InvalidResourceError) as refused:
        parse_llmdeployment(changed(DEPLOYMENT, {"metadata.name": "a\nb\x1cc"}), strict=True)
    assert len(str(refused.value).splitlines()) == 1


@given(
    path=st.sampled_from(
        ["spec", "spec.model.name", "spec.workload", "spec.workload.requestsPerSecond", "spec.slo", "spec.engine.env",
         "spec.hardware.tolerations", "spec.hardware.nodeSelector", "spec.planning.overrides.replicas", "metadata",
         "metadata.name", "spec.podTemplate", "status", "status.plan", "status.conditions"]
    ),
    value=JSON,
    strict=st.booleans(),
)  # fmt: skip
def test_whatever_stands_in_a_field_is_read_or_refused_in_one_line(path: str, value: object, strict: bool) -> None:
    try:
        deployment = parse_llmdeployment(changed(DEPLOYMENT, {path: value}), strict=strict)
    except InvalidResourceError as error:
        refused = str(error)
    else:
        refused = ""
        assert deployment.spec.workload.input_tokens >= 1
    assert len(refused.splitlines()) <= 1


def test_an_unquoted_date_is_text_as_it_is_for_kubectl() -> None:
    text = yaml.safe_dump(DEPLOYMENT).replace("Llama-3.1-70B-Instruct", "Llama\n    revision: 2026-01-02")
    assert read(text).spec.model.revision == "2026-01-02"


def test_fields_that_a_newer_api_server_knows_are_left_out_and_named() -> None:
    newer = changed(DEPLOYMENT, {"spec.carbon": {"a": 1}, "spec.slo": {"queueMilliseconds": 3, "percentile": "P50"}})
    ignored: list[str] = []
    deployment = parse_llmdeployment(newer, strict=False, on_ignored=ignored.append)
    assert deployment.spec.slo.percentile == "P50"
    assert sorted(line.split(":")[0] for line in ignored) == ["spec.carbon", "spec.slo.queueMilliseconds"]
    assert newer["spec"]["carbon"] == {"a": 1}


def test_an_enum_value_of_a_newer_api_server_is_an_error_since_acting_on_half_a_spec_is_a_guess() -> None:
    newer = changed(DEPLOYMENT, {"spec.engine.type": "TensorRTLLM", "spec.new": 1})
    with pytest.raises(InvalidResourceError, match=r'spec.engine.type: "TensorRTLLM" is not allowed.*VLLM or SGLang'):
        parse_llmdeployment(newer, strict=False)


def test_a_status_that_another_version_wrote_does_not_block_the_spec() -> None:
    measured = {"windowStart": "a", "windowEnd": "b", "coveragePercent": 100, "carbonGrams": 3}
    other = changed(DEPLOYMENT, {"status": {"plan": {"hash": "x"}, "measured": measured, "observedGeneration": 4}})
    ignored: list[str] = []
    deployment = parse_llmdeployment(other, strict=False, on_ignored=ignored.append)
    assert deployment.status.plan is None
    assert deployment.status.observed_generation == 4
    assert deployment.status.measured is not None
    assert deployment.status.measured.coverage_percent == 100
    assert any(line.startswith("status.plan.") for line in ignored)


@pytest.mark.parametrize("status", [[], 3, "lost"])
def test_a_status_that_is_no_object_counts_as_absent(status: object) -> None:
    deployment = parse_llmdeployment(changed(DEPLOYMENT, {"status": status}), strict=False)
    assert deployment.status.plan is None


def test_what_is_written_is_read_again() -> None:
    deployment = parse_llmdeployment(DEPLOYMENT, strict=True)
    again = deployment.model_dump(by_alias=True, exclude_none=True, mode="json")
    assert parse_llmdeployment(again, strict=True) == deployment


def test_the_examples_are_valid() -> None:
    folder = Path(__file__).resolve().parents[3] / "examples"
    documents = [d for path in sorted(folder.rglob("*.yaml")) for d in yaml.safe_load_all(path.read_text()) if d]
    kinds = [parse(d["kind"], d).kind for d in documents if d.get("kind") in BASES]
    assert set(kinds) == set(BASES)


def test_the_budgets_of_the_documentation_are_valid() -> None:
    text = (Path(__file__).resolve().parents[3] / "docs" / "budgets.md").read_text()
    documents = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    whole = [d for d in documents if d.get("apiVersion", "").startswith("energylens.dev/")]
    assert [parse(d["kind"], d).kind for d in whole] == ["EnergyBudget"]
    # The others are parts of its spec.
    for part in (d for d in documents if "kind" not in d):
        assert parse("EnergyBudget", {**whole[0], "spec": {**whole[0]["spec"], **part["spec"]}}).spec.carbon
