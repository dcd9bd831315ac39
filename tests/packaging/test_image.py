"""The Dockerfile, as far as it can be shown without a container engine: what it says, what its build stage makes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """Return the instructions of each stage of the Dockerfile, the FROM first."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[list[Instruction]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, _, rest = line.partition(" ")
        if name == "FROM":
            found.append([])
        if found:
            found[-1].append((name, " ".join(rest.split())))
    return found


def values(stage: list[Instruction], name: str) -> list[str]:
    return [rest for instruction, rest in stage if instruction == name]


def test_the_image_holds_what_a_stage_before_built_and_nothing_of_the_build() -> None:
    build, image = stages()
    assert values(build, "FROM") == ["${PYTHON_IMAGE} AS build"]
    assert values(image, "FROM") == ["${PYTHON_IMAGE}"]
    assert all(copy.startswith("--from=build ") for copy in values(image, "COPY"))
    assert values(image, "RUN") == []


def test_it_runs_as_a_numbered_user_that_is_not_root() -> None:
    (user,) = values(stages()[-1], "USER")
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", user)


def test_it_starts_the_operator() -> None:
    image = stages()[-1]
    assert values(image, "ENTRYPOINT") == ['["energylens"]']
    assert values(image, "CMD") == ['["operator", "--metrics-port=8080"]']
    assert values(image, "EXPOSE") == ["8080"]


def test_it_needs_no_writable_root() -> None:
    (environment,) = values(stages()[-1], "ENV")
    assert {"PYTHONDONTWRITEBYTECODE=1", "HOME=/tmp"} <= set(shlex.split(environment))


def test_the_build_leaves_no_bytecode_which_would_hold_its_time() -> None:
    assert "PYTHONDONTWRITEBYTECODE=1" in values(stages()[0], "ENV")
    (command,) = values(stages()[0], "RUN")
    assert command.count("install --no-cache-dir --no-compile") == command.count("pip --python /opt/energylens") == 2


def test_it_has_no_installer() -> None:
    (command,) = values(stages()[0], "RUN")
    assert "-m venv --without-pip /opt/energylens" in command
    assert re.search(r"pip --python /opt/energylens/bin/python install .* /wheels/", command)


def test_everything_in_it_comes_from_the_lock() -> None:
    (command,) = values(stages()[0], "RUN")
    installs = re.findall(r"pip (?:--python \S+ )?install ([^&]*)", command)
    assert len(installs) == 3
    for options in installs:
        assert re.search(r"--require-hashes -r requirements/\w+\.txt|--no-deps /wheels/", options), options
    assert "--no-build-isolation" in command, "an isolated build would fetch its own tools"


def test_a_build_says_what_it_is_of() -> None:
    image = stages()[-1]
    given = {name for name, _, default in (value.partition("=") for value in values(image, "ARG")) if default == '""'}
    assert given == {"VERSION", "REVISION", "SOURCE"}
    (labels,) = values(image, "LABEL")
    for name in given:
        assert f'org.opencontainers.image.{name.lower()}="${{{name}}}"' in labels


def test_what_it_copies_exists_and_is_not_ignored() -> None:
    sources = [source for copy in values(stages()[0], "COPY") for source in copy.split()[:-1]]
    assert sources
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.rstrip("/") in allowed


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel that the build stage's command makes, from only the files that it copies."""
    context, out = tmp_path_factory.mktemp("context"), tmp_path_factory.mktemp("wheels")
    tracked = subprocess.run(["git", "ls-files", "-z", "--", *copied()], cwd=ROOT, capture_output=True, check=True)
    for name in filter(None, tracked.stdout.decode().split("\0")):
        if (ROOT / name).is_file():
            (context / name).parent.mkdir(parents=True, exist_ok=True)
            (context / name).write_bytes((ROOT / name).read_bytes())
    # Isolated here, since hatchling need not be installed where tests run.
    (command,) = re.findall(
        r"python (-m pip wheel [^&]*)", values(stages()[0], "RUN")[0].replace("--no-build-isolation", "")
    )
    command = command.replace("/wheels", str(out))
    subprocess.run(
        [sys.executable, *shlex.split(command), "--disable-pip-version-check"],
        cwd=context, check=True, capture_output=True, timeout=250,
    )  # fmt: skip
    (path,) = out.glob("energylens-*.whl")
    return zipfile.ZipFile(path)


def copied() -> list[str]:
    return [source for copy in values(stages()[0], "COPY") for source in copy.split()[:-1]]


def test_the_wheel_holds_every_file_of_the_package(wheel: zipfile.ZipFile) -> None:
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--", "operator/energylens"], cwd=ROOT, capture_output=True, check=True
    )
    names = [name for name in filter(None, tracked.stdout.decode().split("\0")) if (ROOT / name).is_file()]
    assert any(name.endswith((".yaml", ".json", ".csv")) for name in names), "the package has data files"
    assert {name.removeprefix("operator/") for name in names} <= set(wheel.namelist())


def test_the_wheel_holds_nothing_but_the_package(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"energylens"}


def test_the_wheel_has_the_command_that_the_image_starts(wheel: zipfile.ZipFile) -> None:
    (name,) = [name for name in wheel.namelist() if name.endswith("entry_points.txt")]
    parser = ConfigParser()
    parser.read_string(wheel.read(name).decode())
    assert parser["console_scripts"]["energylens"] == "energylens.cli:main"
    assert "kubectl-energylens" in parser["console_scripts"]
