"""Answers to planning questions that were asked before: equal specs in one cluster are planned once.

A plan depends on its inputs (:mod:`energylens.planner.search.identity`) and on where GPUs are free. Of both, only the
part counts that can affect a plan of this power: in a large cluster neither one more node nor pods of others change the
question. When other GPUs are free, the answer is chosen again among the few candidates that can matter
(:mod:`energylens.planner.search.contenders`), without predicting them. Every answer is that of a new search, but for
its rejections, which only the command line shows: no answer depends on which questions were asked before.

The power available from budgets counts only if the best plan would draw more. Otherwise the alternatives are those of a
search without budgets, and those that draw too much say so; a search within the budget may show others. If the power is
too little for any plan, that answer is also kept, for all deployments with the same available watts.
"""

from __future__ import annotations

import pickle
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace
from threading import Lock
from typing import Any, NamedTuple

from energylens.planner.engines import EngineSettings
from energylens.planner.inventory.network import with_networks
from energylens.planner.inventory.nodes import allowed_nodes, usable_nodes
from energylens.planner.question import Question
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.identity import identified, inputs_hash, sealed
from energylens.planner.search.job_room import admits
from energylens.planner.search.reach import inventory_within, is_tried, places_within
from energylens.planner.shelf import Shelf
from energylens.planner.surplus import under
from energylens.planner.types import ClusterSnapshot, Feasible, GpuNode, Infeasible, PlanningResult, PowerAllowance
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.requantize import UnsupportedQuantizationError, with_quantization
from energylens.records import dataclass

MOST_BYTES = 24 * 2**20
"""Size of the kept answers and candidates, compressed: for one question about 60 kB with bounds on its space; without,
up to 170 kB on 720 GPUs and 400 kB on 1,200. Those of the questions that are asked most are kept."""
MOST_REFUSED = 2048
"""Number of kept refusals for lack of power."""
MOST_OF_ONE = 2
"""Number of answers kept for one question, each for different free GPUs; about 4 kB each."""
MOST_LATEST = 16
"""Number of the latest answers that are kept whatever is asked most: an answer of :meth:`SearchNeededError.search` is
asked for next. About 75 kB each."""


class SearchNeededError(Exception):
    """The answer to a question is not kept, and the search for it takes up to seconds."""

    began = ended = False
    """Whether :meth:`search` was called, and whether it has ended, also by an error."""

    def __init__(self, answers: Answers, asked: _Asked) -> None:
        """Say that ``answers`` has no answer to a question."""
        super().__init__("the plan must be searched for")
        self._answers = answers
        self._asked = asked

    @property
    def question(self) -> str:
        """Identity of the question without the cluster."""
        return self._asked.base

    def search(self) -> None:
        """Search for the answer, so that the next request finds it. Slow; another thread may ask questions meanwhile.

        Raises:
            PlanCheckError: The finished plan breaks a limit that it was made under.
        """
        self.began = True
        try:
            self._answers.search(self._asked)
        finally:
            self.ended = True


class Answers:
    """The plans of the questions that are asked most. Several threads may use one object."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        """Keep answers and candidates of at most ``most_bytes``; with 0, every question is a search of its own."""
        self._keeps = most_bytes > 0
        self._kept: Shelf[_Kept] = Shelf(most_bytes)
        """Kept answers and candidates by spec, of one bound only, so that the size does not grow while a cluster fills
        up and plans draw more power."""
        self._latest: OrderedDict[str, _Kept] = OrderedDict()
        """The latest answers by spec, those that are not in ``_kept``."""
        self._without_plan: OrderedDict[_Asker, _NoPlan] = OrderedDict()
        """Why :meth:`search` found no plan."""
        self._without_power: OrderedDict[tuple[str, PowerAllowance], _Refused] = OrderedDict()
        """By spec and available watts: why no plan fits."""
        self._lock = Lock()

    @property
    def size(self) -> int:
        """Bytes of the kept answers and candidates, the latest included."""
        return self._kept.size + sum(kept.size for kept in self._latest.values())

    def of(self, question: Question, *, searching: bool = True) -> PlanningResult:
        """Return the answer to a question, kept or newly planned.

        Args:
            question: The question.
            searching: Whether to search for an answer that is not kept. Questions whose answers are never kept, and
                answers within a limit on power, are searched for in any case.

        Raises:
            SearchNeededError: The answer is not kept, and ``searching`` is False.
            PlanCheckError: The finished plan breaks a limit that it was made under.
        """
        allowance, spec = question.allowance, question.deployment.spec
        if question.is_limited or spec.planning.disaggregation != "Never":
            return question.planned(allowance)
        try:
            asked = _Asked.of(question)
        except UnsupportedQuantizationError:
            return question.planned(allowance)
        known = self._known(asked) or self._refusal(asked)
        if known is None and self._keeps and not searching:
            raise SearchNeededError(self, asked)
        answer = self._new(asked) if known is None else known
        if allowance is None:
            return answer
        if not isinstance(answer, Feasible):
            return question.planned(allowance)
        if not admits(allowance, answer.plan, spec):
            return self._within(asked, allowance)
        return under(answer, allowance)

    def search(self, asked: _Asked) -> None:
        """Keep the answer to a question, which for a while does not depend on how often the question is asked."""
        if (self._known(asked) or self._refusal(asked)) is not None:
            # An equal question needed the answer, too, or the search was asked for twice.
            return
        answer = self._new(asked)
        if isinstance(answer, Feasible):
            return
        refused = _Refused(answer, asked.within(answer.most_gpus), asked.places(answer.most_gpus))
        with self._lock:
            self._without_plan[asked.asker] = _NoPlan(asked.question.snapshot, refused)
            self._without_plan.move_to_end(asked.asker)
            while len(self._without_plan) > MOST_LATEST:
                self._without_plan.popitem(last=False)

    def _new(self, asked: _Asked) -> PlanningResult:
        """Return a newly planned answer without an allowance, and keep it if there is a plan."""
        if not self._keeps:
            # What is not kept need not be found: choosing the candidates takes a tenth of a search.
            return asked.question.planned(None)
        answer, candidates = asked.question.searched()
        if isinstance(answer, Feasible):
            self._keep(asked, answer, None if candidates is None else _packed(candidates))
        return answer

    def _refusal(self, asked: _Asked) -> Infeasible | None:
        """Return why :meth:`search` found no plan in the same cluster; None if it did not search there.

        If nodes changed while it searched, but none that the plan could use, the answer holds for the cluster after the
        change, too: a filling cluster changes with every plan. It holds for no later change, because its message may
        name other nodes.
        """
        snapshot = asked.question.snapshot
        with self._lock:
            found = self._without_plan.get(asked.asker)
        if found is None:
            return None
        if found.snapshot != snapshot:
            if found.is_later or not found.refused.still_holds(asked):
                return None
            with self._lock:
                self._without_plan[asked.asker] = _NoPlan(snapshot, found.refused, is_later=True)
        return found.refused.answer

    def _within(self, asked: _Asked, allowance: PowerAllowance) -> PlanningResult:
        """Return the answer to a question whose best plan draws more than the allowance."""
        key = asked.base, allowance
        with self._lock:
            known = self._without_power.get(key)
        if known is not None and known.still_holds(asked):
            return known.answer
        answer = asked.question.planned(allowance)
        # Changes that would add nodes depend on nodes that are not part of the question.
        if isinstance(answer, Infeasible) and answer.reason == "BudgetExceeded" and asked.may_use_every_node:
            within, places = asked.within(answer.most_gpus), asked.places(answer.most_gpus)
            with self._lock:
                self._without_power[key] = _Refused(answer, within, places)
                self._without_power.move_to_end(key)
                while len(self._without_power) > MOST_REFUSED:
                    self._without_power.popitem(last=False)
        return answer

    def _known(self, asked: _Asked) -> Feasible | None:
        with self._lock:
            kept = self._kept.ask(asked.base) or self._latest.get(asked.base)
        if kept is None or asked.within(kept.most) != kept.key:
            return None
        key, most, places = kept.key, kept.most, asked.places(kept.most)
        same = next((packed for found, packed in kept.answers if found == places), None)
        if same is not None:
            answer: Feasible = _unpacked(same)
            # Fields that do not decide a plan, such as the image of the engine, still belong to its identity.
            return replace(answer, plan=sealed(identified(answer.plan, asked.question.deployment.spec), key.inputs))
        again = None if kept.candidates is None else asked.question.chosen_again(_unpacked(kept.candidates), most)
        if again is not None:
            self._keep(asked, again, kept.candidates)
        return again

    def _keep(self, asked: _Asked, answer: Feasible, candidates: bytes | None) -> None:
        most = answer.most_gpus
        key, places = asked.within(most), asked.places(most)
        packed = _packed(replace(answer, rejections=()))
        with self._lock:
            before = self._kept.get(asked.base) or self._latest.get(asked.base)
            others = () if before is None or before.key != key else before.answers
            others = tuple(entry for entry in others if entry[0] != places)
            kept = _Kept(key, most, ((places, packed), *others[: MOST_OF_ONE - 1]), candidates)
            self._kept.put(asked.base, kept, kept.size)
            self._latest.pop(asked.base, None)
            if self._kept.get(asked.base) is None:
                self._latest[asked.base] = kept
                while len(self._latest) > MOST_LATEST:
                    self._latest.popitem(last=False)


_Asker = tuple[str, str, str]
"""Namespace, name and spec of a deployment: its own GPUs count as free for it alone."""
Places = Mapping[str, Mapping[int, int]]
"""By product and GPUs of a pod: how many such pods can be placed, capped at the most that a candidate could need."""


@dataclass(frozen=True)
class _Kept:
    """Kept answers and candidates of one question.

    Everything is compressed: an answer's table is a hundred times the size of its plan.
    """

    key: _Key
    most: int | None
    """The bound within which the answers were found."""
    answers: tuple[tuple[Places, bytes], ...]
    """The latest answers, and the places for which they were found."""
    candidates: bytes | None
    """The candidates from which the answer for other places is chosen; None if they do not suffice."""

    @property
    def size(self) -> int:
        """Size in bytes."""
        return sum(len(packed) for _, packed in self.answers) + len(self.candidates or b"")


def _packed(value: Feasible | Candidates) -> bytes:
    return zlib.compress(pickle.dumps(value, protocol=pickle.HIGHEST_PROTOCOL), level=1)


def _unpacked(packed: bytes) -> Any:
    return pickle.loads(zlib.decompress(packed))


@dataclass(frozen=True)
class _Refused:
    """The answer that there is no plan, and the part of the cluster for which it was found."""

    answer: Infeasible
    within: _Key
    places: Places

    def still_holds(self, asked: _Asked) -> bool:
        """Return whether the answer holds for a question with the same spec and watts in the current cluster."""
        most = self.answer.most_gpus
        return asked.within(most) == self.within and asked.places(most) == self.places


@dataclass(frozen=True)
class _NoPlan:
    """The cluster in which there is no plan, and why."""

    snapshot: ClusterSnapshot
    refused: _Refused
    is_later: bool = False
    """Whether the search was in an earlier cluster."""


class _Key(NamedTuple):
    """A question without free GPUs, for answers found within a bound."""

    inputs: str
    """Hash of the plan's inputs."""
    others: str
    """The nodes of all products: products that the spec forbids are evaluated too, to report what allowing them would
    save."""
    speeds: tuple[tuple[str, float], ...]
    """Network bandwidth by product."""
    is_bounded: bool
    """Whether a search tries the bound: without nodes that were removed since, it may evaluate the whole cluster."""


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
        usable = usable_nodes(spec, question.deployment.owner, question.snapshot, question.gpus)
        return cls(question, served, usable, _hash(question, served, (), None))

    def within(self, most: int | None) -> _Key:
        """Return the key of the question, without free GPUs, for answers found within a bound."""
        question, spec = self.question, self.question.deployment.spec
        allowed = allowed_nodes(spec, self.usable, question.gpus)
        others = inventory_within(spec, self.served, self.usable, question.gpus, most)
        networks = with_networks(spec, self.usable, question.gpus)
        speeds = sorted((node.product, networks[node.product].network_bandwidth) for node in self.usable)
        hashed, tried = _hash(question, self.served, allowed, most), is_tried(most, self.usable)
        return _Key(hashed, str(others), tuple(dict(speeds).items()), tried)

    def places(self, most: int | None) -> Places:
        """Return how many pods of each size can be placed, by product."""
        owner = self.question.deployment.owner
        free: dict[str, list[int]] = {}
        for node in self.usable:
            here = node.free_for(owner) if node.schedulable else 0
            free.setdefault(node.product, []).append(here)
        return {product: places_within(gpus, most) for product, gpus in free.items()}

    @property
    def asker(self) -> _Asker:
        """The deployment that asks."""
        metadata = self.question.deployment.metadata
        return metadata.namespace, metadata.name, self.base

    @property
    def may_use_every_node(self) -> bool:
        """Whether neither labels nor taints keep the deployment off a node."""
        return len(self.usable) == len(self.question.snapshot.nodes)


def _hash(question: Question, served: ModelSpec, nodes: tuple[GpuNode, ...], most: int | None) -> str:
    spec, version = question.deployment.spec, question.predictor.version
    return inputs_hash(spec, served, nodes, question.gpus, version, None, question.corrections, most)
