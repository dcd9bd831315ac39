"""Errors between the operator and the API server, classified by the reaction to them."""

from __future__ import annotations

from collections.abc import Mapping

MOST_PAUSE_SECONDS = 60.0
"""Longest wait that a Retry-After header can cause, s: a proxy may answer with hours, and the server is asked again."""


class ClusterError(Exception):
    """A request failed; the message says which, and the server's words."""


class NotFoundError(ClusterError):
    """The object, its namespace or its kind does not exist."""


class ConflictError(ClusterError):
    """The object changed since it was read, or somebody holds the lease."""


class ForbiddenError(ClusterError):
    """RBAC or admission refuses; retrying soon does not help."""


class UnauthorizedError(ClusterError):
    """The server does not know the user: the token has expired or belongs to another cluster.

    This is no ForbiddenError: the answer says nothing about rights, and the request may succeed with the next token.
    """


class RefusedError(ClusterError):
    """The server will never accept this request: a validation error or an unknown field."""


class BusyError(ClusterError):
    """The server asks the client to retry later."""

    def __init__(self, message: str, retry_after_seconds: float) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class TransientError(ClusterError):
    """The request may or may not have been carried out: a time-out, a broken connection, a server error."""


class UntrustedError(TransientError):
    """The request was not sent: the server's certificate is not trusted, or TLS failed otherwise."""


def error_for(status: int, message: str, headers: Mapping[str, str]) -> ClusterError:
    """Return the error of an HTTP status.

    An unknown field in a server-side apply is answered with 500, although it will never succeed.
    """
    if status == 404:
        return NotFoundError(message)
    if status == 409:
        return ConflictError(message)
    if status == 401:
        return UnauthorizedError(message)
    if status == 403:
        return ForbiddenError(message)
    if status == 429:
        return BusyError(message, _seconds(headers.get("Retry-After", "")))
    if status in (400, 415, 422) or (status == 500 and "field not declared in schema" in message):
        return RefusedError(message)
    return TransientError(message)


def _seconds(retry_after: str) -> float:
    """Return the seconds of a Retry-After header, at most 60; 1 without the header or if a proxy wrote a date."""
    return min(float(retry_after), MOST_PAUSE_SECONDS) if retry_after.isdecimal() else 1.0
