"""Files that are no files, streams that are closed, clusters out of reach: one line that says so, and exit code 2."""

from __future__ import annotations

import errno
import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import aiohttp
import click
import pytest
from click.testing import CliRunner
from tests.unit.api.objects import DEPLOYMENT, changed

from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.cli.ending import TRACEBACK_VARIABLE, run_to_end
from energylens.cli.errors import InputError
from energylens.cli.inputs import files
from energylens.cli.inputs.files import read_documents, read_text
from energylens.cli.main import cli
from energylens.cluster.answers import failure_text
from energylens.cluster.errors import ForbiddenError, UnauthorizedError, error_for
from energylens.cluster.kubeconfig import UnusableConfigError, check_kubeconfig, told_failures
from energylens.documents import DocumentError, json_document, yaml_documents

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
)
BAD: dict[str, tuple[bytes, str]] = {
    "binary": (b"\xff\xfe\x00", "not UTF-8 at byte 0"),
    "twice": (b"spec:\n  slo: {}\n  slo: {}\n", "line 3: key 'slo' appears twice, first in line 2"),
    "twice in json": (b'{"spec": 1,\n"spec": 2}', "line 2: key 'spec' appears twice, first in line 1"),
    "twice in a list": (b"- a: 1\n- {b: 1, c: 2, b: 3}\n", "line 2: key 'b' appears twice"),
    "endless": (b"a: &a [*a]\n", "an alias refers to a list or mapping that contains the alias"),
    "bomb": (BOMB.encode(), "its aliases expand to more than 20,000,000 values"),
    "tag": (b"!!python/object/apply:os.system [ls]\n", "not YAML: could not determine a constructor"),
    "deep": (b"[" * 5000, "not YAML"),
    "control character": (b"a: \0", "not YAML"),
}


@pytest.mark.parametrize("text", ["2026-11-28T07:00:00Z", "2026-11-28", "2026-13-45"])
def test_an_unquoted_time_is_text_as_for_kubectl(text: str) -> None:
    assert yaml_documents(f"completeBy: {text}\n{text}: a\n") == [{"completeBy": text, text: "a"}]


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_read_is_named_with_the_reason(name: str, tmp_path: Path) -> None:
    content, reason = BAD[name]
    path = tmp_path / "asked.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError) as raised:
        read_documents(path)
    assert str(raised.value).startswith(f"{path}: {reason}")
    assert "\n" not in str(raised.value)


COMMANDS: dict[str, Callable[[str, str], list[str]]] = {
    "plan -f": lambda bad, good: ["plan", "-f", bad, "--inventory", good],
    "plan --inventory": lambda bad, good: ["plan", "-f", good, "--inventory", bad],
    "explain": lambda bad, good: ["explain", "-f", bad, "--inventory", good],
    "fleet": lambda bad, good: ["fleet", "-f", bad, "--inventory", good],
    "diff": lambda bad, good: ["diff", bad, bad, "--inventory", good],
    "predict": lambda bad, good: ["predict", "--runs", bad, "--out", "/dev/null"],
    "accuracy": lambda bad, good: ["accuracy", "--runs", bad],
    "calibrate": lambda bad, good: ["calibrate", "fit", "--runs", bad, "--out", "/dev/null"],
    "coefficients": lambda bad, good: ["--coefficients", bad, "plan", "-f", good],
    "operator": lambda bad, good: ["operator", "--config", bad],
    "status": lambda bad, good: ["status", "--kubeconfig", bad],
    "budget": lambda bad, good: ["budget", "--kubeconfig", bad],
    "drift": lambda bad, good: ["drift", "--kubeconfig", bad],
}


@pytest.mark.parametrize("kind", ["binary", "twice", "endless", "a folder", "missing", "beneath a file"])
@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_in_one_line_what_is_wrong_with_a_file(name: str, kind: str, tmp_path: Path) -> None:
    good, bad = Path("examples/llama-3.1-70b.yaml").absolute(), tmp_path / "bad.yaml"
    if kind == "a folder":
        bad.mkdir()
    elif kind == "beneath a file":
        bad = good / "bad.yaml"
    elif kind != "missing":
        bad.write_bytes(BAD[kind][0])
    found = CliRunner().invoke(cli, COMMANDS[name](str(bad), str(good)))
    assert isinstance(found.exception, SystemExit), found.exception
    assert found.exit_code == 2
    (line,) = found.stderr.splitlines()
    assert line.startswith("Error: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--price", "x"], "Invalid value for '--price': 'x' must be a number of at least 0"),
        (["plan", "--price", "-1"], "Invalid value for '--price': -1.0 must be a number of at least 0"),
        (["plan", "--pue", "9"], "Invalid value for '--pue': 9.0 must be a number from 1 to 5"),
        (
            ["accuracy", "--after-windows", "1.5"],
            "Invalid value for '--after-windows': '1.5' must be a whole number from 1 to 20",
        ),
        (["plan", "--price"], "Option '--price' requires an argument."),
        (["--coefficients", "/nope.json", "plan"], "--coefficients: /nope.json: No such file or directory"),
    ],
)
def test_a_wrong_value_of_an_option_takes_one_line_that_says_what_is_allowed(
    arguments: list[str], message: str
) -> None:
    found = CliRunner().invoke(cli, arguments)
    assert (found.exit_code, found.stdout, found.stderr) == (2, "", f"Error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "beginning", "command"),
    [
        (["plna"], "No such command 'plna'", "energylens"),
        (["plan", "--nope"], "No such option", "energylens plan"),
        (["calibrate", "fit"], "Missing option '--out'", "energylens calibrate fit"),
    ],
)
def test_a_wrong_call_takes_one_line_that_names_the_help(arguments: list[str], beginning: str, command: str) -> None:
    found = CliRunner().invoke(cli, arguments, prog_name="energylens")
    assert (found.exit_code, found.stdout) == (2, "")
    (line,) = found.stderr.splitlines()
    assert line.startswith(f"Error: {beginning}")
    assert line.endswith(f"; see `{command} --help`")


def test_what_is_piped_in_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match=r"^-: standard input is closed$"):
        read_text(Path("-"))


def test_a_file_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_MOST_BYTES", 2**20)
    with pytest.raises(InputError, match=r"^/dev/zero: larger than 1 MiB$"):
        read_text(Path("/dev/zero"))


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert json_document(read_text(path)) == {"a": 1}


def test_aliases_that_stand_for_little_are_read() -> None:
    assert yaml_documents("a: &a {b: 1}\nc: [*a, *a]\nd: {<<: *a, e: 2}\n") == [
        {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}], "d": {"b": 1, "e": 2}}
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": {"b": 1, "b": 2}}', "key 'b' appears twice"),
        ('{"a": NaN}', "not JSON: NaN is not a number"),
        ("", "not JSON: Expecting value"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_is_read_without_guessing(text: str, reason: str) -> None:
    with pytest.raises(DocumentError) as raised:
        json_document(text)
    assert str(raised.value).startswith(reason)


# How a command ends


class Full(io.StringIO):
    """A stream on a full disk, or a pipe that nobody reads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def flush(self) -> None:
        raise OSError(self.number, "No space left on device")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(errno.ENOSPC, 2, "Error: cannot write the output: No space left on device\n"), (errno.EPIPE, 1, "")],
)
def test_output_that_cannot_be_written_is_told_and_a_closed_pipe_is_not(
    number: int, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", Full(number))
    assert run_to_end(lambda: None) == code
    assert capsys.readouterr().err == said


def test_output_that_is_closed_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert run_to_end(lambda: None) == 2
    assert "standard output is closed" in capsys.readouterr().err


@pytest.mark.parametrize(("code", "found"), [(None, 0), (0, 0), (3, 3), ("no", 1)])
def test_exit_codes_are_kept(code: Any, found: int) -> None:
    def ends() -> NoReturn:
        raise SystemExit(code)

    assert run_to_end(ends) == found


@pytest.mark.parametrize("wanted", [True, False])
def test_a_defect_is_one_line_to_report(
    wanted: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(TRACEBACK_VARIABLE, "1" if wanted else "")

    @click.command()
    def broken() -> None:
        read_documents(None)  # type: ignore[arg-type]

    assert run_to_end(lambda: broken(args=[])) == 1
    error = capsys.readouterr().err
    assert ("Traceback" in error) == wanted
    last = error.splitlines()[-1]
    assert last.startswith("Error: internal error, please report it: AttributeError: ")
    assert "(in energylens.cli.inputs.files._bytes)" in last


# Kubeconfigs and answers

WHOLE = """
current-context: a
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: a, context: {cluster: c, user: u}}, {name: b, context: {cluster: d, user: u}}]
users: [{name: u, user: {token: x}}]
"""
PLUGIN = "exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin, installHint: 'Get\\n  it'}"


@pytest.mark.parametrize(
    ("old", "new", "context", "reason"),
    [
        ("current-context: a\n", "", None, "no current-context is set; name one by --context: its contexts are a, b"),
        ("current-context: a", "current-context: z", None, "there is no context 'z'; its contexts are a, b"),
        ("", "", "y", "there is no context 'y'; its contexts are a, b"),
        ("", "", "b", "context 'b' names cluster 'd'; its clusters are c"),
        ("name: u, user", "name: v, user", None, "context 'a' names user 'u'; its users are v"),
        (WHOLE, "", None, "empty, not a kubeconfig"),
        (WHOLE, "- 1", None, "not a kubeconfig"),
        (WHOLE, "a: 1\na: 2", None, "line 2: key 'a' appears twice, first in line 1"),
        (WHOLE, "current-context: a", None, "there is no context 'a'; it has no context"),
    ],
)  # fmt: skip
def test_a_kubeconfig_says_what_it_lacks(old: str, new: str, context: str | None, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(WHOLE.replace(old, new, 1))
    with pytest.raises(UnusableConfigError) as raised:
        check_kubeconfig(path, context)
    assert str(raised.value) == f"--kubeconfig={path}: {reason}"


def test_a_plugin_that_is_not_installed_is_named_with_its_hint(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(WHOLE.replace("token: x", PLUGIN))
    with pytest.raises(UnusableConfigError, match=r"user 'u' logs in by the program 'no-such-plugin', which is not in"):
        check_kubeconfig(path)


def test_a_plugin_beside_the_kubeconfig_is_found(tmp_path: Path) -> None:
    plugin, path = tmp_path / "plugin", tmp_path / "config"
    plugin.touch(mode=0o755)
    path.write_text(WHOLE.replace("token: x", PLUGIN.replace("no-such-plugin", "./plugin")))
    check_kubeconfig(path)


def test_the_files_of_the_environment_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    monkeypatch.setenv("KUBECONFIG", f"{one}:{other}")
    with pytest.raises(UnusableConfigError, match=r"\(\$KUBECONFIG: .*one, .*other\): there is no such file; name one"):
        check_kubeconfig(None)
    one.write_text("current-context: a\nclusters: [{name: c, cluster: {}}]")
    other.write_text("contexts: [{name: a, context: {cluster: c}}]")
    check_kubeconfig(None)


ASKED = str(Path(__file__).resolve().parents[3] / "examples" / "llama-3.1-70b.yaml")


@pytest.mark.parametrize(
    ("command", "ending"),
    [
        (("plan", "-f", ASKED), ", or describe a cluster by --inventory FILE"),
        (("explain", "-f", ASKED), ", or describe a cluster by --inventory FILE"),
        (("fleet", "-f", ASKED), ", or describe a cluster by --inventory FILE"),
        (("status",), ""),
    ],
)
def test_without_a_kubeconfig_the_other_sources_are_named(
    command: tuple[str, ...], ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 2
    assert result.stderr.endswith(f": there is no such file; name one by --kubeconfig or in $KUBECONFIG{ending}\n")


def test_what_the_client_only_logs_is_kept() -> None:
    import logging

    with told_failures() as told:
        logging.getLogger().error("exec: process\nreturned 1")
        logging.getLogger().info("no failure")
    assert told == ["exec: process returned 1"]


def test_who_is_not_known_is_not_who_may_not() -> None:
    assert isinstance(error_for(401, "Unauthorized", {}), UnauthorizedError)
    forbidden = error_for(403, "forbidden", {})
    assert isinstance(forbidden, ForbiddenError)
    assert not isinstance(forbidden, UnauthorizedError)


class Key:
    host, port, ssl, is_ssl = "api.example", 6443, True, True


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (TimeoutError(), "no answer within 15 s"),
        (
            aiohttp.ClientConnectorError(Key(), OSError(errno.ECONNREFUSED, "Connect call failed ('::1', 6443)")),  # type: ignore[arg-type]
            "cannot connect to api.example:6443: Connection refused",
        ),
        (aiohttp.ServerDisconnectedError(), "the server closed the connection"),
        (ConnectionResetError(), "the connection broke"),
    ],
)
def test_a_server_out_of_reach_is_told_in_words(error: Exception, words: str) -> None:
    assert failure_text(error) == words


# Values with units


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("30ms", "30"),
        ("2s", "2000"),
        ("30", "30"),
        (" 45 ms ", "45"),
        ("0.5s", "500"),
        ("1.5 min", "90000"),
        (30.0, "30"),
    ],
)
def test_a_whole_number_with_a_unit_is_offered_without(value: object, text: str) -> None:
    with pytest.raises(InvalidResourceError, match=rf"itlMilliseconds: .* must be a whole number: write {text}$"):
        parse_llmdeployment(changed(DEPLOYMENT, {"spec.slo.itlMilliseconds": value}), strict=True)


@pytest.mark.parametrize("value", ["fast", "30 furlongs", True, "0.5ms", 30.5, "-3ms"])
def test_what_is_no_plain_number_is_not_guessed(value: object) -> None:
    with pytest.raises(InvalidResourceError, match=r"must be a whole number$"):
        parse_llmdeployment(changed(DEPLOYMENT, {"spec.slo.itlMilliseconds": value}), strict=True)
