"""Requests of benchmark tasks whose prompt lengths are assumed."""

from __future__ import annotations

from energylens.predictor.types import Workload

PREFILLED_SHARE = {"lm-arena-chat": 0.5}
"""Share of the assumed prompt that a task's requests make the engine compute.

The ML.ENERGY Benchmark publishes no prompt lengths; 300 tokens are assumed for chat. Throughput of the largest models
at the largest batches, where arithmetic sets the pace, allows about half of that: prompts are shorter, or cached.
"""


def workload_of(task: str, input_tokens: float, output_tokens: float) -> Workload:
    """Return the mean request of a run of a benchmark task; of other tasks the whole prompt is computed."""
    return Workload(input_tokens, output_tokens, 1.0 - PREFILLED_SHARE.get(task, 1.0))
