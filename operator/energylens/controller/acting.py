"""The work of the leader: watch, plan, write, measure, and keep budgets, until told to stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import kopf

from energylens.clock import Clock
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import LEADER_WORKER_SET
from energylens.controller.arrival import WATCHING, Arrival
from energylens.controller.memory import giving_back
from energylens.controller.options import Options
from energylens.controller.parts import Parts
from energylens.controller.process import Process
from energylens.controller.state.store import Key
from energylens.controller.watching.endings import may_pass, said_by
from energylens.controller.watching.handlers import registry_for, settings_for
from energylens.controller.watching.kinds import AGAIN_SECONDS, BUDGET_KINDS, WatchableKinds
from energylens.controller.watching.kopf_state import NoMemories
from energylens.controller.watching.resync import LISTING
from energylens.controller.writing.corrections_store import load_pool, store_pool
from energylens.measure.scrape import HttpScraper
from energylens.measure.source import EnergySource

KIND_CHECK_SECONDS = 10.0
POOL_SECONDS = 10.0
"""Seconds between two checks whether corrections must be stored; lost corrections are learned again within hours."""
KOPF_STOP_SECONDS = 2.0
"""Seconds for kopf to stop, and again after it was cancelled; a pod has 30 s to stop, and users wait less."""

log = logging.getLogger("energylens")


class WatchesEndedError(Exception):
    """The watches ended unexpectedly."""


class Acting:
    """Everything that runs only while the lease is held."""

    def __init__(
        self,
        options: Options,
        cluster: ClusterPort,
        http: HttpScraper,
        clock: Clock,
        prometheus: EnergySource | None,
        process: Process,
    ) -> None:
        """Build the parts without starting them.

        Args:
            options: What the command line says.
            cluster: Takes writes only while the lease is held.
            http: Reads metrics of pods.
            clock: The clock.
            prometheus: Where energy is read first.
            process: Whose part this is.
        """
        self._options = options
        self._process = process
        self._cluster = cluster
        self._parts = Parts(options, cluster, http, clock, prometheus, process)
        self._has_watched = False
        self._arrival = Arrival(process, self._parts.sweeper.settle)
        self._synced = asyncio.Event()
        self._changed = asyncio.Event()
        """Set when the current watches must be restarted."""

    def metrics_page(self) -> AsyncIterator[bytes]:
        """Return the metrics as Prometheus reads them, with those that are computed on request."""
        self._parts.metrics.observe_queue(self._parts.queue)
        self._parts.metrics.event_age.set(self._process.health.event_age_seconds)
        self._parts.metrics.leading.set(1 if self._process.health.leading else 0)
        return self._parts.metrics.page()

    async def run(self, namespace: str) -> None:
        """Load the corrections of earlier operators, act, and store new corrections."""
        pool = self._parts.pool
        await self._process.until_done(lambda: load_pool(self._cluster, namespace, pool), "reading the corrections")
        tasks = [asyncio.create_task(self._act()), asyncio.create_task(self._keep_pool(namespace))]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def watch_again(self) -> None:
        """Start the watches again."""
        self._changed.set()

    async def _keep_pool(self, namespace: str) -> None:
        pool = self._parts.pool
        while True:
            await asyncio.sleep(POOL_SECONDS)
            await self._process.until_done(
                lambda: store_pool(self._cluster, namespace, pool), "writing the corrections"
            )

    async def _act(self) -> None:
        """Watch and work until told to stop.

        Restart watches if the kinds change, or if the cause of an end is temporary.
        """
        known: WatchableKinds | None = None
        while not self._process.stop.is_set():
            found = await self._parts.kinds.settled()
            for kind, problem in found.left_out.items():
                if known is None or known.left_out.get(kind) != problem:
                    level = logging.INFO if kind in found.unserved else logging.WARNING
                    log.log(level, "%ss are not used: %s", kind.kind, problem)
            self._parts.sweeper.found = found
            self._parts.reconciler.serves_lws = LEADER_WORKER_SET in found.kinds
            self._parts.reconciler.allowances.unserved = {
                kind.kind: found.left_out[kind] for kind in BUDGET_KINDS if kind in found.unserved
            }
            await self._process.until_done(
                self._parts.sweeper.hear_of_disruption_budgets, "listing poddisruptionbudgets"
            )
            try:
                await self._watch(found, known is not None and known.kinds != found.kinds)
            except Exception as error:
                if not may_pass(error):
                    raise
                self._process.health.report(WATCHING, said_by(error))
                await asyncio.sleep(AGAIN_SECONDS)
            known = found

    async def _watch(self, found: WatchableKinds, all_anew: bool) -> None:
        """Watch and work until told to stop or to restart watches; ``all_anew`` reconciles every deployment again.

        Raises:
            WatchesEndedError: kopf ended, and did not say why.
            Exception: what ended kopf or a task of ours.
        """
        self._synced.clear()
        self._process.health.synced = False
        self._process.health.heartbeats.clear()
        changed, ready = asyncio.Event(), asyncio.Event()
        self._changed = changed
        # kopf cancels tasks created after its start when it stops. These are created first, and end before kopf does.
        started = asyncio.create_task(ready.wait())
        ours = [started, *self._tasks(found, ready, changed, all_anew)]
        watching = asyncio.create_task(self._kopf(found, ready, changed))
        asked = asyncio.create_task(changed.wait())
        try:
            pending = {watching, asked, *ours}
            while not watching.done() and not asked.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                if started in done:
                    # By now kopf has set its own signal handlers.
                    self._process.stop_on_signals()
                if any(task.cancelled() for task in done):
                    # A list that was cut off, because kopf cancels all tasks younger than itself when it stops.
                    await self._end_of(watching)
                    done = {watching}
                for task in done:
                    task.result()
            if not changed.is_set():
                if started.done():
                    raise WatchesEndedError("kopf ended without an error")
                # Only a signal before the operator's handlers were set ends kopf without an error.
                self._process.stop.set()
        finally:
            self._process.health.synced = False
            # With this flag set, kopf does not kill a process that stops slowly.
            changed.set()
            for task in ours:
                task.cancel()
            await asyncio.gather(*ours, return_exceptions=True)
            await asyncio.wait({watching}, timeout=KOPF_STOP_SECONDS)
            watching.cancel()
            await asyncio.wait({watching}, timeout=KOPF_STOP_SECONDS)
            self._process.drop_connections()
            await self._process.health.heartbeats.close_sessions()
        if not watching.done() and not self._process.stop.is_set():
            # It would cancel the tasks of the next watch.
            raise WatchesEndedError("kopf did not stop")

    async def _end_of(self, watching: asyncio.Task[None]) -> None:
        """Wait for the end of kopf, whose error explains a cancelled task of ours.

        Raises:
            WatchesEndedError: kopf does not end, so that something else cancelled the task.
        """
        await asyncio.wait({watching}, timeout=KOPF_STOP_SECONDS)
        if not watching.done() or watching.cancelled():
            raise WatchesEndedError("a task was cancelled")

    def _tasks(
        self, found: WatchableKinds, ready: asyncio.Event, changed: asyncio.Event, all_anew: bool
    ) -> list[asyncio.Task[None]]:
        """Start all tasks beside the watches."""
        return [
            asyncio.create_task(self._settle(ready, changed, all_anew)),
            *(asyncio.create_task(self._work()) for _ in range(self._options.settings.workers)),
            *(
                asyncio.create_task(task)
                for task in (
                    self._measure(),
                    self._parts.windows.run(),
                    self._keep_budgets(),
                    self._plan_again(),
                    self._parts.searches.run(),
                    self._sweep(changed),
                    giving_back(),
                )
            ),
            asyncio.create_task(self._watch_kinds(found, changed)),
        ]

    async def _kopf(self, found: WatchableKinds, ready: asyncio.Event, changed: asyncio.Event) -> None:
        """Watch until ``changed`` is set; ``ready`` is set when it begins."""
        await kopf.operator(
            registry=registry_for(
                self._parts.store, self._hear, found.kinds, self._options.kubeconfig, self._process.health.heartbeats
            ),
            settings=settings_for(found.kinds),
            memories=NoMemories(),
            # kopf would make one of the user's name, which a number without an entry in /etc/passwd has not.
            identity=cast(Any, self._process.identity),
            standalone=True,
            clusterwide=not self._options.namespaces,
            namespaces=list(self._options.namespaces),
            stop_flag=changed,
            ready_flag=ready,
        )

    async def _settle(self, ready: asyncio.Event, changed: asyncio.Event, all_anew: bool) -> None:
        """Wait for the initial lists before any write, because an incomplete view would undo existing objects."""
        await ready.wait()
        watched_before, self._has_watched = self._has_watched, True
        if not await self._arrival.completes():
            changed.set()
            return
        if watched_before or self._process.health.heartbeats.has_listed_again:
            # The store still has objects that were deleted while no watch was running, or between two lists.
            await self._process.until_done(self._parts.sweeper.sweep, LISTING)
        await self._parts.budget_looks.before_passes()
        if all_anew:
            for key in self._parts.store.deployments:
                self._parts.queue.add_again(key)
        self._process.health.synced = True
        self._synced.set()

    async def _sweep(self, changed: asyncio.Event) -> None:
        """Find changes that the watches missed, and restart watches that keep missing changes."""
        await self._synced.wait()
        self._parts.resync.begin()
        while True:
            await asyncio.sleep(self._options.settings.resync_seconds)
            if await self._parts.resync.step():
                changed.set()
                return
            self._process.health.report(WATCHING, "")

    async def _work(self) -> None:
        await self._synced.wait()
        await self._parts.workers.work()

    async def _measure(self) -> None:
        await self._synced.wait()
        while True:
            try:
                report = await self._parts.measuring.step()
                for failure in report.failures:
                    self._parts.metrics.collect_failures.labels(failure.reason).inc()
            except Exception:
                self._parts.metrics.collect_failures.labels("Defect").inc()
                log.exception("measuring failed: internal error; retrying")
            await asyncio.sleep(self._options.settings.measurement.scrape_seconds)

    async def _keep_budgets(self) -> None:
        await self._synced.wait()
        await self._parts.budget_looks.run()

    async def _plan_again(self) -> None:
        """Reconcile deployments without a plan whenever GPUs are added or become free."""
        while True:
            await asyncio.sleep(self._options.settings.replan_seconds)
            for key in self._parts.reconciler.to_plan_again:
                self._parts.queue.add_again(key)

    async def _watch_kinds(self, found: WatchableKinds, changed: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(KIND_CHECK_SECONDS)
            if self._process.health.synced:
                # The watches have run for this long.
                self._process.health.report(WATCHING, "")
            if await self._parts.kinds.changed(found):
                log.info("a kind was installed or removed; starting the watches again")
                changed.set()
                return

    def _hear(self, key: Key) -> None:
        """Enqueue the deployment of a watch event; for most deployments the initial lists only show that they exist."""
        (self._parts.queue.add if self._process.health.synced else self._parts.queue.add_again)(key)
