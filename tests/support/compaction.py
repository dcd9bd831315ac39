"""An API server that has lost the history of its objects: etcd compacted it, and the watch cache begins anew."""

from __future__ import annotations

import base64
import json
import os
import signal
import urllib.request
from typing import Any

from energylens_dev import devcluster
from energylens_dev.devcluster import RunningCluster, eventually
from energylens_dev.devcluster.commands import API_SERVER, ETCD
from energylens_dev.devcluster.health import client_context
from energylens_dev.devcluster.ports import LOOPBACK, is_free
from energylens_dev.devcluster.processes import start_identity
from energylens_dev.devcluster.state import StateDirectory


def compact(cluster: RunningCluster) -> None:
    """Compact the history of etcd up to now, and restart the API server, whose watch cache then begins there.

    The API server is killed. After SIGTERM, it would wait a minute for open watches; meanwhile no node could renew its
    lease, so the node lifecycle controller would mark the pods unready, and kwok does not make them ready again.
    """
    pki, ports = cluster.directory / "pki", StateDirectory(cluster.directory).load().ports
    context = client_context(pki / "ca.crt", pki / "etcd.crt", pki / "etcd.key")

    def etcd(path: str, body: dict[str, Any]) -> dict[str, Any]:
        request = urllib.request.Request(f"https://{LOOPBACK}:{ports[ETCD]}/v3/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    key = base64.b64encode(b"/").decode()
    revision = etcd("kv/range", {"key": key})["header"]["revision"]
    etcd("kv/compaction", {"revision": revision, "physical": True})
    pid = cluster.pids[API_SERVER]
    os.kill(pid, signal.SIGKILL)
    # The kernel may close the socket after the first thread has ended; the server would start on another port.
    eventually(lambda: start_identity(pid) is None and is_free(ports[API_SERVER]))
    devcluster.up(cluster.directory, operator=False)
