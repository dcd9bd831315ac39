"""Why kopf ended, and whether watching again may help.

The classes of kopf's errors are not public, so attributes and messages identify the errors; the tests in
``tests/faults/test_process.py`` raise them through kopf itself.
"""

from __future__ import annotations

import ast
import json
from typing import Any

import kopf

_WATCH_ERROR = "Error in the watch-stream: "
"""Beginning of kopf's error for an event of type ERROR other than 410 Gone; the repr of the event's Status follows."""


def may_pass(error: Exception) -> bool:
    """Return whether the API server refused or failed: a missing right, a deleted kind, expired credentials.

    An API server may also end an open watch with a Status, such as 500 when etcd does not answer in time, and a proxy
    may end it in the middle of a line or of a character. Anything else is a defect, or a machine that the operator
    cannot run on.
    """
    return isinstance(error, kopf.LoginError | json.JSONDecodeError | UnicodeDecodeError) or bool(_answer(error))


def said_by(error: Exception) -> str:
    """Return the server's words, such as ``403 pods is forbidden: User "a" cannot watch resource "pods"``."""
    if isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return f"an answer that is not JSON: {error}"
    answer = _answer(error)
    message = answer.get("message") or " ".join(str(part) for part in error.args[:1])
    return " ".join(f"{answer.get('code') or ''} {message or type(error).__name__}".split())


def _answer(error: Exception) -> dict[str, Any]:
    """Return ``code`` and ``message`` of the Status that the API server answered or sent; {} for another error."""
    status = getattr(error, "status", None)
    if isinstance(status, int):
        return {"code": status, "message": getattr(error, "message", None)}
    text = str(error)
    if text.startswith(_WATCH_ERROR):
        sent = ast.literal_eval(text.removeprefix(_WATCH_ERROR))
        return {"code": sent.get("code"), "message": sent.get("message")}
    return {}
