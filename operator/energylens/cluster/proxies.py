"""The HTTP proxy that the environment names for an API server, as kubectl uses it."""

from __future__ import annotations

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def environment_proxy(server: str) -> str | None:
    """Return the URL of the proxy for a server by ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``; None without one.

    Clients ask once. With ``trust_env``, aiohttp would read the variables in another thread for each request, and the
    file ``~/.netrc``, whose ``default`` entry collides with the bearer token.
    """
    parts = urlsplit(server)
    if not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    return getproxies().get(parts.scheme)
