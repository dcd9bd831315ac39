"""One port for /metrics, /healthz and /readyz."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def application(
    registry: CollectorRegistry, refresh: Callable[[], None], healthy: Callable[[], str], ready: Callable[[], str]
) -> web.Application:
    """Return the web application.

    Args:
        registry: of the metrics.
        refresh: called before each read of the metrics, for gauges that are read off.
        healthy: returns "" or what is wrong; a liveness probe that fails restarts the operator.
        ready: returns "" or what is still missing.
    """

    async def metrics(request: web.Request) -> web.Response:
        refresh()
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def healthz(request: web.Request) -> web.Response:
        return _verdict(healthy())

    async def readyz(request: web.Request) -> web.Response:
        return _verdict(ready())

    app = web.Application()
    app.add_routes([web.get("/metrics", metrics), web.get("/healthz", healthz), web.get("/readyz", readyz)])
    return app


def _verdict(problem: str) -> web.Response:
    return web.Response(status=503 if problem else 200, text=f"{problem or 'ok'}\n")
