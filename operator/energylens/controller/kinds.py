"""Which optional kinds the operator may use: watching what is not served, or may not be listed, would end kopf."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import CLUSTER_ENERGY_BUDGET, LEADER_WORKER_SET, NAMESPACE

AGAIN_SECONDS = 2.0

log = logging.getLogger("energylens")


class OptionalKinds:
    """Asks the API server, and goes on asking while it does not answer."""

    def __init__(
        self,
        cluster: ClusterPort,
        namespaces: Sequence[str],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Ask ``cluster`` about ``namespaces``, or about all of them when there are none."""
        self._cluster = cluster
        self._namespaces = tuple(namespaces)
        self._sleep = sleep

    async def leader_worker_sets(self) -> bool:
        """Return whether LeaderWorkerSets are served and may be listed wherever the operator works."""
        while True:
            try:
                if not await self._cluster.serves(LEADER_WORKER_SET):
                    return False
                for namespace in self._namespaces or (None,):
                    await self._cluster.list_uids(LEADER_WORKER_SET, namespace=namespace)
                return True
            except ForbiddenError as error:
                log.warning("LeaderWorkerSets are not used: %s", error)
                return False
            except ClusterError as error:
                log.warning("asking for the kinds that are served: %s; trying again", error)
                await self._sleep(AGAIN_SECONDS)

    async def cluster_budgets(self) -> bool:
        """Return whether ClusterEnergyBudgets, and the namespaces that they select, may be listed."""
        while True:
            try:
                for resource in (CLUSTER_ENERGY_BUDGET, NAMESPACE):
                    await self._cluster.list_uids(resource)
                return True
            except (ForbiddenError, NotFoundError) as error:
                log.warning("ClusterEnergyBudgets are not kept: %s", error)
                return False
            except ClusterError as error:
                log.warning("asking for ClusterEnergyBudgets: %s; trying again", error)
                await self._sleep(AGAIN_SECONDS)
