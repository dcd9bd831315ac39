"""The custom resources on a real API server: what it refuses and how it says so, what it fills in, what users see."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from tests.unit.api.objects import BUDGET, DEPLOYMENT, GOOD, RULES, SCHEMA, Bad, changed, good_object

from energylens.api.parse import parse_llmdeployment
from energylens_dev.devcluster import Kubectl, KubectlError, eventually

pytestmark = pytest.mark.usefixtures("chart")


def create(kubectl: Kubectl, obj: dict[str, Any], *arguments: str) -> dict[str, Any]:
    text = kubectl.run("create", *arguments, "--output=json", "--filename=-", stdin=json.dumps(obj))
    result: dict[str, Any] = json.loads(text)
    return result


def refusal(kubectl: Kubectl, obj: dict[str, Any]) -> str:
    """Return why the API server refuses the object."""
    try:
        create(kubectl, obj, "--dry-run=server")
    except KubectlError as refused:
        return refused.stderr
    raise AssertionError("accepted")


@pytest.mark.parametrize("bad", RULES, ids=lambda bad: bad.id)
def test_a_broken_rule_is_refused_with_the_field_the_value_and_what_is_allowed(kubectl: Kubectl, bad: Bad) -> None:
    message = refusal(kubectl, bad.object)
    assert "is invalid" in message
    assert f"{bad.field}: Invalid value" in message if bad.field else True
    assert [words for words in bad.said if words not in message] == []


@pytest.mark.parametrize("bad", SCHEMA, ids=lambda bad: bad.id)
def test_a_wrong_type_bound_or_word_is_refused_with_field_and_value(kubectl: Kubectl, bad: Bad) -> None:
    message = refusal(kubectl, bad.object)
    # The API server writes list entries as [0] for lists of objects, and map entries after a dot.
    assert bad.field.split("[")[0] in message
    assert [words for words in bad.said if words not in message] == []


@pytest.mark.parametrize(("kind", "changes"), GOOD, ids=lambda value: str(value)[:60])
def test_what_the_parser_of_files_accepts_the_api_server_accepts(
    kubectl: Kubectl, kind: str, changes: dict[str, Any]
) -> None:
    assert create(kubectl, good_object(kind, changes), "--dry-run=server")["kind"] == kind


def test_an_unknown_field_is_refused_by_name(kubectl: Kubectl) -> None:
    assert 'unknown field "spec.slo.itlMs"' in refusal(kubectl, changed(DEPLOYMENT, {"spec.slo": {"itlMs": 40}}))


def test_defaults_are_filled_in_and_are_those_of_the_models(kubectl: Kubectl) -> None:
    stored = create(kubectl, DEPLOYMENT, "--dry-run=server")
    assert stored["spec"]["slo"] == {"percentile": "P95"}
    assert stored["spec"]["energy"] == {
        "minReplicas": 1,
        "objective": "MinimizeEnergy",
        "powerCap": {"mode": "Never"},
        "priority": 0,
    }
    assert stored["spec"]["planning"] == {
        "disaggregation": "Never",
        "followLengths": "Never",
        "followLoad": "Never",
        "mode": "Auto",
        "overrides": {},
        "replan": {"cooldownSeconds": 3600, "minEnergySavingPercent": 10},
        "safetyMarginPercent": 100,
        "spareReplicas": 0,
    }
    assert stored["spec"]["engine"] == {"type": "VLLM"}
    assert stored["spec"]["suspend"] is False
    assert "status" not in stored
    spec = parse_llmdeployment(stored, strict=False).spec
    assert spec == parse_llmdeployment(DEPLOYMENT, strict=True).spec


def test_an_update_is_held_to_the_rules_too(kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    with pytest.raises(KubectlError, match="both set"):
        kubectl.apply(changed(DEPLOYMENT, {"spec.workload.concurrency": 8}))
    kubectl.apply(changed(DEPLOYMENT, {"spec.workload": {"inputTokens": 9, "outputTokens": 9, "concurrency": 8}}))
    stored = kubectl.get("llmd", "llama")
    assert stored is not None
    assert stored["spec"]["workload"] == {
        "inputTokens": 9, "outputTokens": 9, "concurrency": 8, "prefixCacheHitPercent": 0,
    }  # fmt: skip


def loosened(value: Any) -> Any:
    """Return a definition without rules and bounds, as an older version might have had."""
    drop = {"x-kubernetes-validations", "minimum", "maximum"}
    if isinstance(value, dict):
        return {key: loosened(entry) for key, entry in value.items() if key not in drop}
    return [loosened(entry) for entry in value] if isinstance(value, list) else value


def test_a_rule_made_stricter_does_not_block_objects_that_exist(admin: Kubectl, kubectl: Kubectl) -> None:
    strict = admin.get("crd", "llmdeployments.energylens.dev")
    assert strict is not None
    name = "l" * 60
    old = changed(DEPLOYMENT, {"metadata.name": name, "spec.hardware": {"maxGPUs": 4, "maxGPUsPerReplica": 8}})
    old["spec"]["slo"] = {"itlMilliseconds": -1}
    try:
        set_spec(admin, strict, loosened(strict["spec"]))
        eventually(lambda: create(kubectl, old))
    finally:
        set_spec(admin, strict, strict["spec"])
    eventually(lambda: refusal(kubectl, changed(old, {"metadata.name": "l" * 59})))

    def patch(change: str, *arguments: str) -> None:
        kubectl.run("patch", "llmd", name, "--type=merge", "--patch", change, *arguments)

    patch('{"metadata":{"labels":{"team":"a"},"finalizers":["example.org/x"]}}')
    patch('{"metadata":{"finalizers":null}}')
    patch('{"spec":{"suspend":true}}')
    patch('{"status":{"observedGeneration":2}}', "--subresource=status")
    with pytest.raises(KubectlError, match=r"maxGPUsPerReplica \(9\) is more than maxGPUs \(4\)"):
        patch('{"spec":{"hardware":{"maxGPUsPerReplica":9}}}')


def set_spec(admin: Kubectl, definition: dict[str, Any], spec: dict[str, Any]) -> None:
    patch = json.dumps([{"op": "replace", "path": "/spec", "value": spec}])
    # A program takes no argument of this length.
    admin.run("patch", "crd", definition["metadata"]["name"], "--type=json", "--patch-file=/dev/stdin", stdin=patch)


PLAN = {
    "hash": "a1b2", "predictorVersion": "1", "confidence": "Interpolated", "bindingConstraint": "ITL",
    "gpuProduct": "NVIDIA-H200", "gpus": 8, "replicas": 2, "tensorParallel": 4, "pipelineParallel": 1,
    "expertParallel": 1, "dataParallel": 1, "layout": "TP4", "maxBatchSize": 64,
    "predicted": {"joulesPerOutputToken": "412m", "powerWatts": 2000, "itlMilliseconds": 21},
}  # fmt: skip
ACTIVE = {
    "planHash": "c3d4", "gpuProduct": "NVIDIA-H100-80GB-HBM3", "gpus": 12, "replicas": 3, "layout": "TP2-PP2",
    "maxBatchSize": 32, "joulesPerOutputToken": "510m", "itlMilliseconds": 33, "powerWatts": 2400,
    "workloadRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
    "readyReplicas": 3, "updatedReplicas": 3,
}  # fmt: skip
STATUS = {
    "observedGeneration": 1,
    "plan": PLAN,
    "activeRevision": ACTIVE,
    "measured": {"windowStart": "a", "windowEnd": "b", "coveragePercent": 100, "joulesPerOutputToken": "450m"},
    "prediction": {"energyErrorPercent": -8, "samples": 3},
    "conditions": [
        {"type": "Ready", "status": "True", "reason": "ReplicasReady", "message": "", "observedGeneration": 1},
        {"type": "PlanReady", "status": "False", "reason": "AwaitingApproval", "message": "", "observedGeneration": 1},
    ],
}


def write_status(kubectl: Kubectl, status: dict[str, Any]) -> None:
    obj = {key: DEPLOYMENT[key] for key in ("apiVersion", "kind", "metadata")} | {"status": status}
    apply = ("apply", "--server-side", "--field-manager=energylens", "--subresource=status", "--filename=-")
    kubectl.run(*apply, stdin=json.dumps(obj))


def test_columns_show_what_runs_while_another_plan_waits(kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    write_status(kubectl, STATUS)
    header, row = kubectl.run("get", "llmd").splitlines()
    assert re.split(r" {2,}", header.strip()) == [
        "NAME",
        "MODEL",
        "GPU",
        "GPUS",
        "PLAN",
        "READY",
        "PLANNING",
        "J/TOKEN",
        "MEASURED",
        "AGE",
    ]
    assert row.split()[:-1] == [
        "llama", "meta-llama/Llama-3.1-70B-Instruct", "NVIDIA-H100-80GB-HBM3", "12", "TP2-PP2", "True",
        "AwaitingApproval", "510m", "450m",
    ]  # fmt: skip
    header, row = kubectl.run("get", "llmd", "--output=wide").splitlines()
    wide = ["AGE", "REPLICAS", "BATCH", "POWER W", "ITL MS", "ERROR %", "CONFIDENCE", "REASON"]
    assert re.split(r" {2,}", header.strip())[-8:] == wide
    assert row.split()[-7:] == ["3", "32", "2400", "33", "-8", "Interpolated", "ReplicasReady"]


def test_status_is_a_subresource_that_the_spec_cannot_reach(kubectl: Kubectl) -> None:
    kubectl.apply(changed(DEPLOYMENT, {"status": STATUS}))
    stored = kubectl.get("llmd", "llama")
    assert stored is not None
    assert "status" not in stored
    write_status(kubectl, STATUS)
    kubectl.apply(DEPLOYMENT)
    stored = kubectl.get("llmd", "llama")
    assert stored is not None
    assert stored["status"] == STATUS
    assert stored["metadata"]["generation"] == 1


def test_the_status_that_the_models_write_is_stored_whole(kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    low_high = {"joulesPerOutputTokenLow": "380m", "joulesPerOutputTokenHigh": "450m", "idlePowerWatts": 1,
                "outputTokensPerSecond": 1, "concurrency": 1, "ttftMilliseconds": 1}  # fmt: skip
    full = changed(STATUS, {"plan.predicted": {**PLAN["predicted"], **low_high}})  # type: ignore[dict-item]
    status = parse_llmdeployment(changed(DEPLOYMENT, {"status": full}), strict=True).status
    written = status.model_dump(by_alias=True, exclude_none=True, mode="json")
    write_status(kubectl, written)
    stored = kubectl.get("llmd", "llama")
    assert stored is not None
    assert stored["status"] == written


def test_conditions_are_merged_by_type(kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    write_status(kubectl, STATUS)
    other = {"conditions": [{"type": "Degraded", "status": "False", "reason": "None"}]}
    obj = {key: DEPLOYMENT[key] for key in ("apiVersion", "kind", "metadata")} | {"status": other}
    apply = ("apply", "--server-side", "--field-manager=other", "--subresource=status", "--filename=-")
    kubectl.run(*apply, stdin=json.dumps(obj))
    stored = kubectl.get("llmd", "llama")
    assert stored is not None
    assert {condition["type"] for condition in stored["status"]["conditions"]} == {"Ready", "PlanReady", "Degraded"}


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("llmd.spec.slo", ("Service level objectives", "itlMilliseconds", "Maximum inter-token latency, ms")),
        ("llmd.spec.slo.percentile", ("Share of requests", "ENUM: P50 P95 P99")),
        ("llmd.spec.workload.requestsPerSecond", ('a string ("0.5", 500m)',)),
        ("llmd.spec.planning.mode", ("Advisory: show the plan and run nothing",)),
        ("llmd.status.plan", ("The plan that the operator has adopted", "layout")),
        ("eb.spec", ("timeZone", "IANA time zone database")),
    ],
)
def test_explain_helps(kubectl: Kubectl, path: str, words: tuple[str, ...]) -> None:
    def shown() -> str:
        text = " ".join(kubectl.run("explain", path).split())
        assert [each for each in words if each not in text] == []
        return text

    eventually(shown)


def test_names_and_category(kubectl: Kubectl) -> None:
    kubectl.apply(DEPLOYMENT)
    kubectl.apply(BUDGET)
    assert "energybudget.energylens.dev/team" in kubectl.run("get", "eb", "--output=name")
    both = [line for line in kubectl.run("get", "energylens", "--output=name").split() if "cluster" not in line]
    assert both == ["energybudget.energylens.dev/team", "llmdeployment.energylens.dev/llama"]
