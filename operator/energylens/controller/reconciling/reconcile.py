"""One pass over one LLMDeployment: observe, decide, apply. A pass may be interrupted or repeated safely.

Children are written before status, so that a crash in between leaves a stale status, never a premature one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import InvalidResourceError, parse_llmdeployment
from energylens.clock import Clock
from energylens.cluster.errors import ClusterError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import EVENT
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.energy.allowances import Allowances
from energylens.controller.energy.energy_accounts import EnergyAccounts
from energylens.controller.queueing.rest import Resting
from energylens.controller.queueing.turns import Turns
from energylens.controller.reconciling.inquiries import read_claims
from energylens.controller.reconciling.observing import Measurements, Observing, never_measured
from energylens.controller.settings import Settings
from energylens.controller.state.inventory import Inventory
from energylens.controller.state.store import Body, Key, Store
from energylens.controller.writing.child_writer import ChildWriter, Written
from energylens.controller.writing.departures import Departures
from energylens.controller.writing.events import event
from energylens.controller.writing.status_edits import StatusEdits, described_edit
from energylens.controller.writing.status_writer import StatusWriter
from energylens.decide.budgets.own_budget import with_account
from energylens.decide.decide import Outcome, decide
from energylens.decide.deployment.observed.observation import Allowed, Observation, PlanChoice, of_main, plan_label
from energylens.decide.deployment.observed.recovery import recovered
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.pods.children import Children
from energylens.decide.deployment.pods.rollouts import looks_again
from energylens.decide.deployment.reports.status import is_unplanned
from energylens.decide.deployment.reports.unreadable import unreadable_status
from energylens.decide.deployment.trials import rollback
from energylens.decide.deployment.trials.learning import Learning
from energylens.decide.deployment.trials.windows import is_new_window
from energylens.decide.gather import Offered, gather
from energylens.decide.learned.corrections import Pool
from energylens.decide.reasons import EventReason, Reason
from energylens.measure.energy import EnergySpan
from energylens.planner.answers import SearchNeededError

ROLLOUT_LOOK_SECONDS = 20.0
"""Seconds between checks of a rollout that no watch may update: events are not watched, and deadlines pass."""
MOST_PREPARATIONS = 3
"""Times that a week is planned in steps before it is planned in one turn."""
Result = TypeVar("Result")
_END = object()
HANDOVER_RETRY_SECONDS = 10.0
"""Seconds between attempts to scale down or remove the workload of the previous plan."""


def _never_counted(key: Key, since: float, nodes: frozenset[str] | None) -> EnergySpan | None:
    return None


class Reconciler:
    """Reconciles the cluster with each LLMDeployment."""

    def __init__(
        self,
        cluster: ClusterPort,
        store: Store,
        planning: PlanningService,
        clock: Clock,
        settings: Settings,
        metrics: Metrics,
        *,
        instance: str = "energylens",
        measurements: Measurements = never_measured,
        canary_measurements: Measurements = never_measured,
        pool: Pool | None = None,
        accounts: EnergyAccounts | None = None,
        look_at_budgets: Callable[[], None] = lambda: None,
    ) -> None:
        """Wire a pass.

        ``measurements`` returns the last full window of a deployment, ``canary_measurements`` that of the one replica
        by which a new plan is verified, ``pool`` learns from the first, and ``accounts`` count the energy of
        deployments that limit it themselves. ``look_at_budgets`` asks for a look at the budgets, for which a deployment
        waits; it is asked for again when its budget was looked at.
        """
        self._cluster = cluster
        self._store = store
        self._planning = planning
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._instance = instance
        self.observing = Observing(cluster, store, clock, measurements, canary_measurements)
        self._learning = Learning(pool or Pool())
        self._writer = ChildWriter(cluster, store, clock, metrics)
        self._departures = Departures(cluster, store, self._writer, metrics)
        self._statuses = StatusWriter(cluster, store, metrics)
        self._edits = StatusEdits(clock)
        self._recovered: set[Key] = set()
        """Deployments that were reconciled since the start."""
        self._accounts = accounts or EnergyAccounts(store, _never_counted, clock, settings.budgets, lambda key: None)
        self._look_at_budgets = look_at_budgets
        self._decided: dict[Key, tuple[str, str]] = {}
        self._searched: dict[Key, dict[str, SearchNeededError]] = {}
        """The last search beside the passes for each question, by the deployment whose passes needed the answer."""
        self._one_plan_at_a_time = Turns()
        # glibc gives each thread an arena that keeps the memory of the largest search of the thread: 262 MiB with six
        # threads that take turns, 168 MiB with one.
        self._planner = ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner")
        self._without_plan: dict[Key, int] = {}
        """Deployments without a feasible plan, and the version of the inventory when the pass began that found none."""
        self._inventory = Inventory(store)
        self.allowances = Allowances(store, self._inventory, clock)
        observed = self.observing.latest
        self._resting = Resting(store, clock, self._writer.live, observed, self.allowances.of, self._inventory)
        self.serves_lws = False

    @property
    def _besides(self) -> tuple[int, bool]:
        """Inputs of a pass besides the objects of a deployment and its budgets."""
        return self._learning.pool.version, self.serves_lws

    @property
    def to_plan_again(self) -> list[Key]:
        """Deployments without a feasible plan in their last pass, for which GPUs were added or removed since."""
        now = self._store.inventory_version
        return [key for key, version in self._without_plan.items() if version != now]

    async def reconcile(self, key: Key) -> float | None:
        """Do one pass, with all searches that it needs; return what :meth:`attempt` returns.

        Raises:
            ClusterError: The API server did not accept a write for a temporary reason.
        """
        while True:
            try:
                return await self.attempt(key)
            except SearchNeededError as needed:
                await self._in_planner(needed.search)

    async def attempt(self, key: Key) -> float | None:
        """Do one pass; return the seconds until the next one, or None if only a change needs another pass.

        Raises:
            ClusterError: The API server did not accept a write for a temporary reason.
            SearchNeededError: Nothing was decided or written: the plan must be searched for before the next attempt.
        """
        body = self._store.deployments.get(key)
        if body is None or body["metadata"].get("deletionTimestamp"):
            self._searched.pop(key, None)
            self._without_plan.pop(key, None)
            self._inventory.settle(key)
            self._planning.forget(*key)
            self._decided.pop(key, None)
            self._recovered.discard(key)
            self._edits.forget(key)
            self._writer.forget(key)
            self._metrics.forget(key)
            self._learning.forget(key)
            self._resting.wake(key)
            return None
        if self._resting.is_at_rest(key, body, self._besides):
            return self._until(self._resting.until(key))
        try:
            deployment = parse_llmdeployment(body, strict=False)
        except InvalidResourceError as error:
            await self._write_invalid(body, str(error))
            return self._next_look(key, body, None)
        deployment = self._recover(key, body, deployment)
        version, inventory = self._learning.pool.version, self._store.inventory_version
        wanted = await self._decide(key, body, deployment)
        written = await self._writer.apply(key, wanted.children.manifests)
        unmoved = await self._departures.let_go(key, wanted.children, all_written=written.complete)
        found = await self._look(key, wanted, written, unmoved)
        wrote = await self._write_status(key, body, found)
        after = found.observed
        self._recovered.add(key)
        self._inventory.settle(key)
        self._count(key, after.planning)
        if after.planning.good:
            self._without_plan.pop(key, None)
        else:
            self._without_plan[key] = inventory
        # Act immediately on the results of a window.
        acts = self._learning.pool.version != version or self._must_return(key, deployment)
        soon = ROLLOUT_LOOK_SECONDS if looks_again(after) else None
        retry = HANDOVER_RETRY_SECONDS if unmoved else written.again_seconds
        pending = [seconds for seconds in (soon, retry, self._edits.wait(key)) if seconds]
        look = self._until(after.planning.next_look)
        if not (wrote or acts or pending or written.refused):
            self._resting.settle(key, body, after, self._besides)
        return self._next_look(key, body, 0.0 if acts else min([*pending, look]))

    def _until(self, moment: datetime | None) -> float:
        """Return the seconds until a moment, at most those until the next resync, s."""
        most = self._settings.resync_seconds
        return most if moment is None else min(most, max(0.0, (moment - self._clock.now()).total_seconds()))

    def _must_return(self, key: Key, before: LLMDeployment) -> bool:
        """Return whether a rollback became due in this pass."""
        if (
            not rollback.triggers(before.spec)
            or rollback.due(before, "") is not None
            or key not in self._store.deployments
        ):
            return False
        try:
            return rollback.due(parse_llmdeployment(self._store.deployments[key], strict=False), "") is not None
        except InvalidResourceError:
            return False

    def _next_look(self, key: Key, seen: Body, seconds: float | None) -> float | None:
        """Return ``seconds``, or 0 if the answer to a write contains an edit that this pass has not seen.

        The watch event of that edit is then older than the stored answer and triggers nothing.
        """
        now = self._store.deployments.get(key)
        parts = ("deletionTimestamp", "generation", "labels", "uid")
        edited = now is not None and any(now["metadata"].get(p) != seen["metadata"].get(p) for p in parts)
        return 0.0 if edited else seconds

    async def _decide(self, key: Key, body: Body, deployment: LLMDeployment) -> Outcome:
        """Observe, plan, observe the running workloads again, and return the desired state."""
        named = await self.observing.named_maps(deployment)
        running = deployment.status.plan
        window = self.observing.measurement(key, running, self._store.workloads(key).running(running))
        account = self._accounts.of(key, body, is_written=is_new_window(deployment, window))
        claims = await read_claims(self._cluster, deployment)

        def seen() -> tuple[Allowed, Inputs]:
            allowed = self.allowances.of(with_account(body, account))
            offered = Offered(self._inventory.snapshot(key), allowed.allowance, self._learning.pool, self.serves_lws)
            present = self.observing.present(key, deployment, claims, window)
            return allowed, gather(deployment, offered, named, present, now=self._clock.now())

        first = is_unplanned(body)
        if deployment.spec.workload.profile is not None:
            await self._prepare(lambda: seen()[1], first=first)
        async with self._one_plan_at_a_time.turn(first=first):
            allowed, inputs = seen()
            planning = await self._planned(key, inputs)
            if planning.reason is Reason.AWAITING_BUDGET:
                self._look_at_budgets()
            if planning.replica is not None:
                self._inventory.verify(key, planning.replica)
            if planning.plan is not None:
                self._inventory.start(key, planning.job_start, deployment.status.job_start)
            if (planning.adopted or planning.scaled) and planning.plan is not None:
                plan, schedule = (
                    None if part is None else part.model_dump(mode="json", by_alias=True, exclude_none=True)
                    for part in (planning.plan, planning.schedule)
                )
                assert plan is not None
                self._inventory.adopt(key, plan, schedule)
                # The conditions of this pass describe the power that is committed now.
                allowed = self.allowances.of(with_account(self._inventory.with_plan(key, body), account))
        live = await self.observing.running(key, inputs.standing or planning.plan, claims)
        return decide(inputs, planning, allowed, live, now=self._clock.now(), account=account)

    async def _planned(self, key: Key, inputs: Inputs) -> PlanChoice:
        """Return the plan to follow. If the answer of an ended search no longer holds, search at once.

        Raises:
            SearchNeededError: The plan must be searched for before the next attempt.
        """
        try:
            planning = await self._in_planner(partial(self._planning.planning_for, inputs, searching=False))
        except SearchNeededError as needed:
            searched = self._searched.setdefault(key, {})
            before = searched.get(needed.question)
            if before is None or not before.began:
                searched[needed.question] = needed
                raise
            if not before.ended:
                # The key was asked for during its search. A newer search would replace it at each such request.
                raise before from None
            planning = await self._in_planner(self._planning.planning_for, inputs)
        self._searched.pop(key, None)
        return planning

    async def _prepare(self, seen: Callable[[], Inputs], *, first: bool) -> None:
        """Plan a week in steps, so that other deployments are planned between two of them.

        They may take GPUs or power meanwhile: then the steps are made again, and in the end all in one turn.
        """
        for _ in range(MOST_PREPARATIONS):
            steps, count = self._planning.prepare(seen()), 0
            while True:
                async with self._one_plan_at_a_time.turn(first=first):
                    if await self._in_planner(next, steps, _END) is _END:
                        break
                count += 1
            if not count:
                return

    async def _in_planner(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._planner, function, *arguments)

    async def _look(self, key: Key, wanted: Outcome, written: Written, unmoved: str) -> Outcome:
        """Return the outcome with the state observed after the writes."""
        before, deployment = wanted.observed, wanted.observed.deployment
        plan, workloads = before.planning.plan, self._store.workloads(key)
        workload = workloads.running(before.standing or plan)
        measurement = self.observing.measurement(key, plan, workload)
        self._learning.learn(key, deployment, plan, measurement)
        pods = await self.observing.pods(key)
        return wanted.after(
            workload=workload,
            outgoing=workloads.outgoing(before.standing or plan),
            pods=of_main(pods),
            prefill=self._store.prefill(key),
            prefill_pods=tuple(pod for pod in pods if pod.prefill),
            canary_pods=tuple(pod for pod in pods if pod.canary),
            canary=next(iter(self._store.canaries(key)), None),
            measurement=measurement,
            now=self._clock.now(),
            learned=self._learning.of(deployment, plan),
            refused=written.refused or unmoved,
            refused_for=written.reason,
            contested="; ".join(filter(None, (written.contested, self._edits.contested(key)))),
            unsettled=written.unsettled,
            takes_over=_takes_over(before, workload, wanted.children),
        )

    def _recover(self, key: Key, body: Body, deployment: LLMDeployment) -> LLMDeployment:
        """Return a deployment with the plan to use.

        In the first reconcile it may differ from the plan in its status.
        """
        if self._store.statuses is not None:
            # From now on, writes of others to the status are recognised as edits.
            self._store.statuses.hold(key, body)
        if key in self._recovered:
            return deployment
        workload = self._store.workloads(key).running(deployment.status.plan)
        return recovered(deployment, self.observing.table(key, deployment), workload)

    async def _write_status(self, key: Key, body: Body, found: Outcome) -> bool:
        """Write the status if it differs, and return whether it did."""
        status, edited = found.status(), self._store.edited.get(key)
        if status == body["status"] and (edited is None or self._edits.wait(key) > 0):
            return False
        await self._statuses.write(body, status)
        if edited is not None and self._edits.count(key, edited):
            await self._say(body, EventReason.STATUS_RESTORED, described_edit(edited))
        for reason, note in found.events(status):
            await self._say(body, reason, note)
        return True

    async def _write_invalid(self, body: Body, message: str) -> None:
        """Report that the spec cannot be read, and leave everything else unchanged."""
        status = unreadable_status(body, message, self._clock.now())
        if status != body["status"]:
            await self._statuses.write(body, status)

    async def _say(self, body: Body, reason: EventReason, note: str) -> None:
        """Write an event; a lost event only costs a line in `describe`."""
        try:
            self._metrics.writes.labels("Event").inc()
            await self._cluster.create(EVENT, event(body, reason, note, self._clock.now(), self._instance))
        except ClusterError:
            self._metrics.reconciles.labels("event_lost").inc()

    def _count(self, key: Key, planning: PlanChoice) -> None:
        """Count a decision once, however many passes follow it."""
        reason = planning.decision if planning.good else planning.reason.value
        if reason in ("SamePlan", Reason.AWAITING_BUDGET) or self._decided.get(key) == (reason, planning.message):
            return
        self._decided[key] = reason, planning.message
        if planning.rollback is not None:
            decision = "rollback"
        else:
            decision = "adopt" if planning.adopted else "keep" if planning.good else "none"
        self._metrics.replans.labels(decision, reason).inc()


def _takes_over(before: Observation, workload: Mapping[str, Any] | None, wanted: Children) -> bool:
    """Return whether the writes of a pass started another plan than the one that ran before."""
    plan, active = before.planning.plan, before.deployment.status.active_revision
    # Re-creating a workload that somebody deleted does not start another plan.
    ran = plan_label(before.workload) or (active.plan_hash if active is not None else "")
    if plan is None or not wanted.acting or plan_label(workload) != plan.hash:
        return False
    return before.planning.adopted or ran != plan.hash
