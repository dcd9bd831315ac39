"""What `make image` tells each engine; `make image-test` builds twice and compares."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from tools.image import ENGINES, Origin, build_arguments, origin

from energylens import __version__

BUILT_FROM = Origin("0123abc", 1700000000, "https://example.com/energylens.git")


def git(root: Path, *arguments: str) -> None:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
    environment = {"GIT_COMMITTER_DATE": "1700000000 +0000", "HOME": str(root), "PATH": "/usr/bin:/bin"}
    subprocess.run(["git", *who, *arguments], cwd=root, check=True, capture_output=True, env=environment)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("a")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message=a")
    return tmp_path


@pytest.mark.parametrize("engine", ENGINES)
def test_every_engine_is_told_name_labels_and_time(engine: str) -> None:
    arguments = build_arguments(engine, "registry/energylens:1", BUILT_FROM)
    assert arguments[-1] == "."
    assert f"--build-arg=VERSION={__version__}" in arguments
    assert "--build-arg=REVISION=0123abc" in arguments
    assert "--build-arg=SOURCE=https://example.com/energylens.git" in arguments
    assert "registry/energylens:1" in " ".join(arguments)
    assert "1700000000" in " ".join(arguments)
    assert "PYTHON_IMAGE" not in " ".join(arguments)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_pinned_base_replaces_that_of_the_dockerfile(engine: str) -> None:
    base = "python:3.13-slim@sha256:00"
    assert f"--build-arg=PYTHON_IMAGE={base}" in build_arguments(engine, "a", BUILT_FROM, base)


def test_a_source_that_is_not_known_is_not_labelled() -> None:
    assert "SOURCE=" not in " ".join(build_arguments("podman", "a", Origin("0123abc", 1)))


def test_a_commit_is_the_origin(checkout: Path) -> None:
    git(checkout, "remote", "add", "origin", "https://example.com/a.git")
    found = origin(checkout)
    assert len(found.revision) == 40
    assert (found.epoch, found.source) == (1700000000, "https://example.com/a.git")


def test_credentials_of_the_remote_stay_out_of_the_label(checkout: Path) -> None:
    git(checkout, "remote", "add", "origin", "https://user:secret@example.com:8443/a.git")
    assert origin(checkout).source == "https://example.com:8443/a.git"


def test_a_folder_is_no_source(checkout: Path) -> None:
    git(checkout, "remote", "add", "origin", "/srv/git/a")
    assert origin(checkout).source == ""


def test_a_changed_checkout_is_not_its_commit(checkout: Path) -> None:
    (checkout / "file").write_text("b")
    assert origin(checkout).revision.endswith("-dirty")
    git(checkout, "checkout", "file")
    (checkout / "new").write_text("not tracked, and not in the wheel")
    assert not origin(checkout).revision.endswith("-dirty")
