"""Serving the replayed metrics on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import asdict, dataclass

from aiohttp import web

from energylens.clock import Clock
from energylens.measure.types import PodRef
from energylens_dev.replay import faults
from energylens_dev.replay.exposition import Generation, LabelStyle, Row, dcgm, rows, vllm
from energylens_dev.replay.faults import EngineFault, Fault
from energylens_dev.replay.fleet import ClusterState, Fleet

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Options:
    """How to serve."""

    generation: Generation = "new"
    labels: LabelStyle = "plain"
    collect_seconds: float = 1.0
    """The exporter's own interval: values repeat until it is over (30 s is dcgm-exporter's default)."""
    speed: float = 1.0
    """Seconds of a run per second; other than 1 leaves J per token true and makes watts as many times too large."""


class Replay:
    """The fleet, the clock and the faults behind the HTTP paths."""

    def __init__(self, clock: Clock, options: Options = Options()) -> None:
        self.options = options
        self._clock = clock
        self._origin = clock.monotonic()
        self.fleet = Fleet(time=0.0, origin=clock.now())
        self.faults: dict[str, Fault] = {}
        self.engine_faults: dict[str, EngineFault] = {}
        self._collected: tuple[float, list[Row]] | None = None

    def now(self) -> float:
        """Return seconds of replayed time since the start."""
        return (self._clock.monotonic() - self._origin) * self.options.speed

    def update(self, state: ClusterState) -> None:
        """Take in the cluster as it is now."""
        self.fleet.update(state, self.now())

    def set_faults(self, names: Iterable[str]) -> None:
        """Inject exactly these faults; one that is there already stays as it is.

        Raises:
            ValueError: a name is not known.
        """
        wanted = list(names)
        made = {name: faults.fault_named(name) for name in wanted}
        self.faults = {name: self.faults.get(name) or new for name, (new, _) in made.items() if new is not None}
        self.engine_faults = {
            name: self.engine_faults.get(name) or new for name, (_, new) in made.items() if new is not None
        }

    def dcgm_text(self) -> str:
        """Return the exporters' text; values change once per collect interval.

        Raises:
            ExporterDeadError: a fault says so.
        """
        collection = math.floor(self.now() / self.options.speed / self.options.collect_seconds)
        if self._collected is None or self._collected[0] != collection:
            self.fleet.advance(self.now())
            self._collected = (collection, rows(self.fleet))
        table = faults.apply(self.faults.values(), self._collected[1])
        return dcgm(table, generation=self.options.generation, labels=self.options.labels)

    def engine_text(self, pod: PodRef) -> str:
        """Return an engine's text.

        Raises:
            LookupError: the pod serves nothing; the message says why.
        """
        engine = self.fleet.engines.get(pod)
        if engine is None:
            raise LookupError(self.fleet.missing.get(pod, f"{pod} is no ready serving pod"))
        self.fleet.advance(self.now())
        for fault in self.engine_faults.values():
            engine = fault(engine)
        return vllm(engine)

    def assignments(self) -> dict[str, object]:
        """Return which runs stand for which pods, and why others have none."""
        return {
            "pods": {str(pod): asdict(engine.point) for pod, engine in self.fleet.engines.items()},
            "missing": {str(pod): reason for pod, reason in self.fleet.missing.items()},
            "faults": [*self.faults, *self.engine_faults],
        }


def application(
    replay: Replay, snapshot: Callable[[], ClusterState] | None = None, refresh: float = 2.0
) -> web.Application:
    """Return the HTTP application; with ``snapshot`` it takes in the cluster every ``refresh`` seconds.

    GET /dcgm/metrics, GET /pods/{namespace}/{pod}/metrics, GET /assignments, PUT /faults with a JSON list of names.
    """

    async def get_dcgm(request: web.Request) -> web.Response:
        try:
            return web.Response(text=replay.dcgm_text())
        except faults.ExporterDeadError:
            return web.Response(status=503, text="dead, as asked for\n")

    async def get_engine(request: web.Request) -> web.Response:
        try:
            return web.Response(text=replay.engine_text(PodRef(**request.match_info)))
        except LookupError as error:
            return web.Response(status=404, text=f"{error}\n")

    async def get_assignments(request: web.Request) -> web.Response:
        return web.json_response(replay.assignments())

    async def put_faults(request: web.Request) -> web.Response:
        try:
            replay.set_faults(await request.json())
        except (ValueError, TypeError) as error:
            return web.Response(status=400, text=f"{error}\n")
        return web.json_response([*replay.faults, *replay.engine_faults])

    async def follow(app: web.Application) -> AsyncIterator[None]:
        if snapshot is None:
            yield
            return
        replay.update(await asyncio.to_thread(snapshot))
        task = asyncio.create_task(_follow(replay, snapshot, refresh))
        yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    app = web.Application()
    app.router.add_get("/dcgm/metrics", get_dcgm)
    app.router.add_get("/pods/{namespace}/{pod}/metrics", get_engine)
    app.router.add_get("/assignments", get_assignments)
    app.router.add_put("/faults", put_faults)
    app.cleanup_ctx.append(follow)
    return app


async def _follow(replay: Replay, snapshot: Callable[[], ClusterState], refresh: float) -> None:
    while True:
        await asyncio.sleep(refresh)
        try:
            replay.update(await asyncio.to_thread(snapshot))
        except Exception:
            # The API server may be busy or restarting; the pods of before go on, and the log says so.
            _LOG.exception("cannot look at the cluster; pods stay as they were")
