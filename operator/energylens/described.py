"""An error in words: one short line, the same each time, without credentials. Pure."""

from __future__ import annotations

import re
from types import TracebackType

_TEXT_LENGTH = 400
_SECRETS = (
    (re.compile(r"(?i)\b(bearer|basic)\s+[^\s'\",;]+"), r"\1 ***"),
    (re.compile(r"://[^/\s@]+@"), "://***@"),
    (re.compile(r"\beyJ[\w-]+\.[\w.-]+"), "***"),
    (re.compile(r"\bhf_\w{8,}"), "***"),
    (re.compile(r"(?i)((?:token(?!s)|password|passwd|secret|api[-_]?key)\w{0,12}['\"]?\s*[=:]\s*)[^\s,;}]+"), r"\1***"),
)
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{6,}")


def described(error: BaseException) -> str:
    """Return the type, the text and the place in our code of an error; of a group those of its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    text, place = text_of(error), _place(error.__traceback__)
    named = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return f"{named} (in {place})" if place else named


def text_of(error: BaseException) -> str:
    """Return the text of an error on one line; addresses of objects are left out, which differ each time."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        return ""
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    text = _ADDRESS.sub("0x...", text)
    return text if len(text) <= _TEXT_LENGTH else f"{text[: _TEXT_LENGTH - 3]}..."


def _place(trace: TracebackType | None) -> str:
    """Return the innermost function of ours that a traceback passes through."""
    found = ""
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.startswith("energylens."):
            found = f"{module}.{trace.tb_frame.f_code.co_qualname}"
        trace = trace.tb_next
    return found
