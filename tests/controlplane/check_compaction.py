"""A watch that begins before what etcd still has (`make faults`); the API server is started again for it."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.request
from typing import Any

from tests.controlplane.test_operator_connection import faulty as faulty
from tests.controlplane.test_operator_connection import of, runs
from tests.controlplane.test_operator_connection import place as place
from tests.support.faulty_operator import FaultyOperator
from tests.support.faulty_proxy import Hold
from tests.support.operator_cluster import llmdeployment
from tests.support.spaces import Space, replicas

from energylens.cluster.resources import LLM_DEPLOYMENT
from energylens_dev import devcluster
from energylens_dev.devcluster import RunningCluster, eventually
from energylens_dev.devcluster.commands import API_SERVER, ETCD
from energylens_dev.devcluster.health import client_context
from energylens_dev.devcluster.ports import LOOPBACK
from energylens_dev.devcluster.processes import start_identity
from energylens_dev.devcluster.state import StateDirectory


def compact(cluster: RunningCluster) -> None:
    """Drop the history of etcd up to now, and start the API server, whose own history begins there, again."""
    pki, port = cluster.directory / "pki", StateDirectory(cluster.directory).load().ports[ETCD]
    context = client_context(pki / "ca.crt", pki / "etcd.crt", pki / "etcd.key")

    def etcd(path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"https://{LOOPBACK}:{port}/v3/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    key = base64.b64encode(b"/").decode()
    revision = etcd("kv/range", {"key": key})["header"]["revision"]
    etcd("kv/compaction", {"revision": revision, "physical": True})
    pid = cluster.pids[API_SERVER]
    os.kill(pid, signal.SIGTERM)
    eventually(lambda: start_identity(pid) is None)
    devcluster.up(cluster.directory, operator=False)


def test_changes_that_a_compaction_took_out_of_the_history_are_found(
    chart: RunningCluster, faulty: FaultyOperator, place: Space
) -> None:
    starts = faulty.starts
    held = Hold(of(LLM_DEPLOYMENT.plural))
    faulty.proxy.faults.append(held)
    try:
        faulty.proxy.cut_watches()
        eventually(lambda: held.fired)
        place.apply(llmdeployment(planning=replicas(2)))
        faulty.proxy.statuses.clear()
        compact(chart)
    finally:
        faulty.proxy.release(held)
    eventually(lambda: faulty.proxy.statuses[410] > 0)
    runs(place, 2)
    assert faulty.starts == starts, "only a new process could go on"
