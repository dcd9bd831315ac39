"""The lock files: every dependency of pyproject.toml, with hashes, and no address of any registry."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted((ROOT / "requirements").glob("*.txt"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOOLS = tomllib.loads((ROOT / "tools" / "energylens_dev" / "pyproject.toml").read_text())
PYTHONS = ("3.11", "3.12", "3.13")


def entries(name: str) -> list[tuple[Requirement, list[str]]]:
    """Return each pinned requirement of a lock file with its hashes."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "requirements" / name).read_text(), flags=re.MULTILINE)
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        requirement, *hashes = re.split(r"\s+--hash=", line.strip())
        found.append((Requirement(requirement), hashes))
    return found


def asked(*groups: list[str]) -> list[Requirement]:
    """Return what is asked for, our own extras resolved."""
    found = []
    for requirement in map(Requirement, (text for group in groups for text in group)):
        if requirement.name != PROJECT["project"]["name"]:
            found.append(requirement)
            continue
        for extra in requirement.extras:
            found += asked(PROJECT["project"]["optional-dependencies"][extra])
    return found


def test_there_is_a_lock_for_the_build_the_image_the_tests_the_docs_and_the_sbom() -> None:
    assert [path.stem for path in FILES] == ["build", "dev", "docs", "image", "sbom"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_entry_is_pinned_and_has_hashes(path: Path) -> None:
    assert entries(path.name)
    for requirement, hashes in entries(path.name):
        assert [spec.operator for spec in requirement.specifier] == ["=="], requirement
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", found) for found in hashes), requirement


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_no_registry_is_named(path: Path) -> None:
    assert not re.search(r"://|--(?:extra-)?index-url|--find-links|--trusted-host| @ ", path.read_text())


@pytest.mark.parametrize(
    ("name", "groups"),
    [
        ("build", (PROJECT["build-system"]["requires"],)),
        ("image", (PROJECT["project"]["dependencies"],)),
        ("dev", (PROJECT["project"]["dependencies"], PROJECT["project"]["optional-dependencies"]["dev"])),
        ("dev", (TOOLS["project"]["dependencies"],)),
        ("docs", (PROJECT["dependency-groups"]["docs"],)),
    ],
)
@pytest.mark.parametrize("python", PYTHONS)
def test_what_pyproject_asks_for_is_pinned_within_its_range(
    name: str, groups: tuple[list[str], ...], python: str
) -> None:
    environment = {"python_version": python, "python_full_version": f"{python}.0"}
    pins: dict[str, str] = {}
    for requirement, _ in entries(f"{name}.txt"):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            assert canonicalize_name(requirement.name) not in pins, requirement
            pins[canonicalize_name(requirement.name)] = next(iter(requirement.specifier)).version
    missing = [
        str(requirement)
        for requirement in asked(*groups)
        if not requirement.specifier.contains(pins.get(canonicalize_name(requirement.name), "0"), prereleases=True)
    ]
    assert missing == [], "run `make lock`"


def test_the_image_and_the_tests_have_the_same_versions() -> None:
    image = {(r.name, str(r.marker)): str(r.specifier) for r, _ in entries("image.txt")}
    tests = {(r.name, str(r.marker)): str(r.specifier) for r, _ in entries("dev.txt")}
    assert {key: version for key, version in tests.items() if key in image} == image


def test_make_installs_from_the_lock() -> None:
    makefile = (ROOT / "Makefile").read_text()
    installs = re.findall(r"pip install (.*)", makefile.partition("$(STAMP):")[2])
    assert [line for line in installs if not re.search(r"--require-hashes|--no-deps|--upgrade pip$", line)] == []
