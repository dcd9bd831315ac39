"""Answers to planning questions that were asked before: equal specs in one cluster are planned once.

What a plan follows from is its inputs (:mod:`energylens.planner.search.identity`) and where GPUs are free. Of both only
as much counts as a plan of its power can be about, so that in a large cluster neither one node more nor the pods of
others make it another question. The power that budgets leave counts only where the best plan would draw more; that it
is too little for any plan is answered once, too, for all who are left the same watts.
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
"""Answers that are kept, of the questions that were asked last; each takes some 2 kB."""
MOST_OF_ONE = 4
"""Answers to one question, each with other GPUs free."""

HARDWARE_LIMITS = ("spec.hardware.gpuProducts", "spec.hardware.maxGPUs", "spec.hardware.maxGPUsPerReplica")
"""Constraints by which a spec limits GPUs."""


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
        self._kept: OrderedDict[tuple[object, ...], tuple[_Kept, ...]] = OrderedDict()
        self._bounds: OrderedDict[str, int | None] = OrderedDict()
        """Within which bound the plan of a spec was found last: only there a kept answer is looked for."""
        self._without_power: OrderedDict[tuple[str, PowerAllowance], _Refused] = OrderedDict()
        """Why there is no plan within so many watts."""
        self._lock = Lock()

    def __len__(self) -> int:
        """Answers that are kept."""
        return sum(map(len, self._kept.values()))

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
            # The cluster fills up: what was found last fits best.
            self._kept[key] = (kept, *self._kept.pop(key, ())[: MOST_OF_ONE - 1])
            self._bounds[asked.base] = answer.most_gpus
            while len(self) > self._most:
                self._kept.popitem(last=False)
            while len(self._bounds) > self._most:
                self._bounds.popitem(last=False)


Places = Mapping[str, Mapping[int, int]]
"""By product and GPUs of a pod: how many such pods find a place, no more than a candidate could need."""


@dataclass(frozen=True)
class _Kept:
    """An answer, and the free GPUs that it was found with."""

    packed: bytes
    """The answer: its table has a hundred times the size of the plan, and 500 tables would be 50 MiB."""
    places: Places
    needs: Places
    """Of each candidate that is shown, the chosen one among them."""
    is_bound_by_hardware: bool
    """Whether the answer names a limit on GPUs, and so a candidate beyond that limit, which is not shown.

    Where no candidate beyond a limit was better, none is with fewer places.
    """

    @classmethod
    def of(cls, answer: Feasible, places: Places) -> _Kept:
        """Keep an answer."""
        packed = zlib.compress(pickle.dumps(answer), level=1)
        return cls(packed, places, _needs(answer), answer.plan.binding_constraint in HARDWARE_LIMITS)

    def unpacked(self) -> Feasible:
        """Return the answer."""
        answer: Feasible = pickle.loads(zlib.decompress(self.packed))
        return answer

    def answers(self, places: Places, *, is_exact: bool) -> bool:
        """Return whether the answer is that of other free GPUs, too.

        With fewer places no candidate comes in that was not there, and as long as all that are shown fit, what is
        missing was beaten by one of them. ``is_exact``: the answer may also say something of candidates that are not
        shown.
        """
        if places == self.places:
            return True
        if is_exact or places.keys() != self.places.keys():
            return False
        return _covers(self.places, places) and _covers(places, self.needs)


@dataclass(frozen=True)
class _Refused:
    """That no plan has enough power, and the cluster of which that was found."""

    answer: Infeasible
    within: tuple[object, ...]
    places: Places

    def still_holds(self, asked: _Asked) -> bool:
        """Return whether the answer is that of a question of the same spec and watts, as the cluster is now."""
        most = self.answer.most_gpus
        return asked.within(most) == self.within and asked.places(most) == self.places


def _covers(places: Places, wanted: Places) -> bool:
    """Return whether all pods that are wanted find a place."""
    return all(
        count <= places.get(product, {}).get(size, 0)
        for product, sizes in wanted.items()
        for size, count in sizes.items()
    )


def _needs(answer: Feasible) -> Places:
    """Return the pods of each size that the largest of the shown candidates takes, by product."""
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
        """Return what identifies the question, free GPUs apart, where its answer is found within a bound."""
        question, spec = self.question, self.question.deployment.spec
        # Products that the spec forbids are candidates too, for what they would bring.
        allowed = allowed_nodes(spec, self.usable, question.gpus)
        others = inventory_within(spec, self.served, self.usable, question.gpus, most)
        networks = with_networks(spec, self.usable, question.gpus)
        speeds = sorted((node.product, networks[node.product].network_bandwidth) for node in self.usable)
        return _hash(question, self.served, allowed, most), str(others), tuple(dict(speeds).items())

    def places(self, most: int | None) -> Places:
        """Return where pods of each size find a place."""
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
        """Whether the answer may depend on free GPUs for candidates that it does not show, whatever it is.

        The least power need not be that of a candidate that is shown where more power may mean less energy per token.
        """
        spec = self.question.deployment.spec
        return spec.energy.objective == "MinimizeGPUs" or spec.workload.concurrency is not None


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
