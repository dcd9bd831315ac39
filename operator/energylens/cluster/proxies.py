"""The HTTP proxy that the environment names for an API server, as kubectl uses it."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

_LOOPBACK = "127.0.0.0/8,::1/128"


def environment_proxy(server: str) -> str | None:
    """Return the URL of the proxy for a server by ``HTTPS_PROXY``, ``HTTP_PROXY`` and ``NO_PROXY``; None without one.

    Clients ask once. With ``trust_env``, aiohttp would read the variables in another thread for each request, and the
    file ``~/.netrc``, whose ``default`` entry collides with the bearer token.

    Unlike Python's own reader, and like kubectl: ``NO_PROXY`` may hold address ranges, such as that of the cluster's
    Services; this machine itself is reached without a proxy; a proxy without a scheme is an HTTP proxy.
    """
    parts, proxies = urlsplit(server), getproxies()
    if not parts.hostname or proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    if _is_within(parts.hostname, f"{_LOOPBACK},{proxies.get('no', '')}") or parts.hostname == "localhost":
        return None
    found = proxies.get(parts.scheme)
    return f"http://{found}" if found and "://" not in found else found


def _is_within(host: str, ranges: str) -> bool:
    """Return whether a host is an address in one of the ranges in a list; other entries of the list do not count."""
    for text in ranges.split(","):
        with suppress(ValueError):
            if ip_address(host) in ip_network(text.strip(), strict=False):
                return True
    return False
