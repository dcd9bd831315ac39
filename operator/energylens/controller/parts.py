"""The parts that work while the lease is held, built and connected."""

from __future__ import annotations

import asyncio

from energylens import __version__
from energylens.clock import Clock
from energylens.cluster.port import ClusterPort
from energylens.controller.endpoints.metrics import Metrics
from energylens.controller.energy.budget_keeper import BudgetKeeper
from energylens.controller.energy.budget_looks import BudgetLooks
from energylens.controller.energy.energy_accounts import EnergyAccounts
from energylens.controller.energy.measuring import Measuring
from energylens.controller.options import Options
from energylens.controller.process import Process
from energylens.controller.queueing.pacing import Pacer
from energylens.controller.queueing.queue import KeyQueue
from energylens.controller.queueing.searches import Searches
from energylens.controller.reconciling.reconcile import Reconciler
from energylens.controller.reconciling.workers import Workers
from energylens.controller.state.status_memory import remembering
from energylens.controller.state.store import Key, Store
from energylens.controller.watching.kinds import Kinds
from energylens.controller.watching.resync import Resync
from energylens.controller.watching.sweep import Sweeper
from energylens.controller.writing.failures import Failures
from energylens.decide.budgets.status_check import checked_budget_status
from energylens.decide.budgets.status_check import own_part as own_budget_part
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.reports.status import is_unplanned
from energylens.decide.deployment.reports.status_check import checked_status, own_part
from energylens.decide.learned.corrections import Pool
from energylens.measure.scrape import HttpScraper
from energylens.measure.source import EnergySource


class Parts:
    """The parts of an operator that leads. None of them runs by itself."""

    def __init__(
        self,
        options: Options,
        cluster: ClusterPort,
        http: HttpScraper,
        clock: Clock,
        prometheus: EnergySource | None,
        process: Process,
    ) -> None:
        """Build and connect the parts.

        Args:
            options: What the command line says.
            cluster: Takes writes only while the lease is held.
            http: Reads metrics of pods.
            clock: The clock.
            prometheus: Where energy is read first.
            process: Whose part this is.
        """
        self._options = options
        self._process = process
        self.store = Store(
            statuses=remembering(checked_status, own_part, clock),
            budget_statuses=remembering(checked_budget_status, own_budget_part, clock),
        )
        self.metrics = Metrics(self.store)
        self.metrics.build.info({"version": __version__})
        self.queue = KeyQueue(self._is_new)
        self.windows = Pacer(self.queue.add_again, options.settings.measurement.statuses_per_second)
        self.pool = Pool()
        self.measuring = Measuring(
            self.store,
            options.settings.measurement,
            http,
            clock,
            self.windows.add,
            prometheus,
            lambda key, joules: self.metrics.energy.labels(*key).inc(joules),
        )
        self._accounts = EnergyAccounts(
            self.store, self.measuring.energy, clock, options.settings.budgets, self.queue.add_again
        )
        self._budgets_wanted = asyncio.Event()
        """Set when a deployment waits for a look at its budget."""
        self.reconciler = self._reconciling(cluster, clock)
        keeper, pace = self._keeping(cluster, clock), options.settings.measurement.scrape_seconds
        self.budget_looks = BudgetLooks(keeper, self._accounts.step, self._budgets_wanted, pace)
        self.sweeper = Sweeper(cluster, self.store, self.queue.add, options.namespaces)
        self.resync = Resync(self.sweeper, process.until_done, clock, options.settings.resync_seconds)
        self.kinds = Kinds(cluster, options.namespaces, self._process.health.report)
        failures = Failures(cluster, self.store, clock, self.metrics, self._process.identity)
        self.searches = Searches(self.queue)
        self.workers = Workers(
            self.queue, self.reconciler.attempt, failures.show, self.metrics, clock, self.searches.put
        )

    def _reconciling(self, cluster: ClusterPort, clock: Clock) -> Reconciler:
        settings, measuring = self._options.settings, self.measuring
        return Reconciler(
            cluster,
            self.store,
            PlanningService(resync_seconds=settings.resync_seconds),
            clock,
            settings,
            self.metrics,
            instance=self._process.identity,
            measurements=measuring.latest,
            canary_measurements=measuring.latest_of_canary,
            pool=self.pool,
            accounts=self._accounts,
            look_at_budgets=self._budgets_wanted.set,
        )

    def _keeping(self, cluster: ClusterPort, clock: Clock) -> BudgetKeeper:
        return BudgetKeeper(
            cluster,
            self.store,
            self.reconciler.allowances,
            self.measuring.energy,
            clock,
            self._options.settings.budgets,
            self.metrics,
            self.queue.add_again,
        )

    def _is_new(self, key: Key) -> bool:
        """Return whether no pass has planned the spec of a deployment as it is."""
        body = self.store.deployments.get(key)
        return body is not None and is_unplanned(body)
