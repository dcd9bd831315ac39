"""The operator's process: serve metrics, hold the lease, and act while it is held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import kopf
from aiohttp import web

from energylens import __version__
from energylens.clock import Clock, SystemClock
from energylens.cluster.client import KubeClient, connect
from energylens.cluster.errors import BusyError, ClusterError
from energylens.cluster.lease import LeaseGuard
from energylens.cluster.resources import LEADER_WORKER_SET, POD_DISRUPTION_BUDGET
from energylens.controller.handlers import MANAGED, registry_for, settings_for
from energylens.controller.http import application
from energylens.controller.measuring import Measuring
from energylens.controller.metrics import Metrics
from energylens.controller.planning import PlanningService
from energylens.controller.queue import KeyQueue
from energylens.controller.reconcile import Reconciler
from energylens.controller.settings import Settings
from energylens.controller.store import Key, Store
from energylens.measure.scrape import HttpScraper

LEASE_NAME = "energylens-operator"
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)
SILENCE_SECONDS = 600.0
"""No watch event for so long means dead watches: nodes' heartbeats alone bring some every minute."""
KIND_CHECK_SECONDS = 60.0
IDENTITY_VARIABLE = "POD_NAME"
NAMESPACE_VARIABLE = "POD_NAMESPACE"

log = logging.getLogger("energylens")


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    kubeconfig: Path | None
    metrics_port: int
    metrics_host: str
    namespaces: tuple[str, ...]
    lease_namespace: str
    settings: Settings


class Operator:
    """Everything of one process; :meth:`run` returns when it was asked to stop or the lease is lost."""

    def __init__(self, options: Options, cluster: KubeClient, http: HttpScraper, clock: Clock) -> None:
        """Build the parts; nothing runs yet."""
        self._options = options
        self._cluster = cluster
        self._clock = clock
        self._identity = os.environ.get(IDENTITY_VARIABLE) or f"{socket.gethostname()}-{os.getpid()}"
        self._metrics = Metrics()
        self._metrics.build.info({"version": __version__})
        self._store = Store()
        self._queue = KeyQueue(self._is_urgent)
        self._measuring = Measuring(self._store, options.settings.measurement, http, clock, self._queue.add)
        self._reconciler = Reconciler(
            cluster,
            self._store,
            PlanningService(resync_seconds=options.settings.resync_seconds),
            clock,
            options.settings,
            self._metrics,
            instance=self._identity,
            measurements=self._measuring.latest,
        )
        self._failures: dict[Key, int] = {}
        self._last_event = clock.monotonic()
        self._leading = False
        self._synced = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve the metrics, wait for the lease, and act until told to stop."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        runner = web.AppRunner(
            application(self._metrics.registry, self._refresh, self._health, self._readiness), access_log=None
        )
        await runner.setup()
        await web.TCPSite(runner, self._options.metrics_host, self._options.metrics_port).start()
        settings = self._options.settings
        lease = LeaseGuard(
            self._cluster,
            self._clock,
            self._options.lease_namespace,
            LEASE_NAME,
            self._identity,
            settings.lease_seconds,
            settings.lease_renew_seconds,
        )
        try:
            await self._lead(lease)
        finally:
            await runner.cleanup()

    async def _lead(self, lease: LeaseGuard) -> None:
        stop = asyncio.create_task(self._stop.wait())
        acquire = asyncio.create_task(lease.acquire())
        log.info("waiting for the lease %s/%s as %s", lease.namespace, lease.name, self._identity)
        await asyncio.wait({stop, acquire}, return_when=asyncio.FIRST_COMPLETED)
        if not acquire.done():
            acquire.cancel()
            return
        self._leading = True
        log.info("leading")
        hold = asyncio.create_task(lease.hold())
        act = asyncio.create_task(self._act())
        await asyncio.wait({stop, hold, act}, return_when=asyncio.FIRST_COMPLETED)
        self._leading = False
        if hold.done():
            # Another operator may act already: nothing may be finished, not even politely.
            log.error("the lease is lost; ending at once")
            os._exit(1)
        act.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await act
        hold.cancel()
        await lease.release()

    async def _act(self) -> None:
        """Watch and work until cancelled; watch anew when LeaderWorkerSet comes or goes."""
        # Tasks born after kopf started would be cancelled by it.
        work = [asyncio.create_task(self._work()) for _ in range(self._options.settings.workers)]
        background = [asyncio.create_task(task) for task in (self._measure(), self._plan_again())]
        try:
            while True:
                self._reconciler.serves_lws = await self._served()
                await self._list_disruption_budgets()
                changed = asyncio.Event()
                kind_check = asyncio.create_task(self._watch_kinds(changed))
                await self._watch(changed)
                kind_check.cancel()
        finally:
            for task in (*work, *background):
                task.cancel()

    async def _watch(self, changed: asyncio.Event) -> None:
        ready = asyncio.Event()
        serves_lws = self._reconciler.serves_lws
        watching = asyncio.create_task(
            kopf.operator(
                registry=registry_for(self._store, self._queue.add, self._alive, serves_lws, self._options.kubeconfig),
                settings=settings_for(serves_lws),
                standalone=True,
                clusterwide=not self._options.namespaces,
                namespaces=list(self._options.namespaces),
                stop_flag=changed,
                ready_flag=ready,
            )
        )
        try:
            await self._settle(ready)
            await watching
        finally:
            if not watching.done():
                changed.set()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching

    async def _settle(self, ready: asyncio.Event) -> None:
        """Let the initial lists come in before anything is written: half a view would undo what is there."""
        await ready.wait()
        seen = -1
        while self._synced.is_set() is False:
            await asyncio.sleep(0.5)
            count = len(self._store.deployments) + len(self._store.children) + len(self._store.pods)
            count += len(self._store.nodes)
            if count == seen:
                self._synced.set()
            seen = count
        # kopf has its own handlers for these by now; ours stop the whole process in order.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _work(self) -> None:
        await self._synced.wait()
        while True:
            key = await self._queue.take()
            started = self._clock.monotonic()
            try:
                again = await self._reconciler.reconcile(key)
                self._failures.pop(key, None)
                self._metrics.reconciles.labels("ok").inc()
                if again is not None:
                    self._queue.add_later(key, again)
            except ClusterError as error:
                self._later(key, error.retry_after_seconds if isinstance(error, BusyError) else None)
                self._metrics.reconciles.labels("retry").inc()
                log.warning("%s/%s: %s; trying again", *key, error)
            except Exception:
                self._later(key, None)
                self._metrics.reconciles.labels("error").inc()
                log.exception("%s/%s: a defect of the operator; trying again", *key)
            finally:
                self._metrics.reconcile_seconds.observe(self._clock.monotonic() - started)
                self._queue.done(key)

    def _later(self, key: Key, seconds: float | None) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._queue.add_later(key, seconds or RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])

    async def _measure(self) -> None:
        await self._synced.wait()
        while True:
            try:
                await self._measuring.step()
            except Exception:
                log.exception("measuring failed; a defect of the operator")
            await asyncio.sleep(self._options.settings.measurement.scrape_seconds)

    async def _plan_again(self) -> None:
        """Look again at what had no plan whenever GPUs came or became free."""
        seen = self._store.inventory_version
        while True:
            await asyncio.sleep(self._options.settings.replan_seconds)
            if self._store.inventory_version != seen:
                seen = self._store.inventory_version
                for key in self._reconciler.without_plan:
                    self._queue.add(key)

    async def _served(self) -> bool:
        while True:
            try:
                return await self._cluster.serves(LEADER_WORKER_SET)
            except ClusterError as error:
                log.warning("asking for the kinds that are served: %s; trying again", error)
                await asyncio.sleep(2)

    async def _watch_kinds(self, changed: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(KIND_CHECK_SECONDS)
            if await self._served() != self._reconciler.serves_lws:
                log.info("LeaderWorkerSet came or went; watching anew")
                changed.set()
                return

    async def _list_disruption_budgets(self) -> None:
        """Know the PodDisruptionBudgets, which are not watched, so that a restart does not write them all."""
        for namespace in self._options.namespaces or (None,):
            while True:
                try:
                    found = await self._cluster.list_objects(
                        POD_DISRUPTION_BUDGET, namespace=namespace, label_selector=MANAGED
                    )
                    break
                except ClusterError as error:
                    log.warning("listing PodDisruptionBudgets: %s; trying again", error)
                    await asyncio.sleep(2)
            for body in found:
                self._store.put_child(POD_DISRUPTION_BUDGET.kind, body, deleted=False)

    def _is_urgent(self, key: Key) -> bool:
        return ("Deployment", *key) in self._store.children

    def _alive(self) -> None:
        self._last_event = self._clock.monotonic()

    def _refresh(self) -> None:
        self._metrics.queue_length.set(len(self._queue))
        self._metrics.event_age.set(self._clock.monotonic() - self._last_event)
        self._metrics.leading.set(1 if self._leading else 0)

    def _health(self) -> str:
        silent = self._clock.monotonic() - self._last_event
        if self._leading and silent > SILENCE_SECONDS:
            return f"no watch event for {silent:.0f} s"
        return ""

    def _readiness(self) -> str:
        return "" if self._synced.is_set() or not self._leading else "the initial lists are not in yet"


async def run(options: Options) -> None:
    """Run the operator until it is told to stop."""
    if options.kubeconfig is not None:
        # kopf logs in by this variable only.
        os.environ["KUBECONFIG"] = str(options.kubeconfig)
    clock = SystemClock()
    async with await connect(options.kubeconfig) as cluster, HttpScraper(clock) as http:
        await Operator(options, cluster, http, clock).run()


def known_namespaces(namespaces: Sequence[str]) -> tuple[str, ...]:
    """Return distinct namespaces in order."""
    return tuple(dict.fromkeys(namespaces))
