"""An operator and its cluster in memory: one can crash it, lie to it, restart it, and read what it wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.fake_cluster import FakeCluster, ObjectKey, Write, clone
from tests.support.fake_pods import node, run_pods

from energylens.cluster.errors import ClusterError
from energylens.cluster.interceptor import Send, WriteInterceptor
from energylens.cluster.port import ClusterPort, Object
from energylens.cluster.resources import CHILDREN
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.energy.budget_keeper import BudgetKeeper
from energylens.controller.energy.energy_accounts import EnergyAccounts
from energylens.controller.reconciling.reconcile import Reconciler
from energylens.controller.settings import BudgetSettings, Settings
from energylens.controller.state.status_memory import remembering
from energylens.controller.state.store import Key, Store
from energylens.decide.budgets.status_check import checked_budget_status
from energylens.decide.budgets.status_check import own_part as own_budget_part
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.reports.status_check import checked_status, own_part
from energylens.measure.energy import EnergySpan

CHILD_KINDS = frozenset(resource.kind for resource in CHILDREN)
NAMESPACE = "team"
KEY: Key = (NAMESPACE, "llama")
MOST_PASSES = 12
SOON = 60.0
"""Longest pause before a write that was refused is tried again."""


class CrashError(BaseException):
    """The process dies: no handler of the operator sees it."""


@dataclass
class ManualClock:
    """A clock that stands still until it is moved."""

    moment: datetime = datetime(2026, 3, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        return self.moment.timestamp()

    def advance(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@dataclass
class Faults(WriteInterceptor):
    """A :class:`ClusterPort` in front of another one that breaks the write of a given number, counted from 1."""

    crash_after: int | None = None
    """The process dies when this write has been carried out."""
    errors: dict[int, ClusterError] = field(default_factory=dict)
    """Raised instead of carrying out the write."""
    lost_answers: dict[int, ClusterError] = field(default_factory=dict)
    """Raised after the write was carried out."""
    count: int = 0

    async def _write(self, manifest: Mapping[str, Any], send: Send) -> Object:
        self.count += 1
        number = self.count
        if number in self.errors:
            raise self.errors[number]
        answer = await send()
        if number in self.lost_answers:
            raise self.lost_answers[number]
        if number == self.crash_after:
            raise CrashError
        return answer

    def disarm(self) -> None:
        """Let every further write through."""
        self.crash_after = None
        self.errors.clear()
        self.lost_answers.clear()


@dataclass
class World:
    """A cluster with nodes, and at most one operator on it."""

    cluster: FakeCluster = field(default_factory=FakeCluster)
    clock: ManualClock = field(default_factory=ManualClock)
    pods_run: bool = True
    """Whether pods come and become ready by themselves between two passes."""
    delayed: list[tuple[str, Object, bool]] | None = None
    """Watch events that have not arrived yet; None when they arrive at once."""
    meter: dict[Key, float] = field(default_factory=dict)
    """Watts that are measured of a deployment; nothing is measured of one that is not in it."""
    last_sample_at: float = float("inf")
    """When the sources went silent, in seconds since the Unix epoch; what they said before is remembered."""
    store: Store = field(init=False)
    reconciler: Reconciler = field(init=False)
    keeper: BudgetKeeper = field(init=False)
    port: ClusterPort = field(init=False)

    def __post_init__(self) -> None:
        for index in range(2):
            self.cluster.put(node(f"h100-{index}"))
        self.start()

    def start(self, port: ClusterPort | None = None) -> None:
        """Start an operator that knows nothing but what the cluster says now."""
        self.port = port if port is not None else self.cluster
        self.store = Store(
            statuses=remembering(checked_status, own_part, self.clock),
            budget_statuses=remembering(checked_budget_status, own_budget_part, self.clock),
        )
        self.cluster.listeners[:] = [self._hear]
        for (kind, _, _), body in self.cluster.objects.items():
            self._feed(kind, clone(body), deleted=False)
        self.started_at = self.clock.now().timestamp()
        self.asked: set[Key] = set()
        self.waited = 0
        self.accounts = EnergyAccounts(self.store, self._energy, self.clock, BudgetSettings(), self.asked.add)
        self.reconciler = Reconciler(
            self.port,
            self.store,
            PlanningService(),
            self.clock,
            Settings(),
            Metrics(self.store),
            instance="test",
            accounts=self.accounts,
            look_at_budgets=self._count_wait,
        )
        self.reconciler.serves_lws = "LeaderWorkerSet" in self.cluster.served
        self.budget_metrics = Metrics()
        self.keeper = BudgetKeeper(
            self.port,
            self.store,
            self.reconciler.allowances,
            self._energy,
            self.clock,
            BudgetSettings(),
            self.budget_metrics,
            self.asked.add,
        )

    def _count_wait(self) -> None:
        """Count the passes that waited for a look at a budget."""
        self.waited += 1

    def _energy(self, key: Key, since: float, nodes: frozenset[str] | None) -> EnergySpan | None:
        """Return what a source would have seen since this operator started."""
        start, now = max(since, self.started_at), min(self.clock.now().timestamp(), self.last_sample_at)
        watts = self.meter.get(key)
        return None if watts is None or start >= now else EnergySpan(start, now, watts * (now - start))

    async def look(self, *keys: Key, seconds: float = 0.0) -> None:
        """Let time pass, look at the budgets once, and let the deployments follow."""
        self.clock.advance(seconds)
        self.accounts.step()
        await self.keeper.step()
        await self.settle(*keys)

    async def settle(self, *keys: Key) -> None:
        """Reconcile until nothing changes any more; a pass that failed is tried again when it asks for it."""
        retried = False
        for _ in range(MOST_PASSES):
            before = clone(self.cluster.objects)
            failed = False
            for key in keys or (KEY,):
                try:
                    await self.reconciler.reconcile(key)
                except ClusterError:
                    failed = True
            if self.pods_run:
                run_pods(self.cluster)
            same = not failed and self.cluster.objects == before
            if same and (retried or not any(map(self._is_refused, keys or (KEY,)))):
                return
            if same:
                self.clock.advance(SOON)
            retried = same
        raise AssertionError(f"not settled after {MOST_PASSES} passes; the last writes: {self.cluster.writes[-5:]}")

    def _is_refused(self, key: Key) -> bool:
        conditions = self.cluster.objects.get(("LLMDeployment", *key), {}).get("status", {}).get("conditions", ())
        return any(c["type"] == "Degraded" and c["reason"] in ("ApplyRefused", "APIServerError") for c in conditions)

    def writes_since(self, mark: int) -> list[Write]:
        return self.cluster.writes[mark:]

    @property
    def mark(self) -> int:
        """The number of writes so far."""
        return len(self.cluster.writes)

    def status(self, key: Key = KEY) -> Object:
        status: Object = self.cluster.objects["LLMDeployment", key[0], key[1]].get("status", {})
        return status

    def condition(self, kind: str, key: Key = KEY) -> Object:
        (found,) = [c for c in self.status(key).get("conditions", ()) if c["type"] == kind]
        return found

    def end_state(self) -> dict[ObjectKey, Object]:
        """Return what users see of the end: children and statuses without what counts writes or tells the time."""
        kinds = {"LLMDeployment", *CHILD_KINDS}
        found = {key: body for key, body in self.cluster.objects.items() if key[0] in kinds}
        return {key: plain(body) for key, body in found.items()}

    def deliver(self) -> None:
        """Let the watch events that were held back arrive."""
        held, self.delayed = self.delayed or [], None
        for kind, body, deleted in held:
            self._feed(kind, body, deleted=deleted)

    def _hear(self, kind: str, body: Object, deleted: bool) -> None:
        if self.delayed is not None:
            self.delayed.append((kind, body, deleted))
        else:
            self._feed(kind, body, deleted=deleted)

    def _feed(self, kind: str, body: Object, *, deleted: bool) -> None:
        if kind == "LLMDeployment":
            self.store.put_deployment(body, deleted)
        elif kind == "Namespace":
            self.store.put_namespace(body, deleted)
        elif kind in ("EnergyBudget", "ClusterEnergyBudget"):
            self.store.put_budget(body, deleted)
        elif kind in CHILD_KINDS:
            # The watch is by label: what loses it is deleted as far as the watch can tell.
            managed = (body["metadata"].get("labels") or {}).get("app.kubernetes.io/managed-by") == "energylens"
            self.store.put_child(kind, body, deleted or not managed)
        elif kind == "Node":
            self.store.put_node(body, deleted)
        elif kind == "Pod":
            self.store.put_pod(body, deleted)


_COUNTERS = (
    *("uid", "resourceVersion", "generation", "observedGeneration"),
    *("lastTransitionTime", "planAdoptionTime", "replacedTime"),
)


def plain(value: Any) -> Any:
    """Return a value without identities, counters of writes and times."""
    if isinstance(value, dict):
        return {name: plain(item) for name, item in value.items() if name not in _COUNTERS}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value


def llama(name: str = "llama", **changes: Any) -> Object:
    """Return an LLMDeployment of a small model with a fixed layout; ``changes`` are parts of its spec."""
    spec = {
        "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
        "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 2},
        "planning": {"overrides": {"tensorParallel": 1, "replicas": 2, "maxBatchSize": 64}},
    }
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**spec, **changes},
    }


def overrides(**values: int) -> Object:
    """Return ``spec.planning`` with these overrides."""
    return {"overrides": {"tensorParallel": 1, "replicas": 2, "maxBatchSize": 64, **values}}
