"""Lanes of commands: whose output is whose, what runs after a failure, and when the whole has failed."""

from __future__ import annotations

import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tools.side_by_side import REPEATED_LINES, Lanes

PROGRAM = Path(__file__).resolve().parents[3] / "tools" / "side_by_side.py"


def python(code: str) -> str:
    """Return the command line of a program."""
    return shlex.join([sys.executable, "-S", "-c", code])


def run(*lanes: tuple[str, list[str]]) -> tuple[int, list[str]]:
    output = io.StringIO()
    code = Lanes(lanes, output).run()
    return code, output.getvalue().splitlines()


def test_every_line_says_its_lane_and_the_lanes_run_at_the_same_time(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    # Opening a named pipe waits for the other side.
    code, lines = run(
        ("a", [python(f"open({str(tmp_path / 'pipe')!r}, 'w'); print('written')")]),
        ("long", [python(f"open({str(tmp_path / 'pipe')!r}); import sys; print('read', file=sys.stderr)")]),
    )
    assert code == 0
    assert {"a    | written", "long | read"} < set(lines)
    assert [line.split(" in ")[0] for line in lines[-2:]] == ["a    | passed", "long | passed"]


@pytest.mark.parametrize("code", ["raise SystemExit(3)", "import os; os.kill(os.getpid(), 9)"])
def test_a_failure_stops_nothing_and_fails_the_whole(code: str) -> None:
    ended, lines = run(("checks", [python(code), python("print('later')")]), ("cluster", [python("print('beside')")]))
    assert ended == 1
    assert {"checks  | later", "cluster | beside"} < set(lines)
    failed, later, beside = lines[-3:]
    assert failed.startswith(f"checks  | exit code {3 if '3' in code else -9} in ")
    assert later.startswith("checks  | passed in ")
    assert beside.startswith("cluster | passed in ")


def test_the_end_of_the_output_of_a_failure_is_repeated() -> None:
    many = REPEATED_LINES + 5
    _, lines = run(("checks", [python(f"[print(n) for n in range({many})]; raise SystemExit(1)")]))
    (start,) = [number for number, line in enumerate(lines) if line.startswith("The end of the output of checks: ")]
    assert lines[start + 1 : start + 1 + REPEATED_LINES] == [str(number) for number in range(5, many)]


def test_the_last_line_of_each_that_passed_is_repeated_alone() -> None:
    _, lines = run(("checks", [python("print('first'); print('7 passed in 2s')")]), ("cluster", [python("pass")]))
    assert lines.count("7 passed in 2s") == 1
    assert "first" not in lines


def test_a_program_that_is_not_there_fails_by_name() -> None:
    code, lines = run(("checks", ["no-such-program --now", python("print('later')")]))
    assert code == 1
    assert any("no-such-program" in line and "No such file" in line for line in lines)
    assert "checks | later" in lines


def test_a_signal_ends_the_commands_and_starts_no_others() -> None:
    waits = python("import time; print('waits', flush=True); time.sleep(60)")
    command = [sys.executable, str(PROGRAM), "--lane", "checks", waits, python("print('later')")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "checks | waits\n":
            pass
        process.send_signal(signal.SIGTERM)
        said = process.stdout.read()
        assert process.wait() == 1
    assert "| later" not in said
    assert "exit code -15 in" in said
    assert "not run in 0 s" in said
