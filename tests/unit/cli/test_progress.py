"""Progress is a bar on a terminal and a plain line elsewhere, and never in the output."""

from __future__ import annotations

import io
import sys

import pytest

from energylens.cli.progress import WORTH_SHOWING, progress


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
@pytest.mark.parametrize("count", [WORTH_SHOWING - 1, WORTH_SHOWING])
def test_what_is_shown_and_that_every_item_is_given(
    stream: type[io.StringIO], count: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    with progress(range(count), "planning", count) as items:
        assert list(items) == list(range(count))
    text = shown.getvalue()
    if count < WORTH_SHOWING:
        assert text == ""
    elif shown.isatty():
        assert "\r" in text
        assert "100%" in text
    else:
        assert text == f"planning ({count})\n"
    assert capsys.readouterr().out == ""
