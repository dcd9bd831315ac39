"""Kept answers equal those of a new search, whichever GPUs are free and whatever was asked before."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.planner.conftest import H100, H200, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.planner.answers import MOST_LATEST, Answers, SearchNeededError
from energylens.planner.planning import plan, plan_again, plan_and_solution
from energylens.planner.question import Question
from energylens.planner.search.problem import kept_candidates
from energylens.planner.types import ClusterSnapshot, Feasible, GpuAllocation, GpuNode, PlanningResult
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Interval, Prediction
from energylens.predictor.types import FloatArray, GpuSpec, Layouts

SPECS: tuple[dict[str, Any], ...] = (
    {},
    {"slo": {"itlMilliseconds": 12}},
    {"slo": {"itlMilliseconds": 25, "ttftMilliseconds": 90, "percentile": "P99"}},
    {"slo": {"endToEndMilliseconds": 9000, "joulesPerOutputToken": "2"}},
    {"energy": {"objective": "MinimizePower"}},
    {"energy": {"objective": "MinimizeGPUs"}, "slo": {"tpotMilliseconds": 30}},
    {"energy": {"powerCap": {"mode": "Plan"}}},
    {"hardware": {"gpuProducts": ["H100", "L40S"], "maxGPUs": 6}},
    {"hardware": {"maxGPUsPerReplica": 2}, "planning": {"spareReplicas": 1}},
    {"planning": {"overrides": {"replicas": 2}}},
    {"workload": {"inputTokens": 512, "outputTokens": 256, "concurrency": 12}},
    {"workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "30"}},
)


class NoisyPredictor(ArithmeticPredictor):
    """Predictions in which figures of similar layouts are in no order and often equal, each with a risk of its own."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def _predict(self, *arguments: Any, **options: Any) -> Prediction:
        found = super()._predict(*arguments, **options)
        layouts: Layouts = arguments[2]
        size = len(layouts)
        rng = np.random.default_rng([self.seed, size, int(layouts.gpus.sum())])

        def factor(step: float) -> FloatArray:
            return np.asarray(1.0 + step * rng.integers(0, 8, size), dtype=np.float64)

        joules, latency = factor(0.02), factor(0.004)
        return replace(
            found,
            joules_per_output_token=found.joules_per_output_token * joules,
            energy=Interval(found.energy.low * joules, found.energy.high * joules),
            power_watts=found.power_watts * factor(0.02),
            itl_p95_ms=found.itl_p95_ms * latency,
            ttft_p95_ms=found.ttft_p95_ms * factor(0.004),
            unshared_deviation=found.unshared_deviation + 0.05 * factor(0.5),
            layout_deviation=found.layout_deviation + 0.03 * factor(0.3),
            nearest=rng.integers(0, 3, size),
        )


@dataclass(frozen=True)
class Given:
    """What the questions of one example share."""

    deployment: LLMDeployment
    model: ModelSpec
    gpus: Mapping[str, GpuSpec]
    predictor: NoisyPredictor

    def anew(self, snapshot: ClusterSnapshot) -> PlanningResult:
        """Return the answer of a new search, without its rejections."""
        answer = plan(self.deployment, self.model, snapshot, self.gpus, self.predictor)
        return replace(answer, rejections=()) if isinstance(answer, Feasible) else answer


def free_gpus(sizes: list[tuple[str, int]]) -> st.SearchStrategy[ClusterSnapshot]:
    """Draw which GPUs of nodes with these products and sizes others hold, and which nodes are cordoned."""
    held = st.tuples(*(st.tuples(st.integers(0, size), st.booleans()) for _, size in sizes))
    return held.map(
        lambda taken: ClusterSnapshot(
            tuple(
                GpuNode(f"n{i}", product, size, (GpuAllocation("team/other", gpus),), schedulable=open_ or gpus < size)
                for i, ((product, size), (gpus, open_)) in enumerate(zip(sizes, taken, strict=True))
            )
        )
    )


NODES = st.lists(
    st.tuples(st.sampled_from((H100, H200, L40S)), st.sampled_from((1, 2, 3, 4, 8))), min_size=1, max_size=5
)
CASES = NODES.flatmap(lambda sizes: st.lists(free_gpus(sizes), min_size=2, max_size=4))


@pytest.mark.parametrize("spec", SPECS)
@given(snapshots=CASES, seed=st.integers(0, 1000), model=st.sampled_from(("8b", "moe")))
@settings(max_examples=6)
def test_a_plan_chosen_again_is_that_of_a_new_search(
    spec: dict[str, Any],
    snapshots: list[ClusterSnapshot],
    seed: int,
    model: str,
    make_deployment: Callable[..., LLMDeployment],
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
) -> None:
    shared = Given(make_deployment(**spec), models[model], gpus, NoisyPredictor(seed))
    first, *others = snapshots
    answer, solution = plan_and_solution(shared.deployment, shared.model, first, gpus, shared.predictor)
    if not isinstance(answer, Feasible) or solution is None:
        return
    rows = kept_candidates(solution, shared.deployment.spec)
    if rows is None:
        return
    for snapshot in (first, *others):
        again = plan_again(shared.deployment, shared.model, snapshot, gpus, shared.predictor, rows, answer.most_gpus)
        if again is not None:
            assert again == shared.anew(snapshot)


def test_an_answer_that_is_not_kept_is_searched_for_when_asked_to(
    make_deployment: Callable[..., LLMDeployment], models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    answers, question = Answers(), asked(make_deployment(), models["8b"], gpus, free=8)
    with pytest.raises(SearchNeededError) as needed:
        answers.of(question, searching=False)
    needed.value.search()
    found = answers.of(question, searching=False)
    assert found == without_rejections(question.planned(None))
    # An equal question that waited, too, needs no search of its own.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Question, "searched", refuse)
        needed.value.search()


def test_the_latest_answer_is_found_although_others_are_asked_for_more_often(
    make_deployment: Callable[..., LLMDeployment], models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    answers = Answers(most_bytes=1)
    questions = [
        asked(make_deployment(slo={"itlMilliseconds": 50 + index}), models["8b"], gpus, free=8)
        for index in range(MOST_LATEST + 1)
    ]
    for question in questions:
        with pytest.raises(SearchNeededError) as needed:
            answers.of(question, searching=False)
        needed.value.search()
        assert isinstance(answers.of(question, searching=False), Feasible)
    with pytest.raises(SearchNeededError):
        answers.of(questions[0], searching=False)
    assert answers.size < (MOST_LATEST + 1) * 100_000


def test_that_there_is_no_plan_is_known_to_who_asked_until_the_cluster_changes(
    make_deployment: Callable[..., LLMDeployment], models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    answers, limit = Answers(), {"hardware": {"maxGPUs": 1}, "slo": {"itlMilliseconds": 1}}
    question = asked(make_deployment(**limit), models["8b"], gpus, free=8)
    with pytest.raises(SearchNeededError) as needed:
        answers.of(question, searching=False)
    needed.value.search()
    assert (needed.value.began, needed.value.ended) == (True, True)
    assert answers.of(question, searching=False) == question.planned(None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Question, "searched", refuse)
        needed.value.search()
    metadata = question.deployment.metadata.model_copy(update={"name": "other"})
    other = replace(question, deployment=question.deployment.model_copy(update={"metadata": metadata}))
    for changed in (other, asked(make_deployment(**limit), models["8b"], gpus, free=7)):
        with pytest.raises(SearchNeededError):
            answers.of(changed, searching=False)


def test_that_there_is_no_plan_holds_after_one_change_of_nodes_that_cannot_be_used(
    make_deployment: Callable[..., LLMDeployment], models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    hardware = {"maxGPUs": 1, "nodeSelector": {"pool": "a"}}
    answers, deployment = Answers(), make_deployment(hardware=hardware, slo={"itlMilliseconds": 1})

    def question(*, free: int = 8, free_elsewhere: int) -> Question:
        nodes = tuple(
            GpuNode(pool, H100, 8, (GpuAllocation("team/other", 8 - gpus),), {"pool": pool})
            for pool, gpus in (("a", free), ("b", free_elsewhere))
        )
        return Question(deployment, models["8b"], ClusterSnapshot(nodes), gpus, ArithmeticPredictor())  # type: ignore[arg-type]

    with pytest.raises(SearchNeededError) as needed:
        answers.of(question(free_elsewhere=8), searching=False)
    needed.value.search()
    with pytest.raises(SearchNeededError):
        answers.of(question(free=0, free_elsewhere=8), searching=False)
    later = question(free_elsewhere=7)
    for _ in range(2):
        assert answers.of(later, searching=False) == later.planned(None)
    with pytest.raises(SearchNeededError):
        answers.of(question(free_elsewhere=6), searching=False)


def asked(deployment: LLMDeployment, model: ModelSpec, gpus: Mapping[str, GpuSpec], *, free: int) -> Question:
    """Return a question about one node."""
    nodes = (GpuNode("n0", H100, 8, (GpuAllocation("team/someone", 8 - free),)),)
    return Question(deployment, model, ClusterSnapshot(nodes), gpus, ArithmeticPredictor())  # type: ignore[arg-type]


def without_rejections(answer: PlanningResult) -> PlanningResult:
    return replace(answer, rejections=()) if isinstance(answer, Feasible) else answer


def refuse(question: Question) -> None:
    raise AssertionError("searched")
