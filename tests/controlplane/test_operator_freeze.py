"""Two operators, the leading one frozen in the middle of its work and thawed: never do both of them write."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import pytest
import yaml
from tests.support.operator_cluster import (
    ACCOUNT,
    GRACE_SECONDS,
    Object,
    OperatorCluster,
    Team,
    layout,
    llmdeployment,
    read_metric,
)

from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.audit import AuditLog
from energylens_dev.devcluster.kubeconfig import write_kubeconfig
from energylens_dev.devcluster.operators import metrics_url, operator_command
from energylens_dev.devcluster.ports import free_port

SYSTEM = "energylens-system"
SECOND = "energylens-second"
SECOND_ACCOUNT = f"system:serviceaccount:{SYSTEM}:{SECOND}"
NAMES = ("one", "two", "three")


@dataclass
class Contender:
    """An operator as a process of its own, with the account that the audit log knows it by."""

    process: subprocess.Popen[bytes]
    url: str
    account: str

    @property
    def leads(self) -> bool:
        try:
            return read_metric(self.url, "energylens_leading") == 1.0
        except OSError:
            return False

    def send(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@contextmanager
def contender(operator: OperatorCluster, kubeconfig: Path, account: str, name: str) -> Iterator[Contender]:
    port = free_port()
    command = operator_command(kubeconfig, port, [f"--config={operator.cluster.directory / 'operator-settings.yaml'}"])
    environment = {**os.environ, "POD_NAMESPACE": SYSTEM, "POD_NAME": name}
    with subprocess.Popen(command, env=environment, stderr=sys.stderr) as process:
        try:
            yield Contender(process, metrics_url(port), account)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
            try:
                process.wait(timeout=GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def binding(kind: str, role_kind: str, role: str) -> Object:
    """Return what gives a role to the second account; it has the role's name and one more part."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": f"{role}-second"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": SECOND, "namespace": SYSTEM}],
    }


@pytest.fixture
def second(alone: OperatorCluster, tmp_path: Path) -> Iterator[Path]:
    """A kubeconfig of another account with the rights of the operator's, so that the audit log tells the two apart."""
    inside = alone.api.within(SYSTEM)
    inside.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SECOND}})
    bindings = [binding("ClusterRoleBinding", "ClusterRole", role) for role in ("energylens", "energylens-gpus")]
    bindings.append(binding("RoleBinding", "Role", "energylens-lease"))
    inside.apply(bindings)
    token = eventually(lambda: inside.run("create", "token", SECOND)).strip()
    config = yaml.safe_load(alone.cluster.operator_kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "second.kubeconfig"
    write_kubeconfig(path, config)
    yield path
    inside.run("delete", "serviceaccount", SECOND)
    for made in bindings:
        inside.run("delete", made["kind"].lower(), made["metadata"]["name"])


def writers(log: AuditLog) -> list[str]:
    """Return the account of each write of the two, leases left out, in the order in which they were carried out."""
    return [
        e.user for e in log.events() if e.is_write and e.user in (ACCOUNT, SECOND_ACCOUNT) and e.resource != "leases"
    ]


@contextmanager
def edits(team: Team) -> Iterator[None]:
    """Change what is asked for all the time, so that the leader is frozen in the middle of its work."""
    stop = threading.Event()

    def edit() -> None:
        replicas = 1
        while not stop.wait(0.2):
            replicas = 3 - replicas
            team.kubectl.apply([llmdeployment(name, planning=layout(replicas=replicas)) for name in NAMES])

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_frozen_leader_that_is_thawed_writes_nothing(alone: OperatorCluster, team: Team, second: Path) -> None:
    first = alone.cluster.operator_kubeconfig
    log = alone.audit()
    with ExitStack() as stack:
        leader = stack.enter_context(contender(alone, first, ACCOUNT, "first"))
        eventually(lambda: leader.leads)
        other = stack.enter_context(contender(alone, second, SECOND_ACCOUNT, "second"))
        with edits(team):
            eventually(lambda: writers(log).count(ACCOUNT) >= 10)
            leader.send(signal.SIGSTOP)
            eventually(lambda: other.leads)
            eventually(lambda: writers(log).count(SECOND_ACCOUNT) >= 10)
            leader.send(signal.SIGCONT)
            # It finds out that its lease is gone, and ends at once.
            assert leader.process.wait(timeout=GRACE_SECONDS) == 1
            before = writers(log).count(SECOND_ACCOUNT)
            eventually(lambda: writers(log).count(SECOND_ACCOUNT) >= before + 5)
        assert [account for account, _ in groupby(writers(log))] == [ACCOUNT, SECOND_ACCOUNT]
        # No edit of the meantime is lost.
        team.kubectl.apply([llmdeployment(name) for name in NAMES])
        for name in NAMES:
            team.ready(name)
        eventually(lambda: [len(team.pods(name)) for name in NAMES] == [2, 2, 2])
