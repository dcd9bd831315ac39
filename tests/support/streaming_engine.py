"""An engine that streams for real over HTTP: one step at a time, a token for every request that runs."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from aiohttp.test_utils import TestServer

Object = dict[str, Any]


@dataclass
class StreamingEngine:
    """Takes completions of token ids, and counts as vLLM does."""

    model: str = "Qwen/Qwen3-8B"
    step_seconds: float = 0.004
    most: int = 64
    """Requests that run at once; others wait."""
    refuse: bool = False
    """Answer completions with 503."""
    answers: Literal["whole", "empty", "garbage", "cut"] = "whole"
    """What streams are: complete, without a token, no JSON, or broken off after a token."""
    uncounted: float = 1.0
    """Factor on the tokens that the metrics page counts."""
    url: str = ""
    prompts: list[tuple[int, ...]] = field(default_factory=list)
    _running: list[asyncio.Queue[int]] = field(default_factory=list)
    _waiting: list[asyncio.Queue[int]] = field(default_factory=list)
    _tokens: int = 0
    _prompt_tokens: int = 0
    _requests: int = 0

    async def step(self) -> None:
        """Make steps for ever."""
        while True:
            await asyncio.sleep(self.step_seconds)
            while self._waiting and len(self._running) < self.most:
                self._running.append(self._waiting.pop(0))
            for queue in self._running:
                queue.put_nowait(1)
                self._tokens += 1

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """Stream a completion."""
        if self.refuse:
            return web.json_response({"message": "too busy"}, status=503)
        body = await request.json()
        assert (body["stream"], body["ignore_eos"]) == (True, True)
        assert body["min_tokens"] == body["max_tokens"]
        self.prompts.append(tuple(body["prompt"]))
        self._prompt_tokens += len(body["prompt"])
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        queue: asyncio.Queue[int] = asyncio.Queue()
        self._waiting.append(queue)
        made = 0
        if self.answers == "garbage":
            await response.write(b"data: <html>bad gateway</html>\n\n")
        most = {"empty": 0, "garbage": 0, "cut": 1}.get(self.answers, body["max_tokens"])
        try:
            while made < most:
                made += await queue.get()
                usage = {"completion_tokens": made, "prompt_tokens": len(body["prompt"])}
                event = {"choices": [{"text": "a", "index": 0}], "usage": usage}
                await response.write(f"data: {json.dumps(event)}\n\n".encode())
            if self.answers == "cut" and request.transport is not None:
                request.transport.abort()
            await response.write(b"data: [DONE]\n\n")
            self._requests += 1
        finally:
            for queues in (self._running, self._waiting):
                if queue in queues:
                    queues.remove(queue)
        return response

    async def metrics(self, _: web.Request) -> web.Response:
        """Return the page of metrics."""
        label = f'{{model_name="{self.model}"}}'
        return web.Response(
            text=f"vllm:generation_tokens_total{label} {self._tokens * self.uncounted}\n"
            f"vllm:prompt_tokens_total{label} {self._prompt_tokens}\n"
            f"vllm:request_success_total{label} {self._requests}\n"
            f"vllm:num_requests_running{label} {len(self._running)}\n"
        )

    async def models(self, _: web.Request) -> web.Response:
        """Return what is served."""
        return web.json_response({"data": [{"id": self.model}]})

    async def version(self, _: web.Request) -> web.Response:
        """Return the version."""
        return web.json_response({"version": "0.26.0"})

    async def health(self, _: web.Request) -> web.Response:
        """Say that all is well."""
        return web.Response()


@contextmanager
def streaming_engine(**given: Any) -> Iterator[StreamingEngine]:
    """Run an engine on loopback in a thread of its own."""
    engine, loop = StreamingEngine(**given), asyncio.new_event_loop()
    app = web.Application()
    app.router.add_post("/v1/completions", engine.completions)
    for path in ("metrics", "version", "health"):
        app.router.add_get(f"/{path}", getattr(engine, path))
    app.router.add_get("/v1/models", engine.models)
    server = TestServer(app, loop=loop)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result(timeout=30)

    async def stop() -> None:
        steps.cancel()
        await asyncio.gather(steps, return_exceptions=True)
        await server.close()

    async def start() -> asyncio.Task[None]:
        await server.start_server()
        return asyncio.create_task(engine.step())

    steps = asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=30)
    engine.url = f"http://127.0.0.1:{server.port}"
    try:
        yield engine
    finally:
        wait_for(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
