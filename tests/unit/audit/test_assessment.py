"""What an audit says of served models, by the verdicts that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.audit_cluster import H100, Served, matrix, node, pod

from energylens.api.parse import parse_llmdeployment
from energylens.audit.assessment import Assessment, AuditOptions, assess
from energylens.audit.cluster import assessments, product_by_node, shared_nodes
from energylens.audit.served import served_models
from energylens.cli.inputs.audit import Audited, telemetry_of_series
from energylens.cli.text.audit import manifest
from energylens.data import load_gpus
from energylens.decide.preview import World
from energylens.planner.inventory.products import PRODUCT_LABEL
from energylens.planner.inventory.snapshot import snapshot_from_objects
from energylens.serving import check

NOW = datetime(2026, 11, 27, tzinfo=UTC)
IMAGE = "vllm/vllm-openai:v0.24.0"
WIDE = {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B", "-tp", "8", "--max-num-seqs=64"]}
LOAD = Served("a", gpus=8, requests_per_second=1.0, watts_per_gpu=150.0, itl_seconds=0.02, ttft_seconds=0.09, running=5)


def audited(
    pods: Sequence[Any], loads: Sequence[Served], question: AuditOptions | None = None, **metrics: Any
) -> list[Assessment]:
    nodes = [node("node-0"), node("node-1")]
    gpus = load_gpus()
    snapshot = snapshot_from_objects(nodes, pods, gpus)
    models = served_models(pods, product_by_node(snapshot), {})
    answer = matrix(loads, **metrics)
    telemetry = telemetry_of_series([answer], Audited(nodes, pods), "a test")
    return list(assessments(models, nodes, pods, telemetry, gpus, NOW, question or AuditOptions()))


def one(
    pods: Sequence[Any], loads: Sequence[Served], question: AuditOptions | None = None, **metrics: Any
) -> Assessment:
    (found,) = audited(pods, loads, question, **metrics)
    return found


def test_a_small_model_over_a_whole_node_saves_by_fewer_gpus() -> None:
    found = one([pod("a", WIDE, gpus=8)], [LOAD])
    assert found.verdict == "Saves"
    assert found.now is not None
    assert found.then is not None
    assert found.plan is not None
    assert (found.now.is_measured, found.then.is_measured) == (True, False)
    assert found.now.watts == pytest.approx(1200.0)
    assert found.plan.gpus < 8
    assert found.then.low < found.then.watts < found.then.high < found.now.watts
    assert found.saved_percent is not None
    best, low, high = found.saved_percent
    assert 0 < low < best < high < 100
    assert best == pytest.approx(100 * (1 - found.then.watts / 1200.0))
    assert found.saved_watts == pytest.approx(1200.0 - found.then.watts)
    assert found.repay_hours is not None
    assert found.switch is not None
    assert found.repay_hours == pytest.approx(found.switch.joules / found.saved_watts / 3600)


def test_the_plan_holds_todays_latencies_at_p95() -> None:
    found = one([pod("a", WIDE, gpus=8)], [LOAD])
    # By the engine's buckets: 95 % lie below 29 ms in truth, and the bucket that holds them ends at 50.
    assert found.objectives == {
        "ttft_milliseconds": pytest.approx(231, abs=1),
        "itl_milliseconds": pytest.approx(45, abs=1),
    }
    assert found.plan is not None
    assert found.plan.predicted.itl_milliseconds <= found.objectives["itl_milliseconds"]
    assert found.deployment is not None
    slo = found.deployment.spec.slo
    assert (slo.percentile, slo.itl_milliseconds) == ("P95", found.objectives["itl_milliseconds"])


def test_latencies_may_be_given_or_relaxed() -> None:
    pods = [pod("a", WIDE, gpus=8)]
    today = one(pods, [LOAD]).objectives
    slack = one(pods, [LOAD], AuditOptions(slack_percent=100)).objectives
    assert slack == {name: 2 * value for name, value in today.items()}
    given = one(pods, [LOAD], AuditOptions({"itl_milliseconds": 12}))
    assert given.objectives["itl_milliseconds"] == 12
    impossible = one(pods, [LOAD], AuditOptions({"itl_milliseconds": 1}))
    assert impossible.verdict == "Keep"
    assert "no plan meets today's load and latencies" in impossible.reason


def test_what_the_window_taught_corrects_the_plan() -> None:
    """Pods that draw more than predicted make plans of the same model draw more than predicted, too."""
    calm, hot = (one([pod("a", WIDE, gpus=8)], [replace(LOAD, watts_per_gpu=w)]) for w in (130.0, 400.0))
    assert calm.then is not None
    assert hot.then is not None
    assert hot.then.watts > calm.then.watts


def test_the_busiest_part_decides_the_plan_and_the_mean_the_energy() -> None:
    busy = replace(LOAD, busy=(1.0,) * 11 + (6.0,))
    found = one([pod("a", WIDE, gpus=8)], [busy])
    mean = found.load.requests_per_second
    assert mean == pytest.approx((11 + 6) / 12, rel=0.01)
    assert found.planned_requests_per_second == pytest.approx(6.0, rel=0.05)
    assert found.plan is not None
    tokens = found.load.output_tokens_per_second
    assert tokens is not None
    # Predicted for the mean, whatever the plan was chosen for.
    assert found.plan.predicted.output_tokens_per_second == pytest.approx(tokens, rel=0.02)


def test_without_energy_the_figures_are_predicted_and_say_so() -> None:
    found = one([pod("a", WIDE, gpus=8)], [LOAD], energy=False)
    assert found.now is not None
    assert not found.now.is_measured
    assert any("predicted, not measured" in note for note in found.notes)
    assert found.verdict in ("Saves", "WithinError")


def test_an_idle_model_is_told_with_what_it_draws() -> None:
    found = one([pod("a", WIDE, gpus=8)], [replace(LOAD, requests_per_second=0.0, watts_per_gpu=110.0)])
    assert (found.verdict, found.plan) == ("Idle", None)
    assert found.now is not None
    assert found.now.watts == pytest.approx(880.0)


def test_what_an_llmdeployment_runs_is_left_to_it() -> None:
    mine = pod("a", WIDE, gpus=8, labels={"energylens.dev/llmdeployment": "chat"})
    found = one([mine], [LOAD])
    assert (found.verdict, found.plan, found.deployment) == ("Managed", None, None)
    assert found.now is not None
    assert found.now.watts == pytest.approx(1200.0)


def test_todays_layout_is_kept_where_it_is_the_best() -> None:
    container = {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B", "-tp", "1"]}
    found = one([pod("a", container)], [replace(LOAD, gpus=1, watts_per_gpu=200.0, itl_seconds=0.009)])
    assert found.verdict == "Keep"


@pytest.mark.parametrize(
    ("container", "reason"),
    [
        ({"image": "i:1", "command": ["trtllm-serve", "Qwen/Qwen3-8B"]}, "plans support vLLM and SGLang"),
        ({"image": IMAGE, "args": ["--model=/mnt/models"]}, "name the model by --model team/chat=HUGGING_FACE_ID"),
        (
            {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B", '--kv-transfer-config={"kv_role":"kv_consumer"}']},
            "prefill and decode run in separate pods",
        ),
        ({"image": IMAGE, "args": ["--model=org/nobody-knows"]}, "is not in the catalogue"),
    ],
)
def test_what_cannot_be_planned_is_measured_all_the_same(container: Any, reason: str) -> None:
    found = one([pod("a", container)], [replace(LOAD, gpus=1)])
    assert found.verdict == "NotPlanned"
    assert reason in found.reason
    assert found.now is not None
    assert found.now.is_measured


def test_a_model_without_metrics_is_told() -> None:
    found = one([pod("a", WIDE, gpus=8)], [replace(LOAD, pod="another")])
    assert (found.verdict, found.now) == ("NoLoad", None)
    assert found.reason == "token counters were found for 0 of 1 engine pods"


def test_gpus_of_others_are_not_free() -> None:
    """The node beside is full, so that a model that needs four GPUs has those it holds and no more."""
    container = {"image": IMAGE, "args": ["--model=meta-llama/Llama-3.1-70B-Instruct", "-tp", "8"]}
    other = pod("x", {"image": "train:1", "command": ["train"]}, gpus=8, host="node-1", owner=("Job", "train"))
    chat, train = audited([pod("a", container, gpus=8), other], [LOAD])
    assert train.verdict == "Unread"
    assert chat.plan is None or chat.plan.gpus <= 8


def test_the_deployment_to_apply_is_one_that_the_operator_takes() -> None:
    container = {
        "image": IMAGE,
        "args": [
            "--model=Qwen/Qwen3-8B",
            "-tp",
            "8",
            "--port=8080",
            "--enable-prefix-caching",
            "--max-model-len",
            "8192",
        ],
        "env": [
            {"name": "VLLM_LOGGING_LEVEL", "value": "INFO"},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": "do-not-write-me"},
            {"name": "CUDA_VISIBLE_DEVICES", "value": "0,1"},
            {"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}},
        ],
    }
    tolerations = [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
    ]
    selector = {"pool": "serving", "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    nodes = [node("node-0"), node("node-1")]
    for each in nodes:
        each["metadata"]["labels"]["pool"] = "serving"
    pods = [pod("a", container, gpus=8, tolerations=tolerations, nodeSelector=selector)]
    models = served_models(pods, product_by_node(snapshot_from_objects(nodes, pods, load_gpus())), {})
    telemetry = telemetry_of_series([matrix([replace(LOAD, cached_share=0.4)])], Audited(nodes, pods), "a test")
    (found,) = assessments(models, nodes, pods, telemetry, load_gpus(), NOW)
    assert found.deployment is not None, found.reason
    body = manifest(found.deployment)
    check(parse_llmdeployment(body, strict=True))
    assert body["spec"]["engine"] == {
        "image": IMAGE,
        "extraArgs": ["--enable-prefix-caching", "--max-model-len=8192"],
        "env": [{"name": "VLLM_LOGGING_LEVEL", "value": "INFO"}],
    }
    assert body["spec"]["model"]["tokenSecretRef"] == {"name": "hub", "key": "token"}
    assert body["spec"]["hardware"] == {
        "nodeSelector": {"pool": "serving"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    assert body["spec"]["workload"]["prefixCacheHitPercent"] == 40
    assert body["spec"]["workload"]["inputTokens"] == 800
    assert "do-not-write-me" not in str(body)


def test_predictions_of_both_layouts_have_the_intervals_of_both() -> None:
    found = one([pod("a", WIDE, gpus=8)], [LOAD], energy=False)
    assert found.now is not None
    assert found.then is not None
    assert found.saved_percent is not None
    assert found.least_saved_watts is not None
    assert found.now.low < found.now.watts < found.now.high
    _, low, high = found.saved_percent
    assert low == pytest.approx(100 * (1 - found.then.high / found.now.low))
    assert high == pytest.approx(100 * (1 - found.then.low / found.now.high))
    assert found.least_saved_watts == pytest.approx(found.now.low - found.then.high)
    assert (found.verdict == "Saves") is (found.then.high < found.now.low)


def test_a_layout_in_doubt_corrects_no_plan() -> None:
    half = {"image": IMAGE, "args": ["--model=Qwen/Qwen3-8B", "-tp", "4"]}
    found = one([pod("a", half, gpus=8)], [LOAD])
    assert found.predicted_now is None
    assert found.notes.count("each replica holds 8 GPUs, but its engine uses 4") == 1
    assert not [note for note in found.notes if "cannot be predicted" in note]
    assert found.plan is not None
    assert found.plan.correction is None


def test_what_cannot_be_planned_is_said_once() -> None:
    found = one([pod("a", {"image": IMAGE, "args": ["--model=org/nobody-knows"]})], [replace(LOAD, gpus=1)])
    assert found.reason.startswith("spec.model.name='org/nobody-knows'")
    assert not [note for note in found.notes if "catalogue" in note]


def test_shared_gpus_have_no_power_of_their_own() -> None:
    body = pod("a", WIDE, gpus=1)
    snapshot = [{**node("node-0"), "metadata": {"name": "node-0", "labels": {PRODUCT_LABEL: f"{H100}-SHARED"}}}]
    found = snapshot_from_objects(snapshot, [body], load_gpus())
    (served,) = served_models([body], product_by_node(found), {}, shared_nodes=shared_nodes(found))
    telemetry = telemetry_of_series([matrix([LOAD])], Audited(snapshot, [body]), "a test")
    assessed = assess(served, "chat", telemetry, World(found), load_gpus(), NOW)
    assert (assessed.verdict, assessed.now) == ("NotPlanned", None)
    assert assessed.reason.startswith("its GPUs are shared between pods")
