"""The site of docs/, without building it: every page is in its navigation, every anchor exists, every module too."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tools import layers

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
MARKDOWN = [*PAGES, *sorted(ROOT.glob("*.md")), ROOT / "examples" / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
OBJECTS = {"LLMDeployment"}
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def navigation(entries: list[dict[str, Any]]) -> Iterator[str]:
    for entry in entries:
        for found in entry.values():
            if isinstance(found, str):
                yield found
            else:
                yield from navigation(found)


def anchors(text: str) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and MkDocs make them."""
    found = set()
    for heading in re.findall(r"^#+ +(.*)$", CODE.sub("", text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", heading)
        found.add(re.sub(r"[^\w\- ]", "", plain.lower()).strip().replace(" ", "-"))
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert sorted(navigation(site["nav"])) == sorted(str(page.relative_to(DOCS)) for page in PAGES)


def test_the_site_fetches_nothing() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    assert site["theme"]["font"] is False
    assert not {"extra_javascript", "extra_css"} & set(site)
    assert [page for page in PAGES if re.search(r"(?:src=\"|!\[[^]]*\]\()https?:", page.read_text())] == []


@pytest.mark.parametrize("page", MARKDOWN, ids=named)
def test_links_lead_to_a_page_and_an_anchor(page: Path) -> None:
    broken = []
    for link in LINK.findall(CODE.sub("", page.read_text())):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = page if not path else (page.parent / path)
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_of_pages_stay_within_the_site(page: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(CODE.sub("", page.read_text())) if "://" not in link]
    assert [link for link in links if link and DOCS not in (page.parent / link).resolve().parents] == []


def test_every_page_can_be_reached_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in (ROOT / "README.md", *PAGES)
        for link in LINK.findall(page.read_text())
    }
    assert [named(page) for page in PAGES if page not in linked and page.name != "index.md"] == []


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=named)
def test_modules_of_the_reference_exist_and_have_a_docstring(page: Path) -> None:
    modules = re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    assert modules
    for name in modules:
        spec = importlib.util.find_spec(name)
        assert spec is not None, name
        assert spec.origin is not None
        assert Path(spec.origin).read_text().startswith('"""'), name


def test_the_picture_of_the_layers_is_that_of_the_import_contract() -> None:
    assert layers.main(["--check"]) == 0


@pytest.mark.parametrize("page", ["architecture.md", "decisions.md"])
def test_files_and_names_in_the_pages_for_developers_exist(page: str) -> None:
    text = CODE.sub("", (DOCS / page).read_text())
    paths = {found for found in re.findall(r"`([\w./-]+)`", text) if "/" in found or found.endswith(".py")}
    assert len(paths) >= 3
    roots = (ROOT, ROOT / "operator" / "energylens")
    missing = [path for path in paths if not any((root / path).exists() for root in roots) and not sibling(path)]
    assert missing == []
    source = "\n".join(path.read_text() for path in (ROOT / "operator" / "energylens").rglob("*.py"))
    names = set(re.findall(r"`([A-Z]\w+(?:\.\w+)*|[A-Z_]{4,})`", text)) - OBJECTS
    assert [name for name in names if name.rpartition(".")[2] not in source] == []


def sibling(name: str) -> bool:
    """Return whether a file named without its folder exists beside others that are named with theirs."""
    return "/" not in name and any((ROOT / "operator" / "energylens").rglob(name))
