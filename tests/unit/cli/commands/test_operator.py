"""`energylens operator` says in one line why it cannot start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from energylens.cli.commands.operator import operator

KUBECONFIG = """\
apiVersion: v1
kind: Config
current-context: here
contexts: [{name: here, context: {cluster: here, user: me}}]
clusters: [{name: here, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: me, user: {token: secret}}]
"""


def run(*arguments: str) -> Result:
    return CliRunner().invoke(operator, list(arguments))


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    assert [word for word in words if word not in line] == []


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG)
    return path


@pytest.mark.parametrize("text", ["", "{a: [", "kind: Config\ncurrent-context: nowhere\n"])
def test_a_kubeconfig_that_cannot_be_used_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    refused(run(f"--kubeconfig={path}"), f"--kubeconfig={path}")


def test_without_a_pod_a_kubeconfig_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    refused(run(), "--kubeconfig")


def test_settings_that_cannot_be_used_are_refused(kubeconfig: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text("workers: none")
    refused(run(f"--kubeconfig={kubeconfig}", f"--config={settings}"), str(settings), "workers='none'")


def test_a_port_that_is_taken_is_refused(kubeconfig: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused(run(f"--kubeconfig={kubeconfig}", f"--metrics-port={port}"), f"--metrics-port={port}", "in use")
