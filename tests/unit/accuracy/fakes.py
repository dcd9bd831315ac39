"""Runs made by hand and a predictor with known answers."""

from __future__ import annotations

import numpy as np

from energylens.accuracy.evaluate import Predicted
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.prediction import Interval, Memory, Prediction
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Sampled, Workload
from energylens.runs import MeasuredRun, Run
from energylens.runs.types import Role


def run(
    run_id: str = "r",
    *,
    itl: float = 10.0,
    energy: float = 1.0,
    throughput: float = 100.0,
    model: str = "Qwen/Qwen3-8B",
    gpu: str = "H100",
    gpus: int = 1,
    expert_parallel: int = 1,
    data_parallel: int = 1,
    batch: int = 8,
    task: str = "chat",
    host_bound: bool = False,
    engine: str | None = None,
    output_tokens: float = 500.0,
) -> Run:
    return Run(
        run_id=run_id,
        task=task,
        model_id=model,
        weight_precision=None,
        gpu_model=gpu,
        num_gpus=gpus,
        tensor_parallel=gpus // data_parallel,
        expert_parallel=expert_parallel,
        data_parallel=data_parallel,
        max_num_seqs=batch,
        concurrency=float(batch),
        input_tokens=300.0,
        output_tokens=output_tokens,
        engine=engine,
        host_bound=host_bound,
        measured=MeasuredRun(itl, itl, itl, itl, throughput, energy * throughput, energy),
    )


def predicted(runs: list[Run], *, itl: list[float], high: list[float], energy: list[float]) -> Predicted:
    """Predictions where throughput is 100 and intervals are those given for ITL and +-10 % else."""
    values = {
        "itl": np.array(itl),
        "tpot": np.array(itl),
        "ttft": np.array(itl),
        "throughput": np.full(len(runs), 100.0),
        "power": 100.0 * np.array(energy),
        "energy": np.array(energy),
    }
    intervals = {name: Interval(0.9 * value, 1.1 * value) for name, value in values.items()}
    intervals["itl"] = Interval(values["itl"] / 2, np.array(high))
    error = tuple("no" if np.isnan(value) else "" for value in itl)
    certain = np.zeros(len(runs))
    return Predicted(values, intervals, certain, certain, np.zeros(len(runs), dtype=np.int64), error)


class FakePredictor:
    """ITL is the concurrency in ms; power 300 W per GPU; three tensor-parallel GPUs are refused, 13 sequences fail."""

    def __init__(self, factor: float = 1.0) -> None:
        self.factor = factor
        self.calls = 0

    def at_concurrency(
        self,
        model: ModelSpec,
        gpu: GpuSpec,
        layouts: Layouts,
        workload: Workload,
        concurrency: FloatArray,
        *,
        sampled: Sampled | None = None,
        in_flight: bool = True,
        role: Role = "aggregated",
    ) -> Prediction:
        self.calls += 1
        if (concurrency == 13).any():
            raise ValueError("13 sequences bring bad luck")
        n = len(layouts)
        refused = layouts.tensor_parallel == 3
        ones = np.where(refused, np.nan, 1.0)
        ones[concurrency == 17] = np.nan
        itl = ones * concurrency * self.factor
        throughput = ones * 1000.0
        power = ones * 300.0 * layouts.gpus
        energy = power / throughput

        def around(value: FloatArray) -> Interval:
            return Interval(0.9 * value, 1.1 * value)

        no = np.zeros(n)
        return Prediction(
            supported=~refused,
            reason=np.where(refused, "heads are not divisible by 3", ""),
            sustainable=np.ones(n, dtype=bool),
            concurrency=concurrency,
            max_concurrency=concurrency,
            utilization=ones,
            mean_step_ms=itl,
            tpot_ms=itl,
            tpot_p95_ms=itl,
            tpot_p99_ms=itl,
            decoding_p50_ms=itl,
            decoding_p95_ms=itl,
            decoding_p99_ms=itl,
            itl_decode_ms=itl,
            itl_p50_ms=itl,
            itl_p90_ms=itl,
            itl_p95_ms=itl,
            itl_p99_ms=itl,
            ttft_p50_ms=itl,
            ttft_p95_ms=itl,
            ttft_p99_ms=itl,
            output_tokens_per_second=throughput,
            power_watts=power,
            idle_power_watts=power,
            joules_per_output_token=energy,
            itl=around(itl),
            tpot=around(itl),
            ttft=around(itl),
            throughput=around(throughput),
            power=around(power),
            energy=around(energy),
            unshared_deviation=no,
            layout_deviation=no,
            nearest=np.where(concurrency > 100, 3, 1),
            memory=Memory(no, no, no, no, no, no, np.ones(n, dtype=bool)),
        )
