"""Several operators, the leading one frozen or killed in the middle of its work: never do two of them write."""

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
THIRD = "energylens-third"
THIRD_ACCOUNT = f"system:serviceaccount:{SYSTEM}:{THIRD}"
ACCOUNTS = (ACCOUNT, SECOND_ACCOUNT, THIRD_ACCOUNT)
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


def binding(kind: str, role_kind: str, role: str, account: str) -> Object:
    """Return what gives a role to an account; it has the names of both."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": {"name": f"{role}-{account}"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": SYSTEM}],
    }


@contextmanager
def standby_account(alone: OperatorCluster, account: str, path: Path) -> Iterator[Path]:
    """A kubeconfig of an account with the rights of the operator's, so that the audit log tells the two apart."""
    inside = alone.api.within(SYSTEM)
    inside.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}})
    roles = ("energylens", "energylens-gpus")
    bindings = [binding("ClusterRoleBinding", "ClusterRole", role, account) for role in roles]
    bindings.append(binding("RoleBinding", "Role", "energylens-lease", account))
    inside.apply(bindings)
    token = eventually(lambda: inside.run("create", "token", account)).strip()
    config = yaml.safe_load(alone.cluster.operator_kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    write_kubeconfig(path, config)
    yield path
    inside.run("delete", "serviceaccount", account)
    for made in bindings:
        inside.run("delete", made["kind"].lower(), made["metadata"]["name"])


@pytest.fixture
def second(alone: OperatorCluster, tmp_path: Path) -> Iterator[Path]:
    with standby_account(alone, SECOND, tmp_path / "second.kubeconfig") as path:
        yield path


@pytest.fixture
def third(alone: OperatorCluster, tmp_path: Path) -> Iterator[Path]:
    with standby_account(alone, THIRD, tmp_path / "third.kubeconfig") as path:
        yield path


def writers(log: AuditLog) -> list[str]:
    """Return the account of each write of the operators, in the order in which they were made.

    Leases are left out, and a standby's questions about its rights, which are "created" but stored nowhere.
    """
    left_out = ("leases", "selfsubjectaccessreviews")
    written = [event for event in log.events() if event.is_write and event.resource not in left_out]
    return [event.user for event in written if event.user in ACCOUNTS]


def writes_more(log: AuditLog, account: str) -> None:
    """Wait until an account has written five more times."""
    before = writers(log).count(account)
    eventually(lambda: writers(log).count(account) >= before + 5)


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
            writes_more(log, SECOND_ACCOUNT)
        assert [account for account, _ in groupby(writers(log))] == [ACCOUNT, SECOND_ACCOUNT]
        # No edit of the meantime is lost.
        team.kubectl.apply([llmdeployment(name) for name in NAMES])
        for name in NAMES:
            team.ready(name)
        eventually(lambda: [len(team.pods(name)) for name in NAMES] == [2, 2, 2])


def test_of_three_operators_one_leads_while_leaders_are_killed(
    alone: OperatorCluster, team: Team, second: Path, third: Path
) -> None:
    """A kill gives no lease back: the standbys wait until it runs out, and one of them takes it."""
    log = alone.audit()
    kubeconfigs = {ACCOUNT: alone.cluster.operator_kubeconfig, SECOND_ACCOUNT: second, THIRD_ACCOUNT: third}
    with ExitStack() as stack:
        standing = []
        for account, kubeconfig in kubeconfigs.items():
            standing.append(stack.enter_context(contender(alone, kubeconfig, account, account.rpartition(":")[2])))
            if len(standing) == 1:
                eventually(lambda: standing[0].leads)
        order = []
        with edits(team):
            while standing:
                (leader,) = eventually(lambda: [each for each in standing if each.leads])
                order.append(leader.account)
                writes_more(log, leader.account)
                assert [each.leads for each in standing].count(True) == 1
                if len(standing) == 1:
                    break
                leader.send(signal.SIGKILL)
                assert leader.process.wait(timeout=GRACE_SECONDS) == -signal.SIGKILL
                standing.remove(leader)
        assert sorted(order) == sorted(ACCOUNTS)
        assert [account for account, _ in groupby(writers(log))] == order
        # No edit of the meantime is lost.
        team.kubectl.apply([llmdeployment(name) for name in NAMES])
        for name in NAMES:
            team.ready(name)
        eventually(lambda: [len(team.pods(name)) for name in NAMES] == [2, 2, 2])
