"""Lengths of requests that a plan is made for."""

from __future__ import annotations

import math
from statistics import NormalDist

from energylens.api.llmdeployment import WorkloadSpec
from energylens.api.quantity import parse_quantity

_LEVEL = 0.95
_ROUNDS = 60


def planned_p95(workload: WorkloadSpec, *, prompts: bool) -> int | None:
    """Return the P95 of the prompt or output tokens that a workload states; None if it states no distribution.

    Within a class, lengths are log-normal with the stated SCV. A class without an SCV of its prompts counts as equal
    lengths beside other classes; a single class without one has the distribution of the predictor's runs.
    """
    parts = []
    for shape in workload.shapes:
        mean, stated = (
            (shape.input_tokens, shape.input_tokens_scv) if prompts else (shape.output_tokens, shape.output_tokens_scv)
        )
        if stated is None and prompts and len(workload.shapes) == 1:
            return None
        spread = math.log1p(float(parse_quantity(stated or "0")))
        parts.append((shape.share_percent / 100.0, math.log(mean) - spread / 2.0, math.sqrt(spread)))

    def below(log: float) -> float:
        return sum(
            share * (NormalDist(mu, sigma).cdf(log) if sigma else float(log >= mu - 1e-9)) for share, mu, sigma in parts
        )

    low = min(mu - 10.0 * sigma for _, mu, sigma in parts)
    high = max(mu + 10.0 * sigma for _, mu, sigma in parts)
    for _ in range(_ROUNDS):
        middle = (low + high) / 2.0
        low, high = (low, middle) if below(middle) >= _LEVEL else (middle, high)
    return round(math.exp(high))
