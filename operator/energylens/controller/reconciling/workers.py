"""Take keys from the queue and reconcile them.

A failed key is retried with growing delays, and immediately if its object changed meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from energylens.clock import Clock
from energylens.cluster.errors import BusyError, ClusterError
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.state.store import Key
from energylens.planner.answers import SearchNeededError

Show = Callable[[Key, Exception, int], Awaitable[None]]
"""Function that receives a key, the exception of its pass, and the number of failures in a row; it does not raise."""
RETRY_SECONDS = (1.0, 2.0, 5.0, 10.0, 30.0)

log = logging.getLogger("energylens")


class Workers:
    """The loops over one queue, and how often each key has failed in a row."""

    def __init__(
        self,
        queue: KeyQueue,
        reconcile: Callable[[Key], Awaitable[float | None]],
        show: Show,
        metrics: Metrics,
        clock: Clock,
        search: Callable[[Key, SearchNeededError], None],
    ) -> None:
        """Call ``reconcile`` for each key; it returns the seconds until the next pass, or None.

        What it raises is told to ``show``, but for a search that it needs, which is told to ``search``.
        """
        self._queue = queue
        self._reconcile = reconcile
        self._show = show
        self._metrics = metrics
        self._clock = clock
        self._search = search
        self._failures: dict[Key, int] = {}

    async def work(self) -> None:
        """Work until cancelled; several may run side by side."""
        while True:
            await self.step()

    async def step(self) -> None:
        """Wait for one key and reconcile it; nothing but a cancellation ends in an exception."""
        key = await self._queue.take()
        started = self._clock.monotonic()
        try:
            again = await self._reconcile(key)
            self._failures.pop(key, None)
            self._metrics.reconciles.labels("ok").inc()
            if again is not None:
                self._queue.add_later(key, again)
        except SearchNeededError as needed:
            self._search(key, needed)
        except ClusterError as error:
            self._later(key, error.retry_after_seconds if isinstance(error, BusyError) else None)
            self._metrics.reconciles.labels("retry").inc()
            log.warning("%s/%s: %s; retrying", *key, error)
            await self._show(key, error, self._failures[key])
        except asyncio.CancelledError:
            # Another watch may follow, which will not bring the key again.
            self._queue.add(key)
            raise
        except Exception as error:
            self._later(key, None)
            self._metrics.reconciles.labels("error").inc()
            log.exception("%s/%s: internal error; retrying", *key)
            await self._show(key, error, self._failures[key])
        finally:
            self._metrics.reconcile_seconds.observe(self._clock.monotonic() - started)
            self._queue.done(key)

    def _later(self, key: Key, seconds: float | None) -> None:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        self._queue.add_later(key, seconds or RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)])
