"""Answers to planning questions that were asked before: equal specs in one cluster are planned once.

A plan depends on its inputs (:mod:`energylens.planner.search.identity`) and on where GPUs are free. Of both, only the
part counts that can affect a plan of this power: in a large cluster neither one more node nor pods of others change the
question. The power available from budgets counts only if the best plan would draw more. If it is too little for any
plan, that answer is also kept, for all deployments with the same available watts.
"""

from __future__ import annotations

import pickle
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from threading import Lock
from typing import cast

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.engines import EngineSettings
from energylens.planner.inventory.network import with_networks
from energylens.planner.inventory.nodes import allowed_nodes, usable_nodes
from energylens.planner.planning import effective_allowance, plan
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.identity import identified, inputs_hash
from energylens.planner.search.reach import inventory_within, places_within
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, Infeasible, PlanningResult, PowerAllowance
from energylens.predictor import Predictor
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.predictor.types import GpuSpec

MOST_ANSWERS = 2048
"""Number of answers kept, those to the most recent questions; each takes about 2 kB."""
MOST_OF_ONE = 4
"""Number of answers kept for one question, each for different free GPUs."""

HARDWARE_LIMITS = ("spec.hardware.gpuProducts", "spec.hardware.maxGPUs", "spec.hardware.maxGPUsPerReplica")
"""Constraints by which a spec limits GPUs."""


@dataclass(frozen=True)
class Question:
    """The arguments of :func:`energylens.planner.plan`."""

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
        """Return a newly planned answer."""
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
        """Whether the spec itself limits power, apart from all budgets."""
        return effective_allowance(self.deployment.spec, None) is not None


class Answers:
    """The plans of the most recent questions. Several threads may use one object."""

    def __init__(self, most: int = MOST_ANSWERS) -> None:
        """Keep at most ``most`` answers."""
        self._most = most
        self._kept: OrderedDict[tuple[object, ...], tuple[_Kept, ...]] = OrderedDict()
        self._bounds: OrderedDict[str, int | None] = OrderedDict()
        """By spec: the bound within which its last plan was found, the only bound under which a kept answer is looked
        up."""
        self._without_power: OrderedDict[tuple[str, PowerAllowance], _Refused] = OrderedDict()
        """By spec and available watts: why no plan fits."""
        self._lock = Lock()

    def __len__(self) -> int:
        """Return the number of kept answers."""
        return sum(map(len, self._kept.values()))

    def of(self, question: Question) -> PlanningResult:
        """Return the answer to a question, kept or newly planned.

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
        # Fields that do not decide a plan, such as the image of the engine, still belong to its identity.
        known = replace(known, plan=identified(known.plan, spec))
        if allowance is None:
            return known
        if known.plan.predicted.power_watts > allowance.watts:
            return self._within(asked, allowance)
        return _under(known, allowance)

    def _within(self, asked: _Asked, allowance: PowerAllowance) -> PlanningResult:
        """Return the answer to a question whose best plan draws more than the allowance."""
        key = asked.base, allowance
        with self._lock:
            known = self._without_power.get(key)
        if known is not None and known.still_holds(asked):
            return known.answer
        answer = asked.question.planned(allowance)
        # What it would take to get other nodes depends on nodes that are no part of the question.
        if isinstance(answer, Infeasible) and answer.reason == "BudgetExceeded" and asked.may_use_every_node:
            within, places = asked.within(answer.most_gpus), asked.places(answer.most_gpus)
            with self._lock:
                self._without_power[key] = _Refused(answer, within, places)
                self._without_power.move_to_end(key)
                while len(self._without_power) > self._most:
                    self._without_power.popitem(last=False)
        return answer

    def _known(self, asked: _Asked) -> Feasible | None:
        with self._lock:
            if asked.base not in self._bounds:
                return None
            bound = self._bounds[asked.base]
        key, places = asked.within(bound), asked.places(bound)
        with self._lock:
            for kept in self._kept.get(key, ()):
                if kept.answers(places, is_exact=asked.depends_on_places or kept.is_bound_by_hardware):
                    self._kept.move_to_end(key)
                    self._bounds.move_to_end(asked.base)
                    return kept.unpacked()
        return None

    def _keep(self, asked: _Asked, answer: Feasible) -> None:
        key = asked.within(answer.most_gpus)
        kept = _Kept.of(answer, asked.places(answer.most_gpus))
        with self._lock:
            # Clusters fill up, so the latest answer is the most likely to fit.
            self._kept[key] = (kept, *self._kept.pop(key, ())[: MOST_OF_ONE - 1])
            self._bounds[asked.base] = answer.most_gpus
            while len(self) > self._most:
                self._kept.popitem(last=False)
            while len(self._bounds) > self._most:
                self._bounds.popitem(last=False)


Places = Mapping[str, Mapping[int, int]]
"""By product and GPUs of a pod: how many such pods can be placed, capped at the most that a candidate could need."""


@dataclass(frozen=True)
class _Kept:
    """An answer, and the free GPUs for which it was found."""

    packed: bytes
    """The compressed answer: its table is a hundred times the size of the plan, and 500 uncompressed tables take 50
    MiB."""
    places: Places
    needs: Places
    """Places that the largest of the shown candidates need, the chosen one included."""
    is_bound_by_hardware: bool
    """Whether the answer names a limit on GPUs, and so depends on a candidate beyond that limit, which is not shown.

    If no candidate beyond the limit was better, fewer places cannot make one better.
    """

    @classmethod
    def of(cls, answer: Feasible, places: Places) -> _Kept:
        """Return the kept form of an answer."""
        packed = zlib.compress(pickle.dumps(answer), level=1)
        return cls(packed, places, _needs(answer), answer.plan.binding_constraint in HARDWARE_LIMITS)

    def unpacked(self) -> Feasible:
        """Return the answer."""
        answer: Feasible = pickle.loads(zlib.decompress(self.packed))
        return answer

    def answers(self, places: Places, *, is_exact: bool) -> bool:
        """Return whether this answer also holds for other free GPUs.

        Fewer places add no candidate, and if every shown candidate still fits, each missing candidate was beaten by one
        of them. With ``is_exact`` only equal places count, because the answer may depend on candidates that are not
        shown.
        """
        if places == self.places:
            return True
        if is_exact or places.keys() != self.places.keys():
            return False
        return _covers(self.places, places) and _covers(places, self.needs)


@dataclass(frozen=True)
class _Refused:
    """The answer that no plan fits the available power, and the cluster for which it was found."""

    answer: Infeasible
    within: tuple[object, ...]
    places: Places

    def still_holds(self, asked: _Asked) -> bool:
        """Return whether the answer holds for a question with the same spec and watts in the current cluster."""
        most = self.answer.most_gpus
        return asked.within(most) == self.within and asked.places(most) == self.places


def _covers(places: Places, wanted: Places) -> bool:
    """Return whether all wanted pods can be placed."""
    return all(
        count <= places.get(product, {}).get(size, 0)
        for product, sizes in wanted.items()
        for size, count in sizes.items()
    )


def _needs(answer: Feasible) -> Places:
    """Return by product the most pods of each size that a shown candidate takes."""
    plan = answer.plan
    shown = [(plan.gpu_product, plan.gpus, plan.replicas, plan.nodes_per_replica)]
    shown += [(a.gpu_product, a.gpus, a.replicas, a.nodes_per_replica) for a in plan.alternatives]
    names = ("gpuProduct", "gpus", "replicas", "nodesPerReplica")
    shown += [cast(tuple[str, int, int, int], tuple(row[name] for name in names)) for row in answer.table]
    found: dict[str, dict[int, int]] = {}
    for product, gpus, replicas, nodes in shown:
        size = gpus // (replicas * nodes)
        sizes = found.setdefault(product, {})
        sizes[size] = max(sizes.get(size, 0), replicas * nodes)
    return found


@dataclass(frozen=True)
class _Asked:
    """A question, and the inputs of its answer."""

    question: Question
    served: ModelSpec
    """The model as the engine serves it."""
    usable: tuple[GpuNode, ...]
    base: str
    """Hash of all inputs that are not part of the cluster."""

    @classmethod
    def of(cls, question: Question) -> _Asked:
        """Return a question with the inputs that every bound needs.

        Raises:
            UnsupportedQuantizationError: The spec asks for a number format that cannot be made.
        """
        spec = question.deployment.spec
        served = EngineSettings.of(spec.engine).served(with_quantization(question.model, spec.model.quantization))
        usable = usable_nodes(spec, question.snapshot, question.gpus)
        return cls(question, served, usable, _hash(question, served, (), None))

    def within(self, most: int | None) -> tuple[object, ...]:
        """Return the key of the question, without free GPUs, for answers found within a bound."""
        question, spec = self.question, self.question.deployment.spec
        # Products that the spec forbids are evaluated too, to report what allowing them would save.
        allowed = allowed_nodes(spec, self.usable, question.gpus)
        others = inventory_within(spec, self.served, self.usable, question.gpus, most)
        networks = with_networks(spec, self.usable, question.gpus)
        speeds = sorted((node.product, networks[node.product].network_bandwidth) for node in self.usable)
        return _hash(question, self.served, allowed, most), str(others), tuple(dict(speeds).items())

    def places(self, most: int | None) -> Places:
        """Return how many pods of each size can be placed, by product."""
        metadata = self.question.deployment.metadata
        free: dict[str, list[int]] = {}
        for node in self.usable:
            here = node.free_for(f"{metadata.namespace}/{metadata.name}") if node.schedulable else 0
            free.setdefault(node.product, []).append(here)
        return {product: places_within(gpus, most) for product, gpus in free.items()}

    @property
    def may_use_every_node(self) -> bool:
        """Whether neither labels nor taints keep the deployment off a node."""
        return len(self.usable) == len(self.question.snapshot.nodes)

    @property
    def depends_on_places(self) -> bool:
        """Whether free GPUs may change the answer through candidates that are not shown.

        That is so when more power may mean less energy per token: then the candidate of least power need not be among
        those shown.
        """
        spec = self.question.deployment.spec
        return spec.energy.objective == "MinimizeGPUs" or spec.workload.in_flight is not None


def _hash(question: Question, served: ModelSpec, nodes: tuple[GpuNode, ...], most: int | None) -> str:
    spec, version = question.deployment.spec, question.predictor.version
    return inputs_hash(spec, served, nodes, question.gpus, version, None, question.corrections, most)


def _under(answer: Feasible, allowance: PowerAllowance) -> Feasible:
    """Return an answer that a budget does not restrict, and mark the alternatives that would break the budget."""
    plan, table = answer.plan, answer.table

    def why(watts: int, reason: str) -> str:
        text = f"{watts} W > {allowance.watts:.0f} W ({allowance.field})"
        # If the budget is the only rule that the alternative breaks, its higher cost need not be repeated.
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
