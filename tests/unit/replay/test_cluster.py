"""What the replay exporter sees of a cluster, and of one without its kinds."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.support.api_server import api_server

from energylens_dev.replay.cluster import ClusterError, KubernetesCluster

DEPLOYMENTS = "/apis/energylens.dev/v1alpha1/llmdeployments"


def test_the_deployments_are_those_that_the_api_server_lists(tmp_path: Path) -> None:
    with api_server(pages={DEPLOYMENTS: {"items": [{"metadata": {"name": "llama"}}]}}) as server:
        found = KubernetesCluster(str(server.kubeconfig(tmp_path))).snapshot()
    assert [body["metadata"]["name"] for body in found.deployments] == ["llama"]


def test_a_cluster_whose_definitions_are_gone_has_no_deployments(tmp_path: Path) -> None:
    with api_server(unserved={"llmdeployments"}) as server:
        found = KubernetesCluster(str(server.kubeconfig(tmp_path))).snapshot()
    assert list(found.deployments) == []


@pytest.mark.parametrize("status", [403, 500])
def test_an_api_server_that_refuses_is_an_error(tmp_path: Path, status: int) -> None:
    with api_server(refused={("GET", "llmdeployments"): status}) as server:
        cluster = KubernetesCluster(str(server.kubeconfig(tmp_path)))
        with pytest.raises(ClusterError, match=str(status)):
            cluster.snapshot()
