"""Why kopf ended, and whether watching again may help."""

from __future__ import annotations

import kopf


def may_pass(error: Exception) -> bool:
    """Return whether the API server refused or failed: a missing right, a deleted kind, expired credentials.

    Anything else is a defect, or a machine that the operator cannot run on.
    """
    return isinstance(error, kopf.LoginError) or _status(error) is not None


def said_by(error: Exception) -> str:
    """Return the server's words, such as ``403 pods is forbidden: User "a" cannot watch resource "pods"``."""
    message = getattr(error, "message", None) or " ".join(str(part) for part in error.args[:1])
    return " ".join(f"{_status(error) or ''} {message or type(error).__name__}".split())


def _status(error: Exception) -> int | None:
    """Return the HTTP status of an error of kopf's client, whose classes are not public."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None
