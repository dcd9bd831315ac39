"""The InferencePool of a deployment, on an API server with the definitions of the inference extension."""

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
