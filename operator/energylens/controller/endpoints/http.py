"""One port for /metrics, /healthz and /readyz."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import AsyncIterator, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST


def application(
    page: Callable[[], AsyncIterator[bytes]], healthy: Callable[[], str], ready: Callable[[], str]
) -> web.Application:
    """Return the web application.

    Args:
        page: yields the metrics as Prometheus reads them, in parts.
        healthy: returns "" or what is wrong; a liveness probe that fails restarts the operator.
        ready: returns "" or what is still missing.
    """

    async def metrics(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": CONTENT_TYPE_LATEST})
        await response.prepare(request)
        # An answer to HEAD has no body: on a kept connection, one would be read as the next answer.
        if request.method != "HEAD":
            async for part in page():
                await response.write(part)
        return response

    async def healthz(request: web.Request) -> web.Response:
        return _verdict(healthy())

    async def readyz(request: web.Request) -> web.Response:
        return _verdict(ready())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


class ListenError(Exception):
    """The operator cannot listen on the port; one line."""


async def listen(runner: web.BaseRunner, host: str, port: int) -> None:
    """Serve on a port of an address or name; without one, on all available IPv6 and IPv4 addresses.

    Raises:
        ListenError: somebody else listens there, or there is no such address.
    """
    try:
        site = web.TCPSite(runner, host, port) if host else web.SockSite(runner, _everywhere(port))
        await site.start()
    except OSError as error:
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else "any address"
        # asyncio's own message repeats the address.
        why = os.strerror(error.errno or 0) if error.errno in errno.errorcode else str(error)
        raise ListenError(f"cannot listen on {where}: {why}") from error


def _everywhere(port: int) -> socket.socket:
    """Return a socket for both families, or for IPv4 alone if the kernel has no usable IPv6."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port))


def _verdict(problem: str) -> web.Response:
    return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")
