"""The predictor's serving model against the simulator: ``python -m tests.simulator.compare`` prints the errors.

Both take the same time for the same step, from the predictor's physics, so that what differs is what the serving model
says of arrivals, chunks, slots and waiting. Prompts are log-normal with the spread that the predictor assumes.
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from tests.simulator.batching import Limits, Request, Step, simulate

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_predictor
from energylens.predictor.core import Predictor
from energylens.predictor.load.steady import steady_state
from energylens.predictor.load.ttft import FIRST_TOKEN_SECONDS
from energylens.predictor.types import Layouts, Prediction, Workload

STEP_TOKENS = 8192
"""vLLM's default of a server on an H100."""
WARM = 0.25
"""Share of the requests that are not judged: the replica fills meanwhile."""
BLOCK = 16
LEVELS = (0.5, 0.95, 0.99)


@dataclass(frozen=True)
class Case:
    """A replica under a load."""

    model: str
    gpu: str
    tensor_parallel: int
    input_tokens: int
    output_tokens: int
    slots: int
    utilization: float
    """Arrivals over what the predictor says that the replica can serve."""
    requests: int = 1200

    @property
    def name(self) -> str:
        model = self.model.split("/")[-1]
        return f"{model} {self.input_tokens}/{self.output_tokens} x{self.slots} at {self.utilization:.0%}"


@dataclass(frozen=True)
class Outcome:
    """Milliseconds, requests per second, and a share of time."""

    ttft: dict[float, float]
    itl: dict[float, float]
    running: float


def _layouts(case: Case, n: int = 1) -> Layouts:
    one = np.ones(n, dtype=np.int64)
    return Layouts(one * case.tensor_parallel, one, one, one, one * case.slots, np.full(n, np.nan))


def physics() -> Predictor:
    """Return the predictor without what it learned from runs: its steps are then those that the simulator takes."""
    shipped = load_predictor()
    return Predictor(replace(shipped.coefficients, residual=None), shipped.profile)


def predicted(predictor: Predictor, case: Case) -> tuple[float, Prediction]:
    """Return requests per second at the case's utilization, and what is predicted of them."""
    model, gpu = load_model(case.model), find_gpu(case.gpu)
    workload = Workload(case.input_tokens, case.output_tokens)
    low = predictor.at_rate(model, gpu, _layouts(case), workload, np.array([1e-3]))
    rate = 1e-3 / float(low.utilization[0]) * case.utilization
    return rate, predictor.at_rate(model, gpu, _layouts(case), workload, np.array([rate]))


def simulated(predictor: Predictor, case: Case, rate: float, places: int, seed: int = 1) -> Outcome:
    """Return what a replica does with Poisson arrivals of ``rate`` per second."""
    model, gpu = load_model(case.model), find_gpu(case.gpu)
    constants, _ = predictor.constants(gpu)
    workload = Workload(case.input_tokens, case.output_tokens)
    grid = np.unique(np.round(np.geomspace(1, max(places, 2), 24)))
    steady = steady_state(
        model, gpu, _layouts(case, len(grid)), workload, grid, constants, predictor.coefficients,
        overlap=predictor.profile.overlap,
    ).mixture  # fmt: skip
    base = steady.with_starts(np.zeros_like(grid))
    # Of several prompts where the mixture lets so many start together.
    prompts = grid / case.output_tokens / steady.starts
    slope = (steady.with_starts(np.ones_like(grid)) - base) / prompts / case.input_tokens
    table = [np.interp(np.arange(places + 1), grid, column).tolist() for column in (steady.decode, base, slope)]

    def seconds(step: Step) -> float:
        decode, mixed, more = (column[min(step.decodes, places)] for column in table)
        return mixed + more * step.prompt_tokens if step.prompts else decode

    rng, now, requests = random.Random(seed), 0.0, []
    spread = float(np.asarray(constants["prompt_spread"]))
    for _ in range(case.requests):
        now += rng.expovariate(rate)
        prompt = case.input_tokens * math.exp(rng.gauss(0.0, spread) - spread**2 / 2.0)
        requests.append(Request(now, max(1, round(prompt)), case.output_tokens))
    blocks = (places + 1) * (8 * case.input_tokens + case.output_tokens) // BLOCK
    ahead = predictor.profile.steps_ahead > 0
    traces = simulate(requests, Limits(min(case.slots, places), STEP_TOKENS, blocks, BLOCK, ahead), seconds)
    begin, end = requests[int(WARM * len(requests))].arrival, requests[-1].arrival
    judged = [trace for trace in traces if begin <= trace.request.arrival]
    gaps = np.array([gap for trace in judged for gap in trace.gaps])
    first = np.array([trace.ttft for trace in judged])
    held = sum(max(0.0, min(trace.tokens[-1], end) - max(trace.tokens[0], begin)) for trace in traces)
    return Outcome(
        {level: 1e3 * float(np.quantile(first, level)) for level in LEVELS},
        {level: 1e3 * float(np.quantile(gaps, level)) for level in LEVELS},
        held / (end - begin),
    )


LOADS = (
    ("Qwen/Qwen3-8B", "H100", 1, 300, 400, 256),
    ("Qwen/Qwen3-8B", "H100", 1, 2000, 200, 256),
    ("Qwen/Qwen3-8B", "H100", 1, 300, 100, 32),
    ("meta-llama/Llama-3.1-70B-Instruct", "H100", 4, 1000, 300, 64),
)
UTILIZATIONS = (0.2, 0.5, 0.7, 0.8, 0.9, 0.95)


def grid() -> Iterator[Case]:
    """Yield the cases of the table."""
    for load in LOADS:
        for utilization in UTILIZATIONS:
            yield Case(*load, utilization)


def errors(predictor: Predictor, case: Case) -> dict[str, float]:
    """Return what is predicted over what is simulated, less 1."""
    rate, found = predicted(predictor, case)
    places = int(found.max_concurrency[0])
    real = simulated(predictor, case, rate, places)
    off = {"running": float(found.concurrency[0]) / real.running - 1.0}
    for level in LEVELS:
        percent = round(100 * level)
        first = real.ttft[level] + 1e3 * FIRST_TOKEN_SECONDS
        off[f"ttft p{percent}"] = float(getattr(found, f"ttft_p{percent}_ms")[0]) / first - 1.0
    for level in LEVELS:
        percent = round(100 * level)
        off[f"itl p{percent}"] = float(getattr(found, f"itl_p{percent}_ms")[0]) / real.itl[level] - 1.0
    return off


def main() -> None:
    """Print a table of errors in percent."""
    predictor, rows = physics(), []
    for case in grid():
        rows.append(errors(predictor, case))
        if len(rows) == 1:
            _line("case", *rows[0])
            _line(*["---"] * (1 + len(rows[0])))
        _line(case.name, *(f"{100 * value:+.0f}" for value in rows[-1].values()))
    _line("mean absolute", *(f"{100 * np.mean([abs(row[name]) for row in rows]):.0f}" for name in rows[0]))


def _line(*cells: str) -> None:
    sys.stdout.write("| " + " | ".join(cells) + " |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
