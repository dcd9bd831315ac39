"""Answers of an API server, and the reasons for missing answers, as objects and words."""

from __future__ import annotations

import json
import os

import aiohttp

from energylens.cluster.errors import TransientError
from energylens.cluster.port import Object

REQUEST_SECONDS = 15.0
"""Seconds after which a request without an answer has failed."""


def failure_text(error: Exception) -> str:
    """Return why a request got no answer, in words and not in names of classes."""
    match error:
        case TimeoutError():
            return f"no answer within {REQUEST_SECONDS:.0f} s"
        case aiohttp.ClientConnectorCertificateError():
            return f"the server's certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientConnectorError():
            number = error.os_error.errno or 0
            why = os.strerror(number) if number > 0 else error.os_error.strerror or error.os_error
            return f"cannot connect to {error.host}:{error.port}: {why}"
        case aiohttp.ServerDisconnectedError():
            return "the server closed the connection"
        case OSError():
            return error.strerror or str(error) or "the connection broke"
        case _:
            return str(error) or "the connection broke"


def object_of(what: str, raw: bytes) -> Object:
    """Return the object of an answer; a proxy may answer for the API server, with a page of its own."""
    try:
        answer = json.loads(raw)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise TransientError(f"{what}: the answer is not an object of Kubernetes: {raw[:80].decode(errors='replace')}")
    return answer


def message_of(raw: bytes) -> str:
    """Return the message of a status that refuses a request, or the beginning of another answer."""
    try:
        return str(json.loads(raw)["message"])
    except (ValueError, KeyError, TypeError):
        return raw[:200].decode(errors="replace")
