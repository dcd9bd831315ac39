"""Clusters that the pages of `energylens ui` read: an API server, or a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.parse import parse_clusterenergybudget, parse_energybudget, parse_llmdeployment
from energylens.audit.assessment import AuditOptions
from energylens.cli.errors import InputError
from energylens.cli.inputs.audit import assessed, audited_cluster, hosts_of, served, telemetry_of_prometheus
from energylens.cli.inputs.files import Asked
from energylens.cli.inputs.live import ClusterAccess, LiveObjects, read_cluster, readable
from energylens.cli.inputs.rates import Rates
from energylens.cli.inputs.world import join, world_of_cluster, world_of_file
from energylens.cli.pictures.audit_page import audit_page
from energylens.cli.site.pages import Budget
from energylens.cli.text.provenance import Provenance
from energylens.clock import SystemClock
from energylens.decide.preview import World
from energylens.measure.prometheus_http import Access
from energylens.records import dataclass

_NO_COUNTERS = (
    "An audit compares the counters of engines and GPUs over a window: start `energylens ui` with --prometheus URL, or "
    "run `energylens audit`."
)


@dataclass(frozen=True)
class LiveCluster:
    """A cluster that is read for every page, with the rights of a kubeconfig's user."""

    access: ClusterAccess
    prometheus: Access | None
    """Prometheus for an audit; None for pages without one."""
    window_seconds: float
    """Seconds of history for the audit."""

    @property
    def text(self) -> str:
        """Source of the cluster."""
        return f"the cluster of context {self.access.context}" if self.access.context else "the live cluster"

    def deployments(self) -> list[LLMDeployment]:
        """Return the LLMDeployments of the namespaces to read."""
        from energylens.cluster.resources import LLM_DEPLOYMENT

        found = read_cluster(self.access, (LLM_DEPLOYMENT,))
        return readable(found.objects[LLM_DEPLOYMENT.kind], parse_llmdeployment)

    def budgets(self) -> list[Budget]:
        """Return the budgets that the user may read."""
        return _budgets(_budget_objects(self.access).objects)

    def world(self, deployments: Sequence[LLMDeployment]) -> World:
        """Return the cluster as planning needs it."""
        budgets = [body for bodies in _budget_objects(self.access).objects.values() for body in bodies]
        asked = Asked(tuple(deployments), tuple(budgets))
        return join(asked, world_of_cluster(self.access, asked))[1]

    def audit_page(self, rates: Rates) -> str:
        """Return the page of an audit within today's latencies.

        Raises:
            InputError: No Prometheus was named, or something cannot be read.
        """
        if self.prometheus is None:
            raise InputError(_NO_COUNTERS)
        audited = audited_cluster(self.access)
        snapshot, models = served(audited, {}, self.text)
        if not self.access.all_namespaces and self.access.namespace is not None:
            models = [each for each in models if each.owner.namespace == self.access.namespace]
        telemetry = telemetry_of_prometheus(self.prometheus, self.window_seconds, audited)
        answers = assessed(models, audited, telemetry, AuditOptions({}, 0))
        predictors = {each.plan.predictor_version for each in answers if each.plan is not None}
        made = Provenance(SystemClock().now(), self.text, snapshot).text(predictors)
        hosts, unknown = hosts_of(audited, telemetry)
        return audit_page(answers, rates, telemetry.source, (*telemetry.failures, *unknown), made, hosts)


@dataclass(frozen=True)
class FileCluster:
    """A cluster that a file describes, as for ``--inventory``; the file is read once."""

    path: Path

    @cached_property
    def _world(self) -> World:
        return world_of_file(self.path)

    @property
    def text(self) -> str:
        """Source of the cluster."""
        return f"inventory {self.path.name}"

    def deployments(self) -> list[LLMDeployment]:
        """Return the LLMDeployments of the file."""
        bodies = self._world.deployments
        return readable([bodies[key] for key in sorted(bodies)], parse_llmdeployment)

    def budgets(self) -> list[Budget]:
        """Return the budgets of the file."""
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for body in self._world.budgets:
            by_kind.setdefault(body["kind"], []).append(dict(body))
        return _budgets(by_kind)

    def world(self, deployments: Sequence[LLMDeployment]) -> World:
        """Return the world of the file."""
        return self._world

    def audit_page(self, rates: Rates) -> str:
        """Refuse, because a file of objects has no counters.

        Raises:
            InputError: Always.
        """
        raise InputError(_NO_COUNTERS)


def _budget_objects(access: ClusterAccess) -> LiveObjects:
    from energylens.cluster.resources import CLUSTER_ENERGY_BUDGET, ENERGY_BUDGET

    return read_cluster(
        access, (ENERGY_BUDGET,), (CLUSTER_ENERGY_BUDGET,), if_allowed=(ENERGY_BUDGET, CLUSTER_ENERGY_BUDGET)
    )


def _budgets(objects: dict[str, list[dict[str, Any]]]) -> list[Budget]:
    cluster: Iterable[Budget] = readable(objects.get("ClusterEnergyBudget", ()), parse_clusterenergybudget)
    return [*cluster, *readable(objects.get("EnergyBudget", ()), parse_energybudget)]
