"""Processes are stopped by an id that is still theirs, and by nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from energylens_dev.devcluster import DevClusterError
from energylens_dev.devcluster.interrupts import Interrupted, deferred, raising
from energylens_dev.devcluster.processes import Processes, start_identity

SLEEP = ("/bin/sleep", "600")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    found = Processes(tmp_path / "run", tmp_path / "logs")
    yield found
    found.stop(["one", "two"], grace_seconds=5)


def test_a_started_process_is_found_and_stopped(processes: Processes, tmp_path: Path) -> None:
    record = processes.start("one", SLEEP, os.environ)
    assert processes.running("one") == record
    assert Processes(tmp_path / "run", tmp_path / "logs").running("one") == record
    assert os.getpgid(record.pid) == record.pid
    assert processes.stop(["one", "two"], grace_seconds=5) == ["one"]
    assert start_identity(record.pid) is None
    assert processes.stop(["one"], grace_seconds=5) == []


def test_an_id_that_another_process_has_got_is_never_signalled(processes: Processes, tmp_path: Path) -> None:
    stranger = subprocess.Popen(SLEEP)
    try:
        record = {"pid": stranger.pid, "started": "an earlier process", "command": ["/bin/sleep"]}
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "one.json").write_text(json.dumps(record))
        assert processes.running("one") is None
        assert processes.stop(["one"], grace_seconds=5) == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_an_id_that_changes_hands_while_stopping_is_not_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owners = iter(["ours", "ours", "ours", "theirs", "theirs", "theirs"])
    sent: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "killpg", lambda pid, number: sent.append((pid, number)))
    (tmp_path / "one.json").write_text(json.dumps({"pid": 4711, "started": "ours", "command": ["x"]}))
    found = Processes(tmp_path, tmp_path, identity=lambda pid: next(owners, "theirs"))
    assert found.stop(["one"], grace_seconds=0) == ["one"]
    assert sent == [(4711, signal.SIGTERM)]


def test_a_process_that_ignores_sigterm_is_killed(processes: Processes) -> None:
    code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    record = processes.start("one", (sys.executable, "-S", "-c", code), os.environ)
    while "ready" not in processes.log_tail("one"):
        os.sched_yield()
    assert processes.stop(["one"], grace_seconds=0.05) == ["one"]
    assert start_identity(record.pid) is None


def test_a_process_that_ended_is_not_running(processes: Processes) -> None:
    record = processes.start("one", ("/bin/sh", "-c", "echo said; echo more >&2"), os.environ)
    while start_identity(record.pid) is not None:
        os.sched_yield()
    assert processes.running("one") is None
    assert processes.log_tail("one") == "said\nmore"


def test_a_program_that_cannot_be_executed_is_named(processes: Processes) -> None:
    with pytest.raises(DevClusterError, match=r"cannot start one \(/no/such\): No such file or directory"):
        processes.start("one", ("/no/such",), os.environ)


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text("{}")
    with pytest.raises(DevClusterError, match=r"one\.json is damaged"):
        Processes(tmp_path, tmp_path).running("one")


def test_this_process_has_an_identity_and_a_free_id_has_none() -> None:
    assert start_identity(os.getpid()) == start_identity(os.getpid()) is not None
    child = subprocess.Popen(["/bin/true"])
    child.wait()
    assert start_identity(child.pid) is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_raised_as_an_interrupt(number: signal.Signals) -> None:
    # Under nohup the tests themselves start with SIGHUP ignored.
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(Interrupted) as caught, raising():
            signal.raise_signal(number)
    finally:
        signal.signal(number, before)
    assert caught.value.signal_number == number


def test_a_signal_waits_for_the_end_of_a_deferred_block() -> None:
    done: list[str] = []

    def steps() -> None:
        with deferred():
            signal.raise_signal(signal.SIGINT)
            done.append("block")
        done.append("after")

    with pytest.raises(Interrupted), raising():
        steps()
    assert done == ["block"]


def test_handlers_are_put_back_and_an_ignored_signal_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with raising():
            signal.raise_signal(signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
