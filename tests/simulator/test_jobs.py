"""A batch job takes as long as the simulator takes for requests that are all there at the start."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.simulator.batching import Limits
from tests.simulator.compare import Case, drawn, physics, step_seconds
from tests.simulator.lanes import serve

from energylens.data import find_gpu, load_model
from energylens.planner.search.job import serving_seconds
from energylens.predictor.types import Layouts

CHAT = Case("Qwen/Qwen3-8B", "H100", 1, 300, 400, 128, 0.0)
LARGE = Case("meta-llama/Llama-3.1-70B-Instruct", "H100", 4, 1000, 300, 64, 0.0)


@pytest.mark.parametrize(
    ("case", "requests", "within"),
    [
        (CHAT, 128, 0.10),
        (CHAT, 4000, 0.06),
        (replace(CHAT, outputs=0.5), 4000, 0.06),
        (LARGE, 1000, 0.06),
    ],
)
def test_a_job_takes_as_long_as_simulated(case: Case, requests: int, within: float) -> None:
    expected, taken = both(case, requests)
    assert expected == pytest.approx(taken, rel=within)


def test_few_answers_of_many_lengths_never_take_longer_than_expected() -> None:
    # The last and longest run beside few others, so faster than is counted.
    expected, taken = both(replace(CHAT, outputs=0.5), 600)
    assert taken < expected < 1.4 * taken


def both(case: Case, requests: int) -> tuple[float, float]:
    """Return the seconds of a job as the planner counts them, and as they are simulated."""
    predictor = physics()
    model, gpu, one = load_model(case.model), find_gpu(case.gpu), np.ones(1, dtype=np.int64)
    layouts = Layouts(one * case.tensor_parallel, one, one, one, one * case.slots, np.full(1, np.nan))
    found = predictor.at_concurrency(model, gpu, layouts, case.workload, np.array([float(requests)]))
    answer = case.workload.output_tokens * found.concurrency / found.output_tokens_per_second
    expected = serving_seconds(np.array([float(requests)]), found.concurrency, answer, case.outputs)
    constants, _ = predictor.constants(gpu)
    asked = drawn(replace(case, requests=requests), 1e9, float(np.asarray(constants["prompt_spread"])), 1, 3)
    served = serve(asked, Limits(case.slots, 8192, 0), step_seconds(predictor, case, case.slots), np.zeros(3))
    return float(expected[0]), float(served.last.max(axis=1).mean())
