"""However far an operator has come, a signal ends it in order: with success, soon, and without the lease."""

from __future__ import annotations

import os
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from tests.support.operator_cluster import GRACE_SECONDS, OperatorCluster, Team, read_metric

from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.operators import operator_command
from energylens_dev.devcluster.ports import LOOPBACK, free_port

LEASE = ("lease", "energylens-operator")


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.mark.parametrize("moment", ["serving metrics", "leading", "ready"])
def test_a_signal_ends_an_operator_at_any_moment(alone: OperatorCluster, team: Team, moment: str) -> None:
    team.apply()
    port = free_port()
    base = f"http://{LOOPBACK}:{port}"
    config = alone.cluster.directory / "operator-settings.yaml"
    command = operator_command(alone.cluster.operator_kubeconfig, port, [f"--config={config}"])
    environment = {**os.environ, "POD_NAMESPACE": "energylens-system", "POD_NAME": f"ends-{moment.split()[0]}"}
    reached = {
        "serving metrics": lambda: answers(f"{base}/metrics"),
        "leading": lambda: answers(f"{base}/metrics") and read_metric(f"{base}/metrics", "energylens_leading") == 1.0,
        "ready": lambda: (
            answers(f"{base}/readyz")
            and answers(f"{base}/metrics")
            and read_metric(f"{base}/metrics", 'energylens_reconciles_total{result="ok"}') > 0
        ),
    }[moment]
    with subprocess.Popen(command, env=environment, stderr=sys.stderr) as process:
        try:
            eventually(reached, interval=0.02)
            process.terminate()
            assert process.wait(timeout=GRACE_SECONDS) == 0
        finally:
            process.kill()
    lease = alone.api.within("energylens-system").get(*LEASE)
    assert lease is not None
    assert lease["spec"].get("holderIdentity", "") == ""
