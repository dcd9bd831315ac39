"""What tests know of latencies."""

from __future__ import annotations

import math

from energylens.predictor.prediction import Prediction


def end_to_end(p: Prediction, share: float = 1.0) -> float:
    """Return the time from arrival to last token at P95, with a share of the way to the upper ends of both parts."""
    ends = float(p.ttft.high[0] / p.ttft_p50_ms[0]), float(p.tpot.high[0] / p.tpot_ms[0])
    first, later = (1.0 + share * (end - 1.0) for end in ends)
    medians = first * float(p.ttft_p50_ms[0]), later * float(p.decoding_p50_ms[0])
    above = first * float(p.ttft_p95_ms[0]) - medians[0], later * float(p.decoding_p95_ms[0]) - medians[1]
    return sum(medians) + math.sqrt(above[0] ** 2 + above[1] ** 2 + 0.6 * above[0] * above[1])
