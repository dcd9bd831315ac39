"""Every answer of the API server becomes the error that says what to do about it."""

from __future__ import annotations

import pytest

from energylens.cluster.errors import (
    BusyError,
    ClusterError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    TransientError,
    UnauthorizedError,
    error_for,
)


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (404, 'services "llama" not found', NotFoundError),
        (409, "the object has been modified", ConflictError),
        (401, "Unauthorized", UnauthorizedError),
        (403, "services is forbidden", ForbiddenError),
        (429, "too many requests", BusyError),
        (400, "the server could not understand the request", RefusedError),
        (415, "the body was in an unknown format", RefusedError),
        (422, "spec.replicas: Invalid value", RefusedError),
        (500, "failed to create typed patch object: .spec.colour: field not declared in schema", RefusedError),
        (500, "Internal error occurred: failed calling webhook", TransientError),
        (503, "the server is currently unable to handle the request", TransientError),
        (504, "Timeout: request did not complete", TransientError),
    ],
)
def test_a_status_is_an_error_by_what_to_do_about_it(status: int, message: str, kind: type[ClusterError]) -> None:
    error = error_for(status, message, {})
    assert type(error) is kind
    assert str(error) == message


def test_expired_credentials_say_nothing_about_rights() -> None:
    assert not isinstance(error_for(401, "Unauthorized", {}), ForbiddenError)


def test_the_server_says_when_to_come_back() -> None:
    error = error_for(429, "too many requests", {"Retry-After": "7"})
    assert isinstance(error, BusyError)
    assert error.retry_after_seconds == 7.0
    without = error_for(429, "too many requests", {})
    assert isinstance(without, BusyError)
    assert without.retry_after_seconds == 1.0


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), ("0", 0.0), ("86400", 60.0), ("", 1.0), ("Mon, 02 Mar 2026 00:00:00 GMT", 1.0)]
)
def test_a_busy_server_says_when_to_come_back(header: str, seconds: float) -> None:
    error = error_for(429, "too many requests", {"Retry-After": header})
    assert isinstance(error, BusyError)
    assert error.retry_after_seconds == seconds
