"""A cluster goes with its owner, however that ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from energylens_dev.devcluster import DevClusterError, eventually, guarded
from energylens_dev.devcluster.processes import Processes, start_identity
from energylens_dev.devcluster.state import StateDirectory

OWNER = """
import sys
from pathlib import Path
from energylens_dev.devcluster import guarded
with guarded(Path(sys.argv[1])):
    print("guarded", flush=True)
    sys.stdin.read()
"""


def cluster(directory: Path) -> int:
    """Return the process id of a cluster of one process."""
    files = StateDirectory(directory)
    record = Processes(files.records, files.logs).start("etcd", ("/bin/sleep", "600"), os.environ)
    assert start_identity(record.pid) == record.started
    return record.pid


def gone(pid: int) -> bool:
    return start_identity(pid) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_cluster_is_removed_when_its_owner_is_killed(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path / "cluster")]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"guarded\n"
        pid = cluster(tmp_path / "cluster")
        os.killpg(owner.pid, number)
    eventually(lambda: gone(pid) and not (tmp_path / "cluster").exists(), timeout=120)


def test_a_cluster_is_removed_at_the_end_of_the_block(tmp_path: Path) -> None:
    with guarded(tmp_path / "cluster"):
        pid = cluster(tmp_path / "cluster")
    assert gone(pid)
    assert not (tmp_path / "cluster").exists()


def test_a_cluster_that_never_was_or_has_gone_is_none_to_remove(tmp_path: Path) -> None:
    with guarded(tmp_path / "cluster"):
        pass
    assert not (tmp_path / "cluster").exists()


def test_a_cluster_that_cannot_be_removed_fails_the_block(tmp_path: Path) -> None:
    records = StateDirectory(tmp_path / "cluster").records
    records.mkdir(parents=True)
    (records / "etcd.json").write_text("{")
    with pytest.raises(DevClusterError, match="was not removed"), guarded(tmp_path / "cluster"):
        pass
