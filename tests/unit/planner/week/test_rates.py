"""The figures under the rates of a week: the same as if all candidates were evaluated under each rate."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import LLMDeployment
from energylens.data import load_gpus, load_model, load_predictor
from energylens.planner.search.problem import Solution, evaluated, spaces_of
from energylens.planner.search.space import ProductSpace
from energylens.planner.types import ClusterSnapshot
from energylens.planner.week.choice import RateFigures
from energylens.planner.week.planning import WeekProblem, finished
from energylens.planner.week.rates import figures_by_rate

RATES = ("700", "2", "2000", "90", "350", "1100")
MODELS = ("meta-llama/Llama-3.1-8B-Instruct", "mistralai/Mixtral-8x7B-Instruct-v0.1", "Qwen/Qwen3-235B-A22B")


def week(make_deployment: Callable[..., LLMDeployment], name: str, **workload: Any) -> LLMDeployment:
    load = {"inputTokens": 300, "outputTokens": 100, "requestsPerSecond": "1"} | workload
    hours = [{"fromHour": 9, "requestsPerSecond": "2"}]
    return make_deployment(name, workload=load | {"profile": {"hours": hours}}, slo={"itlMilliseconds": 40})


def test_rates_have_the_figures_of_all_candidates_and_none_is_evaluated_that_sustains_no_lower_rate(
    make_deployment: Callable[..., LLMDeployment],
    make_snapshot: Callable[..., ClusterSnapshot],
    predictor: ArithmeticPredictor,
) -> None:
    snapshot = make_snapshot((H100, 8, 2), (L40S, 4, 3))
    asked = WeekProblem(week(make_deployment, MODELS[0]), load_model(MODELS[0]), snapshot, load_gpus(), predictor)
    spaces = spaces_of(asked.problem(RATES[2]))
    whole = {rate: evaluated(asked.problem(rate), spaces) for rate in RATES}
    sizes: dict[str, int] = {}

    def evaluate(rate: str, left: Sequence[ProductSpace]) -> Solution:
        sizes[rate] = sum(map(len, left))
        return evaluated(asked.problem(rate), left)

    found = finished(figures_by_rate(RATES, spaces, whole["2000"], evaluate, "MinimizeEnergy"))
    assert next(iter(found)) == "2000"
    for rate in RATES:
        expected = RateFigures.of(whole[rate], "MinimizeEnergy")
        np.testing.assert_array_equal(found[rate].costs, expected.costs)
        possible = np.isfinite(expected.costs)
        np.testing.assert_array_equal(found[rate].watts[possible], expected.watts[possible])
        assert found[rate].tokens_per_second == expected.tokens_per_second
    assert list(sizes) == ["2", "90", "350", "700", "1100"]
    assert sizes["2"] == sum(map(len, spaces)) > sizes["700"] > sizes["1100"]


@pytest.mark.parametrize("name", MODELS)
def test_what_sustains_no_rate_sustains_no_higher_rate(
    name: str, make_deployment: Callable[..., LLMDeployment], make_snapshot: Callable[..., ClusterSnapshot]
) -> None:
    snapshot = make_snapshot((H100, 8, 1), (L40S, 4, 1))
    gpus = load_gpus()
    shapes: tuple[dict[str, Any], ...] = ({}, {"arrivalSCV": "4", "outputTokensSCV": "1"})
    for workload in shapes:
        deployment = week(make_deployment, name, **workload)
        asked = WeekProblem(deployment, load_model(name), snapshot, gpus, load_predictor("vllm"))
        sustained: list[np.ndarray[Any, np.dtype[np.bool_]]] = []
        for rate in ("0.1", "1", "4", "12", "30", "60", "150"):
            problem = asked.problem(rate)
            sustained.append(evaluated(problem, spaces_of(problem)).rows.sustainable)
        for lower, higher in itertools.pairwise(sustained):
            assert not np.any(higher & ~lower)
        assert sustained[0].any()
        assert not sustained[-1].all()
