"""`energylens dev up`, `status` and `down` as a user runs them, on a cluster of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from energylens_dev import devcluster
from energylens_dev.devcluster import eventually
from energylens_dev.devcluster.processes import start_identity

PROCESSES = {"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"}
UP = ("up", "--no-chart", "--no-operator", "--fast-pods")


def dev(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "energylens", "dev", *arguments, f"--dir={directory}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)


def last_line(answer: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert answer.returncode in (0, 1), answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


def commands_naming(directory: Path) -> list[str]:
    """Return the command line of every process on the machine that names a directory."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        # An ended process that nobody has reaped yet has an empty command line.
        if f"{directory}/" in command:
            found.append(command)
    return found


def pids(directory: Path) -> dict[str, int]:
    return devcluster.status(directory).pids


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("lifecycle") / "cluster"
    yield path
    devcluster.down(path, purge=True)


@pytest.fixture
def running(directory: Path) -> dict[str, int]:
    """Return the process ids of a cluster that is up."""
    answer = dev(directory, *UP)
    assert answer.returncode == 0, answer.stderr
    return pids(directory)


def test_up_starts_everything_and_says_where_it_is(directory: Path) -> None:
    answer = last_line(dev(directory, *UP, "--json"))
    assert set(answer) == {"kubeconfig", "kubectl", "helm", "operatorPid", "metricsUrl"}
    assert (answer["operatorPid"], answer["metricsUrl"]) == (None, None)
    listed = subprocess.run(
        [answer["kubectl"], "--kubeconfig", answer["kubeconfig"], "get", "nodes", "-o", "name"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert len(listed.stdout.split()) == 9
    assert set(pids(directory)) == PROCESSES
    assert Path(answer["kubeconfig"]).stat().st_mode & 0o077 == 0


def test_up_again_starts_nothing(directory: Path, running: dict[str, int]) -> None:
    answer = dev(directory, "up", "--no-chart", "--no-operator")
    assert answer.returncode == 0
    assert answer.stderr == ""
    assert pids(directory) == running


@pytest.mark.parametrize("victim", sorted(PROCESSES))
def test_up_restarts_only_what_died(directory: Path, running: dict[str, int], victim: str) -> None:
    os.kill(running[victim], signal.SIGKILL)
    eventually(lambda: start_identity(running[victim]) is None)
    shown = last_line(dev(directory, "status", "--json"))
    assert not shown["up"]
    assert shown["processes"][victim] is None

    assert dev(directory, *UP).returncode == 0
    now = pids(directory)
    assert {name for name in PROCESSES if now[name] != running[name]} == {victim}
    assert dev(directory, "status").returncode == 0


def test_other_pod_stages_restart_only_kwok_and_are_kept(directory: Path, running: dict[str, int]) -> None:
    assert dev(directory, "up", "--no-chart", "--no-operator", "--life-like").returncode == 0
    changed = pids(directory)
    assert {name for name in PROCESSES if changed[name] != running[name]} == {"kwok"}
    assert dev(directory, "up", "--no-chart", "--no-operator").returncode == 0
    assert pids(directory) == changed


def test_another_set_of_nodes_replaces_the_old_one(directory: Path, running: dict[str, int], tmp_path: Path) -> None:
    nodes = tmp_path / "nodes.yaml"
    nodes.write_text("- {product: NVIDIA-L40S, count: 3, gpus: 4}\n")
    assert dev(directory, *UP, f"--nodes={nodes}").returncode == 0
    cluster = devcluster.running(directory)
    assert cluster is not None
    names = [node["metadata"]["name"] for node in cluster.client().list("nodes")]
    assert names == ["cpu-0", "l40s-x4-0", "l40s-x4-1", "l40s-x4-2"]
    assert pids(directory) == running


def test_objects_outlive_down_and_up(directory: Path, running: dict[str, int]) -> None:
    del running
    cluster = devcluster.running(directory)
    assert cluster is not None
    cluster.client().run("create", "configmap", "kept")
    assert dev(directory, "down").returncode == 0
    assert dev(directory, *UP).returncode == 0
    assert cluster.client().get("configmap", "kept") is not None


def test_down_leaves_no_process_and_may_be_repeated(directory: Path, running: dict[str, int]) -> None:
    assert dev(directory, "down").returncode == 0
    assert [name for name, pid in running.items() if start_identity(pid) is not None] == []
    assert commands_naming(directory) == []
    assert dev(directory, "status").returncode == 1
    again = dev(directory, "down", "--purge")
    assert (again.returncode, again.stdout) == (0, "nothing was running\n")
    assert not directory.exists()


@pytest.mark.parametrize(
    ("number", "reached"),
    [
        (signal.SIGINT, "etcd"),
        (signal.SIGTERM, "kube-apiserver"),
        (signal.SIGINT, "kwok"),
        (signal.SIGHUP, "operator"),
    ],
)
def test_an_interrupted_up_leaves_no_process(tmp_path: Path, number: signal.Signals, reached: str) -> None:
    directory = tmp_path / "cluster"
    command = [sys.executable, "-m", "energylens", "dev", "up", f"--dir={directory}"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        # A run in the background may have the signal ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as process:  # fmt: skip
        eventually((directory / "run" / f"{reached}.json").exists, interval=0.01)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert pids(directory) == {}
    assert commands_naming(directory) == []
