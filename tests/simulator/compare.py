"""The predictor's serving model against the simulator: ``python -m tests.simulator.compare`` prints the errors.

Both take the same time for the same step, from the predictor's physics, so that what differs is what the serving model
says of arrivals, chunks, slots and waiting. Prompts are log-normal with the spread that the predictor assumes, outputs
all alike or log-normal, times between requests exponential or gamma distributed.

Near capacity a queue forgets slowly: at 95 %, the P95 of TTFT of 300,000 requests differs by a fifth or more from one
run to the next, so that there are at least 1.2 million of them in 200 runs side by side. ``--runs`` and ``--requests``
say how many runs of how many requests, ``--load`` which loads; beside each error of TTFT stands the standard error of
the simulated percentile. ``python -m tests.simulator.tables FILE`` serves all variants and writes the tables of
docs/accuracy.md."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from tests.simulator.batching import Limits
from tests.simulator.lanes import Loads, serve

from energylens.data import find_gpu, load_model
from energylens.data.predictor import load_predictor
from energylens.predictor.core import Predictor
from energylens.predictor.load.decoding import end_to_end
from energylens.predictor.load.scenario import Scenario
from energylens.predictor.load.steady import Physics, steady_state
from energylens.predictor.load.ttft import FIRST_TOKEN_SECONDS
from energylens.predictor.prediction import Prediction
from energylens.predictor.requests import RequestClass
from energylens.predictor.step.rates import data_sheet, kernel_rates
from energylens.predictor.types import FloatArray, IntArray, Layouts, Workload

STEP_TOKENS = 8192
"""vLLM's default of a server on an H100."""
WARM = 0.25
"""Share of the requests that are not judged: the replica fills meanwhile."""
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
    requests: int = 40_000
    """Of one run. Near capacity a batch of 256 takes some thousand requests to fill."""
    runs: int = 200
    arrivals: float = 1.0
    """Squared coefficient of variation of the times between requests."""
    outputs: float = 0.0
    """Squared coefficient of variation of the output lengths."""
    step_tokens: int = STEP_TOKENS
    classes: tuple[RequestClass, ...] = ()
    """Requests of unlike shapes, whose means ``input_tokens`` and ``output_tokens`` are."""

    @property
    def name(self) -> str:
        model = self.model.split("/")[-1]
        shapes = "+".join(f"{part.share:.0%} {part.input_tokens:g}/{part.output_tokens:g}" for part in self.classes)
        name = f"{model} {shapes or f'{self.input_tokens}/{self.output_tokens}'} x{self.slots}"
        name += f" SCV {self.arrivals:g}" * (self.arrivals != 1.0) + f" outputs {self.outputs:g}" * bool(self.outputs)
        name += f" steps of {self.step_tokens}" * (self.step_tokens != STEP_TOKENS)
        return f"{name} at {self.utilization:.0%}"

    @property
    def workload(self) -> Workload:
        """What the predictor is told of the load."""
        if self.classes:
            return Workload.of_classes(self.classes, arrival_variation=self.arrivals)
        return Workload(
            self.input_tokens, self.output_tokens, arrival_variation=self.arrivals, output_variation=self.outputs
        )


@dataclass(frozen=True)
class Outcome:
    """Milliseconds, sequences, and requests per second over those that arrived."""

    ttft: dict[float, float]
    itl: dict[float, float]
    tpot: dict[float, float]
    end_to_end: dict[float, float]
    running: float
    throughput: float
    ttft_error: dict[float, float]
    """Standard error of each percentile of TTFT over the percentile, from the differences between seeds."""


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
    told = predictor.with_profile(replace(predictor.profile, step_tokens=case.step_tokens))
    low = told.at_rate(model, gpu, _layouts(case), case.workload, np.array([1e-3]))
    rate = 1e-3 / float(low.utilization[0]) * case.utilization
    return rate, told.at_rate(model, gpu, _layouts(case), case.workload, np.array([rate]))


@dataclass(frozen=True)
class StepTable:
    """Seconds of steps by their decoding sequences, shape (places + 1,)."""

    decode: FloatArray
    base: FloatArray
    """Of a step that computes prompts, without the part that grows with them."""
    slope: FloatArray
    """Of each token of a prompt."""

    def __call__(self, decodes: IntArray, tokens: IntArray) -> FloatArray:
        """Return the seconds of steps that compute ``tokens`` of prompts beside ``decodes`` sequences."""
        at = np.minimum(decodes, len(self.decode) - 1)
        return np.where(tokens > 0, self.base[at] + self.slope[at] * tokens, self.decode[at])


def step_seconds(predictor: Predictor, case: Case, places: int) -> StepTable:
    """Return the time of a step by what it computes: what the predictor's physics says of it."""
    model, gpu = load_model(case.model), find_gpu(case.gpu)
    constants, _ = predictor.constants(gpu)
    grid = np.unique(np.round(np.geomspace(1, max(places, 2), 96)))
    scenario = Scenario(model, gpu, _layouts(case, len(grid)), case.workload, "aggregated")
    rates = kernel_rates(constants, data_sheet(gpu))
    physics = Physics(constants, predictor.coefficients, rates, predictor.profile.overlap)
    steady = steady_state(scenario, grid, physics).mixture
    base = steady.with_starts(np.zeros_like(grid))
    # Of several prompts where the mixture lets so many start together.
    prompts = grid / case.workload.output_tokens / steady.starts
    slope = (steady.with_starts(np.ones_like(grid)) - base) / prompts / case.workload.input_tokens
    return StepTable(*(np.interp(np.arange(places + 1), grid, column) for column in (steady.decode, base, slope)))


def drawn(case: Case, rate: float, spread: float, seed: int, runs: int = 1) -> Loads:
    """Return requests of a case; ``spread`` is the deviation of the logarithm of prompt lengths."""
    rng, shape = np.random.default_rng(seed), (runs, case.requests)
    arrivals = np.cumsum(rng.gamma(1.0 / case.arrivals, case.arrivals / rate, shape), axis=1)
    parts = case.classes or (RequestClass(1.0, case.input_tokens, case.output_tokens, output_variation=case.outputs),)
    part = rng.choice(len(parts), shape, p=[part.share for part in parts])
    varies = [part.prompt_variation for part in parts]
    prompt_spreads = np.array([spread if each is None else math.sqrt(math.log1p(each)) for each in varies])[part]
    output_spreads = np.array([math.sqrt(math.log1p(each.output_variation)) for each in parts])[part]
    prompts = np.array([each.input_tokens for each in parts])[part] * _log_normal(rng, prompt_spreads)
    outputs = np.array([each.output_tokens for each in parts])[part] * _log_normal(rng, output_spreads)
    return Loads(
        arrivals, np.maximum(np.rint(prompts), 1).astype(np.int64), np.maximum(np.rint(outputs), 1).astype(np.int64)
    )


def _log_normal(rng: np.random.Generator, spreads: FloatArray) -> FloatArray:
    """Return log-normal numbers of mean 1 by the deviations of their logarithms."""
    return np.asarray(np.exp(spreads * rng.standard_normal(spreads.shape) - spreads**2 / 2.0))


def simulated(predictor: Predictor, case: Case, rate: float, places: int) -> Outcome:
    """Return what a replica does with ``rate`` requests per second, over all runs."""
    constants, _ = predictor.constants(find_gpu(case.gpu))
    spread = float(np.asarray(constants["prompt_spread"]))
    limits = Limits(min(case.slots, places), case.step_tokens, 0, scheduled_ahead=predictor.profile.steps_ahead > 0)
    loads = drawn(case, rate, spread, 1, case.runs)
    judged = slice(int(WARM * case.requests), None)
    begins, ends = loads.arrivals[:, judged][:, 0], loads.arrivals[:, -1]
    found = serve(loads, limits, step_seconds(predictor, case, places), begins)
    first, outputs = found.first[:, judged], loads.outputs[:, judged]
    rest = (found.last - loads.arrivals)[:, judged] - first
    tpot = (rest / np.maximum(outputs - 1, 1))[outputs > 1]
    ended = (found.last >= begins[:, None]) & (found.last <= ends[:, None])
    time = float((ends - begins).sum())
    return Outcome(
        {level: 1e3 * float(np.quantile(first, level)) for level in LEVELS},
        {level: 1e3 * found.itl(level) for level in LEVELS},
        {level: 1e3 * float(np.quantile(tpot, level)) for level in LEVELS},
        {level: 1e3 * float(np.quantile(first + rest, level)) for level in LEVELS},
        float(found.held @ np.arange(len(found.held))) / time,
        float(ended.sum()) / time / rate,
        {level: _standard_error(first, level) for level in LEVELS},
    )


def _standard_error(runs: FloatArray, level: float) -> float:
    """Return the standard error of a quantile over several runs, shape (runs, requests), relative to it.

    It is that of the share beyond the quantile, over the density there.
    """
    whole = runs.reshape(-1)
    at = np.quantile(whole, level)
    share = float(np.std((runs > at).mean(axis=1), ddof=1)) / math.sqrt(len(runs))
    low, high = np.quantile(whole, [max(level - share, 0.0), min(level + share, 1.0)])
    return float((high - low) / 2.0 / at)


LOADS = (
    ("Qwen/Qwen3-8B", "H100", 1, 300, 400, 256),
    ("Qwen/Qwen3-8B", "H100", 1, 2000, 200, 256),
    ("Qwen/Qwen3-8B", "H100", 1, 300, 100, 32),
    ("meta-llama/Llama-3.1-70B-Instruct", "H100", 4, 1000, 300, 64),
    ("Qwen/Qwen3-30B-A3B", "H100", 2, 1000, 1000, 128),
)
UTILIZATIONS = (0.5, 0.8, 0.9, 0.95)
FEWER = (0.5, 0.8, 0.95)
"""The same of cases that are not plain."""
REQUESTS = {0.5: 800, 0.8: 1_500, 0.9: 3_000, 0.95: 6_000}
"""Requests of each run by load."""
VARIANTS: dict[str, dict[str, Any]] = {
    "Poisson arrivals": {},
    "outputs of SCV 0.5": {"outputs": 0.5},
    "bursts of SCV 4": {"arrivals": 4.0},
    "steps of 1,024 tokens": {"step_tokens": 1024},
}
MIXES: dict[str, tuple[RequestClass, ...]] = {
    "chat and documents": (RequestClass(0.8, 300, 300), RequestClass(0.2, 4000, 150)),
    "chat and reasoning": (RequestClass(0.7, 500, 200), RequestClass(0.3, 1000, 2000)),
    "search, chat and long reports": (
        RequestClass(0.5, 100, 50),
        RequestClass(0.45, 800, 400, output_variation=0.5),
        RequestClass(0.05, 12_000, 800),
    ),
}
MIXED_ON = (("Qwen/Qwen3-8B", "H100", 1, 256), ("meta-llama/Llama-3.1-70B-Instruct", "H100", 4, 64))
MIXED = "a mix of shapes"


def grid(variant: str) -> Iterator[Case]:
    """Yield the cases of a table; those that are not plain at fewer loads."""
    if variant == MIXED:
        for classes in MIXES.values():
            for model, gpu, tensor_parallel, slots in MIXED_ON:
                for utilization in FEWER:
                    yield Case(model, gpu, tensor_parallel, 0, 0, slots, utilization, classes=classes)
        return
    for load in LOADS:
        for utilization in UTILIZATIONS if not VARIANTS[variant] else FEWER:
            yield replace(Case(*load, utilization), **VARIANTS[variant])


def requests_of(case: Case) -> int:
    """Return the requests of each run with which a case stands in a table; after bursts a queue lasts longer."""
    return REQUESTS[case.utilization] * (2 if case.arrivals > 1.0 else 1)


@dataclass(frozen=True)
class Figures:
    """Latencies of a case in milliseconds, by the predictor and by the simulator, and what else is judged."""

    predicted: dict[str, float]
    simulated: dict[str, float]
    noise: dict[str, float] = field(default_factory=dict)
    """Standard errors of what is simulated, where they are known."""

    @property
    def errors(self) -> dict[str, float]:
        """What is predicted over what is simulated, less 1."""
        return {name: value / self.simulated[name] - 1.0 for name, value in self.predicted.items()}


def judged(predictor: Predictor, case: Case) -> Figures:
    """Return what is predicted and what is simulated of a case."""
    rate, found = predicted(predictor, case)
    return figures(found, simulated(predictor, case, rate, int(found.max_concurrency[0])))


def figures(found: Prediction, real: Outcome) -> Figures:
    """Return the figures of a prediction of one replica beside what was simulated."""
    here = {"throughput": 1.0, "running": float(found.concurrency[0])}
    there = {"throughput": real.throughput, "running": real.running}
    before = 1e3 * FIRST_TOKEN_SECONDS
    for figure, values, more in (("ttft", real.ttft, before), ("itl", real.itl, 0.0), ("tpot", real.tpot, 0.0)):
        for level in LEVELS:
            percent = f"p{round(100 * level)}"
            name = "tpot_ms" if (figure, percent) == ("tpot", "p50") else f"{figure}_{percent}_ms"
            here[f"{figure} {percent}"] = float(getattr(found, name)[0])
            there[f"{figure} {percent}"] = values[level] + more
    for level in LEVELS:
        percent = f"p{round(100 * level)}"
        first, later = (getattr(found, f"{part}_{percent}_ms") for part in ("ttft", "decoding"))
        whole = end_to_end(found.ttft_p50_ms, first, found.decoding_p50_ms, later)
        here[f"e2e {percent}"] = float(whole[0])
        there[f"e2e {percent}"] = real.end_to_end[level] + before
    noise = {f"ttft p{round(100 * level)}": error for level, error in real.ttft_error.items()}
    return Figures(here, there, noise)


def main(arguments: Sequence[str]) -> None:
    """Print tables of errors in percent, of the named variants or of all."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help=", ".join((*VARIANTS, MIXED)))
    parser.add_argument("--requests", type=int, help="of one run (default: 800, and up to 12,000 near capacity)")
    parser.add_argument(
        "--load", type=float, nargs="*", default=UTILIZATIONS, choices=UTILIZATIONS, help="share of the capacity"
    )
    parser.add_argument("--runs", type=int, default=Case.runs, help="runs of each case (default %(default)s)")
    parser.add_argument("--plot", metavar="FILE", help="draw the first variant")
    asked = parser.parse_args(arguments)
    for name in asked.variants:
        if name not in (*VARIANTS, MIXED):
            parser.error(f"no variant {name}")
    predictor = physics()
    for number, variant in enumerate(asked.variants or (*VARIANTS, MIXED)):
        rows: list[tuple[Case, Figures]] = []
        for each in grid(variant):
            if each.utilization not in asked.load:
                continue
            case = replace(each, requests=asked.requests or requests_of(each), runs=asked.runs)
            rows.append((case, judged(predictor, case)))
            off, noise = rows[-1][1].errors, rows[-1][1].noise
            if len(rows) == 1:
                _line(variant, *off)
                _line(*["---"] * (1 + len(off)))
            cells = {name: f" \N{PLUS-MINUS SIGN}{100 * error:.0f}" for name, error in noise.items()}
            _line(case.name, *(f"{100 * value:+.0f}{cells.get(name, '')}" for name, value in off.items()))
        if rows:
            _line(
                "mean absolute", *(f"{100 * np.mean([abs(row.errors[name]) for _, row in rows]):.1f}" for name in off)
            )
        if asked.plot is not None and number == 0:
            draw(rows, asked.plot)


def draw(rows: Sequence[tuple[Case, Figures]], path: str) -> None:
    """Draw latencies over the load: lines are predicted, points simulated."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    loads: dict[str, list[tuple[Case, Figures]]] = {}
    for case, figures in rows:
        loads.setdefault(case.name.split(" at ")[0], []).append((case, figures))
    panels, axes = plt.subplots(2, len(loads), figsize=(3.4 * len(loads), 6.0), squeeze=False, layout="constrained")
    for column, (name, cases) in enumerate(loads.items()):
        at = [100.0 * case.utilization for case, _ in cases]
        for row, figure in enumerate(("ttft", "itl")):
            axis = axes[row][column]
            for level, color in zip(("p50", "p95", "p99"), ("C0", "C1", "C2"), strict=True):
                key = f"{figure} {level}"
                axis.plot(at, [found.predicted[key] for _, found in cases], color=color, label=level.upper())
                axis.plot(at, [found.simulated[key] for _, found in cases], "o", color=color, markersize=4)
            axis.set_yscale("log")
            axis.set_title(name, fontsize=9)
            axis.set_xlabel("load, % of capacity", fontsize=8)
            axis.set_ylabel(f"{figure.upper()}, ms", fontsize=8)
    axes[0][0].legend(fontsize=8)
    panels.savefig(path, dpi=80)


def _line(*cells: str) -> None:
    sys.stdout.write("| " + " | ".join(cells) + " |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
