"""The loop: look at the pods and GPUs of this node, set what differs, and restore every limit at the end.

A GPU is written into the record before its limit is changed, and taken out after it was restored: whenever the process
dies, the record has at least the GPUs with a limit of ours.
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
"""Returns the annotation of each pod of this node that has one, by UID; None where the API server does not answer."""


class Agent:
    """Power limits of one node."""

    def __init__(self, devices: Devices, caps: Caps, record: Record) -> None:
        """Act on ``devices`` by what ``caps`` says; ``record`` outlives the process."""
        self._devices = devices
        self._caps = caps
        self._record = record
        self._said: frozenset[str] = frozenset()

    async def run(self, interval_seconds: float, stop: asyncio.Event) -> None:
        """Act until ``stop`` is set, then restore the default limits; also when something goes wrong.

        Raises:
            DevicesUnavailableError: the driver answers no more.
            RecordError: the record cannot be kept: nothing is changed without it.
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
        """Look once and set what differs. While the API server does not answer, everything stays as it is."""
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
        """Give every GPU with a limit of ours its default back; one that fails stays in the record."""
        ours = self._record.read()
        if not ours:
            return
        left: set[str] = set()
        defaults = {gpu.uuid: gpu.default_watts for gpu in self._devices.read()}
        for uuid in sorted(ours):
            if uuid not in defaults:
                # It is not on this node any more.
                continue
            try:
                self._devices.set_limit(uuid, defaults[uuid])
                log.info("GPU %s: %.0f W, its default", uuid, defaults[uuid])
            except DevicesUnavailableError as error:
                log.error("%s", error)
                left.add(uuid)
        self._record.write(frozenset(left))
