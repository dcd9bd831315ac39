"""How strictly certificates of servers are checked."""

from __future__ import annotations

import ssl


def client_context(authorities: str | None = None) -> ssl.SSLContext:
    """Return a context that verifies servers as every client of ours does.

    Args:
        authorities: PEM file of the authorities to trust; None for those of the system.

    Raises:
        OSError: the file cannot be read, or holds no certificate (``ssl.SSLError``).
    """
    return accept_missing_key_identifiers(ssl.create_default_context(cafile=authorities))


def accept_missing_key_identifiers(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context, which from now on accepts certificates without key identifiers.

    ``ssl.create_default_context`` sets ``VERIFY_X509_STRICT`` from Python 3.13 on, which refuses a chain without
    authority and subject key identifiers ("Missing Authority Key Identifier"). Those of many API servers have none
    (kubernetes-client/python issue 2394). Everything else is verified as before: signatures, validity, host names.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context
