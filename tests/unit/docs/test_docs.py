"""What README and docs/ say must be true: links lead somewhere, YAML is accepted, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from energylens.api.parse import parse_llmdeployment
from energylens.cli.main import cli

ROOT = Path(__file__).resolve().parents[3]
PAGES = sorted([ROOT / "README.md", ROOT / "examples" / "README.md", *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
COMMAND = re.compile(r"^(?:\$ )?(?:kubectl )?energylens ((?:[a-z][a-z-]*)(?: [a-z][a-z-]*)*)", re.MULTILINE)


def documents(page: Path) -> list[dict[str, object]]:
    found = [d for kind, body in FENCE.findall(page.read_text()) if kind == "yaml" for d in yaml.safe_load_all(body)]
    return [d for d in found if isinstance(d, dict) and d.get("kind") == "LLMDeployment" and "spec" in d]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_lead_to_files(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_llmdeployments_in_docs_are_valid(page: Path) -> None:
    for document in documents(page):
        parse_llmdeployment(document, strict=True)


def test_readme_shows_an_llmdeployment() -> None:
    assert documents(ROOT / "README.md")


@pytest.mark.parametrize(
    "example", sorted((ROOT / "examples").rglob("*.yaml")), ids=lambda p: f"{p.parent.name}-{p.name}"
)
def test_examples_are_valid(example: Path) -> None:
    for document in yaml.safe_load_all(example.read_text()):
        if document.get("kind") == "LLMDeployment":
            parse_llmdeployment(document, strict=True)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_commands_in_docs_exist(page: Path) -> None:
    context = click.Context(cli)
    for kind, body in FENCE.findall(page.read_text()):
        if kind not in ("sh", "console", "bash"):
            continue
        for words in COMMAND.findall(body):
            command: click.Command | None = cli
            for word in words.split():
                if not isinstance(command, click.Group):
                    break
                command = command.get_command(context, word)
                assert command is not None, f"`energylens {words}` in {page.name} is no command"
