"""The agent's loop: read the pods and GPUs of its node, set the limits that differ, and restore every limit at the end.

A GPU is added to the record before its limit is changed, and removed after the limit is restored. So the record lists
every GPU whose limit the agent has changed, whenever the process dies.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from energylens.powercap.caps import decide
from energylens.powercap.devices import Devices, DevicesUnavailableError
from energylens.powercap.record import Record

log = logging.getLogger("energylens")

Caps = Callable[[], Awaitable[Mapping[str, str] | None]]
"""Returns the power cap annotations of this node's pods by pod UID; None if the API server does not answer."""


class Agent:
    """Sets the power limits of one node's GPUs."""

    def __init__(self, devices: Devices, caps: Caps, record: Record) -> None:
        """Set limits on ``devices`` as ``caps`` asks; ``record`` keeps the changed GPUs beyond the process."""
        self._devices = devices
        self._caps = caps
        self._record = record
        self._said: frozenset[str] = frozenset()

    async def run(self, interval_seconds: float, stop: asyncio.Event) -> None:
        """Set limits until ``stop`` is set, then restore the defaults; they are restored after an error, too.

        Raises:
            DevicesUnavailableError: the driver answers no more.
            RecordError: the record cannot be written, and no limit is changed without it.
        """
        try:
            while not stop.is_set():
                await self.step()
                try:
                    async with asyncio.timeout(interval_seconds):
                        await stop.wait()
                except TimeoutError:
                    continue
        finally:
            self.restore()

    async def step(self) -> None:
        """Make one pass and set the limits that differ.

        While the API server does not answer, everything stays as it is.
        """
        caps = await self._caps()
        if caps is None:
            return
        ours = self._record.read()
        decision = decide(self._devices.read(), caps, ours)
        for sentence in sorted(set(decision.refused) - self._said):
            log.warning("refused: %s", sentence)
        self._said = frozenset(decision.refused)
        if not decision.ours <= ours:
            self._record.write(ours | decision.ours)
        failed: set[str] = set()
        for change in decision.changes:
            try:
                self._devices.set_limit(change.uuid, change.watts)
            except DevicesUnavailableError as error:
                log.warning("%s", error)
                failed |= {change.uuid} & ours
            else:
                log.info("GPU %s: %.0f W%s", change.uuid, change.watts, ", its default" if change.restores else "")
        if decision.ours | failed != self._record.read():
            self._record.write(decision.ours | failed)

    def restore(self) -> None:
        """Restore the default of every GPU in the record; a GPU whose limit cannot be restored stays in it."""
        ours = self._record.read()
        if not ours:
            return
        left: set[str] = set()
        defaults = {gpu.uuid: gpu.default_watts for gpu in self._devices.read()}
        for uuid in sorted(ours):
            if uuid not in defaults:
                # The GPU is no longer on this node.
                continue
            try:
                self._devices.set_limit(uuid, defaults[uuid])
                log.info("GPU %s: %.0f W, its default", uuid, defaults[uuid])
            except DevicesUnavailableError as error:
                log.error("%s", error)
                left.add(uuid)
        self._record.write(frozenset(left))
