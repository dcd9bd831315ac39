"""Measures every serving deployment: collects counters at a steady pace, and publishes one result per full window."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple

from energylens.clock import Clock
from energylens.controller.energy.asked import AskedOfAll, MeasuringRequest, ServedPlan
from energylens.controller.settings import MeasurementSettings, PrometheusSettings
from energylens.controller.state.store import Key, Store
from energylens.data import load_gpus
from energylens.decide.deployment.observed.observation import PodState, pod_state
from energylens.decide.deployment.pods.workloads import Workloads, group_size, workload_revision
from energylens.described import described
from energylens.measure.collector import Collector, CollectReport
from energylens.measure.energy import EnergySpan
from energylens.measure.engines import EngineScraper, EngineTarget
from energylens.measure.history import History
from energylens.measure.prometheus import LabelMap, PrometheusSource
from energylens.measure.prometheus_http import Access, PrometheusHttp
from energylens.measure.scrape import HttpScraper, TargetFailure
from energylens.measure.source import DcgmExporterSource, EnergySource
from energylens.measure.types import OwnedPods, PodRef, WindowMeasurement
from energylens.planner.inventory.snapshot import gpus_of_pod
from energylens.records import dataclass
from energylens.serving.metadata import LWS_WORKER_INDEX

ENGINE_PORT = 8000
HISTORY_SECONDS = 2 * 3600.0 + 600.0
"""The longest window that spec.validation.windowSeconds allows, and a little more."""

log = logging.getLogger("energylens")


class _Group(NamedTuple):
    """Pods that are measured together."""

    key: Key
    is_canary: bool
    """Whether the pods are the replica that verifies a new plan, not the pods of the current plan."""


@dataclass(frozen=True)
class _Serving:
    """Pods that all exist and are ready."""

    asked: MeasuringRequest
    pods: list[PodState]
    plan: ServedPlan


class Measuring:
    """Stores the last published window of each deployment."""

    def __init__(
        self,
        store: Store,
        settings: MeasurementSettings,
        http: HttpScraper,
        clock: Clock,
        changed: Callable[[Key], None],
        prometheus: EnergySource | None = None,
        count_energy: Callable[[Key, float], None] = lambda key, joules: None,
    ) -> None:
        """Measure what is in ``store``, by ``prometheus`` first.

        ``changed`` is called for each new result, ``count_energy`` once for all measured joules, and with 0 J at the
        beginning of counting.
        """
        self._store = store
        self._asked = AskedOfAll(store)
        self._settings = settings
        self._clock = clock
        self._changed = changed
        exporters = DcgmExporterSource(http, self._exporters)
        sources = [exporters] if prometheus is None else [prometheus, exporters]
        self._collector = Collector(
            sources, EngineScraper(http), clock, history=lambda: History(max_age_seconds=HISTORY_SECONDS)
        )
        self._count_energy = count_energy
        self._counted_until: dict[Key, float] = {}
        self._published: dict[_Group, tuple[str, WindowMeasurement]] = {}
        self._pods: dict[_Group, tuple[tuple[str, frozenset[str]], float]] = {}
        """Plan and pods that were measured last, and since when, because measurements of other pods do not belong to
        them."""

    def latest(self, key: Key, plan_hash: str) -> WindowMeasurement | None:
        """Return the last published window of a deployment's pods of this plan; None before the first."""
        return self._latest(_Group(key, is_canary=False), plan_hash)

    def latest_of_canary(self, key: Key, plan_hash: str) -> WindowMeasurement | None:
        """Return the last published window of the one replica by which this plan is verified."""
        return self._latest(_Group(key, is_canary=True), plan_hash)

    def _latest(self, group: _Group, plan_hash: str) -> WindowMeasurement | None:
        published = self._published.get(group)
        return published[1] if published is not None and published[0] == plan_hash else None

    def energy(self, key: Key, since: float, nodes: frozenset[str] | None = None) -> EnergySpan | None:
        """Return the energy of a deployment's pods from ``since``, in seconds since the Unix epoch; None: not measured.

        A deployment that was deleted during a check of its budget has no measurement.

        Args:
            key: The deployment.
            since: Earliest start.
            nodes: Only pods on these nodes count; None for all.
        """
        if key not in self._store.deployments:
            return None
        pods = [
            pod
            for pod in self._store.pods_owned(key)
            if pod["spec"]["nodeName"] and (nodes is None or pod["spec"]["nodeName"] in nodes)
        ]
        gpus = sum(gpus_of_pod(pod) for pod in pods)
        limits = [_power_limit(product) for product in self._asked.products(key)]
        known = [limit for limit in limits if limit is not None]
        owned = OwnedPods(
            key[0],
            tuple(pod["metadata"]["name"] for pod in pods),
            gpus,
            power_limit_watts=max(known) if known and len(known) == len(limits) else None,
        )
        return self._collector.energy(owned, since)

    async def step(self) -> CollectReport:
        """Collect once, publish due results, and return the collected observations."""
        serving: dict[_Group, _Serving] = {}
        defects = []
        self._asked.forget_gone()
        async for key in self._each(self._store.deployments):
            try:
                serving |= self._serving(key)
            except Exception as error:
                # The deployment's own pass reads the same object and reports the failure on it.
                log.exception("%s/%s: measuring failed: internal error; retrying", *key)
                defects.append(_defect(key, error))
        try:
            report = await self._collector.collect(self._targets(serving))
        except Exception as error:
            defects += [self._failed(group, found.plan.hash, error) for group, found in serving.items()]
            return CollectReport(gpus=0, engines=0, failures=tuple(defects))
        for group in [group for group in self._published if group not in serving]:
            del self._published[group]
        for key in [key for key in self._counted_until if _Group(key, is_canary=False) not in serving]:
            del self._counted_until[key]
        for group in [group for group in self._pods if group.key not in self._store.deployments]:
            del self._pods[group]
        async for key in self._each(group.key for group in serving if not group.is_canary):
            # The deployments after a failing one are measured nevertheless.
            for group in [
                group for group in (_Group(key, is_canary=False), _Group(key, is_canary=True)) if group in serving
            ]:
                try:
                    self._measure(group, serving[group])
                except Exception as error:
                    defects.append(self._failed(group, serving[group].plan.hash, error))
        return replace(report, failures=(*report.failures, *defects))

    def _failed(self, group: _Group, plan_hash: str, error: Exception) -> TargetFailure:
        """Report on the deployment that measuring failed, and return the failure."""
        log.error("%s/%s: measuring failed: internal error; retrying", *group.key, exc_info=error)
        said = WindowMeasurement("InternalError", f"measuring failed: internal error: {described(error)}")
        if self._published.get(group) != (plan_hash, said):
            self._published[group] = plan_hash, said
            self._changed(group.key)
        return _defect(group.key, error)

    async def _each(self, keys: Iterable[Key]) -> AsyncIterator[Key]:
        """Yield the keys of existing deployments, and let the watches run before each.

        Each takes a millisecond, so thousands in a row would delay the watches. A watch may meanwhile report that a
        deployment was deleted.
        """
        for key in tuple(keys):
            await asyncio.sleep(0)
            if key in self._store.deployments:
                yield key

    def _count(self, key: Key) -> None:
        """Count the energy since the last call; the first call only sets the start."""
        since = self._counted_until.get(key)
        if since is None:
            self._counted_until[key] = self._clock.now().timestamp()
            self._count_energy(key, 0.0)
            return
        span = self.energy(key, since)
        if span is not None and span.end > since:
            self._counted_until[key] = span.end
            self._count_energy(key, span.joules)

    def _measure(self, group: _Group, serving: _Serving) -> None:
        key, asked, pods, plan = group.key, serving.asked, serving.pods, serving.plan
        owned = OwnedPods(
            key[0],
            tuple(pod.name for pod in pods),
            plan.gpus,
            engines=tuple(pod.name for pod in pods if not pod.prefill and self._answers(key, pod.name)),
            prefill=tuple(pod.name for pod in pods if pod.prefill),
            prompts_apart=asked.prompts_apart,
            power_limit_watts=_power_limit(plan.gpu_product),
        )
        found = self._collector.measurement(
            owned,
            asked.window_seconds,
            ready_since=max(
                self._unchanged_since(group, plan.hash, pods),
                *(datetime.fromisoformat(pod.ready_since).timestamp() for pod in pods),
            ),
            warmup_seconds=asked.warmup_seconds,
            percentile=asked.percentile,
            source=asked.source,
        )
        old = self._published.get(group)
        if old is None or old[0] != plan.hash or self._is_due(group, old[1], found, asked.window_seconds):
            self._published[group] = (plan.hash, found)
            # The energy is that of all pods together.
            if not group.is_canary:
                self._count(key)
            self._changed(key)

    def _unchanged_since(self, group: _Group, plan_hash: str, pods: list[PodState]) -> float:
        """Return since when these pods serve this plan, in seconds since the Unix epoch; 0 if they always did.

        A plan with more or fewer replicas keeps the common pods of the previous plan, but their load changes.
        """
        now = plan_hash, frozenset(pod.name for pod in pods)
        known = self._pods.get(group)
        if known is None or known[0] != now:
            self._pods[group] = now, 0.0 if known is None else self._clock.now().timestamp()
        return self._pods[group][1]

    def _is_due(self, group: _Group, old: WindowMeasurement, new: WindowMeasurement, window_seconds: float) -> bool:
        """Return whether a window must be published: its reason changed, or a whole window has passed.

        A replica that is compared with the running pods then waits for their next window. Otherwise both would keep the
        times at which they happened to begin, and windows that share less than half of their time prove nothing.
        """
        if new.reason != old.reason:
            return True
        if new.window_end is None or old.window_end is None or new.reason == "Collecting":
            return False
        if new.window_end - old.window_end < window_seconds:
            return False
        running = self._published.get(_Group(group.key, is_canary=False)) if group.is_canary else None
        return running is None or new.shares_half(running[1]) is not False

    def _serving(self, key: Key) -> dict[_Group, _Serving]:
        """Return the pods to measure: those of the plan, and those of the replica that verifies another plan.

        None of them where nothing is to be measured.
        """
        asked = self._asked.of(key)
        if asked is None:
            return {}
        live = {_Group(key, is_canary=False): (asked.plan, self._store.workloads(key))}
        if asked.trial is not None:
            live[_Group(key, is_canary=True)] = asked.trial, Workloads(self._store.canaries(key))
        served = {
            group: (plan, workload)
            for group, (plan, workloads) in live.items()
            if plan is not None and (workload := workloads.only(plan.hash)) is not None
        }
        if not served:
            return {}
        pods = [pod for pod in map(pod_state, self._store.pods_owned(key)) if not pod.finished]
        return {
            group: _Serving(asked, own, plan)
            for group, (plan, workload) in served.items()
            if self._is_whole(key, plan, workload, own := [pod for pod in pods if pod.canary == group.is_canary])
        }

    def _is_whole(self, key: Key, plan: ServedPlan, live: Mapping[str, Any], pods: Sequence[PodState]) -> bool:
        """Return whether all pods of a plan serve, those of both roles if it has roles, and no other pods beside."""
        prompts, prefill = [pod for pod in pods if pod.prefill], self._store.prefill(key)
        if not _all_serve(live, [pod for pod in pods if not pod.prefill]):
            return False
        if not plan.has_prefill:
            return not prompts
        beside = Workloads(() if prefill is None else (prefill,)).only(plan.hash)
        return beside is not None and _all_serve(beside, prompts)

    def _targets(self, serving: Mapping[_Group, _Serving]) -> Iterable[EngineTarget]:
        for group, found in serving.items():
            for pod in found.pods:
                if self._answers(group.key, pod.name):
                    yield EngineTarget(PodRef(group.key[0], pod.name), self._engine_url(group.key[0], pod.name))

    def _answers(self, key: Key, pod: str) -> bool:
        """Return whether a pod serves metrics: followers of a multi-node replica do not."""
        body = self._store.pods.get((key[0], pod))
        # A pod may be deleted while its counters are read.
        return body is not None and bool(body["metadata"]["labels"].get(LWS_WORKER_INDEX, "0") == "0")

    def _engine_url(self, namespace: str, pod: str) -> str:
        template = self._settings.engine_endpoint_template
        if template is not None:
            return template.format(namespace=namespace, pod=pod)
        return f"http://{_host(self._store.pods[namespace, pod])}:{ENGINE_PORT}/metrics"

    def _exporters(self) -> list[str]:
        if self._settings.dcgm_endpoints:
            return list(self._settings.dcgm_endpoints)
        found = [self._store.pods[key] for key in sorted(self._store.watched_pods.exporters)]
        return [f"http://{_host(pod)}:{self._settings.dcgm_port}/metrics" for pod in found if pod["status"]["podIP"]]


@asynccontextmanager
async def prometheus_source(settings: PrometheusSettings | None, clock: Clock) -> AsyncIterator[EnergySource | None]:
    """Return the Prometheus in the settings as a source; None if none is configured.

    Raises:
        PrometheusError: the CA file cannot be used.
    """
    if settings is None:
        yield None
        return
    access = Access(settings.url, settings.bearer_token_file, settings.ca_file, settings.headers)
    async with PrometheusHttp(access) as api:
        yield PrometheusSource(
            api,
            clock,
            lookback_seconds=settings.lookback_seconds,
            matchers=settings.matchers,
            labels=LabelMap(**settings.labels.model_dump()),
        )


def _all_serve(live: Mapping[str, Any], pods: Sequence[PodState]) -> bool:
    """Return whether the pods of a workload all exist, are ready, and have the current revision."""
    return (
        len(pods) == int(live["spec"].get("replicas") or 0) * group_size(live) > 0
        and all(pod.ready for pod in pods)
        and {pod.revision for pod in pods} == {workload_revision(live)}
    )


def _power_limit(product: str) -> float | None:
    """Return the highest power limit of a GPU product, W; None if the product is unknown."""
    gpu = load_gpus().get(product)
    return None if gpu is None else gpu.power_limit_max_watts


def _defect(key: Key, error: Exception) -> TargetFailure:
    return TargetFailure("/".join(key), "Defect", described(error))


def _host(pod: Mapping[str, Any]) -> str:
    address = str(pod["status"]["podIP"])
    return f"[{address}]" if ":" in address else address
