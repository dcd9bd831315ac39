"""How long requests of each class wait for their first token."""

from __future__ import annotations

import numpy as np

from energylens.api.llmdeployment import RequestShape
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.load import thinned
from energylens.planner.search.problem import Problem
from energylens.predictor import Predictor
from energylens.records import dataclass

_LEVELS = {"P50": 0.5, "P95": 0.95, "P99": 0.99}


@dataclass(frozen=True)
class ClassFigures:
    """One class of requests under a plan."""

    shape: RequestShape
    ttft_ms: float
    """TTFT at the percentile of ``spec.slo``."""


def class_figures(problem: Problem, rows: Candidates, i: int) -> tuple[ClassFigures, ...]:
    """Return the figures of each class under a candidate.

    Empty without classes, for a load by concurrency, and for a predictor that does not provide them.
    """
    predictor, load, shapes = problem.predictor, problem.load, problem.spec.workload.classes
    if not shapes or len(shapes) == 1 or load.requests_per_second is None or not isinstance(predictor, Predictor):
        return ()
    gpu = problem.gpus[rows.products[int(rows.product[i])]]
    layouts = rows.layouts.take(np.asarray([i]))
    replicas = rows.replicas[np.asarray([i])]
    workload, rate = thinned(load.workload, replicas), load.requests_per_second / replicas
    level = _LEVELS[problem.spec.slo.percentile]
    found = predictor.class_ttft_ms(problem.model, gpu, layouts, workload, rate)
    whole = predictor.at_rate(problem.model, gpu, layouts, workload, rate)
    # Factors learned from measurement apply to the total.
    learned = float(rows.ttft_ms[i]) / float(getattr(whole, f"ttft_p{round(100 * level)}_ms")[0])
    pairs = zip(shapes, found, strict=True)
    return tuple(ClassFigures(shape, learned * float(quantiles[level][0])) for shape, quantiles in pairs)
