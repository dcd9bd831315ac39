"""How long each class of requests waits for its first token, beside the TTFT of all requests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.planner.conftest import ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import find_gpu, load_gpus, load_model, load_predictor
from energylens.planner.explain.classes import ClassFigures, class_figures
from energylens.planner.planning import problem_for
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.problem import Solution, solve
from energylens.planner.types import ClusterSnapshot
from energylens.predictor.fitted.recalibration import Learned, Lesson

H100 = find_gpu("H100").product
CHAT = {"name": "chat", "sharePercent": 85, "inputTokens": 400, "outputTokens": 300}
DOCUMENTS = {"name": "documents", "sharePercent": 15, "inputTokens": 6000, "outputTokens": 200}
RATE = {"requestsPerSecond": "6"}
TWO = {"classes": [CHAT, DOCUMENTS], **RATE}
Found = Callable[..., tuple[tuple[ClassFigures, ...], float]]


@pytest.fixture
def figures(
    make_deployment: Callable[..., LLMDeployment], make_snapshot: Callable[..., ClusterSnapshot]
) -> Callable[..., tuple[tuple[ClassFigures, ...], float]]:
    """Return a function that returns the figures of each class under the plan, and the TTFT of all requests, ms."""

    def build(
        workload: dict[str, Any],
        percentile: str = "P95",
        replicas: int = 1,
        corrections: Corrections | None = None,
        predictor: Any = None,
    ) -> tuple[tuple[ClassFigures, ...], float]:
        asked = make_deployment(
            workload=workload,
            slo={"percentile": percentile},
            planning={"overrides": {"tensorParallel": 1, "replicas": replicas, "maxBatchSize": 64}},
        )
        model = load_model("meta-llama/Llama-3.1-8B-Instruct")
        snapshot = make_snapshot((H100, 4, 1))
        problem = problem_for(asked, model, snapshot, load_gpus(), predictor or load_predictor(), None, corrections)
        solution: Solution = solve(problem)
        assert solution.chosen is not None
        found = class_figures(problem, solution.rows, solution.chosen)
        return found, float(solution.rows.ttft_ms[solution.chosen])

    return build


def test_a_class_of_long_prompts_waits_longer(figures: Found) -> None:
    (chat, documents), whole = figures(TWO)
    assert (chat.shape.name, documents.shape.name) == ("chat", "documents")
    assert chat.ttft_ms < whole < documents.ttft_ms
    prompt = 5600 * 2 * 8e9 / 1e15
    assert documents.ttft_ms > chat.ttft_ms + 1000 * prompt


def test_the_figures_are_at_the_percentile_of_the_objectives(figures: Found) -> None:
    medians, p95, p99 = (figures(TWO, percentile)[0] for percentile in ("P50", "P95", "P99"))
    for low, middle, high in zip(medians, p95, p99, strict=True):
        assert low.ttft_ms < middle.ttft_ms < high.ttft_ms


def test_equal_classes_wait_as_long_as_all_requests(figures: Found) -> None:
    twin = {**CHAT, "name": "twin", "sharePercent": 15}
    for percentile in ("P50", "P95", "P99"):
        (one, other), whole = figures({"classes": [CHAT, twin], **RATE}, percentile)
        assert one.ttft_ms == pytest.approx(whole, rel=1e-3)
        assert other.ttft_ms == pytest.approx(whole, rel=1e-3)


def test_replicas_share_the_load(figures: Found) -> None:
    """Half of the rate on each of two replicas is as half of the rate on one."""
    two, one = figures(TWO, replicas=2)[0], figures({**TWO, "requestsPerSecond": "3"})[0]
    assert [each.ttft_ms for each in two] == pytest.approx([each.ttft_ms for each in one], rel=1e-6)


def test_learned_factors_apply_to_each_class(figures: Found) -> None:
    lesson = Lesson("TP1", "", 16.0, Learned({"ttft": 0.5}, {"ttft": 5.0}))
    plain, whole = figures(TWO)
    taught, corrected = figures(TWO, corrections=Corrections({H100: (lesson,)}))
    assert corrected > 1.2 * whole
    assert [each.ttft_ms / before.ttft_ms for each, before in zip(taught, plain, strict=True)] == pytest.approx(
        [corrected / whole] * 2
    )


@pytest.mark.parametrize(
    "workload",
    [
        {"inputTokens": 400, "outputTokens": 300, **RATE},
        {"classes": [{**CHAT, "sharePercent": 100}], **RATE},
        {"classes": [CHAT, DOCUMENTS], "concurrency": 8},
    ],
    ids=["no classes", "one class", "a load in flight"],
)
def test_without_several_classes_that_arrive_there_are_no_figures(workload: dict[str, Any], figures: Found) -> None:
    assert figures(workload)[0] == ()


def test_a_stand_in_for_the_predictor_has_no_classes(figures: Found) -> None:
    assert figures(TWO, predictor=ArithmeticPredictor())[0] == ()
