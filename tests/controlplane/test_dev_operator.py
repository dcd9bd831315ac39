"""`energylens dev up` runs the operator on this machine as the chart's service account."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from energylens_dev import devcluster
from energylens_dev.devcluster import PodStages, RunningCluster, eventually
from energylens_dev.devcluster.processes import start_identity


@pytest.fixture(scope="module")
def with_operator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    directory = tmp_path_factory.mktemp("operator-cluster")
    with devcluster.guarded(directory), devcluster.up(directory, pods=PodStages.FAST) as started:
        yield started


def record(cluster: RunningCluster) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((cluster.directory / "run" / "operator.json").read_text())
    return found


def test_the_operator_serves_its_metrics(with_operator: RunningCluster) -> None:
    assert with_operator.operator_pid is not None
    assert with_operator.metrics_url is not None
    with urllib.request.urlopen(with_operator.metrics_url, timeout=10) as answer:
        assert b"# TYPE" in answer.read()


def test_the_operator_is_the_charts_service_account_and_not_the_administrator(with_operator: RunningCluster) -> None:
    (option,) = [argument for argument in record(with_operator)["command"] if argument.startswith("--kubeconfig=")]
    kubeconfig = Path(option.removeprefix("--kubeconfig="))
    assert kubeconfig == with_operator.operator_kubeconfig
    operator = with_operator.client().as_user(kubeconfig)
    user = operator.json("auth", "whoami")["status"]["userInfo"]["username"]
    assert user == "system:serviceaccount:energylens-system:energylens"


def test_a_second_up_leaves_it_running_and_a_dead_one_is_started_again(with_operator: RunningCluster) -> None:
    assert devcluster.up(with_operator.directory).pids == with_operator.pids
    assert with_operator.operator_pid is not None
    os.kill(with_operator.operator_pid, signal.SIGKILL)
    eventually(lambda: start_identity(with_operator.pids["operator"]) is None)
    assert devcluster.status(with_operator.directory).all_up is False
    again = devcluster.up(with_operator.directory)
    assert again.started == {"operator"}


def test_no_operator_stops_it_and_says_so(with_operator: RunningCluster) -> None:
    left = devcluster.up(with_operator.directory, operator=False)
    assert (left.operator_pid, left.metrics_url) == (None, None)
    assert "operator" not in devcluster.status(with_operator.directory).pids
    assert devcluster.up(with_operator.directory).started == {"operator"}
