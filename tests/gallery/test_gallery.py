"""Every example prints what its expected.txt shows; `make gallery` writes these files again."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.gallery.transcript import EXAMPLES, difference, replay, transcripts

SHOWN = (
    "dense", "moe", "fp8", "sglang", "several-nodes", "manual-approval", "follow-load", "rollback", "budgets", "carbon",
    "power-cap", "speculative", "classes", "batch-job", "cleanest-hours", "long-prompts", "prefill-decode", "verified",
    "audit", "week",
)  # fmt: skip
HEAD = "chat: a/b\n  energy      0.60 J per output token\n  plan hash 26f32876cb77bb81\n"
TABLE = "     GPU   GPUS  J/TOKEN  WHY NOT\n     H200  1     0.4      too slow\n  *  B200  1     0.6\n"


@pytest.mark.parametrize("path", transcripts(), ids=lambda path: path.parent.name)
def test_the_example_prints_what_is_expected(path: Path) -> None:
    expected = path.read_text()
    found = difference(expected, replay(expected))
    assert found is None, f"{found}\nIf the change is wanted: `make gallery`, then read the diff"


def test_every_kind_of_example_is_there_and_has_a_row_in_the_list() -> None:
    assert {path.parent.name for path in transcripts()} == set(SHOWN)
    text = (EXAMPLES / "README.md").read_text()
    assert [name for name in SHOWN if f"[{name}]({name}/expected.txt)" not in text] == []


@pytest.mark.parametrize(
    ("before", "after", "same"),
    [
        ("0.60 J", "0.605 J", True),
        ("0.60 J", "0.65 J", False),
        ("26f32876cb77bb81", "00f32876cb77bb80", True),
        ("per output token", "per token", False),
        ("H200  1     0.4", "H200  2     0.9", True),
        ("B200  1     0.6", "B200  1     0.9", False),
        ("*  B200", "*  H100", False),
        ("  plan hash 26f32876cb77bb81\n", "", False),
    ],
)
def test_what_counts_as_a_difference(before: str, after: str, same: bool) -> None:
    text = HEAD + TABLE
    assert before in text
    assert (difference(text, text.replace(before, after)) is None) == same
