"""The operator's process: serve metrics, hold the lease, and act while it is held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import kopf
from aiohttp import web

from energylens import __version__
from energylens.clock import Clock, SystemClock
from energylens.cluster.client import KubeClient, UnusableConfigError, connect
from energylens.cluster.errors import ClusterError
from energylens.cluster.lease import LeaseGuard
from energylens.controller.budget_keeper import BudgetKeeper
from energylens.controller.corrections import Pool
from energylens.controller.corrections_store import load_pool, store_pool
from energylens.controller.failures import Failures
from energylens.controller.handlers import registry_for, settings_for
from energylens.controller.http import application
from energylens.controller.kinds import AGAIN_SECONDS, OptionalKinds
from energylens.controller.measuring import Measuring, prometheus_source
from energylens.controller.metrics import Metrics
from energylens.controller.planning import PlanningService
from energylens.controller.queue import KeyQueue
from energylens.controller.reconcile import Reconciler
from energylens.controller.settings import Settings
from energylens.controller.store import Key, Store
from energylens.controller.sweep import Sweeper
from energylens.controller.workers import Workers
from energylens.measure.prometheus_http import PrometheusError
from energylens.measure.scrape import HttpScraper
from energylens.measure.source import EnergySource
from energylens.serving.workload import LWS_SUFFIX

LEASE_NAME = "energylens-operator"
SILENCE_SECONDS = 600.0
"""No watch event for so long means dead watches: nodes' heartbeats alone bring some every minute."""
KIND_CHECK_SECONDS = 60.0
POOL_SECONDS = 10.0
"""Between two looks at whether corrections are to be stored; what was learned since is learned again within hours."""
KOPF_STOP_SECONDS = 2.0
"""For kopf to stop politely, and once more after it was cancelled; a pod has 30 s to stop, a user less patience."""
RELEASE_SECONDS = 3.0
IDENTITY_VARIABLE = "POD_NAME"
NAMESPACE_VARIABLE = "POD_NAMESPACE"

log = logging.getLogger("energylens")


class StartError(Exception):
    """The operator cannot start as it was asked to; one line."""


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

    def __init__(
        self,
        options: Options,
        cluster: KubeClient,
        http: HttpScraper,
        clock: Clock,
        prometheus: EnergySource | None = None,
    ) -> None:
        """Build the parts; nothing runs yet."""
        self._options = options
        self._cluster = cluster
        self._clock = clock
        self._identity = os.environ.get(IDENTITY_VARIABLE) or f"{socket.gethostname()}-{os.getpid()}"
        self._store = Store()
        self._metrics = Metrics(self._store)
        self._metrics.build.info({"version": __version__})
        self._queue = KeyQueue(self._is_urgent)
        self._pool = Pool()
        self._measuring = Measuring(
            self._store,
            options.settings.measurement,
            http,
            clock,
            self._queue.add,
            prometheus,
            lambda key, joules: self._metrics.energy.labels(*key).inc(joules),
        )
        self._reconciler = Reconciler(
            cluster,
            self._store,
            PlanningService(resync_seconds=options.settings.resync_seconds),
            clock,
            options.settings,
            self._metrics,
            instance=self._identity,
            measurements=self._measuring.latest,
            pool=self._pool,
        )
        self._keeper = BudgetKeeper(
            cluster,
            self._store,
            self._reconciler.allowances,
            self._measuring.energy,
            clock,
            options.settings.budgets,
            self._metrics,
            self._queue.add,
        )
        self._sweeper = Sweeper(cluster, self._store, self._queue.add, options.namespaces)
        self._kinds = OptionalKinds(cluster, options.namespaces)
        failures = Failures(cluster, self._store, clock, self._metrics, self._identity)
        self._workers = Workers(self._queue, self._reconciler.reconcile, failures.show, self._metrics, clock)
        self._last_event = clock.monotonic()
        self._leading = False
        self._synced = asyncio.Event()
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Serve the metrics, wait for the lease, and act until told to stop."""
        self._stop_on_signals()
        if self._options.namespaces:
            log.warning(
                "only %s: GPUs that pods of other namespaces hold are not seen, and count as free",
                ", ".join(self._options.namespaces),
            )
        runner = web.AppRunner(
            application(self._metrics.registry, self._refresh, self._health, self._readiness), access_log=None
        )
        await runner.setup()
        host, port = self._options.metrics_host, self._options.metrics_port
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            await runner.cleanup()
            raise StartError(f"--metrics-port={port}: cannot listen on {host}:{port}: {error.strerror}") from error
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
            await self._give_back(lease)
            return
        # Whatever went wrong there, to act without the lease would be worse.
        acquire.result()
        self._leading = True
        log.info("leading")
        hold = asyncio.create_task(lease.hold())
        act = asyncio.create_task(self._remember_and_act(lease.namespace))
        await asyncio.wait({stop, hold, act}, return_when=asyncio.FIRST_COMPLETED)
        self._leading = False
        if hold.done():
            # Another operator may act already: nothing may be finished, not even politely.
            log.error("the lease is lost; ending at once")
            os._exit(1)
        act.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await act
        finally:
            hold.cancel()
            await self._give_back(lease)

    async def _give_back(self, lease: LeaseGuard) -> None:
        """Release the lease if that is quick; without it the next operator waits until it expires."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RELEASE_SECONDS):
                await lease.release()

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)

    async def _remember_and_act(self, namespace: str) -> None:
        """Act with what earlier operators learned from measurement, and keep what is learned."""
        await self._until_done(lambda: load_pool(self._cluster, namespace, self._pool), "reading the corrections")
        keeping = asyncio.create_task(self._keep_pool(namespace))
        try:
            await self._act()
        finally:
            keeping.cancel()

    async def _keep_pool(self, namespace: str) -> None:
        while True:
            await asyncio.sleep(POOL_SECONDS)
            await self._until_done(lambda: store_pool(self._cluster, namespace, self._pool), "writing the corrections")

    async def _act(self) -> None:
        """Watch and work until told to stop; watch anew when LeaderWorkerSet comes or goes."""
        while not self._stop.is_set():
            served = await self._kinds.leader_worker_sets()
            self._reconciler.serves_lws = self._sweeper.serves_lws = served
            self._sweeper.sees_cluster_budgets = await self._kinds.cluster_budgets()
            await self._until_done(self._sweeper.hear_of_disruption_budgets, "listing PodDisruptionBudgets")
            await self._watch(served)

    async def _watch(self, serves_lws: bool) -> None:
        self._synced.clear()
        changed, ready = asyncio.Event(), asyncio.Event()
        # When kopf stops it cancels every task of the loop that was born after it started: ours come first, and they
        # end before it does.
        started = asyncio.create_task(ready.wait())
        ours = [
            started,
            asyncio.create_task(self._settle(ready)),
            *(asyncio.create_task(self._work()) for _ in range(self._options.settings.workers)),
            *(
                asyncio.create_task(task)
                for task in (self._measure(), self._keep_budgets(), self._plan_again(), self._sweep())
            ),
            asyncio.create_task(self._watch_kinds(changed)),
        ]
        watching = asyncio.create_task(
            kopf.operator(
                registry=registry_for(
                    self._store,
                    self._queue.add,
                    self._alive,
                    serves_lws,
                    self._options.kubeconfig,
                    self._sweeper.sees_cluster_budgets,
                ),
                settings=settings_for(serves_lws),
                standalone=True,
                clusterwide=not self._options.namespaces,
                namespaces=list(self._options.namespaces),
                stop_flag=changed,
                ready_flag=ready,
            )
        )
        asked = asyncio.create_task(changed.wait())
        try:
            await asyncio.wait({watching, started}, return_when=asyncio.FIRST_COMPLETED)
            # kopf has set its own handlers by now.
            self._stop_on_signals()
            pending = {watching, asked, *ours} - {started}
            while not watching.done() and not asked.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            if not changed.is_set():
                # Only a signal that came before the handlers were ours ends kopf without an error.
                self._stop.set()
        finally:
            # With the flag set kopf does not kill the process when it takes long to stop.
            changed.set()
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await asyncio.wait({watching}, timeout=KOPF_STOP_SECONDS)
            watching.cancel()
            await asyncio.wait({watching}, timeout=KOPF_STOP_SECONDS)

    async def _settle(self, ready: asyncio.Event) -> None:
        """Let the initial lists come in before anything is written: half a view would undo what is there."""
        await ready.wait()
        await self._until_done(self._sweeper.settle, "listing what is watched")
        # What was deleted while nothing was watched is in the store of an earlier watch.
        await self._until_done(self._sweeper.sweep, "listing what is watched")
        self._synced.set()

    async def _until_done(self, step: Callable[[], Awaitable[None]], what: str) -> None:
        while True:
            try:
                return await step()
            except ClusterError as error:
                log.warning("%s: %s; trying again", what, error)
                await asyncio.sleep(AGAIN_SECONDS)

    async def _sweep(self) -> None:
        """Find what the watches have missed."""
        await self._synced.wait()
        while True:
            await asyncio.sleep(self._options.settings.resync_seconds)
            await self._until_done(self._sweeper.sweep, "listing what is watched")

    async def _work(self) -> None:
        await self._synced.wait()
        await self._workers.work()

    async def _measure(self) -> None:
        await self._synced.wait()
        while True:
            try:
                report = await self._measuring.step()
                for failure in report.failures:
                    self._metrics.collect_failures.labels(failure.reason).inc()
            except Exception:
                self._metrics.collect_failures.labels("Defect").inc()
                log.exception("measuring failed: internal error; retrying")
            await asyncio.sleep(self._options.settings.measurement.scrape_seconds)

    async def _keep_budgets(self) -> None:
        await self._synced.wait()
        while True:
            try:
                await self._keeper.step()
            except Exception:
                log.exception("keeping the budgets failed: internal error; retrying")
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

    async def _watch_kinds(self, changed: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(KIND_CHECK_SECONDS)
            if await self._kinds.leader_worker_sets() != self._reconciler.serves_lws:
                log.info("LeaderWorkerSet came or went; watching anew")
                changed.set()
                return

    def _is_urgent(self, key: Key) -> bool:
        namespace, name = key
        children = self._store.children
        return ("Deployment", *key) in children or ("LeaderWorkerSet", namespace, f"{name}{LWS_SUFFIX}") in children

    def _alive(self) -> None:
        self._last_event = self._clock.monotonic()

    def _refresh(self) -> None:
        self._metrics.queue_length.set(self._queue.unfinished)
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
    """Run the operator until it is told to stop.

    Raises:
        StartError: the port is taken, or there is no usable way to the API server.
    """
    if options.kubeconfig is not None:
        # kopf logs in by this variable only.
        os.environ["KUBECONFIG"] = str(options.kubeconfig)
    clock = SystemClock()
    try:
        client = await connect(options.kubeconfig)
    except UnusableConfigError as error:
        raise StartError(str(error)) from error
    try:
        async with (
            client as cluster,
            HttpScraper(clock) as http,
            prometheus_source(options.settings.measurement.prometheus, clock) as prometheus,
        ):
            await Operator(options, cluster, http, clock, prometheus).run()
    except PrometheusError as error:
        raise StartError(f"measurement.prometheus.{error}") from error


def known_namespaces(namespaces: Sequence[str]) -> tuple[str, ...]:
    """Return distinct namespaces in order."""
    return tuple(dict.fromkeys(namespaces))
