"""An API server over HTTP, as far as starting and watching needs one: for faults that the real one does not make.

It has no objects but Leases; lists are empty and watches stay open.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web
from aiohttp.test_utils import TestServer

from energylens.cluster.resources import Resource
from energylens.controller.watching.handlers import LIST_PAGE
from energylens.controller.watching.kinds import ALL_KINDS

Object = dict[str, Any]


@dataclass
class ApiServer:
    """Answers with the status in ``refused`` where method and path, or ``watch`` and plural, are in it."""

    refused: dict[tuple[str, str], int] = field(default_factory=dict)
    unserved: set[str] = field(default_factory=set)
    """Plurals that are not there."""
    denied: set[tuple[str, str]] = field(default_factory=set)
    """Rights that a review does not find: a verb, and a plural with its subresource."""
    pages: dict[str, Object] = field(default_factory=dict)
    """More answers, by path."""
    last_words: dict[str, bytes] = field(default_factory=dict)
    """By plural: bytes that the next watch ends with; removed once sent."""
    forgotten: set[str] = field(default_factory=set)
    """Plurals of which the second page of kopf's next list is gone; removed once told."""
    items: dict[str, list[Object]] = field(default_factory=dict)
    """By plural: the objects of its lists, but for the first page of one that is forgotten."""
    withheld: set[str] = field(default_factory=set)
    """Plurals whose lists are empty for kopf."""
    token: str = ""
    """The only token that is known; "" where everybody is."""
    lease: Object | None = None
    watched: list[str] = field(default_factory=list)
    url: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def kubeconfig(self, folder: Path, *, token: str = "secret", **cluster: str) -> Path:
        """Write a kubeconfig for the server; ``cluster`` has more of its entry, such as certificate-authority."""
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "clusters": [{"name": "here", "cluster": {"server": self.url, **cluster}}],
            "users": [{"name": "me", "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer one request."""
        if self.token and request.headers.get("Authorization", "").lower() != f"bearer {self.token}":
            return _failure(401, "Unauthorized")
        parts = request.path.strip("/").split("/")
        plural = "leases" if "leases" in parts else parts[-1]
        watching = request.query.get("watch") == "true"
        status = self.refused.get(("watch" if watching else request.method, plural))
        if status is not None:
            return _failure(status, f'{plural} is forbidden: User "me" cannot do that')
        if request.path in self.pages:
            return web.json_response(self.pages[request.path])
        if plural == "selfsubjectaccessreviews":
            asked = (await request.json())["spec"]["resourceAttributes"]
            right = asked["verb"], "/".join(filter(None, (asked["resource"], asked["subresource"])))
            return web.json_response({"status": {"allowed": right not in self.denied}}, status=201)
        if plural == "leases":
            return await self._lease(request)
        groups = sorted({kind.group for kind in ALL_KINDS if kind.plural not in self.unserved})
        if request.path == "/api":
            return web.json_response({"versions": ["v1"]})
        if request.path == "/apis":
            found = [_group(kind.group, kind.version) for kind in _firsts() if kind.group in groups and kind.group]
            return web.json_response({"groups": found})
        here = [kind for kind in ALL_KINDS if kind.plural not in self.unserved]
        if kinds := [kind for kind in here if kind.path().rsplit("/", 1)[0] == request.path]:
            return web.json_response({"resources": [_resource(kind) for kind in kinds]})
        if plural not in {kind.plural for kind in here}:
            return _failure(404, "not found")
        if watching:
            return await self._watch(request, plural)
        if plural in self.forgotten and request.query.get("limit") == str(LIST_PAGE):
            if not request.query.get("continue"):
                return web.json_response({"metadata": {"resourceVersion": "1", "continue": "next"}, "items": []})
            self.forgotten.remove(plural)
            return _failure(410, "The provided continue parameter is too old")
        hidden = plural in self.withheld and request.query.get("limit") == str(LIST_PAGE)
        items = [] if hidden else self.items.get(plural, [])
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        self.watched.append(plural)
        response = web.StreamResponse()
        await response.prepare(request)
        if plural in self.last_words:
            await response.write(self.last_words.pop(plural))
        else:
            await self.stopping.wait()
        return response

    async def _lease(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return _failure(404, "not found") if self.lease is None else web.json_response(self.lease)
        old = int(self.lease["metadata"]["resourceVersion"]) if self.lease is not None else 0
        self.lease = await request.json()
        self.lease["metadata"]["resourceVersion"] = str(old + 1)
        return web.json_response(self.lease)


@contextmanager
def api_server(context: ssl.SSLContext | None = None, **given: Any) -> Iterator[ApiServer]:
    """Run a server on loopback, with TLS where a context is given.

    In a thread and a loop of its own: kopf cancels every task of its loop when it stops.
    """
    found, loop = ApiServer(**given), asyncio.new_event_loop()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.answer)
    server = TestServer(app, scheme="http" if context is None else "https", loop=loop)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result()

    async def stop() -> None:
        found.stopping.set()
        await server.close()

    try:
        wait_for(server.start_server(ssl=context))
        found.url = f"{server.scheme}://127.0.0.1:{server.port}"
        yield found
    finally:
        wait_for(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _firsts() -> list[Resource]:
    return list({kind.group: kind for kind in sorted(ALL_KINDS, key=lambda kind: kind.plural)}.values())


def _group(name: str, version: str) -> Object:
    entry = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [entry], "preferredVersion": entry}


def _resource(kind: Resource) -> Object:
    return {
        "name": kind.plural,
        "singularName": kind.kind.lower(),
        "kind": kind.kind,
        "namespaced": kind.namespaced,
        "verbs": ["list", "watch", "patch"],
    }


def error_event(status: int, message: str) -> bytes:
    """Return the event with which an API server ends a watch that it has already answered with 200."""
    return json.dumps({"type": "ERROR", "object": _status(status, message)}).encode() + b"\n"


def _status(status: int, message: str) -> Object:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": status, "message": message}


def _failure(status: int, message: str) -> web.Response:
    return web.json_response(_status(status, message), status=status)
