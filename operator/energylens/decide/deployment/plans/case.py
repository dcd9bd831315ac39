"""A deployment with its model and predictor, and the questions that planning asks about the three."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from energylens.api.llmdeployment import LLMDeployment, PlanStatus, describe_plan
from energylens.api.quantity import parse_quantity
from energylens.decide.deployment.loads.following import at_load, most_carried
from energylens.decide.deployment.loads.load import FollowedLoad
from energylens.decide.deployment.plans.inputs import Inputs
from energylens.planner import effective_allowance, plan_inputs_hash
from energylens.planner.answers import Answers
from energylens.planner.inventory.nodes import usable_nodes
from energylens.planner.pairs import plan_pair_again
from energylens.planner.question import Question
from energylens.planner.search.describe import joules
from energylens.planner.search.identity import is_made_from
from energylens.planner.search.job_room import admits
from energylens.planner.search.problem import NO_BINDING_CONSTRAINT
from energylens.planner.search.reach import reach_of
from energylens.planner.shedding import Running, is_priced, replica_powers
from energylens.planner.types import Feasible, PlanningResult
from energylens.predictor import Predictor
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass


@dataclass(frozen=True)
class Case:
    """A deployment to plan."""

    inputs: Inputs
    model: ModelSpec
    predictor: Predictor
    gpus: Mapping[str, GpuSpec]
    """Known GPU products."""
    answers: Answers = field(default_factory=Answers, compare=False)
    """Answers to questions that were asked before."""
    searching: bool = field(default=True, compare=False)
    """Whether to search for answers that are not kept."""
    _hashes: list[tuple[tuple[LLMDeployment, PlanStatus | None, bool], str]] = field(
        default_factory=list, compare=False, repr=False
    )
    """Results by question; a pass asks the same question twice."""

    def asked(self, load: FollowedLoad | None) -> LLMDeployment:
        """Return the deployment with another load than the declared load."""
        return at_load(self.inputs.deployment, load)

    @property
    def unshed(self) -> Case:
        """The case without the power that a budget sheds: shedding removes replicas, and keeps layout and schedule."""
        allowance = self.inputs.allowance
        if allowance is None or not allowance.sheds:
            return self
        return replace(self, inputs=replace(self.inputs, allowance=None), _hashes=[])

    def hash_of(self, asked: LLMDeployment, plan: PlanStatus | None, *, restricted: bool = True) -> str:
        """Return the hash of all inputs of a plan for ``asked``.

        Args:
            asked: The deployment with the load to plan for.
            plan: The plan; None for any.
            restricted: Whether the power available from budgets restricts the choice.
        """
        inputs, question = self.inputs, (asked, plan, restricted)
        for known, found in self._hashes:
            if known[0] is asked and known[1] is plan and known[2] == restricted:
                return found
        found = plan_inputs_hash(
            asked,
            self.model,
            inputs.snapshot,
            self.gpus,
            self.predictor.version,
            allowance=inputs.allowance,
            corrections=inputs.corrections,
            plan=plan,
            restricted=restricted,
        )
        self._hashes.append((question, found))
        return found

    def reach(self, asked: LLMDeployment, plan: PlanStatus) -> int | None:
        """Return the number of GPUs of a product beyond which further GPUs change no plan; None if there is none."""
        inputs, spec = self.inputs, asked.spec
        usable = usable_nodes(spec, asked.owner, inputs.snapshot, self.gpus)
        return reach_of(plan, spec, usable, self.gpus, corrected=inputs.corrections is not None)

    def made_from(self, asked: LLMDeployment, plan: PlanStatus) -> str:
        """Return the hash of the current inputs if a plan was made from them; "" if it was made from other inputs.

        A plan that no budget restricted stays valid while budgets allow its power.
        """
        free = self.hash_of(asked, plan, restricted=False)
        allowance = effective_allowance(asked.spec, self.inputs.allowance)
        if is_made_from(plan, free):
            return free if allowance is None or admits(allowance, plan, asked.spec) else ""
        if allowance is None or (allowance.room is not None and not admits(allowance, plan, asked.spec)):
            return ""
        exact = self.hash_of(asked, plan)
        return exact if is_made_from(plan, exact) else ""

    def plan(self, asked: LLMDeployment) -> PlanningResult:
        """Return the best plan for ``asked``, or why there is none.

        Raises:
            SearchNeededError: The answer is not kept, and the case is not to search.
        """
        inputs = self.inputs
        question = Question(
            asked, self.model, inputs.snapshot, self.gpus, self.predictor, inputs.allowance, inputs.corrections
        )
        return self.answers.of(question, searching=self.searching)

    def evaluate(self) -> tuple[FollowedLoad | None, PlanningResult]:
        """Return the plan for the followed load, or for the part of the load that a plan sustains, and that load."""
        load = self.inputs.load
        result = self.within_what_is_served(self.asked(load))
        lower = most_carried(load, result)
        if lower is None:
            return load, result
        carried = self.within_what_is_served(self.asked(lower))
        return (lower, carried) if isinstance(carried, Feasible) else (load, result)

    def within_what_is_served(self, asked: LLMDeployment) -> PlanningResult:
        """Return the plan; without LeaderWorkerSet, plan within one node first: only plans over nodes need it."""
        nodes = self.inputs.snapshot.nodes
        if self.inputs.serves_lws or not nodes:
            return self.plan(asked)
        largest = max(node.allocatable for node in nodes)
        hardware = asked.spec.hardware
        limit = min(largest, hardware.max_gpus_per_replica or largest)
        capped = hardware.model_copy(update={"max_gpus_per_replica": limit})
        within = self.plan(asked.model_copy(update={"spec": asked.spec.model_copy(update={"hardware": capped})}))
        return within if isinstance(within, Feasible) else self.plan(asked)

    def plan_pair_again(self, asked: LLMDeployment, running: PlanStatus) -> PlanningResult:
        """Return a plan with separate roles under the inputs of ``asked``, or why it is no longer valid."""
        inputs = self.inputs
        return plan_pair_again(
            asked,
            self.model,
            inputs.snapshot,
            self.gpus,
            self.predictor,
            running,
            allowance=inputs.allowance,
            corrections=inputs.corrections,
        )

    def running(self, asked: LLMDeployment, plan: PlanStatus) -> Running:
        """Return a plan in the form for which the power of fewer replicas is predicted."""
        inputs = self.inputs
        return Running(asked, self.model, plan, inputs.snapshot, self.gpus, self.predictor, inputs.corrections)

    def priced(self, load: FollowedLoad | None, plan: PlanStatus) -> PlanStatus:
        """Return a plan with its power for fewer replicas."""
        return self.priced_at(self.asked(load), plan)

    def priced_at(self, asked: LLMDeployment, plan: PlanStatus) -> PlanStatus:
        """Return a plan with its power for fewer replicas under the load that ``asked`` declares."""
        if is_priced(plan, self.inputs.deployment.spec.energy.min_replicas):
            return plan
        return plan.model_copy(update={"fewer_replicas": replica_powers(self.running(asked, plan))})


def in_words(plan: PlanStatus) -> str:
    """Return a plan in words for messages, with its energy and its binding constraint."""
    return (
        f"{describe_plan(plan)}: "
        f"{joules(float(parse_quantity(plan.predicted.joules_per_output_token)))} per output token; bound by "
        f"{'nothing' if plan.binding_constraint == NO_BINDING_CONSTRAINT else plan.binding_constraint}"
    )
