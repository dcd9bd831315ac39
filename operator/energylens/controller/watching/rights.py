"""The operator's rights besides watching; :mod:`energylens.controller.watching.kinds` asks about watching.

A right that is missing stops nothing by itself: each object that is concerned says so when it is, which may be days
later. The readiness probe says it at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    CONFIG_MAP,
    DEPLOYMENT,
    ENERGY_BUDGET,
    EVENT,
    INFERENCE_POOL,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    PERSISTENT_VOLUME_CLAIM,
    POD_DISRUPTION_BUDGET,
    RESOURCE_CLAIM_TEMPLATE,
    SERVICE,
    Resource,
)
from energylens.controller.watching.kinds import Report
from energylens.records import dataclass

LOOK_SECONDS, AGAIN_SECONDS = 60.0, 5.0
"""Between two checks while no right is missing, and while one is."""
WHAT = "the rights of the operator"

log = logging.getLogger("energylens")


@dataclass(frozen=True)
class Right:
    """One verb on one kind."""

    verb: str
    resource: Resource
    subresource: str = ""

    def __str__(self) -> str:
        """Return it as the API server words it, such as ``patch llmdeployments.energylens.dev/status``."""
        group = f".{self.resource.group}" if self.resource.group else ""
        tail = f"/{self.subresource}" if self.subresource else ""
        return f"{self.verb} {self.resource.plural}{group}{tail}"


def _each(resource: Resource, *verbs: str) -> tuple[Right, ...]:
    return tuple(Right(verb, resource) for verb in verbs)


# A server-side apply that makes an object asks for patch and for create.
RIGHTS: tuple[Right, ...] = (
    Right("patch", LLM_DEPLOYMENT, "status"),
    Right("patch", ENERGY_BUDGET, "status"),
    Right("patch", CLUSTER_ENERGY_BUDGET, "status"),
    *_each(DEPLOYMENT, "create", "patch", "delete"),
    *_each(LEADER_WORKER_SET, "create", "patch", "delete"),
    *_each(SERVICE, "create", "patch"),
    *_each(CONFIG_MAP, "create", "patch", "get"),
    *_each(POD_DISRUPTION_BUDGET, "create", "patch", "delete"),
    *_each(INFERENCE_POOL, "create", "patch", "delete"),
    *_each(RESOURCE_CLAIM_TEMPLATE, "create", "patch", "delete"),
    *_each(PERSISTENT_VOLUME_CLAIM, "get"),
    *_each(EVENT, "create", "list"),
)
"""Actions of the operator besides listing and watching the watched kinds, and besides its lease."""
LEFT_OUT_WITHOUT_LIST = (LEADER_WORKER_SET, CLUSTER_ENERGY_BUDGET, RESOURCE_CLAIM_TEMPLATE, INFERENCE_POOL)
"""Kinds that the operator does without where it may not list them; then it does not write them either."""


class Rights:
    """Asks the API server for each right, periodically."""

    def __init__(
        self,
        cluster: ClusterPort,
        namespaces: Sequence[str],
        report: Report,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Ask ``cluster`` about ``namespaces``, or about all of them when there are none, and ``report`` what lacks."""
        self._cluster = cluster
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._report = report
        self._sleep = sleep

    async def watch(self) -> None:
        """Look periodically, for ever; a failed look is no evidence, and is repeated."""
        while True:
            missing = False
            try:
                missing = await self.look()
            except (ForbiddenError, NotFoundError):
                # Who may not even ask learns it from what is refused.
                self._report(WHAT, "")
            except ClusterError:
                pass
            except Exception:
                log.exception("asking for rights failed: internal error; retrying")
            await self._sleep(AGAIN_SECONDS if missing else LOOK_SECONDS)

    async def look(self) -> bool:
        """Report which rights are missing; return whether any is.

        Raises:
            ClusterError: the API server did not answer.
        """
        missing = await self._missing()
        self._report(WHAT, f"not granted: {'; '.join(missing)}" if missing else "")
        return bool(missing)

    async def _missing(self) -> list[str]:
        """Return what is refused, one text for each place."""
        left_out = {kind for kind in LEFT_OUT_WITHOUT_LIST if not await self._may_list(kind)}
        rights = [right for right in RIGHTS if right.resource not in left_out]
        everywhere = [right for right in rights if not right.resource.namespaced]
        found = [await self._refused(everywhere, None)]
        for namespace in self._namespaces:
            place = f" in namespace {namespace}" if namespace else ""
            refused = await self._refused([right for right in rights if right.resource.namespaced], namespace)
            found.append(refused and refused + place)
        return [text for text in found if text]

    async def _refused(self, rights: Sequence[Right], namespace: str | None) -> str:
        refused = [
            str(right)
            for right in rights
            if not await self._cluster.may(right.verb, right.resource, right.subresource, namespace=namespace)
        ]
        return ", ".join(refused)

    async def _may_list(self, resource: Resource) -> bool:
        places = self._namespaces if resource.namespaced else (None,)
        return all([await self._cluster.may("list", resource, namespace=place) for place in places])
