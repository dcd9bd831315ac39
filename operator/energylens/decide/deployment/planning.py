"""Plans for one LLMDeployment: which model and predictor, whether to plan at all, whether to adopt the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.quantity import parse_quantity
from energylens.api.words import counted
from energylens.data import load_gpus
from energylens.decide.deployment import rollback
from energylens.decide.deployment.following import at_load, most_carried
from energylens.decide.deployment.load import FollowedLoad
from energylens.decide.deployment.observation import Planning
from energylens.decide.deployment.served import ModelProblemError, model_of, predictor_of
from energylens.decide.reasons import Reason
from energylens.planner import adoption, plan, plan_inputs_hash
from energylens.planner.planning import problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.describe import joules
from energylens.planner.search.identity import identified, is_made_from, sealed
from energylens.planner.search.problem import NO_BINDING_CONSTRAINT, Problem
from energylens.planner.shedding import Running, is_priced, replica_powers, with_fewer_replicas
from energylens.planner.types import ClusterSnapshot, Feasible, Infeasible, PlanningResult, PowerAllowance
from energylens.predictor import Predictor
from energylens.predictor.fitted.profiles import UnknownEngineError
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.serving import ServingError, check


@dataclass(frozen=True)
class Request:
    """What a planning depends on; everything it reads, so that it can run in a thread."""

    deployment: LLMDeployment
    config: Mapping[str, Any] | None
    """The model's config.json from ``spec.model.configRef``; None when the catalogue is asked."""
    snapshot: ClusterSnapshot
    allowance: PowerAllowance | None
    serves_lws: bool
    adopted_at: datetime | None
    now: datetime
    want_table: bool
    """The ConfigMap with the table of plans is missing."""
    standing: PlanStatus | None = None
    """The plan whose pods run while the one in status waits for approval."""
    corrections: Corrections | None = None
    """Factors learned from measurement."""
    late: str = ""
    """Why the rollout of the plan in status missed its deadline; "" when it did not."""
    load: FollowedLoad | None = None
    """The load to plan for; None for that of the spec."""


@dataclass(frozen=True)
class _Evaluated:
    inputs: tuple[object, ...]
    planning: Planning
    at: datetime


@dataclass
class PlanningService:
    """Plans, and remembers per deployment what was evaluated, so that equal inputs are not planned twice."""

    resync_seconds: float = 300.0
    _evaluated: dict[tuple[str, str], _Evaluated] = field(default_factory=dict)

    def planning_for(self, request: Request) -> Planning:
        """Return the plan to follow; pure but for its memory, and slow: run it off the event loop."""
        deployment = at_load(request.deployment, request.load)
        current = deployment.status.plan
        try:
            check(deployment)
            model = model_of(deployment, request.config)
            predictor = predictor_of(deployment)
            wanted = _hash(request, deployment, model, predictor)
        except ServingError as error:
            return Planning(current, None, False, Reason.INVALID_ENGINE_SETTINGS, str(error))
        except ModelProblemError as error:
            return Planning(current, None, False, error.reason, str(error))
        except UnsupportedQuantizationError as error:
            return Planning(current, None, False, Reason.MODEL_UNSUPPORTED, f"spec.model.{error}")
        except UnknownEngineError as error:
            return Planning(current, None, False, Reason.INVALID_ENGINE_SETTINGS, f"spec.engine: {error}")
        returned = self._return(replace(request, deployment=deployment), model, predictor)
        if isinstance(returned, Planning):
            return returned
        same = current is not None and is_made_from(current, wanted)
        # The model's weights and the engine's settings are no inputs of the layout, and are of the plan.
        same = same and current is not None and current == identified(current, deployment.spec)
        # Figures of a correction that is not asked for any more are to be taken back.
        same = same and (request.corrections is not None or current is None or current.correction is None)
        # What a budget took may be given back.
        same = same and (current is None or current.shed_by is None)
        key = deployment.metadata.namespace, deployment.metadata.name
        if same and current is not None:
            priced = _priced(request, request.load, model, predictor, current)
            current = current if priced == current else sealed(priced, wanted)
        if same and not request.want_table:
            # The table of plans is large, and written by now.
            self._evaluated.pop(key, None)
            return Planning(current, model, True, Reason.PLANNED, _describe(current), no_way_back=returned)
        inputs = (
            deployment.metadata.uid,
            wanted,
            current.inputs_hash if current else None,
            current.hash if current else None,
            request.serves_lws,
            request.want_table,
            _free(request.snapshot),
            current.replicas if current else None,
            deployment.spec.energy.min_replicas,
        )
        known = self._evaluated.get(key)
        fresh = known is not None and (request.now - known.at).total_seconds() < self.resync_seconds
        if known is not None and fresh and known.inputs == inputs:
            return replace(known.planning, no_way_back=returned)
        load, result = self._evaluate(request, model, predictor)
        if load != request.load:
            wanted = _hash(request, at_load(request.deployment, load), model, predictor)
            same = current is not None and is_made_from(current, wanted) and current.shed_by is None
        if same:
            table = _table(result, current)
            planning = Planning(current, model, True, Reason.PLANNED, _describe(current), table=table)
        else:
            planning = self._choose(request, load, model, predictor, result)
            if planning.plan is not None:
                # Those in the status are of other inputs, or somebody edited the plan there.
                unpriced = planning.plan.model_copy(update={"fewer_replicas": ()})
                planning = replace(planning, plan=_priced(request, load, model, predictor, unpriced))
            planning = _sealed(planning, current, result, wanted)
        planning = replace(planning, result=result, carried_step=None if load is None else load.step)
        self._evaluated[key] = _Evaluated(inputs, planning, request.now)
        return replace(planning, no_way_back=returned)

    def forget(self, namespace: str, name: str) -> None:
        """Drop what is remembered of a deleted deployment."""
        self._evaluated.pop((namespace, name), None)

    def _evaluate(
        self, request: Request, model: ModelSpec, predictor: Predictor
    ) -> tuple[FollowedLoad | None, PlanningResult]:
        """Return the plan for the followed load, or for as much of it as a plan carries, and that load."""
        load = request.load
        result = self._solve(at_load(request.deployment, load), request, model, predictor)
        lower = most_carried(load, result)
        if lower is None:
            return load, result
        carried = self._solve(at_load(request.deployment, lower), request, model, predictor)
        return (lower, carried) if isinstance(carried, Feasible) else (load, result)

    def _solve(
        self, deployment: LLMDeployment, request: Request, model: ModelSpec, predictor: Predictor
    ) -> PlanningResult:
        """Plan; without LeaderWorkerSet first within one node, so that it is missed only where it is needed."""
        snapshot = request.snapshot

        def run(asked: LLMDeployment) -> PlanningResult:
            return _plan(request, asked, model, predictor)

        if not request.serves_lws and snapshot.nodes:
            largest = max(node.allocatable for node in snapshot.nodes)
            hardware = deployment.spec.hardware
            limit = min(largest, hardware.max_gpus_per_replica or largest)
            capped = hardware.model_copy(update={"max_gpus_per_replica": limit})
            within = run(
                deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"hardware": capped})})
            )
            if isinstance(within, Feasible):
                return within
        return run(deployment)

    def _choose(
        self,
        request: Request,
        load: FollowedLoad | None,
        model: ModelSpec,
        predictor: Predictor,
        result: PlanningResult,
    ) -> Planning:
        # Rolled back for the spec as it is, whatever load is followed.
        rejected = rollback.rejected_for(request.deployment)
        request = replace(request, deployment=at_load(request.deployment, load))
        # A plan that was never approved is nothing to switch from.
        before = request.standing or request.deployment.status.plan
        current = None if before is None else identified(before, request.deployment.spec)
        if current is not None and (why := _cannot_be_shed_to(request, current, result)):
            shed = self._shed(request, model, predictor, current, why)
            if shed is not None:
                return shed
            if isinstance(result, Feasible):
                return Planning(current, model, True, Reason.KEEPING_RUNNING_PLAN, why, decision="AtTheFloor")
        if isinstance(result, Infeasible):
            kept = "; the running plan stays" if current is not None else ""
            return Planning(
                before, model, False, Reason(result.reason), f"{result.message}{kept}", decision="Infeasible"
            )
        if current is not None and current.shed_by is not None:
            text = f"{current.shed_by} gives back what it took"
            whole = result.plan
            return Planning(
                whole,
                model,
                True,
                Reason.PLANNED,
                _describe(whole),
                True,
                "ShedEnded",
                result.table,
                weighed=text,
            )
        running: PlanningResult | str | None = None
        if current is not None:
            pinned = adoption.pinned_to(request.deployment, current, load_gpus())
            running = pinned if isinstance(pinned, str) else _plan(request, pinned, model, predictor)
        cost = adoption.switch_cost(result.plan, float(weight_bytes(model)), load_gpus()[result.plan.gpu_product])
        decision = adoption.decide(
            current,
            result,
            running=running,
            objective=request.deployment.spec.energy.objective,
            replan=request.deployment.spec.planning.replan,
            seconds_since_adoption=(
                (request.now - request.adopted_at).total_seconds() if request.adopted_at is not None else None
            ),
            cost=cost,
            rejected=rejected,
        )
        if decision.adopt:
            return Planning(
                decision.plan,
                model,
                True,
                Reason.PLANNED,
                _describe(decision.plan),
                True,
                decision.reason,
                result.table,
                weighed=decision.message,
            )
        reason = Reason.ROLLED_BACK if decision.reason == "RolledBack" else Reason.KEEPING_RUNNING_PLAN
        standing = decision.plan.model_copy(update={"lowest_power_watts": result.plan.lowest_power_watts})
        if before is not None and standing.hash != before.hash:
            text = f"the spec asks for another model or engine: {_describe(standing)}; {decision.message}"
            return Planning(standing, model, True, reason, text, decision="OtherModelOrEngine", weighed=text)
        return Planning(standing, model, True, reason, decision.message, decision=decision.reason)

    def _return(self, request: Request, model: ModelSpec, predictor: Predictor) -> Planning | str:
        """Return to the last good plan when that is due; "" when it is not, a text when it is and cannot be done."""
        back = rollback.due(request.deployment, request.late)
        if back is None:
            return ""
        what = f"{back.reason}: {back.message}; the plan before, {_describe(back.plan)}, is not possible"
        pinned = adoption.pinned_to(request.deployment, back.plan, load_gpus())
        if isinstance(pinned, str):
            return f"{what}: {pinned}"
        today = _plan(request, pinned, model, predictor)
        # That it holds the objectives was measured; that GPUs, memory and budgets allow it was not.
        if isinstance(today, Infeasible) and today.reason != "SLOInfeasible":
            return f"{what}: {today.message}"
        message = f"back to {_describe(back.plan)}: {back.message}"
        return Planning(
            identified(back.plan, request.deployment.spec),
            model,
            True,
            Reason.ROLLED_BACK,
            message,
            True,
            "RolledBack",
            weighed=back.message,
            rollback=back,
        )

    def _shed(
        self, request: Request, model: ModelSpec, predictor: Predictor, current: PlanStatus, why: str
    ) -> Planning | None:
        """Return the running plan with fewer replicas, where a budget takes them; None where none does.

        ``why`` says what keeps a plan of less power for the whole load from being followed.
        """
        allowance = request.allowance
        if allowance is None or not allowance.sheds:
            return None
        fewer = None
        if current.predicted.power_watts > allowance.watts:
            fewer = with_fewer_replicas(_running(request, model, predictor, current), allowance)
        plan = fewer or current
        if plan.shed_by is None:
            return None
        text = (
            f"{allowance.source} leaves {allowance.watts:.0f} W: {counted(plan.replicas, 'replica')} run"
            f"{'s, and carries' if plan.replicas == 1 else ', and carry'} less than the load; {why}"
        )
        return Planning(plan, model, True, Reason.SHED, text, fewer is not None, "Shed")


def _running(request: Request, model: ModelSpec, predictor: Predictor, plan: PlanStatus) -> Running:
    return Running(request.deployment, model, plan, request.snapshot, load_gpus(), predictor, request.corrections)


def _priced(
    request: Request, load: FollowedLoad | None, model: ModelSpec, predictor: Predictor, plan: PlanStatus
) -> PlanStatus:
    """Return a plan that says what it draws with fewer replicas."""
    if is_priced(plan, request.deployment.spec.energy.min_replicas):
        return plan
    asked = replace(request, deployment=at_load(request.deployment, load))
    return plan.model_copy(update={"fewer_replicas": replica_powers(_running(asked, model, predictor, plan))})


def _cannot_be_shed_to(request: Request, current: PlanStatus, result: PlanningResult) -> str:
    """Return why a result is nothing that a budget may move a deployment to; "" where it is, or no budget sheds."""
    if isinstance(result, Infeasible):
        return result.message
    allowance, fewest = request.allowance, request.deployment.spec.energy.min_replicas
    if allowance is None or not allowance.sheds or result.plan.replicas >= min(fewest, current.replicas):
        return ""
    return (
        f"the best plan that {allowance.source} leaves has {counted(result.plan.replicas, 'replica')}, fewer than "
        f"spec.energy.minReplicas={fewest}; the running plan stays"
    )


def _hash(request: Request, asked: LLMDeployment, model: ModelSpec, predictor: Predictor) -> str:
    return plan_inputs_hash(
        asked,
        model,
        request.snapshot,
        load_gpus(),
        predictor.version,
        allowance=request.allowance,
        corrections=request.corrections,
    )


def _plan(request: Request, asked: LLMDeployment, model: ModelSpec, predictor: Predictor) -> PlanningResult:
    return plan(
        asked,
        model,
        request.snapshot,
        load_gpus(),
        predictor,
        allowance=request.allowance,
        corrections=request.corrections,
    )


def _table(result: PlanningResult, current: PlanStatus | None) -> tuple[Mapping[str, object], ...] | None:
    if not isinstance(result, Feasible) or current is None or result.plan.hash != current.hash:
        return None
    return result.table


def _sealed(planning: Planning, before: PlanStatus | None, result: PlanningResult, inputs: str) -> Planning:
    """Return the planning with a plan that says what it was made from, where it is the best plan of these inputs.

    Others (one that is not worth leaving yet, one from which replicas were taken) are judged again after a restart.
    """
    found = planning.plan
    if found is None:
        return planning
    if isinstance(result, Feasible) and result.plan.hash == found.hash and found.shed_by is None:
        return replace(planning, plan=sealed(found, inputs))
    return planning if found == before else replace(planning, plan=sealed(found, ""))


def _free(snapshot: ClusterSnapshot) -> int:
    """Return a digest of what is free: an infeasible plan may become feasible when that changes."""
    return hash(tuple((node.name, node.free_now, node.schedulable) for node in snapshot.nodes))


def _describe(chosen: PlanStatus | None) -> str:
    if chosen is None:
        return ""
    return (
        f"{chosen.replicas} x {chosen.gpu_product} {chosen.layout}, max batch {chosen.max_batch_size}: "
        f"{joules(float(parse_quantity(chosen.predicted.joules_per_output_token)))} per output token; bound by "
        f"{'nothing' if chosen.binding_constraint == NO_BINDING_CONSTRAINT else chosen.binding_constraint}"
    )


def problem_of(request: Request, model: ModelSpec) -> Problem:
    """Return the problem that planning solves for a request, for explanations.

    Args:
        request: One that was planned.
        model: As planning found it.
    """
    deployment = at_load(request.deployment, request.load)
    served = with_quantization(model, deployment.spec.model.quantization)
    predictor = predictor_of(deployment)
    return problem_for(
        deployment, served, request.snapshot, load_gpus(), predictor, request.allowance, request.corrections
    )


def adopted_at(deployment: LLMDeployment) -> datetime | None:
    """Return when the plan that is followed was adopted; None when the status does not say."""
    time = deployment.status.plan_adoption_time
    return None if time is None else datetime.fromisoformat(time)
