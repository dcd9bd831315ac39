"""What README, docs/ and examples/ say must be true: YAML is accepted, commands exist. Links: test_site.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from energylens.api.parse import parse_clusterenergybudget, parse_energybudget, parse_llmdeployment
from energylens.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^(?:\$ )?(?:kubectl |\.venv/bin/)?energylens ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", re.MULTILINE)


PARSERS: dict[str, Callable[..., object]] = {
    "LLMDeployment": parse_llmdeployment,
    "EnergyBudget": parse_energybudget,
    "ClusterEnergyBudget": parse_clusterenergybudget,
}
Document = dict[str, Any]


def ours(text: str) -> list[Document]:
    """Return the whole objects of our kinds in YAML documents; parts of a spec, as pages show them, are none."""
    return [d for d in yaml.safe_load_all(text) if isinstance(d, dict) and d.get("kind") in PARSERS and "spec" in d]


SHOWN = [
    pytest.param(document, id=f"{page.name}-{index}")
    for page in PAGES
    for kind, body in FENCE.findall(page.read_text())
    if kind == "yaml"
    for index, document in enumerate(ours(body))
]
EXAMPLES = [
    pytest.param(document, id=f"{path.relative_to(ROOT / 'examples')}-{index}")
    for path in sorted((ROOT / "examples").rglob("*.yaml"))
    for index, document in enumerate(ours(path.read_text()))
]


@pytest.mark.parametrize("document", [*SHOWN, *EXAMPLES])
def test_objects_in_docs_and_examples_are_valid(document: Document) -> None:
    PARSERS[document["kind"]](document, strict=True)


def test_readme_budgets_and_examples_show_objects() -> None:
    pages = {str(shown.id).rpartition("-")[0] for shown in SHOWN}
    assert {"README.md", "budgets.md"} <= pages
    assert len(EXAMPLES) >= 15


@pytest.mark.parametrize(
    "page", [page for page in PAGES if re.search(r"^```yaml", page.read_text(), re.MULTILINE)], ids=lambda p: p.name
)
def test_yaml_in_docs_can_be_read(page: Path) -> None:
    for kind, body in FENCE.findall(page.read_text()):
        if kind == "yaml":
            list(yaml.safe_load_all(body))


COMMANDS = sorted(
    {
        (page.name, words)
        for page in PAGES
        for kind, body in FENCE.findall(page.read_text())
        if kind in ("sh", "console", "bash")
        for words in COMMAND.findall(body)
    }
)


@pytest.mark.parametrize(("page", "words"), COMMANDS)
def test_commands_in_docs_exist(page: str, words: str) -> None:
    context = click.Context(cli)
    command: click.Command = cli
    for word in words.split():
        if not isinstance(command, click.Group):
            break
        found = command.get_command(context, word)
        assert found is not None, f"`energylens {words}` in {page} is no command"
        command = found


def test_commands_are_found_in_the_pages_that_show_them() -> None:
    assert {"README.md", "cli.md", "accuracy.md", "dev-cluster.md"} <= {page for page, _ in COMMANDS}


def test_the_saving_that_readme_claims_is_that_of_the_table() -> None:
    readme = " ".join((ROOT / "README.md").read_text().split())
    row = re.search(
        r"^\| `model` \| all GPUs of the node \| (\d+) \| (\d+) \| ([\d.]+ %) \| ([\d.]+ %) \| (\d+) \| (\d+) \|$",
        (ROOT / "docs" / "accuracy.md").read_text(),
        re.MULTILINE,
    )
    assert row is not None
    cases, sets, best, picks, broken, none = row.groups()
    assert f"picks save {picks} of the energy per token (mean)" in readme
    assert f"Over {cases} comparisons of measured runs ({sets} combinations" in readme
    assert f"uses **{best} less energy** per token" in readme
    assert f"picks use **{picks} less**" in readme
    assert (broken == "0") == ("None of them breaks the bound" in readme)
    assert f"; {none} case{'' if none == '1' else 's'} got no pick" in readme
