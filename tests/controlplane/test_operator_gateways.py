"""InferencePools and the two roles behind them, on an API server with the definitions of the inference extension."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.support.go_modules import INFERENCE_EXTENSION
from tests.support.operator_cluster import Object, OperatorCluster, Team, layout

from energylens_dev.devcluster import eventually

CRD = "inferencepools.inference.networking.k8s.io"
ROUTING = {"inferencePool": {"endpointPicker": {"name": "llama-epp", "failureMode": "FailOpen"}}}


@pytest.fixture
def definition(operator: OperatorCluster, tmp_path: Path) -> Iterator[Path]:
    """Give the definition of InferencePools, which is not installed; it is gone afterwards."""
    yield INFERENCE_EXTENSION.file("config/crd/bases/inference.networking.k8s.io_inferencepools.yaml", tmp_path)
    operator.api.run("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")


def pool(team: Team) -> Object:
    found = team.kubectl.get("inferencepool", "llama")
    assert found is not None, "no InferencePool"
    return found


def test_a_pool_selects_the_pods_of_every_rollout_until_it_is_not_asked_for(
    operator: OperatorCluster, team: Team, definition: Path
) -> None:
    team.apply(routing=ROUTING)
    message = team.wait("Degraded", "True", "ApplyRefused")["message"]
    assert "InferencePool llama: the API server does not serve inferencepools" in message
    # Requests reach the pods by the Service all the same.
    team.wait("Ready", "True", "PodsReady")
    operator.api.run("apply", "-f", str(definition))
    # The operator notices the kind without a restart.
    team.wait("Degraded", "False", "AsExpected")
    before = pool(team)
    assert before["spec"]["endpointPickerRef"] == {
        "group": "",
        "kind": "Service",
        "name": "llama-epp",
        "port": {"number": 9002},
        "failureMode": "FailOpen",
    }
    assert before["spec"]["targetPorts"] == [{"number": 8000}]
    service = team.kubectl.get("service", "llama")
    assert service is not None
    assert before["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    first = {pod["metadata"]["uid"] for pod in team.pods()}
    team.apply(routing=ROUTING, planning=layout(maxBatchSize=16))

    def all_new() -> bool:
        return not first & {pod["metadata"]["uid"] for pod in team.pods()}

    eventually(all_new)
    team.ready()
    after = pool(team)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]
    assert after["spec"] == before["spec"]
    labels = ",".join(f"{key}={value}" for key, value in after["spec"]["selector"]["matchLabels"].items())
    assert len(team.kubectl.list("pods", "-l", labels)) == 2
    # Somebody else's edit is undone, and the pool goes with the field.
    team.kubectl.run("patch", "inferencepool", "llama", "--type=merge", "-p", '{"spec":{"targetPorts":[{"number":9}]}}')
    eventually(lambda: pool(team)["spec"] == before["spec"])
    team.apply(planning=layout(maxBatchSize=16))
    eventually(lambda: team.kubectl.get("inferencepool", "llama") is None)


ROLES = {**ROUTING, "disaggregation": {"router": "LLMD", "sidecarImage": "llm-d/routing-sidecar:v1"}}
LONG_PROMPTS: Object = {
    "workload": {"inputTokens": 4000, "outputTokens": 200, "requestsPerSecond": 12},
    "slo": {"ttftMilliseconds": 1000, "itlMilliseconds": 20},
    "hardware": {"gpuProducts": ["NVIDIA-H100-80GB-HBM3"], "maxGPUs": 3, "maxGPUsPerReplica": 2},
    "routing": ROLES,
}
"""A load that no plan holds on three GPUs unless it separates prefill and decode."""


def test_prefill_and_decode_pods_come_change_and_go_together(
    operator: OperatorCluster, team: Team, definition: Path
) -> None:
    operator.api.run("apply", "-f", str(definition))
    team.apply(**LONG_PROMPTS, planning={"disaggregation": "Never"})
    team.wait("PlanReady", "False", "SLOInfeasible")
    team.apply(**LONG_PROMPTS, planning={"disaggregation": "Follow"})
    status = team.ready()
    assert (status["plan"]["replicas"], status["plan"]["prefill"]["replicas"], status["plan"]["gpus"]) == (1, 2, 3)
    assert status["activeRevision"]["prefill"]["readyReplicas"] == 2

    def roles() -> list[str]:
        return sorted(pod["metadata"]["labels"]["llm-d.ai/role"] for pod in team.pods())

    assert roles() == ["decode", "prefill", "prefill"]
    labels = pool(team)["spec"]["selector"]["matchLabels"]
    assert len(team.kubectl.list("pods", "-l", ",".join(f"{key}={value}" for key, value in labels.items()))) == 3

    def answering() -> list[str]:
        slices = team.kubectl.list("endpointslices.discovery.k8s.io", "-l", "kubernetes.io/service-name=llama")
        ends = [end for found in slices for end in found.get("endpoints") or () if end["conditions"]["ready"]]
        return [end["targetRef"]["name"] for end in ends]

    decode = [pod for pod in team.pods() if pod["metadata"]["labels"]["llm-d.ai/role"] == "decode"]
    eventually(lambda: answering() == [decode[0]["metadata"]["name"]])
    # Another cache: prefill pods of one kind never stand beside decode pods of the other, and the end is whole again.
    before = status["plan"]["hash"]
    team.apply(
        **LONG_PROMPTS, planning={"disaggregation": "Follow"}, engine={"extraArgs": ["--kv-cache-dtype=fp8_e4m3"]}
    )
    status = team.ready()
    assert status["plan"]["hash"] != before
    assert len({pod["metadata"]["labels"]["energylens.dev/kv-cache"].split("-")[0] for pod in team.pods()}) == 1
    # Without roles, both go; more GPUs are needed then.
    plain = {**LONG_PROMPTS, "hardware": {**LONG_PROMPTS["hardware"], "maxGPUs": 8}}
    team.apply(**plain, planning={"disaggregation": "Never"})
    status = team.ready()
    assert "prefill" not in status["plan"]
    eventually(lambda: ("Deployment", "llama-prefill") not in team.children())
    eventually(lambda: all("llm-d.ai/role" not in pod["metadata"]["labels"] for pod in team.pods()))
