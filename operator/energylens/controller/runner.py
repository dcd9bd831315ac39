"""The operator's process: serve metrics, hold the lease, and act while it is held."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from functools import partial

from aiohttp import web

from energylens.clock import Clock, SystemClock
from energylens.cluster.connecting import connect
from energylens.cluster.fence import FencedCluster
from energylens.cluster.kubeconfig import UnusableConfigError
from energylens.cluster.lease import LeaseGuard
from energylens.cluster.port import ClusterPort
from energylens.controller.acting import Acting
from energylens.controller.endpoints.health import Health
from energylens.controller.endpoints.http import ListenError, application, listen
from energylens.controller.energy.measuring import prometheus_source
from energylens.controller.options import Options
from energylens.controller.process import Process
from energylens.controller.watching.rights import Rights
from energylens.measure.prometheus_http import PrometheusError
from energylens.measure.scrape import HttpScraper
from energylens.measure.source import EnergySource

LEASE_NAME = "energylens-operator"
RELEASE_SECONDS = 3.0
IDENTITY_VARIABLE = "POD_NAME"
NAMESPACE_VARIABLE = "POD_NAMESPACE"

log = logging.getLogger("energylens")


class StartError(Exception):
    """The operator cannot start as it was asked to; one line."""


class EndedError(Exception):
    """The operator ended though nobody asked for it; the log says why."""


class Operator:
    """Everything of one process; :meth:`run` returns when it was asked to stop or the lease is lost."""

    def __init__(
        self,
        options: Options,
        cluster: ClusterPort,
        http: HttpScraper,
        clock: Clock,
        prometheus: EnergySource | None = None,
    ) -> None:
        """Build the parts; nothing runs yet."""
        self._options = options
        self._identity = os.environ.get(IDENTITY_VARIABLE) or f"{socket.gethostname()}-{os.getpid()}"
        self._health = Health(clock, options.settings.watch_silence_seconds)
        self._lease = LeaseGuard(
            cluster,
            clock,
            options.lease_namespace,
            LEASE_NAME,
            self._identity,
            options.settings.lease_seconds,
            options.settings.lease_renew_seconds,
            report=partial(self._health.report, f"the lease {options.lease_namespace}/{LEASE_NAME}"),
        )
        self._rights = Rights(cluster, options.namespaces, self._health.report)
        self._stop = asyncio.Event()
        self._server: web.Server | None = None
        """Serves probes and metrics; None until it listens."""
        self._acting = Acting(
            options,
            FencedCluster(cluster, lambda: self._lease.is_held),
            http,
            clock,
            prometheus,
            Process(self._identity, self._health, self._stop, self._stop_on_signals, self._drop_connections),
        )

    async def run(self) -> None:
        """Serve the metrics, wait for the lease, and act until told to stop.

        Raises:
            StartError: the port cannot be listened on.
            EndedError: a defect ended it.
        """
        self._stop_on_signals()
        if self._options.namespaces:
            log.warning(
                "only %s: GPUs that pods of other namespaces hold are not seen, and count as free",
                ", ".join(self._options.namespaces),
            )
        runner = web.AppRunner(
            application(self._acting.metrics_page, self._health.alive, self._health.ready),
            access_log=None,
        )
        await runner.setup()
        # Also while another one leads: an operator that could not act must not look ready to take over. It is born
        # before kopf starts, which cancels every task that is younger when it stops.
        rights = asyncio.create_task(self._rights.watch())
        try:
            await listen(runner, self._options.metrics_host, self._options.metrics_port)
            self._server = runner.server
            await self._lead(self._lease)
        except ListenError as error:
            raise StartError(f"--metrics-port={self._options.metrics_port}: {error}") from error
        except Exception as error:
            log.exception("ending with an error: %s", error or type(error).__name__)
            raise EndedError(str(error)) from error
        finally:
            rights.cancel()
            await asyncio.gather(rights, return_exceptions=True)
            await runner.cleanup()

    def log_in_again(self) -> None:
        """Let the watches use the credentials as they are now."""
        self._acting.watch_again()

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
        self._health.leading = True
        log.info("leading")
        hold = asyncio.create_task(lease.hold())
        act = asyncio.create_task(self._acting.run(lease.namespace))
        await asyncio.wait({stop, hold, act}, return_when=asyncio.FIRST_COMPLETED)
        self._health.leading = False
        if hold.done():
            # Another operator may act already: nothing may be finished, not even politely.
            defect = None if hold.cancelled() else hold.exception()
            log.error("the lease is lost%s; ending at once", f": {defect!r}" if defect is not None else "")
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

    def _drop_connections(self) -> None:
        # A connection without its task would stay open, and answer nothing.
        for connection in () if self._server is None else list(self._server.connections):
            connection.force_close()

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)


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
            operator = Operator(options, cluster, http, clock, prometheus)
            cluster.on_renewal = operator.log_in_again
            await operator.run()
    except PrometheusError as error:
        raise StartError(f"measurement.prometheus.{error}") from error


def known_namespaces(namespaces: Sequence[str]) -> tuple[str, ...]:
    """Return distinct namespaces in order."""
    return tuple(dict.fromkeys(namespaces))
