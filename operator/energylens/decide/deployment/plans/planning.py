"""Plan of one LLMDeployment: whether planning is possible, whether it is needed again, and the plan to follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from datetime import datetime

from energylens.api.llmdeployment import JobStartStatus, PlanStatus
from energylens.data import load_gpus
from energylens.decide.deployment.loads.following import at_load
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.observed.observation import PlanChoice
from energylens.decide.deployment.observed.served import ModelProblemError, model_of, predictor_of
from energylens.decide.deployment.plans.case import Case, in_words
from energylens.decide.deployment.plans.external import Refused, external, is_external
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.decide.deployment.plans.policies import PolicyInput, choose, return_to_last_good
from energylens.decide.deployment.plans.scheduled import Weeks, prepared, scheduled
from energylens.decide.deployment.plans.verifying import verified
from energylens.decide.deployment.pods.job_start import planned_start
from energylens.decide.reasons import Reason
from energylens.planner.answers import Answers
from energylens.planner.engines import EngineSettings
from energylens.planner.engines.layouts import longest_request
from energylens.planner.planning import problem_for
from energylens.planner.search.identity import identified, sealed
from energylens.planner.search.problem import Problem, Solution, solve
from energylens.planner.types import ClusterSnapshot, Feasible, PlanningResult
from energylens.planner.week.planning import marked
from energylens.predictor.fitted.profiles import UnknownEngineError
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.records import dataclass
from energylens.serving import ServingError, check

MOST_TABLES = 64
"""Evaluations with tables that are kept for the next reconcile, which mostly follows within seconds. A table takes some
40 kB: those of a rollout of thousands of deployments would be most of the operator's memory."""


@dataclass(frozen=True)
class _Remembered:
    inputs: tuple[object, ...]
    planning: PlanChoice
    at: datetime


@dataclass
class PlanningService:
    """Plans deployments; a cache per deployment avoids planning equal inputs twice."""

    resync_seconds: float = 300.0
    answers: Answers = field(default_factory=Answers)
    _remembered: dict[tuple[str, str], _Remembered] = field(default_factory=dict)
    _with_tables: dict[tuple[str, str], None] = field(default_factory=dict)
    """The remembered evaluations that have a plan and its table, the oldest first."""
    _weeks: Weeks = field(default_factory=dict)
    _refused: Refused = field(default_factory=dict)

    def planning_for(self, inputs: Inputs, *, searching: bool = True) -> PlanChoice:
        """Return the plan to follow, and the start of a job.

        Pure but for the cache, and slow: call it off the event loop.

        Args:
            inputs: Inputs of the plan.
            searching: Whether to search for a plan that no earlier question has found. Weeks are planned in any case.

        Raises:
            SearchNeededError: The plan must be searched for, and ``searching`` is False.
        """
        found = self._choice_for(inputs, searching=searching)
        if inputs.deployment.spec.workload.job is None:
            return found
        return replace(found, job_start=_start_of(inputs, found))

    def _choice_for(self, inputs: Inputs, *, searching: bool) -> PlanChoice:
        case = _case(inputs, self.answers)
        if isinstance(case, PlanChoice):
            return case
        if inputs.deployment.spec.workload.profile is not None:
            return scheduled(case, self._weeks)
        case = replace(case, searching=searching)
        if is_external(inputs.deployment):
            return external(case, self._refused)
        returned = return_to_last_good(case)
        if isinstance(returned, PlanChoice):
            return verified(case, returned)
        return replace(verified(case, self._standing_or_new(case)), no_way_back=returned)

    def prepare(self, inputs: Inputs) -> Iterator[None]:
        """Plan a week in steps, and remember it for :meth:`planning_for`; no step for what is planned quickly.

        Each step is slow: run it off the event loop.
        """
        if inputs.deployment.spec.workload.profile is not None:
            case = _case(inputs, self.answers)
            if isinstance(case, Case):
                yield from prepared(case, self._weeks)

    def forget(self, namespace: str, name: str) -> None:
        """Drop the cache of a deleted deployment."""
        self._drop((namespace, name))

    def _standing_or_new(self, case: Case) -> PlanChoice:
        """Return the plan in the status if it was made from the same inputs, the cached planning, or a new plan."""
        inputs, current = case.inputs, case.inputs.deployment.status.plan
        key = inputs.deployment.metadata.namespace, inputs.deployment.metadata.name
        wanted = "" if current is None else _stands(case, current, inputs.load)
        if current is not None and wanted:
            priced = case.priced(inputs.load, current)
            current = current if priced == current else sealed(priced, wanted)
            if not inputs.want_table:
                # The table of plans is large and already written.
                self._drop(key)
                free = case.hash_of(case.asked(inputs.load), current, restricted=False)
                return PlanChoice(
                    current,
                    case.model,
                    True,
                    Reason.PLANNED,
                    in_words(current),
                    restricted=wanted != free,
                    reach=case.reach(case.asked(inputs.load), current),
                )
        allowance = inputs.allowance
        if allowance is not None and allowance.awaits_look:
            text = f"{allowance.source}: {allowance.because}; planning waits until the operator has checked the budget"
            before = inputs.standing or current
            return PlanChoice(before, case.model, False, Reason.AWAITING_BUDGET, text, decision="AwaitingBudget")
        seen = _identity(case, current)
        known = self._remembered.get(key)
        fresh = known is not None and (inputs.now - known.at).total_seconds() < self.resync_seconds
        if known is not None and fresh and known.inputs == seen:
            return known.planning
        planning = _planned(case, current, stands=bool(wanted))
        self._remember(key, _Remembered(seen, planning, inputs.now))
        return planning

    def _remember(self, key: tuple[str, str], found: _Remembered) -> None:
        """Keep an evaluation. Those with tables are bounded, and are made again from the answers."""
        self._drop(key)
        self._remembered[key] = found
        if isinstance(found.planning.result, Feasible):
            self._with_tables[key] = None
        while len(self._with_tables) > MOST_TABLES:
            self._drop(next(iter(self._with_tables)))

    def _drop(self, key: tuple[str, str]) -> None:
        self._remembered.pop(key, None)
        self._with_tables.pop(key, None)


def _start_of(inputs: Inputs, choice: PlanChoice) -> JobStartStatus | None:
    """Return when the pods of a job are to start, or did."""
    refused = not choice.good and choice.reason is Reason.BUDGET_EXCEEDED
    return planned_start(
        inputs.deployment,
        choice.plan,
        inputs.job_hours,
        inputs.now,
        runs=inputs.runs,
        allowance=inputs.allowance,
        refusal=choice.message if refused else "",
    )


def _case(inputs: Inputs, answers: Answers) -> Case | PlanChoice:
    """Return the case to plan, or the choice with the reason why it cannot be planned."""
    if inputs.missing is not None:
        return inputs.missing
    deployment = at_load(inputs.deployment, inputs.load)
    current = deployment.status.plan
    try:
        check(deployment)
        model = model_of(deployment, inputs.config)
        within = _within_context(inputs, model)
        case = Case(within, model, predictor_of(deployment), load_gpus(), answers)
        # Reading the model finds an impossible number format.
        with_quantization(case.model, deployment.spec.model.quantization)
        return case
    except ServingError as error:
        return PlanChoice(current, None, False, Reason.INVALID_ENGINE_SETTINGS, str(error))
    except ModelProblemError as error:
        return PlanChoice(current, None, False, error.reason, str(error))
    except UnsupportedQuantizationError as error:
        return PlanChoice(current, None, False, Reason.MODEL_UNSUPPORTED, f"spec.model.{error}")
    except UnknownEngineError as error:
        return PlanChoice(current, None, False, Reason.INVALID_ENGINE_SETTINGS, f"spec.engine: {error}")


def _within_context(inputs: Inputs, model: ModelSpec) -> Inputs:
    """Return the inputs with the longest request that the engine accepts in the followed load."""
    load = inputs.load
    if load is None or (load.prompts is None and load.outputs is None):
        return inputs
    longest = longest_request(model, EngineSettings.of(inputs.deployment.spec.engine))
    return replace(inputs, load=replace(load, longest=longest))


def _stands(case: Case, current: PlanStatus, load: FollowedLoad | None) -> str:
    """Return the hash of the inputs if planning would return the plan in the status; otherwise ""."""
    asked = case.asked(load)
    same = (
        # The model's weights and the engine's settings do not affect the layout, but are part of the plan.
        current == identified(current, asked.spec)
        # Figures with a correction are stale once the spec no longer asks for corrections.
        and (case.inputs.corrections is not None or current.correction is None)
        # Replicas that a budget removed may return.
        and current.shed_by is None
    )
    return case.made_from(asked, current) if same else ""


def _identity(case: Case, current: PlanStatus | None) -> tuple[object, ...]:
    """Return a key that is equal for equal plannings."""
    inputs = case.inputs
    return (
        inputs.deployment.metadata.uid,
        case.hash_of(case.asked(inputs.load), current),
        current.inputs_hash if current else None,
        current.hash if current else None,
        inputs.serves_lws,
        inputs.want_table,
        _free(inputs.snapshot),
        current.replicas if current else None,
        inputs.deployment.spec.energy.min_replicas,
    )


def _planned(case: Case, current: PlanStatus | None, *, stands: bool) -> PlanChoice:
    """Evaluate every candidate, and choose between the best candidate and the followed plan."""
    load, result = case.evaluate()
    if load != case.inputs.load:
        stands = current is not None and current.shed_by is None and bool(case.made_from(case.asked(load), current))
    if stands and current is not None:
        planning = PlanChoice(
            current, case.model, True, Reason.PLANNED, in_words(current), table=_table(result, current)
        )
    else:
        planning = choose(PolicyInput(case, load, result))
        if planning.plan is not None and planning.good:
            # The hours in the status belong to other inputs, or the plan in the status was edited.
            unpriced = planning.plan.model_copy(update={"fewer_replicas": ()})
            planning = replace(planning, plan=case.priced(load, unpriced))
        planning = _sealed(planning, current, result, case, load)
    return replace(planning, result=result, carried_step=None if load is None else load.step)


def _table(result: PlanningResult, current: PlanStatus) -> tuple[Mapping[str, object], ...] | None:
    if not isinstance(result, Feasible) or result.plan.hash != current.hash:
        return None
    return result.table


def _sealed(
    planning: PlanChoice, before: PlanStatus | None, result: PlanningResult, case: Case, load: FollowedLoad | None
) -> PlanChoice:
    """Return the planning with the hash of its inputs in the plan, if the plan is the best plan of these inputs.

    Other plans (a plan whose replacement does not pay yet, a plan with replicas removed) are judged again after a
    restart.
    """
    found = planning.plan
    if found is None:
        return planning
    if isinstance(result, Feasible) and result.plan.hash == found.hash and found.shed_by is None:
        inputs = case.hash_of(case.asked(load), found, restricted=result.restricted)
        return replace(planning, plan=sealed(found, inputs))
    return planning if found == before else replace(planning, plan=sealed(found, ""))


def _free(snapshot: ClusterSnapshot) -> int:
    """Return a digest of the free GPUs: their change may make an infeasible spec feasible."""
    return hash(tuple((node.name, node.free_now, node.schedulable) for node in snapshot.nodes))


def problem_of(inputs: Inputs, model: ModelSpec) -> Problem:
    """Return the problem that planning solves for these inputs, for explanations.

    Args:
        inputs: Inputs of a plan.
        model: The model that planning read.
    """
    deployment = at_load(inputs.deployment, _within_context(inputs, model).load)
    served = with_quantization(model, deployment.spec.model.quantization)
    predictor = predictor_of(deployment)
    return problem_for(
        deployment, served, inputs.snapshot, load_gpus(), predictor, inputs.allowance, inputs.corrections
    )


def solution_of(problem: Problem, planning: PlanChoice) -> Solution:
    """Return the solution of a problem of :func:`problem_of`, with the layout of the week as its best candidate."""
    solution = solve(problem)
    return solution if planning.week is None else marked(solution, planning.week)
