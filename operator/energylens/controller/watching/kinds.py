"""Which kinds can be watched now: watching a kind that is not served, or may not be listed, ends kopf."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import field

from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import (
    CLUSTER_ENERGY_BUDGET,
    CONFIG_MAP,
    DEPLOYMENT,
    DEVICE_CLASS,
    DEVICE_TAINT_RULE,
    ENERGY_BUDGET,
    INFERENCE_POOL,
    LEADER_WORKER_SET,
    LLM_DEPLOYMENT,
    NAMESPACE,
    NODE,
    OLDER_DEVICE_TAINT_RULE,
    POD,
    POD_DISRUPTION_BUDGET,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
    SERVICE,
    Resource,
)
from energylens.records import dataclass

AGAIN_SECONDS = 2.0

NEEDED = (LLM_DEPLOYMENT, NODE, POD, DEPLOYMENT, SERVICE, CONFIG_MAP, POD_DISRUPTION_BUDGET)
"""Kinds without which nothing can be decided."""
BUDGET_KINDS = (ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET)
DYNAMIC_KINDS = (DEVICE_CLASS, RESOURCE_SLICE, RESOURCE_CLAIM, RESOURCE_CLAIM_TEMPLATE)
"""Kinds of dynamic resource allocation; GPUs cannot be counted by some of them."""
TAINT_RULE_KINDS = (DEVICE_TAINT_RULE, OLDER_DEVICE_TAINT_RULE)
"""Versions of one kind, of which the first that is served is watched."""
OPTIONAL = (*BUDGET_KINDS, LEADER_WORKER_SET, INFERENCE_POOL, *DYNAMIC_KINDS, *TAINT_RULE_KINDS)
_CUSTOM = (LLM_DEPLOYMENT, *BUDGET_KINDS, LEADER_WORKER_SET, INFERENCE_POOL)
ALL_KINDS = frozenset((*NEEDED, *OPTIONAL, NAMESPACE))

Report = Callable[[str, str], None]
"""Function that receives what was tried, and why it failed ("" if it worked)."""


@dataclass(frozen=True)
class WatchableKinds:
    """Which kinds can be watched, and which cannot."""

    kinds: frozenset[Resource]
    left_out: Mapping[Resource, str] = field(default_factory=dict)
    """Why an optional kind is not among them."""
    unserved: frozenset[Resource] = frozenset()
    """Kinds left out because the API server lacks them, rather than because the operator may not list them."""


class Kinds:
    """Asks the API server which kinds can be watched, and retries until it answers."""

    def __init__(
        self,
        cluster: ClusterPort,
        namespaces: Sequence[str],
        report: Report,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Ask ``cluster`` about ``namespaces``, or about all of them when there are none."""
        self._cluster = cluster
        self._namespaces: tuple[str | None, ...] = tuple(namespaces) or (None,)
        self._report = report
        self._sleep = sleep

    async def settled(self) -> WatchableKinds:
        """Return the kinds that can be watched, as soon as all required kinds are among them.

        One that is needed and is not served, or may not be listed, is reported until it can be. Others are left out:

        - LeaderWorkerSet where it is not served or may not be listed: plans over several nodes wait for it.
        - InferencePool where it is not served or may not be listed: deployments that ask for one say so.
        - the kinds of dynamic resource allocation, all of them, where one is not served or may not be listed: GPUs are
          then counted by what device plugins report.
        - DeviceTaintRule where it is not served or may not be listed: only the taints in ResourceSlices count.
        - EnergyBudget and ClusterEnergyBudget where they are not served: what was under a budget may not grow.
        - ClusterEnergyBudget where it, or the namespaces that it selects, may not be listed, as by an operator of some
          namespaces only.

        An EnergyBudget that may not be listed is reported too: growth would break a cap that nobody sees.
        """
        while True:
            # Every kind is checked, so that all missing ones are reported at once.
            needed = [await self._problem(resource, self._namespaces) is None for resource in NEEDED]
            found = await self._optional(self._namespaces)
            if all(needed) and found is not None:
                return found
            await self._sleep(AGAIN_SECONDS)

    async def changed(self, known: WatchableKinds) -> bool:
        """Return whether a kind was added or removed, with a few requests regardless of the number of namespaces."""
        found = await self._optional(self._namespaces[:1])
        gone = isinstance(await self._problem(LLM_DEPLOYMENT, self._namespaces[:1]), NotFoundError)
        return gone or (found is not None and found.kinds != known.kinds)

    async def _optional(self, namespaces: Sequence[str | None]) -> WatchableKinds | None:
        """Return the kinds that can be watched if all required ones can; None if that is unknown."""
        kinds, left_out, unserved = set(NEEDED), {}, set()
        for resource in OPTIONAL:
            problem = await self._problem(resource, namespaces)
            if problem is None:
                kinds.add(resource)
            elif isinstance(problem, NotFoundError):
                unserved.add(resource)
            elif not _may_lack(resource, problem):
                return None
            if problem is not None:
                left_out[resource] = str(problem)
        if CLUSTER_ENERGY_BUDGET in kinds:
            kinds.add(NAMESPACE)
        if not kinds.issuperset(DYNAMIC_KINDS):
            kinds.difference_update((*DYNAMIC_KINDS, *TAINT_RULE_KINDS))
        if DEVICE_TAINT_RULE in kinds:
            kinds.discard(OLDER_DEVICE_TAINT_RULE)
        return WatchableKinds(frozenset(kinds), left_out, frozenset(unserved))

    async def _problem(self, resource: Resource, namespaces: Sequence[str | None]) -> ClusterError | None:
        """Return why a kind cannot be watched, and report required kinds."""
        problem: ClusterError | None = None
        try:
            # Lists of a newly created kind may work before kopf finds the kind.
            if resource in _CUSTOM and not await self._cluster.serves(resource):
                raise NotFoundError
            for listed in (resource, *((NAMESPACE,) if resource is CLUSTER_ENERGY_BUDGET else ())):
                await self._may_list(listed, namespaces)
        except NotFoundError:
            text = f"the API server does not serve {resource.plural} of {resource.api_version}"
            problem = NotFoundError(text)
        except ClusterError as error:
            problem = error
        said = "" if problem is None or _may_lack(resource, problem) else str(problem)
        if isinstance(problem, NotFoundError) and said:
            said += "; install the CustomResourceDefinitions"
        self._report(f"listing {resource.plural}", said)
        return problem

    async def _may_list(self, resource: Resource, namespaces: Sequence[str | None]) -> None:
        for namespace in namespaces if resource.namespaced else (None,):
            await self._cluster.may_list(resource, namespace=namespace)


def _may_lack(resource: Resource, problem: ClusterError) -> bool:
    """Return whether the operator can run without a kind for this reason."""
    if resource not in OPTIONAL:
        return False
    return isinstance(problem, NotFoundError) or (isinstance(problem, ForbiddenError) and resource is not ENERGY_BUDGET)
