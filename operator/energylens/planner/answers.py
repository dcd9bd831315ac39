"""Answers to planning questions that were asked before: equal specs in one cluster are planned once.

What a plan follows from is its inputs (:mod:`energylens.planner.search.identity`) and where GPUs are free. Of both only
as much counts as a plan of its power can be about, so that in a large cluster neither one node more nor the pods of
others make it another question. The power that budgets leave counts only where the best plan would draw more.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.engines import EngineSettings
from energylens.planner.inventory.nodes import allowed_nodes, usable_nodes
from energylens.planner.planning import effective_allowance, plan
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.identity import identified, inputs_hash
from energylens.planner.search.reach import free_within, inventory_within
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, PlanningResult, PowerAllowance
from energylens.predictor import Predictor
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.predictor.types import GpuSpec

MOST_ANSWERS = 512
"""Answers that are kept, those asked for last; one takes some 50 kB, most of it the table of alternatives."""


@dataclass(frozen=True)
class Question:
    """What :func:`energylens.planner.plan` takes."""

    deployment: LLMDeployment
    model: ModelSpec
    """The checkpoint's shape."""
    snapshot: ClusterSnapshot
    gpus: Mapping[str, GpuSpec]
    """Known GPU products."""
    predictor: Predictor
    allowance: PowerAllowance | None = None
    corrections: Corrections | None = None

    def planned(self, allowance: PowerAllowance | None) -> PlanningResult:
        """Return the answer, planned now."""
        return plan(
            self.deployment,
            self.model,
            self.snapshot,
            self.gpus,
            self.predictor,
            allowance=allowance,
            corrections=self.corrections,
        )

    @property
    def is_limited(self) -> bool:
        """Whether the spec itself limits power, beside all budgets."""
        return effective_allowance(self.deployment.spec, None) is not None


class Answers:
    """The plans of the last questions; may be asked from several threads."""

    def __init__(self, most: int = MOST_ANSWERS) -> None:
        """Keep ``most`` answers."""
        self._most = most
        self._kept: OrderedDict[tuple[object, ...], Feasible] = OrderedDict()
        self._bounds: OrderedDict[str, int | None] = OrderedDict()
        """Within which bound the plan of a spec was found last: only there a kept answer is looked for."""
        self._lock = Lock()

    def __len__(self) -> int:
        """Answers that are kept."""
        return len(self._kept)

    def of(self, question: Question) -> PlanningResult:
        """Return the answer to a question: a kept one, or planned now.

        Raises:
            PlanCheckError: The finished plan breaks a limit that it was made under.
        """
        allowance, spec = question.allowance, question.deployment.spec
        if question.is_limited or spec.planning.disaggregation == "Compare":
            return question.planned(allowance)
        try:
            asked = _Asked.of(question)
        except UnsupportedQuantizationError:
            return question.planned(allowance)
        known = self._known(asked)
        if known is None:
            answer = question.planned(None)
            if not isinstance(answer, Feasible):
                return answer if allowance is None else question.planned(allowance)
            self._keep(asked, answer)
            known = answer
        # What does not decide a plan, such as the image of the engine, still belongs to its identity.
        known = replace(known, plan=identified(known.plan, spec))
        if allowance is None:
            return known
        if known.plan.predicted.power_watts > allowance.watts:
            return question.planned(allowance)
        return _under(known, allowance)

    def _known(self, asked: _Asked) -> Feasible | None:
        with self._lock:
            if asked.base not in self._bounds:
                return None
            bound = self._bounds[asked.base]
        key = asked.within(bound)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
                self._bounds.move_to_end(asked.base)
            return found

    def _keep(self, asked: _Asked, answer: Feasible) -> None:
        key = asked.within(answer.most_gpus)
        with self._lock:
            self._kept[key], self._bounds[asked.base] = answer, answer.most_gpus
            for kept in (self._kept, self._bounds):
                while len(kept) > self._most:
                    kept.popitem(last=False)


@dataclass(frozen=True)
class _Asked:
    """A question, and what its answer follows from."""

    question: Question
    served: ModelSpec
    """As the engine serves it."""
    usable: tuple[GpuNode, ...]
    base: str
    """Hash of all that is no part of the cluster."""

    @classmethod
    def of(cls, question: Question) -> _Asked:
        """Return a question with what has to be known for any bound.

        Raises:
            UnsupportedQuantizationError: The spec asks for a number format that cannot be made.
        """
        spec = question.deployment.spec
        served = EngineSettings.of(spec.engine).served(with_quantization(question.model, spec.model.quantization))
        usable = usable_nodes(spec, question.snapshot, question.gpus)
        return cls(question, served, usable, _hash(question, served, (), None))

    def within(self, most: int | None) -> tuple[object, ...]:
        """Return what identifies the question where its answer is found within a bound."""
        question = self.question
        metadata, spec = question.deployment.metadata, question.deployment.spec
        free: dict[str, list[int]] = {}
        for node in self.usable:
            here = node.free_for(f"{metadata.namespace}/{metadata.name}") if node.schedulable else 0
            free.setdefault(node.product, []).append(here)
        places = tuple(
            (product, tuple(sorted(gpus)) if most is None else free_within(gpus, most))
            for product, gpus in sorted(free.items())
        )
        # Products that the spec forbids are candidates too, to show what they would save.
        allowed = allowed_nodes(spec, self.usable, question.gpus)
        others = inventory_within(spec, self.served, self.usable, question.gpus, most)
        return _hash(question, self.served, allowed, most), str(others), places


def _hash(question: Question, served: ModelSpec, nodes: tuple[GpuNode, ...], most: int | None) -> str:
    spec, version = question.deployment.spec, question.predictor.version
    return inputs_hash(spec, served, nodes, question.gpus, version, None, question.corrections, most)


def _under(answer: Feasible, allowance: PowerAllowance) -> Feasible:
    """Return an answer that a budget does not restrict, with which of its alternatives would break the budget."""
    plan, table = answer.plan, answer.table

    def why(watts: int, reason: str) -> str:
        text = f"{watts} W > {allowance.watts:.0f} W ({allowance.field})"
        # Where nothing else is broken, that it costs more is no news.
        return text if reason.startswith(("uses ", "draws ")) else f"{reason}; {text}"

    alternatives = tuple(
        each.model_copy(update={"reason": why(each.power_watts, each.reason)})
        if each.power_watts > allowance.watts
        else each
        for each in plan.alternatives
    )
    rows = tuple(
        {**row, "reason": why(watts, str(row["reason"]))}
        if isinstance(watts := row["powerWatts"], int) and watts > allowance.watts
        else row
        for row in table
    )
    return replace(answer, plan=plan.model_copy(update={"alternatives": alternatives}), table=rows)
