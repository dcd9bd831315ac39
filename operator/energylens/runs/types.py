"""A run: one configuration of one model on one GPU type under one load, with its measurements."""

from __future__ import annotations

from typing import Literal

from energylens.predictor.load.workloads import counts_in_flight
from energylens.records import dataclass

Role = Literal["aggregated", "decode"]
ROLES: tuple[Role, ...] = ("aggregated", "decode")
CONCURRENCY_COUNTS = ("in-flight", "running")


@dataclass(frozen=True)
class MeasuredRun:
    """Measured figures, None where missing; power, throughput and energy of all GPUs together."""

    median_itl_ms: float | None = None
    """Time between two tokens of a request, median over tokens: most steps that prefill other requests are above it."""
    p90_itl_ms: float | None = None
    p95_itl_ms: float | None = None
    p99_itl_ms: float | None = None
    output_tokens_per_second: float | None = None
    power_watts: float | None = None
    joules_per_output_token: float | None = None
    median_tpot_ms: float | None = None
    """Time per output token of a request, last minus first token over the tokens between, median over requests: the
    prefill of other requests is part of it, so that it lies near the mean step and above the median ITL."""
    mean_tpot_ms: float | None = None
    tpot_ms: float | None = None
    """TPOT from a source that does not state which statistic over requests it is."""
    median_ttft_ms: float | None = None
    mean_ttft_ms: float | None = None
    ttft_ms: float | None = None
    """TTFT from a source that does not state which statistic over requests it is."""

    @property
    def time_per_output_token_ms(self) -> float | None:
        """The time per output token that predictions are judged by: the median where there is one."""
        return _first(self.median_tpot_ms, self.mean_tpot_ms, self.tpot_ms)

    @property
    def time_to_first_token_ms(self) -> float | None:
        """The time to first token that predictions are judged by: the median where there is one."""
        return _first(self.median_ttft_ms, self.mean_ttft_ms, self.ttft_ms)


@dataclass(frozen=True)
class Run:
    """One configuration, and what was measured of it when that was asked for and is there."""

    run_id: str
    task: str
    model_id: str
    weight_precision: str | None
    """None: as the catalogue says."""
    gpu_model: str
    num_gpus: int
    tensor_parallel: int
    expert_parallel: int
    data_parallel: int
    max_num_seqs: int
    concurrency: float
    """Over all data-parallel ranks: requests in flight of a benchmark's task, mean running sequences of any other;
    ``max_num_seqs`` where the table has none."""
    input_tokens: float
    output_tokens: float
    engine: str | None
    """Engine, such as ``vllm==0.11.1``; None means the newest profile."""
    host_bound: bool = False
    measured: MeasuredRun | None = None
    concurrency_counts: str | None = None
    """One of `CONCURRENCY_COUNTS`: requests in flight, those that wait included, or the sequences that the engine ran;
    None is what the task says."""
    role: Role = "aggregated"
    """``decode``: a worker that only decodes, of a deployment that prefills elsewhere; it has no TTFT of its own."""

    @property
    def counts_waiting(self) -> bool:
        """Whether ``concurrency`` counts the requests that wait for a place, too.

        Where the run does not say, a benchmark counts the requests that it has sent, a site those that its engine runs.
        """
        if self.concurrency_counts is not None:
            return self.concurrency_counts == "in-flight"
        return counts_in_flight(self.task)


@dataclass(frozen=True)
class RowError:
    """A row that could not be read; ``message`` names the field, the value and what is allowed."""

    row: int
    """Line of the file, the header being line 1."""
    run_id: str
    message: str


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)
