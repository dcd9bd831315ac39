"""The inputs of a pass, read from the caches, or from the API server if the caches lack them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.clock import Clock
from energylens.cluster.errors import ForbiddenError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import CONFIG_MAP
from energylens.controller.reconciling.inquiries import lacks_pods, slow_pods, why_no_pods, why_queued, why_slow
from energylens.controller.state.store import Key, Store
from energylens.decide.decide import Live
from energylens.decide.deployment.observed.named_maps import (
    NamedMap,
    NamedMaps,
    config_name,
    hours_name,
    job_hours_name,
)
from energylens.decide.deployment.observed.observation import BY_KUEUE, PodState, of_main, plan_label, pod_state
from energylens.decide.deployment.plans.replica import SeenPods
from energylens.decide.deployment.trials.approval import waits
from energylens.decide.gather import Present
from energylens.measure.types import WindowMeasurement
from energylens.serving.claims import Claims
from energylens.serving.support import table_name

Measurements = Callable[[Key, str], WindowMeasurement | None]
"""Function from a deployment and the hash of the running plan to its last full window."""


def never_measured(key: Key, plan_hash: str) -> WindowMeasurement | None:
    """Return that nothing was measured."""
    return None


class Observing:
    """Reads the objects of a deployment."""

    def __init__(
        self,
        cluster: ClusterPort,
        store: Store,
        clock: Clock,
        measurements: Measurements = never_measured,
        canary_measurements: Measurements = never_measured,
    ) -> None:
        """Read from ``store``, and ask ``cluster``.

        ``canary_measurements`` are of the one replica by which a new plan is verified.
        """
        self._cluster = cluster
        self._store = store
        self._clock = clock
        self.measurements = measurements
        self.canary_measurements = canary_measurements

    def latest(self, key: Key, plan_hash: str) -> WindowMeasurement | None:
        """Return the last window of a plan by its hash."""
        return self.measurements(key, plan_hash)

    def measurement(
        self, key: Key, plan: PlanStatus | None, workload: Mapping[str, Any] | None
    ) -> WindowMeasurement | None:
        """Return the last window of the plan, and never that of another plan's pods."""
        return self.measurements(key, plan.hash) if plan is not None and plan.hash == plan_label(workload) else None

    def present(self, key: Key, deployment: LLMDeployment, claims: Claims, window: WindowMeasurement | None) -> Present:
        """Return the objects of a deployment before planning."""
        return Present(
            workloads=self._store.workloads(key),
            table=self.table(key, deployment),
            want_table=self._lacks_table(key, deployment),
            window=window,
            seen=self._seen(key, deployment, claims),
        )

    async def running(self, key: Key, plan: PlanStatus | None, claims: Claims) -> Live:
        """Return the running workloads, and objects that are read only on demand."""
        workloads = self._store.workloads(key)
        workload = workloads.running(plan)
        pods = self._pods(key)
        refused_pods, unread = "", ""
        if workload is not None and lacks_pods(workload, of_main(pods)):
            refused_pods, unread = await why_no_pods(self._cluster, workload, self._clock.now())
        canary = next(iter(self._store.canaries(key)), None)
        prefill = self._store.prefill(key)
        return Live(workloads, await self._with_warnings(key, pods), canary, prefill, claims, refused_pods, unread)

    async def pods(self, key: Key) -> tuple[PodState, ...]:
        """Return the pods; pods that have had no container for long come with the last warning about them."""
        return await self._with_warnings(key, self._pods(key))

    async def named_maps(self, deployment: LLMDeployment) -> NamedMaps:
        """Return the ConfigMaps that the spec names, or why they may not be read."""
        namespace = deployment.metadata.namespace
        return NamedMaps(
            await self._named_map(namespace, config_name(deployment)),
            await self._named_map(namespace, hours_name(deployment)),
            await self._named_map(namespace, job_hours_name(deployment)),
        )

    async def _named_map(self, namespace: str, name: str | None) -> NamedMap:
        if name is None:
            return NamedMap()
        try:
            return NamedMap(await self._cluster.get(CONFIG_MAP, namespace, name))
        except NotFoundError:
            return NamedMap()
        except ForbiddenError as error:
            return NamedMap(unreadable=str(error))

    def table(self, key: Key, deployment: LLMDeployment) -> Mapping[str, Any] | None:
        """Return the ConfigMap beside the pods, with the plan that they were made from."""
        found = self._store.children.get(("ConfigMap", key[0], table_name(deployment)))
        return None if found is None else found.body

    def _lacks_table(self, key: Key, deployment: LLMDeployment) -> bool:
        plan, workloads = deployment.status.plan, self._store.workloads(key)
        if plan is None:
            return False
        table = self.table(key, deployment)
        if not workloads.bodies:
            # A plan that was shown before it is followed: its pods and its table are made in the same pass.
            spec = deployment.spec
            shown = spec.planning.mode == "Advisory" or spec.is_stopped or waits(deployment, plan)
            return table is None and not shown
        if table is None:
            return True
        # A pass that ended before its status may have left the table of a plan that was then rejected.
        return plan.hash == plan_label(workloads.running(plan)) != plan_label(table)

    def _seen(self, key: Key, deployment: LLMDeployment, claims: Claims) -> SeenPods:
        """Return the pods, and the last window of the replica that verifies a plan."""
        memory = deployment.status.verification
        plan = memory.plan if memory is not None else None
        bodies = self._store.canaries(key)
        made = next((body for body in bodies if plan is not None and plan_label(body) == plan.hash), None)
        window = self.canary_measurements(key, plan.hash) if plan is not None and made is not None else None
        return SeenPods(self._pods(key), made or next(iter(bodies), None), window, claims)

    def _pods(self, key: Key) -> tuple[PodState, ...]:
        return tuple(pod_state(pod) for pod in self._store.pods_owned(key))

    async def _with_warnings(self, key: Key, pods: tuple[PodState, ...]) -> tuple[PodState, ...]:
        pods = await self._with_queues(key, pods)
        slow = slow_pods(pods, self._clock.now())
        told = await why_slow(self._cluster, key[0], slow) if slow else {}
        return tuple(replace(pod, waiting=told[pod.name], failing=True) if pod.name in told else pod for pod in pods)

    async def _with_queues(self, key: Key, pods: tuple[PodState, ...]) -> tuple[PodState, ...]:
        """Return the pods, those that Kueue holds back with what it says."""
        queued = {pod.name for pod in pods if pod.queued.startswith(BY_KUEUE)}
        if not queued:
            return pods
        uids = [pod["metadata"]["uid"] for pod in self._store.pods_owned(key) if pod["metadata"]["name"] in queued]
        # Of pods of a Deployment Kueue admits each on its own.
        bodies = (*self._store.workloads(key).bodies, *self._store.canaries(key))
        groups = [body["metadata"]["uid"] for body in bodies if body["kind"] == "LeaderWorkerSet"]
        told, for_quota = await why_queued(self._cluster, key[0], (*groups, *uids))
        return tuple(
            replace(pod, queued=f"{pod.queued}: {told}" if told else pod.queued, waits_for_quota=for_quota)
            if pod.name in queued
            else pod
            for pod in pods
        )
