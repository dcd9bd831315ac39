"""Asks a server on loopback whether it is ready."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from energylens.tls import client_context as verifying_context
from energylens_dev.devcluster.errors import DevClusterError

_POLL_SECONDS = 0.1
_REQUEST_TIMEOUT_SECONDS = 5.0


def client_context(authority: Path, certificate: Path, key: Path) -> ssl.SSLContext:
    """Return a TLS context that trusts `authority` and shows a client certificate.

    State directories of earlier releases have certificates without key identifiers.
    """
    context = verifying_context(str(authority))
    context.load_cert_chain(certificate, key)
    return context


def answers(url: str, context: ssl.SSLContext | None) -> bool:
    """Whether a GET of the URL is answered with 200.

    Args:
        url: An http or https URL.
        context: For https; None for http.
    """
    try:
        with urllib.request.urlopen(url, context=context, timeout=_REQUEST_TIMEOUT_SECONDS) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException):
        return False


def wait_ready(ready: Callable[[], bool], alive: Callable[[], bool], timeout_seconds: float) -> None:
    """Wait until `ready` says so.

    Raises:
        DevClusterError: When `alive` says no, or it takes too long; the message goes after the process's name.
    """
    deadline = time.monotonic() + timeout_seconds
    while not ready():
        if not alive():
            raise DevClusterError("ended before it was ready")
        if time.monotonic() >= deadline:
            raise DevClusterError(f"was not ready after {timeout_seconds:.0f} s")
        time.sleep(_POLL_SECONDS)
