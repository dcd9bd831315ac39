"""What people who carry on use: workflows, issue forms, pre-commit hooks and the commands of CONTRIBUTING.md."""

from __future__ import annotations

import itertools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yaml"))


def read(path: str | Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / path).read_text())
    return found


def steps(job: str) -> list[str]:
    """Return the commands of a job of the workflow."""
    return [step["run"] for step in read(".github/workflows/ci.yaml")["jobs"][job]["steps"] if "run" in step]


def test_ci_runs_what_developers_run() -> None:
    assert steps("test") == [".ci/run"]
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o111
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    assert steps("docs") == ["make docs"]
    assert steps("coverage") == ['make coverage BASE="origin/$BRANCH"']


def test_ci_covers_the_pythons_that_the_readme_promises() -> None:
    pythons = read(".github/workflows/ci.yaml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    assert pythons[0] == "3.11"
    assert "Python 3.11 or newer" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_what_github_requires(form: Path) -> None:
    body = read(form)
    assert body["name"]
    assert body["description"]
    ids = [field["id"] for field in body["body"]]
    assert len(ids) == len(set(ids))
    for field in body["body"]:
        assert field["type"] in ("input", "textarea", "checkboxes", "dropdown", "markdown")
        assert field["attributes"]["label"]
        assert (field["type"] == "checkboxes") == ("options" in field["attributes"])


def test_there_is_a_form_for_faults_predictions_and_wishes() -> None:
    assert {form.stem for form in FORMS} == {"bug", "prediction", "feature"}


def test_pre_commit_hooks_run_what_make_lint_runs() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local", "hooks of other repositories would fetch code that the lock does not have"
    hooks = {shlex.join(shlex.split(hook["entry"])[:3]) for hook in repository["hooks"]}
    recipe = re.findall(r"^\t\$\(BIN\)/(.*)$", MAKEFILE.split("\nlint:")[1].split("\n\n")[0], re.MULTILINE)
    for command in recipe:
        words = [word for word in shlex.split(f".venv/bin/{command}") if word not in (".", "--check")]
        assert any(shlex.join(words[:2]) in hook for hook in hooks), command


@pytest.mark.parametrize(
    "page", ["CONTRIBUTING.md", "README.md", "examples/README.md", ".github/pull_request_template.md"]
)
def test_make_targets_in_text_exist(page: str) -> None:
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named <= TARGETS, named - TARGETS


def releases() -> dict[str, list[str]]:
    """Return the lines of CHANGELOG.md below each release's heading."""
    parts = re.split(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    return {title: body.splitlines() for title, body in zip(parts[::2], parts[1::2], strict=True)}


def entries(lines: list[str]) -> list[str]:
    """Return the entries of a release, each on one line."""
    text = "\n".join(line for line in lines if not line.startswith("#"))
    return [" ".join(entry.split()) for entry in re.split(r"^(?:- |$)", text, flags=re.MULTILINE)]


@pytest.mark.parametrize("release", releases())
def test_a_release_has_one_list_of_each_kind_of_change(release: str) -> None:
    headings = [line.removeprefix("### ") for line in releases()[release] if line.startswith("### ")]
    assert headings == [kind for kind in ("Added", "Changed", "Fixed") if kind in headings]


@pytest.mark.parametrize("release", releases())
def test_a_release_says_each_change_once(release: str) -> None:
    """A merge may leave an entry twice, or its first lines beside the whole."""
    found = sorted(entry for entry in entries(releases()[release]) if entry)
    assert [a for a, b in itertools.pairwise(found) if b.startswith(a)] == []
