"""Pods of one Deployment of operators: processes with accounts of their own, which a test breaks and starts again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from tests.support.cut_network import Wire, wire
from tests.support.faulty_operator import SYSTEM
from tests.support.operator_cluster import ACCOUNT, ROOT, Object
from tests.support.operator_process import end, probe

from energylens_dev.devcluster import Kubectl, RunningCluster, eventually
from energylens_dev.devcluster.audit import WRITES, AuditLog
from energylens_dev.devcluster.kubeconfig import write_kubeconfig
from energylens_dev.devcluster.operators import operator_command, write_operator_kubeconfig
from energylens_dev.devcluster.ports import LOOPBACK, free_port

_ROLES = ("energylens", "energylens-gpus")
_LEASE_ROLE = "energylens-lease"


@dataclass
class OperatorPod:
    """One process, the account that the audit log knows it by, and its network."""

    name: str
    account: str
    command: Sequence[str]
    port: int
    network: Wire
    log: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def launch(self) -> None:
        """Start the process."""
        environment = {**os.environ, "POD_NAMESPACE": SYSTEM, "POD_NAME": self.name}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command, cwd=ROOT, env=environment, stdout=log, stderr=log)

    def ready(self) -> None:
        """Wait until it is ready: to act, or to take over."""
        eventually(lambda: self.probe("readyz") == "200 ok")

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        end(self.process)

    def probe(self, name: str) -> str:
        """Return what a probe says, such as ``200 ok``; "" while nothing answers."""
        return probe(self.port, name)


@contextmanager
def operator_pods(
    cluster: RunningCluster, folder: Path, count: int, settings: Mapping[str, Any]
) -> Iterator[list[OperatorPod]]:
    """Run operators on a cluster with the chart, and wait until each is ready."""
    config, admin = folder / "settings.yaml", cluster.client()
    config.write_text(yaml.safe_dump(dict(settings)))
    first = folder / "pod-0.kubeconfig"
    write_operator_kubeconfig(admin, first, _server(cluster), cluster.directory / "pki" / "ca.crt")
    server = urlsplit(_server(cluster))
    assert server.hostname is not None
    assert server.port is not None
    pods: list[OperatorPod] = []
    with ExitStack() as stack:
        for number in range(count):
            name = f"pod-{number}"
            account = ACCOUNT if number == 0 else stack.enter_context(_account(admin, f"energylens-{name}"))
            network = stack.enter_context(wire((server.hostname, server.port)))
            path, port = folder / f"{name}.kubeconfig", free_port()
            access = yaml.safe_load(first.read_text())
            access["clusters"][0]["cluster"]["server"] = f"https://{LOOPBACK}:{network.port}"
            if number:
                token = admin.within(SYSTEM).run("create", "token", account.rpartition(":")[2]).strip()
                access["users"][0]["user"] = {"token": token}
            write_kubeconfig(path, access)
            command = operator_command(path, port, [f"--config={config}"])
            pod = OperatorPod(name, account, command, port, network, folder / f"{name}.log")
            pod.launch()
            stack.callback(pod.stop)
            stack.callback(network.mend)
            pods.append(pod)
        for pod in pods:
            pod.ready()
        yield pods


def _server(cluster: RunningCluster) -> str:
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    return str(config["clusters"][0]["cluster"]["server"])


@contextmanager
def _account(admin: Kubectl, name: str) -> Iterator[str]:
    """Make an account with the operator's rights, so that the audit log tells the two apart; give its user name."""
    inside = admin.within(SYSTEM)
    inside.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    bindings = [_binding("ClusterRoleBinding", "ClusterRole", role, name) for role in _ROLES]
    bindings.append(_binding("RoleBinding", "Role", _LEASE_ROLE, name))
    inside.apply(bindings)
    try:
        yield f"system:serviceaccount:{SYSTEM}:{name}"
    finally:
        inside.run("delete", "serviceaccount", name)
        for made in bindings:
            inside.run("delete", made["kind"].lower(), made["metadata"]["name"])


def _binding(kind: str, role_kind: str, role: str, account: str) -> Object:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": f"{role}-{account}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}],
    }


def writers(log: AuditLog, pods: Sequence[OperatorPod]) -> list[str]:
    """Return the pod of each write of the operators that reached the API server, in the order of its answers.

    Refused writes are among them: it is chance whether a late write of a former leader is refused. Leases are left out,
    and a standby's questions about its rights, which are "created" but stored nowhere.
    """
    left_out = ("leases", "selfsubjectaccessreviews")
    names = {pod.account: pod.name for pod in pods}
    asked = [event for event in log.events() if event.verb in WRITES and event.resource not in left_out]
    return [names[event.user] for event in asked if event.user in names]
