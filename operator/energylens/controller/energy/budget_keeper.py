"""Keeps the budgets: counts energy into their ledgers, decides shedding, and writes their statuses.

The status is all the memory there is: after a restart counting goes on from the watermarks in it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import Any, Protocol
from zoneinfo import ZoneInfo

from energylens.api.energybudget import EnergyBudgetSpec, EnergyBudgetStatus
from energylens.api.parse import InvalidResourceError
from energylens.api.timestamp import moment_of
from energylens.budget.carbon import Forecast, ForecastError
from energylens.budget.ledger import Entry, account, begin, close, from_status, read_back, without_old
from energylens.budget.periods import Span, period_at
from energylens.budget.shed import COMING_DOWN_SECONDS
from energylens.budget.usage import BURN_SECONDS, Usage, usage
from energylens.clock import Clock
from energylens.cluster.errors import ClusterError, ForbiddenError, NotFoundError
from energylens.cluster.port import ClusterPort
from energylens.cluster.resources import CLUSTER_ENERGY_BUDGET, CONFIG_MAP, ENERGY_BUDGET
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.settings import BudgetSettings
from energylens.controller.state.store import Body, Key, Store
from energylens.controller.writing.failures import SHOWN_AFTER, failed_budget_status
from energylens.controller.writing.status_writer import write_status
from energylens.decide.budgets.budget import awaits_look, budget_of, concerns_members, read_budget
from energylens.decide.budgets.counted import counted_job
from energylens.decide.budgets.forecasts import Problem, forecast_of, place, where
from energylens.decide.budgets.member_power import EnergyOf, Steadiness, as_measured, excess_watts, present_watts
from energylens.decide.budgets.membership import (
    Surroundings,
    bound_gpus,
    counted_nodes,
    held_gpus,
    is_member,
    share,
)
from energylens.decide.budgets.status import CountedMember, Look, decide, unreadable_status
from energylens.decide.planned import HeldPlan, PlannedDeployment, name_of
from energylens.decide.reasons import BudgetReason
from energylens.records import dataclass

log = logging.getLogger("energylens")


class Deployments(Protocol):
    """Figures of the members of budgets."""

    def deployments(self) -> Mapping[Key, PlannedDeployment]:
        """Return all LLMDeployments, with the plans that they adopted."""
        ...

    def surroundings(self) -> Surroundings:
        """Return namespaces and nodes."""
        ...


@dataclass
class _Account:
    """State of one budget between two checks."""

    entries: dict[str, Entry]
    period: Span
    points: list[tuple[datetime, float]] = field(default_factory=list)
    measured_at: dict[str, datetime] = field(default_factory=dict)
    """Time at which a member was last measured, or began to draw power."""
    steady: dict[str, Steadiness] = field(default_factory=dict)
    unpriced_since: dict[str, datetime] = field(default_factory=dict)
    """Time at which a member was first seen without its power for fewer replicas."""
    excess_ratio: float | None = None
    """Excess ratio in the status at first sight, for members that were not judged since."""
    unlisted_since: datetime | None = None
    """Time from which members without an account of their own are counted at first sight; None if they are new."""
    written_at: datetime | None = None
    was_unsettled: bool = False


class BudgetKeeper:
    """Checks every budget once per step."""

    def __init__(
        self,
        cluster: ClusterPort,
        store: Store,
        known: Deployments,
        energy: EnergyOf,
        clock: Clock,
        settings: BudgetSettings,
        metrics: Metrics,
        enqueue: Callable[[Key], None],
    ) -> None:
        """Keep the budgets of ``store``; ``enqueue`` members whose available power changes."""
        self._cluster = cluster
        self._store = store
        self._known = known
        self._energy = energy
        self._clock = clock
        self._settings = settings
        self._metrics = metrics
        self._enqueue = enqueue
        self._accounts: dict[tuple[Key, str], _Account] = {}
        self._everywhere: list[PlannedDeployment] = []
        self._in_namespace: dict[str, list[PlannedDeployment]] = {}
        """The LLMDeployments of a step."""
        self._failed: dict[tuple[Key, str], int] = {}
        """Consecutive failed checks."""

    @property
    def owes_a_look(self) -> bool:
        """Whether there is a budget for whose energy members would have to wait."""
        now = self._clock.now()
        return any(awaits_look(read_budget(body), now) for body in self._store.budgets.values())

    async def step(self) -> None:
        """Look at every budget; one that fails is checked again at the next step, and loses nothing by it."""
        bodies, self.is_unsettled, self.busy_seconds = dict(self._store.budgets), False, 0.0
        alive = {_identity(key, body) for key, body in bodies.items()}
        for gone in [identity for identity in self._accounts if identity not in alive]:
            del self._accounts[gone]
            self._metrics.forget_budget(*gone[0])
        self._failed = {identity: count for identity, count in self._failed.items() if identity in alive}
        known = self._known.deployments() if bodies else {}
        # Sorted once for all budgets.
        self._everywhere = [known[key] for key in sorted(known)]
        self._in_namespace = {}
        for deployment in self._everywhere:
            self._in_namespace.setdefault(deployment.namespace, []).append(deployment)
        for key, body in sorted(bodies.items()):
            # A failing budget reports its own failure; the other budgets must be checked nevertheless.
            try:
                await self._look(key, body)
                self._failed.pop(_identity(key, body), None)
            except ClusterError as error:
                log.warning("%s: %s; retrying", name_of(body), error)
                await self._show(key, body, error)
            except Exception as error:
                log.exception("%s: internal error; retrying", name_of(body))
                await self._show(key, body, error)

    async def _show(self, key: Key, body: Body, error: Exception) -> None:
        """Write into a budget's status that looking at it failed; a failed request only when it keeps failing."""
        identity = _identity(key, body)
        self._failed[identity] = self._failed.get(identity, 0) + 1
        if isinstance(error, ClusterError) and self._failed[identity] < SHOWN_AFTER:
            return
        try:
            status = failed_budget_status(body, error, self._clock.now())
            if status != body["status"] and await self._put_status(key, body, status):
                self._enqueue_members(key)
        except ClusterError as unwritten:
            log.warning("%s: its status cannot be written to report the failure: %s", name_of(body), unwritten)
        except Exception:
            log.exception("%s: its status cannot be written to report the failure", name_of(body))

    async def _look(self, key: Key, body: Body) -> None:
        now = self._clock.now()
        generation = int(body["metadata"].get("generation", 1))
        try:
            spec, before = budget_of(body)
        except InvalidResourceError as error:
            spec, before = budget_of({**body, "spec": {"powerWatts": 1}})
            status = unreadable_status(before, generation, str(error), now)
            self._metrics.observe_budget(*key, status)
            await self._write(key, body, before, status)
            return
        period = period_at(spec.period, ZoneInfo(spec.time_zone), now)
        kept = self._account(key, body, before, period)
        forecast, problem = await self._forecast(key[0], spec)
        began = self._clock.monotonic()
        around = self._known.surroundings()
        members = [
            self._member(kept, name_of(body), spec, deployment, around, now, forecast)
            for deployment in (self._in_namespace.get(key[0], ()) if key[0] else self._everywhere)
            if is_member(spec, key[0], deployment, around)
        ]
        kept.unlisted_since = None
        self._close(kept, members, now, forecast)
        used: Usage | None = None
        if spec.carbon is None or forecast is not None:
            try:
                used = usage(spec, list(kept.entries.values()), period, now, forecast)
            except ForecastError as error:
                problem = (BudgetReason.FORECAST_INVALID, f"{where(key[0], spec)} {error}")
        if used is not None:
            kept.points.append((now, used.used_watt_hours))
        while kept.points and (now - kept.points[0][0]).total_seconds() > BURN_SECONDS:
            kept.points.pop(0)
        look = Look(
            spec=spec,
            generation=generation,
            before=before,
            members=members,
            entries=list(kept.entries.values()),
            period=period,
            now=now,
            used=used,
            points=kept.points,
            problem=problem,
        )
        decided = decide(look)
        self.busy_seconds += self._clock.monotonic() - began
        status, self.is_unsettled = decided.status, self.is_unsettled or decided.is_unsettled
        self._metrics.observe_budget(*key, status)
        due = kept.written_at is None or (now - kept.written_at).total_seconds() >= self._settings.status_seconds
        # The members' caps are known now.
        due |= kept.was_unsettled and not decided.is_unsettled
        kept.was_unsettled = decided.is_unsettled
        if due or concerns_members(before, status) or key in self._store.edited_budgets:
            await self._write(key, body, before, status)
            kept.written_at = now

    def _account(self, key: Key, body: Body, before: EnergyBudgetStatus, period: Span) -> _Account:
        """Return the account of a budget in a period, read from its status at first sight."""
        identity = _identity(key, body)
        kept = self._accounts.get(identity)
        if kept is None:
            entries, unlisted_since = read_back(map(from_status, before.ledger))
            old = before.period_start
            start = moment_of(old) or period.start
            committed, excess = before.committed_power_watts, before.excess_power_watts
            ratio = excess / committed if committed and excess is not None else None
            kept = self._accounts[identity] = _Account(
                entries, Span(start, period.end), excess_ratio=ratio, unlisted_since=unlisted_since
            )
        # A period that begins earlier, after an edit of the spec, contains everything that was counted.
        if period.start > kept.period.start:
            kept.entries = {entry.uid: entry for entry in begin(kept.entries.values(), period)}
            kept.points.clear()
        kept.period = period
        return kept

    def _member(
        self,
        kept: _Account,
        budget_name: str,
        spec: EnergyBudgetSpec,
        deployment: PlannedDeployment,
        around: Surroundings,
        now: datetime,
        forecast: Forecast | None,
    ) -> CountedMember:
        """Return the current state of a member, with its energy counted."""
        key, uid, plan = deployment.key, deployment.uid, deployment.plan
        nodes, gpus = counted_nodes(spec, around), held_gpus(spec, deployment, around)
        silent = self._count(kept, deployment, gpus, nodes, now, forecast)
        part = share(spec, deployment, around)
        committed = deployment.committed_watts
        known = kept.steady.setdefault(uid, Steadiness(excess_ratio=kept.excess_ratio))
        excess = excess_watts(
            known,
            deployment,
            bound_gpus(deployment, around),
            committed * part,
            self._energy,
            nodes,
            now,
        )
        lowest = committed
        if plan is not None and plan.lowest_power_watts and not plan.shed_by:
            lowest = min(committed, plan.lowest_power_watts)
        levels, is_priced = _levels(plan, deployment.min_replicas, committed)
        if is_priced:
            kept.unpriced_since.pop(uid, None)
        else:
            since = kept.unpriced_since.setdefault(uid, now)
            is_priced = (now - since).total_seconds() >= COMING_DOWN_SECONDS
        answered = deployment.allowed_power_watts if deployment.limited_by == budget_name else None
        whole = plan.shed_from_power_watts if plan is not None and plan.shed_by == budget_name else None
        job = counted_job(deployment, part)
        return CountedMember(
            key=key,
            uid=uid,
            priority=deployment.priority,
            committed_watts=committed * part,
            least_watts=lowest * part,
            levels_watts=tuple(level * part for level in levels),
            is_priced=is_priced,
            answered_watts=None if answered is None else answered * part,
            whole_watts=None if whole is None else float(whole) * part,
            measured_watts=present_watts(self._energy, key, nodes, now) if gpus else None,
            excess_watts=excess if gpus else 0.0,
            draws=gpus > 0,
            is_silent=gpus > 0 and silent > self._settings.unmeasured_seconds,
            job=None if job is None else replace(job, counted_until=kept.entries[uid].until),
        )

    def _count(
        self,
        kept: _Account,
        deployment: PlannedDeployment,
        gpus: int,
        nodes: frozenset[str] | None,
        now: datetime,
        forecast: Forecast | None,
    ) -> float:
        """Count the energy of a member that holds ``gpus`` of ``nodes``; return the time without measurement, s."""
        key, uid = deployment.key, deployment.uid
        entry = kept.entries.get(uid) or Entry(uid, *key, _counted_from(deployment.created, kept.unlisted_since, now))
        predicted = deployment.drawn_watts(gpus)
        span = self._energy(key, entry.until.timestamp(), nodes) if gpus else None
        counted = account(entry, now, as_measured(span), predicted, forecast) if gpus else close(entry, now, forecast)
        kept.entries[uid] = replace(counted, predicted_watts=predicted)
        measured_at = now if not gpus else kept.measured_at.get(uid, now)
        if span is not None:
            measured_at = max(measured_at, datetime.fromtimestamp(span.end, UTC))
        kept.measured_at[uid] = measured_at
        return (now - measured_at).total_seconds()

    def _close(self, kept: _Account, members: list[CountedMember], now: datetime, forecast: Forecast | None) -> None:
        """Advance the watermark of former members, whose power no longer counts."""
        present = {member.uid for member in members}
        gone = [close(entry, now, forecast) for uid, entry in kept.entries.items() if uid not in present]
        for entry in gone:
            del kept.entries[entry.uid]
            kept.measured_at.pop(entry.uid, None)
            kept.steady.pop(entry.uid, None)
            kept.unpriced_since.pop(entry.uid, None)
        kept.entries |= {entry.uid: entry for entry in without_old(gone)}

    async def _forecast(self, namespace: str, spec: EnergyBudgetSpec) -> tuple[Forecast | None, Problem | None]:
        if spec.carbon is None:
            return None, None
        try:
            found = await self._cluster.get(CONFIG_MAP, *place(namespace, spec))
        except NotFoundError:
            found = None
        except ForbiddenError as error:
            return None, (BudgetReason.FORECAST_MISSING, f"{where(namespace, spec)} may not be read: {error}")
        return forecast_of(namespace, spec, found)

    async def _write(self, key: Key, body: Body, before: EnergyBudgetStatus, status: EnergyBudgetStatus) -> None:
        """Write a changed status, and enqueue the members if the change affects them."""
        if status == before and key not in self._store.edited_budgets:
            return
        written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
        if await self._put_status(key, body, written) and concerns_members(before, status):
            self._enqueue_members(key)

    async def _put_status(self, key: Key, body: Body, status: Mapping[str, Any]) -> bool:
        """Write a status; return False if the budget no longer exists."""
        resource = ENERGY_BUDGET if key[0] else CLUSTER_ENERGY_BUDGET
        memory, edited = self._store.budget_statuses, self._store.edited_budgets.get(key)
        if edited is not None:
            log.warning("%s: its status was edited and is written again: %s", name_of(body), "; ".join(edited))
        answer = await write_status(self._cluster, self._metrics, resource, memory, body, status)
        if answer is None:
            return False
        # The answer may contain an edit of the spec, whose watch event then triggers nothing.
        for other in self._store.put_budget(answer, deleted=False):
            self._enqueue(other)
        return True

    def _enqueue_members(self, key: Key) -> None:
        for other in self._store.deployments:
            if key[0] in ("", other[0]):
                self._enqueue(other)


def _identity(key: Key, body: Body) -> tuple[Key, str]:
    return key, str(body["metadata"].get("uid", ""))


def _levels(plan: HeldPlan | None, fewest: int, committed: int) -> tuple[list[int], bool]:
    """Return the watts for each smaller allowed number of replicas, and whether they are known."""
    replicas, levels = (1, ()) if plan is None else (plan.replicas, plan.fewer_replicas)
    found = [watts for count, watts in levels if count >= fewest]
    is_priced = not committed or replicas <= fewest or bool(found)
    return [watts for watts in found if watts < committed], is_priced


def _counted_from(created: str | None, unlisted_since: datetime | None, now: datetime) -> datetime:
    """Return the time from which a member without an account is counted: now, or the watermark of a merged account."""
    start = now.replace(microsecond=0)
    if unlisted_since is None:
        return start
    return min(start, unlisted_since if created is None else max(unlisted_since, datetime.fromisoformat(created)))
