"""The list of words that documentation and messages may not have, and the wrapping of long lines."""

from __future__ import annotations

from pathlib import Path

import pytest
from tools.prose import WIDTH, faults, files, wrapped

LONG = "word " * 40


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("The plan is made anew.", "again"),
        ("This plan cannot be had.", "available"),
        ("The plan cannot\n    be had.", "available"),
        ("# for a defect\n# of the operator", "internal error"),
        ("Whoever edits this", "anyone who"),
    ],
)
def test_an_invented_word_is_found_and_replaced(text: str, instead: str) -> None:
    ((_, why),) = faults(text, markdown=False)
    assert instead in why


def test_the_line_of_a_word_is_named() -> None:
    assert [line for line, _ in faults("one\n\ntwo\nanew", markdown=True)] == [4]


@pytest.mark.parametrize("text", ["all_anew = True", "a renewed lease", "a cannot-be-had"])
def test_names_and_parts_of_words_are_no_words(text: str) -> None:
    assert list(faults(text, markdown=False)) == []


def test_long_lines_of_markdown_are_found_outside_of_tables_and_code() -> None:
    assert [line for line, _ in faults(f"{LONG}\n| {LONG} |\n```\n{LONG}\n```\n", markdown=True)] == [1]
    assert list(faults(LONG, markdown=False)) == []


def test_wrapping_keeps_words_lists_tables_and_code() -> None:
    text = f"# Title\n\n- {LONG}\n  {LONG}\n- short\n\n| {LONG} |\n\n```\n{LONG}\n```\n"
    found = wrapped(text)
    assert found.split() == text.split()
    lines = found.splitlines()
    assert [line for line in lines if len(line) > WIDTH] == [f"| {LONG} |", LONG]
    assert sum(line.startswith("- ") for line in lines) == 2
    assert wrapped(found) == found


def test_documentation_and_sources_are_read() -> None:
    names = {path.name for path in files()}
    assert {"README.md", "planning.md", "reasons.py"} <= names
    assert all(isinstance(path, Path) for path in files())
