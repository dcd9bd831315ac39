"""The statuses that the operator would write for LLMDeployments, computed without a cluster and without acting.

Pure. The decisions are the operator's own code; this module assembles the inputs that the operator watches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

from energylens.api.llmdeployment import EnergyAccount, LLMDeployment
from energylens.api.parse import InvalidResourceError
from energylens.budget.carbon import ForecastError
from energylens.budget.periods import period_at
from energylens.budget.usage import usage
from energylens.decide.budgets.allowance import allowance
from energylens.decide.budgets.budget import budget_of, read_budget
from energylens.decide.budgets.forecasts import forecast_of, place, where
from energylens.decide.budgets.membership import Surroundings
from energylens.decide.budgets.own_budget import in_period, with_account
from energylens.decide.budgets.status import Look, status_of_budget
from energylens.decide.decide import Live, decide
from energylens.decide.deployment.observed.named_maps import NamedMaps
from energylens.decide.deployment.observed.observation import Allowed, Body, PlanChoice, PodState
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.planning import PlanningService
from energylens.decide.deployment.pods.children import Children
from energylens.decide.deployment.pods.workloads import NO_WORKLOADS, WORKLOADS, Workloads, replicas_of
from energylens.decide.gather import Offered, Present, gather
from energylens.decide.learned.corrections import Pool
from energylens.decide.planned import Key, key_of, planned
from energylens.decide.reasons import BudgetReason
from energylens.decide.reservations import reservation, reserve
from energylens.planner.answers import Answers
from energylens.planner.types import ClusterSnapshot
from energylens.records import dataclass
from energylens.serving.claims import claims_of
from energylens.serving.support import table_name


@dataclass(frozen=True)
class World:
    """The operator's view of a cluster; bodies are plain objects."""

    snapshot: ClusterSnapshot
    """Nodes, and the GPUs that bound pods hold."""
    deployments: Mapping[Key, Body] = field(default_factory=dict)
    """LLMDeployments that exist."""
    budgets: Sequence[Body] = ()
    """EnergyBudgets and ClusterEnergyBudgets, with their statuses."""
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Labels of each namespace, for ClusterEnergyBudgets."""
    config_maps: Mapping[Key, Body] = field(default_factory=dict)
    workloads: Mapping[Key, Workloads] = field(default_factory=dict)
    """The workload object that runs the pods of an LLMDeployment."""
    claims: Mapping[Key, Body] = field(default_factory=dict)
    """PersistentVolumeClaims."""
    pods: Mapping[Key, tuple[PodState, ...]] = field(default_factory=dict)
    """The pods of an LLMDeployment."""
    serves_lws: bool = True
    learned: Pool = field(default_factory=Pool)
    """Corrections that the operator learned from measurement."""

    def snapshot_for(self, key: Key) -> ClusterSnapshot:
        """Return the nodes with all GPUs taken that the deployment of this key may not use."""
        held: dict[str, int] = {}
        for node in self.snapshot.nodes:
            for allocation in node.allocations:
                held[allocation.owner] = held.get(allocation.owner, 0) + allocation.gpus
        lacking = [
            reservation(planned(body), held.get("/".join(other), 0))
            for other, body in sorted(self.deployments.items())
            if other != key
        ]
        return reserve(self.snapshot, [wanted for wanted in lacking if wanted is not None])

    def allowance(self, deployment: Body, now: datetime) -> Allowed:
        """Return the watts available from budgets to a deployment, and its condition's verdict on the budgets."""
        around = Surroundings(self.namespaces, self.snapshot.nodes)
        budgets, others = map(read_budget, self.budgets), map(planned, self.deployments.values())
        return allowance(planned(deployment), budgets, others, now, around)


@dataclass(frozen=True)
class Preview:
    """The operator's result for one LLMDeployment."""

    deployment: LLMDeployment
    planning: PlanChoice
    inputs: Inputs
    """Inputs of the plan."""
    status: dict[str, Any]
    """The status that would be written."""
    own_account: EnergyAccount | None = None
    """Energy counted against the deployment's own limit; None without a limit."""


def counted_from_now(budget: Body, config_maps: Mapping[Key, Body], now: datetime) -> Body:
    """Return an unreconciled budget of energy or carbon in its state after the first reconcile: nothing is used.

    Args:
        budget: A budget of either kind.
        config_maps: ConfigMaps with the forecast of a carbon allowance, without which the budget cannot be checked.
        now: Start of counting.

    Returns:
        The unchanged budget if it was reconciled before, has no such limit, or cannot be read.
    """
    try:
        spec, status = budget_of(budget)
    except InvalidResourceError:
        return budget
    if status.observed_generation is not None or (spec.energy_watt_hours is None and spec.carbon is None):
        return budget
    namespace = key_of(budget)[0]
    found = None if spec.carbon is None else config_maps.get(place(namespace, spec))
    forecast, problem = forecast_of(namespace, spec, found)
    period = period_at(spec.period, ZoneInfo(spec.time_zone), now)
    used = None
    if spec.carbon is None or forecast is not None:
        try:
            used = usage(spec, (), period, now, forecast)
        except ForecastError as error:
            problem = (BudgetReason.FORECAST_INVALID, f"{where(namespace, spec)} {error}")
    look = Look(
        spec=spec,
        generation=int(budget["metadata"].get("generation", 1)),
        before=status,
        members=(),
        entries=(),
        period=period,
        now=now,
        used=used,
        points=(),
        problem=problem,
    )
    return {**budget, "status": status_of_budget(look).model_dump(mode="json", by_alias=True, exclude_none=True)}


def preview(deployments: Sequence[LLMDeployment], world: World, now: datetime) -> Iterator[Preview]:
    """Yield the statuses that the operator would write; each deployment sees the plans of the deployments before it.

    Args:
        deployments: In the order in which they are applied. A deployment that exists in the world has its status.
        world: The cluster.
        now: Current time, for transition times and cooldowns.
    """
    # One deployment asks once.
    service = PlanningService() if len(deployments) > 1 else PlanningService(answers=Answers(0))
    world = replace(world, budgets=[counted_from_now(budget, world.config_maps, now) for budget in world.budgets])
    for deployment in deployments:
        answer = _preview(deployment, world, service, now)
        yield answer
        key = deployment.metadata.namespace, deployment.metadata.name
        world = replace(world, deployments={**world.deployments, key: _body(answer.deployment, answer.status)})


def _preview(deployment: LLMDeployment, world: World, service: PlanningService, now: datetime) -> Preview:
    key = deployment.metadata.namespace, deployment.metadata.name
    own = deployment.spec.energy.budget
    account = None if own is None else in_period(deployment.status.energy_account, own, now)
    body = _body(deployment, deployment.status.model_dump(mode="json", by_alias=True))
    allowed = world.allowance(with_account(body, account), now)
    workloads = world.workloads.get(key, NO_WORKLOADS)
    inputs = gather(
        deployment,
        Offered(world.snapshot_for(key), allowed.allowance, world.learned, world.serves_lws),
        NamedMaps.of(deployment, lambda name: world.config_maps.get((key[0], name))),
        Present(workloads, world.config_maps.get((key[0], table_name(deployment))), want_table=True),
        now=now,
    )
    planning = service.planning_for(inputs)
    if (planning.adopted or planning.scaled) and planning.plan is not None:
        plan = planning.plan.model_dump(mode="json", by_alias=True, exclude_none=True)
        allowed = world.allowance(with_account({**body, "status": {**body["status"], "plan": plan}}, account), now)
    mounted = claims_of(deployment, {name: body for (space, name), body in world.claims.items() if space == key[0]})
    running = Live(workloads, world.pods.get(key, ()), claims=mounted)
    outcome = decide(inputs, planning, allowed, running, now=now, account=account)
    live, outgoing = outcome.observed.workload, outcome.observed.outgoing
    applied = _applied(live, outcome.children)
    if live is not None and applied is not None and live["kind"] != applied["kind"]:
        outgoing = live
    after = outcome.after(workload=applied, outgoing=outgoing)
    return Preview(deployment, planning, inputs, after.status(), account)


def _applied(live: Body | None, wanted: Children) -> Body | None:
    """Return the workload right after the apply, before its controller has reconciled it."""
    made = next((manifest for manifest in wanted.manifests if manifest["kind"] in WORKLOADS), None)
    if made is None:
        return live
    if live is None or live["kind"] != made["kind"]:
        return {**made, "metadata": {**made["metadata"], "generation": 1}, "status": {}}
    if wanted.strategy is None:
        # The pods stay, in the number and under the plan of the manifest.
        metadata, changed = live["metadata"], replicas_of(live) != replicas_of(made)
        labels = {**(metadata.get("labels") or {}), **made["metadata"]["labels"]}
        spec = {**live["spec"], "replicas": replicas_of(made)}
        live = {**live, "spec": spec, "metadata": {**metadata, "labels": labels}}
        return _next_generation(live) if changed else live
    metadata = {**made["metadata"], "generation": live["metadata"].get("generation")}
    return _next_generation({**made, "metadata": metadata, "status": live.get("status") or {}})


def _next_generation(workload: Body) -> Body:
    """Return a workload after a change of its spec."""
    metadata = workload["metadata"]
    return {**workload, "metadata": {**metadata, "generation": int(metadata.get("generation") or 0) + 1}}


def new_body(deployment: LLMDeployment) -> Body:
    """Return the object of a deployment without pods: no plan, but the energy counted by its own budget."""
    account = deployment.status.energy_account
    return with_account(_body(deployment, {}), account)


def _body(deployment: LLMDeployment, status: Mapping[str, Any]) -> Body:
    metadata = deployment.metadata
    return {
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "uid": metadata.uid,
            "labels": metadata.labels,
        },
        "spec": deployment.spec.model_dump(mode="json", by_alias=True, exclude_unset=True),
        "status": {name: value for name, value in status.items() if value is not None},
    }
