"""Where programs are looked for, and what an interrupted build leaves behind. Programs are shell scripts here."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from energylens_dev.devcluster import DevClusterError, Progress
from energylens_dev.devcluster.binaries import Binaries, Module, cache_root, repository_root
from energylens_dev.devcluster.components import COMPONENTS
from energylens_dev.devcluster.processes import start_identity
from energylens_dev.devcluster.stages import STAGE_FOLDERS

ROOT = repository_root()


class Recorder(Progress):
    """Keeps the lines, and may interrupt a step."""

    def __init__(self, on_tick: Callable[[], None] = lambda: None) -> None:
        self.lines: list[str] = []
        self._on_tick = on_tick

    def say(self, line: str) -> None:
        self.lines.append(line)

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[], None]]:
        self.lines.append(what)
        yield self._on_tick


def script(folder: Path, name: str, body: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    return {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": "/nowhere"}


def cached(environ: dict[str, str], module: str) -> Path:
    return Module.load(module, ROOT, cache_root(environ)).cache


def find(environ: dict[str, str], name: str) -> Path | None:
    return Binaries(Progress(), environ, ROOT).find(COMPONENTS[name])


def test_kubebuilder_assets_come_first(tmp_path: Path, environ: dict[str, str]) -> None:
    asset = script(tmp_path / "assets", "etcd", "echo etcd Version: 3.6.1")
    on_path = script(tmp_path / "bin", "etcd", "echo etcd Version: 3.6.2")
    assert find(environ, "etcd") == on_path
    assert find({**environ, "KUBEBUILDER_ASSETS": str(tmp_path / "assets")}, "etcd") == asset


def test_the_cache_is_used_when_path_has_another_version(tmp_path: Path, environ: dict[str, str]) -> None:
    script(tmp_path / "bin", "etcd", "echo etcd Version: 3.4.0")
    assert find(environ, "etcd") is None
    built = script(cached(environ, "etcd"), "etcd", "")
    assert find(environ, "etcd") == built


def test_a_half_written_build_is_not_taken_for_a_program(environ: dict[str, str]) -> None:
    script(cached(environ, "etcd"), ".etcd.4711.tmp", "")
    assert find(environ, "etcd") is None


def test_a_missing_program_is_built_and_renamed_into_place(tmp_path: Path, environ: dict[str, str]) -> None:
    # Writes a program to the path after -o, as go build does.
    script(tmp_path / "bin", "go", 'while [ "$1" != -o ]; do shift; done; echo built > "$2"; chmod +x "$2"')
    script(cached(environ, "etcd"), ".etcd.4711.tmp", "")
    script(tmp_path / "bin", "etcd", "echo etcd Version: 3.4.0")
    recorder = Recorder()
    found = Binaries(recorder, environ, ROOT).ensure(["etcd"])["etcd"]
    assert found == cached(environ, "etcd") / "etcd"
    assert found.read_text() == "built\n"
    assert not (found.parent / ".etcd.4711.tmp").exists()
    assert recorder.lines == [
        f"{tmp_path}/bin/etcd is 3.4.0, wanted is 3.6.x: not used",
        "building etcd 3.6.16",
    ]
    again = Recorder()
    assert Binaries(again, environ, ROOT).ensure(["etcd"])["etcd"] == found
    assert again.lines == []


def test_a_failed_build_says_what_go_said_and_leaves_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    script(tmp_path / "bin", "go", "echo no required module; exit 1")
    with pytest.raises(DevClusterError, match=r"go build of etcd failed:\nno required module"):
        Binaries(Progress(), environ, ROOT).ensure(["etcd"])
    assert [path.name for path in cached(environ, "etcd").iterdir()] == [".lock"]


def test_an_interrupted_build_ends_the_compilers_too(tmp_path: Path, environ: dict[str, str]) -> None:
    pid_file = tmp_path / "pid"
    script(tmp_path / "bin", "go", f"sleep 600 & echo $! > {pid_file}.tmp; mv {pid_file}.tmp {pid_file}; wait")

    def interrupt() -> None:
        if pid_file.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Binaries(Recorder(interrupt), environ, ROOT, poll_seconds=0.01).ensure(["etcd"])
    compiler = int(pid_file.read_text())
    # The kernel has ended it; that init has reaped it as well may take a moment, and the check counts a zombie as gone.
    for _ in range(1000):
        if start_identity(compiler) is None:
            break
        os.sched_yield()
    assert start_identity(compiler) is None
    assert [path.name for path in cached(environ, "etcd").iterdir()] == [".lock"]


def test_without_go_the_message_says_what_to_install(environ: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(
        DevClusterError, match=r"go is not on PATH and etcd must be built: install Go 1\.26.*KUBEBUILDER_ASSETS"
    ):
        Binaries(Progress(), {**environ, "PATH": str(tmp_path)}, ROOT).ensure(["etcd"])


def test_an_unknown_program_is_refused_by_name(environ: dict[str, str]) -> None:
    with pytest.raises(DevClusterError, match=r"unknown program 'minikube': allowed are kube-apiserver, .*promtool"):
        Binaries(Progress(), environ, ROOT).ensure(["minikube"])


def test_stages_are_copied_once_and_can_be_removed(tmp_path: Path, environ: dict[str, str]) -> None:
    source = tmp_path / "module"
    for folder in STAGE_FOLDERS:
        file = source / "kustomize" / folder / "a.yaml"
        file.parent.mkdir(parents=True)
        file.write_text("kind: Stage\n")
        file.chmod(0o444)
    script(tmp_path / "bin", "go", f"""echo '{{"Dir": "{source}"}}'""")
    stages = Binaries(Progress(), environ, ROOT).stages()
    assert sorted(path.parent.relative_to(stages).as_posix() for path in stages.rglob("*.yaml")) == sorted(
        STAGE_FOLDERS
    )
    assert all(os.access(path, os.W_OK) for path in stages.rglob("*"))
    no_go = {**environ, "PATH": str(tmp_path / "empty")}
    assert Binaries(Progress(), no_go, ROOT).stages() == stages
    with_assets = {**no_go, "XDG_CACHE_HOME": "/nowhere", "KUBEBUILDER_ASSETS": str(stages.parent)}
    assert Binaries(Progress(), with_assets, ROOT).stages() == stages


def test_a_relative_cache_folder_is_ignored() -> None:
    default = Path("/home/a/.cache/energylens/controlplane")
    assert cache_root({"HOME": "/home/a"}) == default
    assert cache_root({"HOME": "/home/a", "XDG_CACHE_HOME": "relative"}) == default
    assert cache_root({"HOME": "/home/a", "XDG_CACHE_HOME": "/c"}) == Path("/c/energylens/controlplane")


def test_outside_a_clone_the_message_says_so(tmp_path: Path) -> None:
    with pytest.raises(DevClusterError, match=r"works from a clone.*no folder tools/controlplane above"):
        repository_root(tmp_path)
