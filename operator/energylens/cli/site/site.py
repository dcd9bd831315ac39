"""The addresses of `energylens ui` and their pages; each page is made from the cluster on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Lock
from typing import Protocol
from urllib.parse import unquote

from energylens.api.llmdeployment import LLMDeployment
from energylens.cli.errors import InputError
from energylens.cli.inputs.fleet_solve import solve_fleet
from energylens.cli.inputs.previews import previews
from energylens.cli.inputs.rates import Rates
from energylens.cli.pictures.fleet_page import fleet_page
from energylens.cli.pictures.page import Link, navigated
from energylens.cli.pictures.plot import plan_page
from energylens.cli.site import pages
from energylens.cli.site.pages import Budget
from energylens.cli.text.drift import row_of
from energylens.cli.text.own_budget import own_budget_rows
from energylens.cli.text.provenance import Provenance, made_from
from energylens.clock import Clock
from energylens.decide.preview import World
from energylens.planner.fleet.milp import SolverError
from energylens.records import dataclass

OVERVIEW, FLEET, BUDGETS, DRIFT, AUDIT = "/", "/fleet", "/budgets", "/drift", "/audit"
NAVIGATION = (
    Link("Overview", OVERVIEW),
    Link("Fleet", FLEET),
    Link("Budgets", BUDGETS),
    Link("Drift", DRIFT),
    Link("Audit", AUDIT),
)


class Cluster(Protocol):
    """Reads a cluster; every method may raise InputError with the reason why it cannot be read."""

    @property
    def text(self) -> str:
        """Source of the cluster, for the foot of a page."""

    def deployments(self) -> list[LLMDeployment]:
        """Return the LLMDeployments, by namespace and name."""

    def budgets(self) -> list[Budget]:
        """Return the budgets that may be read."""

    def world(self, deployments: Sequence[LLMDeployment]) -> World:
        """Return the cluster as planning these deployments needs it."""

    def audit_page(self, rates: Rates) -> str:
        """Return the page of an audit."""


@dataclass(frozen=True)
class PageAnswer:
    """A page and its HTTP status."""

    status: int
    html: str


class Site:
    """Makes pages, one at a time, since the settings of pictures belong to the whole process."""

    def __init__(self, cluster: Cluster, rates: Rates, clock: Clock) -> None:
        """Show a cluster.

        Args:
            cluster: Read for each page.
            rates: Prices of energy.
            clock: The time that pages show as their own.
        """
        self._cluster = cluster
        self._rates = rates
        self._clock = clock
        self._one_at_a_time = Lock()
        self._fixed: dict[str, Callable[[], str]] = {
            OVERVIEW: self._overview,
            FLEET: self._fleet,
            BUDGETS: self._budgets,
            DRIFT: self._drift,
            AUDIT: lambda: cluster.audit_page(rates),
        }

    def answer(self, path: str) -> PageAnswer:
        """Return the page of an address without its query, or a page with the reason why there is none."""
        parts = [unquote(part) for part in path.strip("/").split("/")]
        make = self._fixed.get(path)
        if make is None and len(parts) == 3 and parts[0] in ("deployments", "plan"):
            show = self._plan if parts[0] == "plan" else self._deployment
            with self._one_at_a_time:
                return self._answered(lambda: show(parts[1], parts[2]), OVERVIEW)
        if make is None:
            return self._problem(404, "There is no such page", f"{path!r} is no address of this server.")
        with self._one_at_a_time:
            return self._answered(make, path)

    def _answered(self, make: Callable[[], str], current: str) -> PageAnswer:
        try:
            return PageAnswer(200, navigated(make(), NAVIGATION, current))
        except _NotThereError as error:
            return self._problem(404, "There is no such deployment", str(error))
        except (InputError, SolverError) as error:
            return self._problem(502, "This page cannot be made", str(error))

    def _problem(self, status: int, title: str, text: str) -> PageAnswer:
        return PageAnswer(status, navigated(pages.message_page(title, text, self._made()), NAVIGATION, ""))

    def _made(self, shown: Sequence[LLMDeployment] = ()) -> str:
        plans = [each.status.plan for each in shown]
        predictors = {plan.predictor_version for plan in plans if plan is not None}
        return made_from(self._clock.now(), self._cluster.text, predictors)

    def _overview(self) -> str:
        found = self._cluster.deployments()
        return pages.overview(found, self._cluster.budgets(), self._rates, self._made(found))

    def _deployment(self, namespace: str, name: str) -> str:
        found = self._named(namespace, name)
        return pages.deployment_page(found, self._rates, self._made([found]))

    def _plan(self, namespace: str, name: str) -> str:
        found = self._named(namespace, name)
        return plan_page(previews([found], self._cluster.world([found]), self._clock), self._cluster.text)

    def _fleet(self) -> str:
        deployments = self._cluster.deployments()
        if not deployments:
            raise InputError("There is no LLMDeployment to plan.")
        world = self._cluster.world(deployments)
        found = solve_fleet(deployments, world, None)
        predictors = [part.problem.predictor.version for part in found.deployments]
        made = Provenance(self._clock.now(), self._cluster.text, world.snapshot).text(predictors)
        return fleet_page(found, made, self._rates)

    def _budgets(self) -> str:
        found = self._cluster.deployments()
        own = own_budget_rows(found, self._clock.now())
        return pages.budgets_page(self._cluster.budgets(), own, self._rates, self._made(found))

    def _drift(self) -> str:
        found = self._cluster.deployments()
        return pages.drift_page([row_of(each) for each in found], self._made(found))

    def _named(self, namespace: str, name: str) -> LLMDeployment:
        for each in self._cluster.deployments():
            if (each.metadata.namespace, each.metadata.name) == (namespace, name):
                return each
        raise _NotThereError(f"The cluster has no LLMDeployment {namespace}/{name}, or it may not be read.")


class _NotThereError(Exception):
    """There is no object with a name."""
