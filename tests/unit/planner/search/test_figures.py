"""Every figure of every candidate against the same figure computed for one candidate at a time, in plain numbers."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.unit.planner.conftest import H100, L40S, ArithmeticPredictor

from energylens.api.llmdeployment import Overrides, PowerCap, describe_layout
from energylens.planner.search import evaluate as module
from energylens.planner.search.candidates import Candidates
from energylens.planner.search.corrections import Corrections
from energylens.planner.search.evaluate import Question, evaluate
from energylens.planner.search.job import Job, serving_seconds
from energylens.planner.search.load import BURST_ODDS, Load, Reserve
from energylens.planner.search.space import enumerate_space
from energylens.predictor.fitted.features import NOTHING
from energylens.predictor.fitted.recalibration import Learned, Lesson
from energylens.predictor.load.arrivals import thinned_variation
from energylens.predictor.load.decoding import end_to_end
from energylens.predictor.load.scenario import Role
from energylens.predictor.model.architecture import ModelSpec
from energylens.predictor.model.parameters import weight_bytes
from energylens.predictor.prediction import Interval, Prediction
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload

BURSTY = Workload(300, 200, arrival_variation=4.0, output_variation=0.8)
LONG = replace(BURSTY, input_tokens=25_000, output_tokens=2_000)
CORRECTIONS = Corrections(
    {
        H100: tuple(
            Lesson(layout, "", 8.0, Learned(dict.fromkeys(means, math.log(factor)), dict.fromkeys(means, 50.0)))
            for layout, factor, means in (("TP2", 1.3, ("itl", "power")), ("TP1", 0.8, ("itl", "ttft", "energy")))
        )
    }
)
RATE, FLIGHT = Load(BURSTY, requests_per_second=9.0), Load(BURSTY, concurrency=101)
JOB = Load(BURSTY, concurrency=4000, job=Job(2000.0, idles=True, start_seconds=90))
SMALL_JOB = Load(BURSTY, concurrency=700, job=Job(900.0, idles=False))


class VariedPredictor(ArithmeticPredictor):
    """The predictor of plain arithmetic, with intervals and deviations that differ by figure and layout."""

    def _predict(self, *args: Any, **keywords: Any) -> Prediction:
        found = super()._predict(*args, **keywords)
        layouts: Layouts = args[2]

        def around(values: FloatArray, low: float, high: float) -> Interval:
            return Interval(values * low, values * (high + 0.01 * layouts.tensor_parallel))

        return replace(
            found,
            itl=around(found.itl_p50_ms, 0.9, 1.12),
            tpot=around(found.tpot_ms, 0.9, 1.17),
            ttft=around(found.ttft_p50_ms, 0.7, 1.4),
            throughput=around(found.output_tokens_per_second, 0.85, 1.1),
            energy=around(found.joules_per_output_token, 0.92, 1.08),
            itl_decode_ms=found.itl_decode_ms * 0.8,
            unshared_deviation=0.01 * layouts.tensor_parallel + 0.0 * found.power_watts,
            layout_deviation=0.02 * layouts.pipeline_parallel + 0.0 * found.power_watts,
        )


def expected(
    rows: Candidates,
    i: int,
    model: ModelSpec,
    product: GpuSpec,
    load: Load,
    percentile: str,
    margin: float,
    share: float,
    corrections: Corrections,
    role: Role,
    reserve: Reserve,
) -> dict[str, float]:
    """Return the figures of one candidate."""
    at, replicas, nodes = np.asarray([i]), int(rows.replicas[i]), int(rows.nodes_per_replica[i])
    layouts = rows.layouts.take(at)
    one = replace(product, max_gpus_per_node=int(layouts.gpus[0]) // nodes if nodes > 1 else 8)
    predictor = VariedPredictor()
    left = max(replicas - reserve.spare, 0)
    if load.concurrency is not None:
        p = predictor.at_concurrency(model, one, layouts, load.workload, np.asarray([load.concurrency / replicas]))
    else:
        work = load.workload.first_tokens if role == "prefill" else load.workload
        work = replace(work, arrival_variation=thinned_variation(4.0, np.asarray([replicas])))
        p = predictor.at_rate(
            model, one, layouts, work, np.asarray([(load.requests_per_second or 0.0) / replicas]), role
        )
    tensor, pipeline, _, data = (int(degree[0]) for degree in layouts.split[:4])
    name = describe_layout(tensor=tensor, pipeline=pipeline, expert=int(layouts.expert_parallel[0]), data=data)
    factors = corrections.of(product.product, name, float(p.concurrency[0]))
    value = {
        name: float(its[0]) for name, its in vars(p).items() if isinstance(its, np.ndarray) and its.dtype.kind == "f"
    }

    def at_percentile(kind: str) -> float:
        plain = {"itl": "itl_p50_ms", "tpot": "tpot_ms", "ttft": "ttft_p50_ms", "decoding": "decoding_p50_ms"}[kind]
        return value[plain if percentile == "P50" else f"{kind}_{percentile.lower()}_ms"]

    def widened(kind: str, median: str) -> float:
        high = float(getattr(p, kind).high[0])
        return 1.0 + margin * share * max(0.0, high / value[median] - 1.0)

    itl, tpot = at_percentile("itl") * factors.itl, at_percentile("tpot") * factors.itl
    ttft, wide = at_percentile("ttft") * factors.ttft, widened("ttft", "ttft_p50_ms")
    parts = (
        value["ttft_p50_ms"] * factors.ttft,
        ttft,
        value["decoding_p50_ms"] * factors.itl,
        at_percentile("decoding") * factors.itl,
    )
    slow = widened("tpot", "tpot_ms")
    upper = [part * (wide if number < 2 else slow) for number, part in enumerate(parts)]
    joules = value["joules_per_output_token"] * factors.energy
    high = float(p.energy.high[0]) * factors.energy
    tokens = value["output_tokens_per_second"] * replicas / (factors.itl if load.concurrency is not None else 1.0)
    limit = left / replicas
    if load.job is not None:
        utilization, burst = math.nan, 0.0
        limit *= float(p.throughput.low[0]) / value["output_tokens_per_second"]
        sustainable = True
    elif load.concurrency is not None:
        utilization, burst = load.concurrency / replicas / value["max_concurrency"], 0.0
        sustainable = left > 0 and math.ceil(load.concurrency / max(left, 1)) <= value["max_concurrency"]
    else:
        utilization = value["utilization"] * (max(factors.itl, 1.0) if role != "prefill" else 1.0)
        free = reserve.headroom
        limit *= float(p.throughput.low[0]) / value["output_tokens_per_second"] if free is None else 1.0 - free
        sustainable = max(utilization, value["utilization"]) <= limit * (1 + 1e-9)
        running, ranks = value["concurrency"], int(layouts.data_parallel[0])
        clumps = float(
            thinned_variation(float(thinned_variation(4.0, np.asarray([replicas]))[0]), np.asarray([ranks]))[0]
        )
        odds = -math.log(BURST_ODDS)
        burst = running / ranks + math.sqrt(2 * odds * clumps * running / ranks) + odds * clumps / 3
        burst = min(burst, math.floor(float(p.memory.max_concurrency[0]) / ranks))
    watts = value["power_watts"] * factors.power * replicas
    idle = value["idle_power_watts"] * factors.power * replicas
    found = {
        "itl_ms": itl,
        "itl_upper_ms": itl * widened("itl", "itl_p50_ms"),
        "itl_decode_upper_ms": value["itl_decode_ms"] * factors.itl * widened("itl", "itl_p50_ms"),
        "tpot_ms": tpot,
        "tpot_upper_ms": tpot * slow,
        "ttft_ms": ttft,
        "ttft_upper_ms": ttft * wide,
        "end_to_end_ms": float(end_to_end(*(np.asarray([part]) for part in parts))[0]),
        "end_to_end_upper_ms": float(end_to_end(*(np.asarray([part]) for part in upper))[0]),
        "joules_per_output_token": joules,
        "joules_low": float(p.energy.low[0]) * factors.energy,
        "joules_high": high,
        "joules_upper": joules + margin * (high - joules),
        "power_watts": watts,
        "idle_power_watts": idle,
        "output_tokens_per_second": tokens,
        "concurrency": value["concurrency"] * replicas,
        "utilization": utilization,
        "utilization_limit": limit,
        "burst_sequences": burst,
        "kv_cache_tokens": float(p.memory.kv_capacity_tokens[0]),
        "unshared_deviation": 0.01 * tensor,
        "layout_deviation": 0.02 * pipeline,
        "breach_chance": 0.0,
        "idle_job_share": 0.0,
    }
    if load.job is not None and load.concurrency is not None:
        found |= job_of(found, load, load.job, one, model, replicas, int(layouts.gpus[0]))
        sustainable = found["utilization"] <= limit * (1 + 1e-9)
    sustainable = sustainable and all(math.isfinite(found[f"{name}_upper_ms"]) for name in ("itl", "ttft", "tpot"))
    return found | {"sustainable": float(sustainable and bool(p.sustainable[0] or load.job is not None))}


def job_of(
    found: dict[str, float], load: Load, job: Job, gpu: GpuSpec, model: ModelSpec, replicas: int, gpus: int
) -> dict[str, float]:
    """Return the figures of a job that differ from those of full batches."""
    requests, output = load.concurrency or 0, load.workload.output_tokens
    running, pace = found["concurrency"] / replicas, found["output_tokens_per_second"] / replicas
    share, answer = math.ceil(requests / replicas), output * running / pace
    seconds = float(
        serving_seconds(
            np.asarray([share]), np.asarray([running]), np.asarray([answer]), load.workload.output_variation
        )[0]
    )
    start = job.start_of(gpu, weight_bytes(model))
    left = job.seconds - start.seconds
    serving = found["power_watts"] * seconds
    other = gpus * replicas * start.joules + (found["idle_power_watts"] * max(left - seconds, 0) if job.idles else 0.0)
    served = serving / (serving + other)
    ratios = {
        name: (serving * found[name] / found["joules_per_output_token"] + other) / (requests * output)
        for name in ("joules_per_output_token", "joules_low", "joules_high", "joules_upper")
    }
    return ratios | {
        "utilization": seconds / left,
        "completion_seconds": start.seconds + seconds,
        "job_start_seconds": start.seconds,
        "job_joules": serving + other,
        "idle_job_share": other / (serving + other),
        "unshared_deviation": found["unshared_deviation"] * served,
        "layout_deviation": found["layout_deviation"] * served,
    }


CASES = [
    (RATE, "P95", 1.0, 1.0, "aggregated", Reserve(headroom=0.0)),
    (RATE, "P99", 0.5, 0.4, "aggregated", Reserve(spare=1)),
    (Load(BURSTY, requests_per_second=200.0), "P50", 0.8, 0.5, "prefill", Reserve(headroom=0.3)),
    (RATE, "P95", 0.7, 0.9, "decode", Reserve()),
    (FLIGHT, "P99", 1.0, 0.5, "aggregated", Reserve(headroom=0.2, spare=1)),
    (FLIGHT, "P50", 0.3, 1.0, "aggregated", Reserve()),
    (Load(BURSTY, concurrency=64), "P95", 1.0, 1.0, "aggregated", Reserve()),
    (JOB, "P95", 0.5, 0.5, "aggregated", Reserve(spare=1)),
    (SMALL_JOB, "P50", 1.0, 1.0, "aggregated", Reserve()),
    (
        Load(BURSTY, concurrency=30, job=Job(400.0, idles=True, start_seconds=90)),
        "P50",
        1.0,
        1.0,
        "aggregated",
        Reserve(),
    ),
    (Load(LONG, requests_per_second=1.0), "P50", 1.0, 1.0, "aggregated", Reserve()),
]


def spaces_of(models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]) -> tuple[list[Any], ModelSpec]:
    model = models["moe"]
    fixed = [Overrides(max_batch_size=size) for size in (4, 64)]
    spaces = [
        enumerate_space(model, gpus[product], nodes, one, PowerCap(mode="Plan" if one is fixed[0] else "Never"))
        for product, nodes, one in ((H100, [4, 4, 2], fixed[1]), (L40S, [2, 1], fixed[0]))
    ]
    return spaces, model


@pytest.mark.parametrize(("load", "percentile", "margin", "share", "role", "reserve"), CASES)
def test_every_figure_is_that_of_one_candidate_alone(
    load: Load,
    percentile: Any,
    margin: float,
    share: float,
    role: Role,
    reserve: Reserve,
    models: dict[str, ModelSpec],
    gpus: dict[str, GpuSpec],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CACHED_ROWS", 7)
    spaces, model = spaces_of(models, gpus)
    asked = Question(
        model,
        VariedPredictor(),
        load,
        percentile,
        margin=margin,
        latency_share=share,
        corrections=CORRECTIONS,
        role=role,
        reserve=reserve,
    )
    rows = evaluate(spaces, asked)
    runnable = np.flatnonzero(rows.supported & rows.fits)
    assert len(rows) == sum(map(len, spaces))
    assert 40 < runnable.size < len(rows)
    sustained = set()
    for i in runnable[:: 1 + runnable.size // 60].tolist():
        product = gpus[rows.products[int(rows.product[i])]]
        wanted = expected(rows, i, model, product, load, percentile, margin, share, CORRECTIONS, role, reserve)
        found = {name: float(getattr(rows, name)[i]) for name in wanted}
        assert found == pytest.approx(wanted, rel=1e-9, nan_ok=True), i
        sustained.add(wanted["sustainable"])
        capped = math.isfinite(float(rows.layouts.power_cap_watts[i]))
        measured = 3 if rows.layouts.gpus[i] > 4 else 1
        assert rows.nearest[i] == (NOTHING if capped or role != "aggregated" else measured)
    # Thirty requests find a place on every candidate.
    assert sustained == ({1.0} if load.concurrency == 30 else {0.0, 1.0})
    others = np.setdiff1d(np.arange(len(rows)), runnable)
    assert np.isnan(rows.power_watts[others]).all()
    assert not rows.sustainable[others].any()
    assert (rows.nearest[others] == NOTHING).all()


def test_rows_have_the_layouts_and_replicas_of_their_space(
    models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    spaces, model = spaces_of(models, gpus)
    rows = evaluate(spaces, Question(model, VariedPredictor(), RATE, "P95"))
    start = 0
    for number, space in enumerate(spaces):
        index, replicas = space.expand()
        mine = rows.take(np.arange(start, start + index.size))
        assert (mine.product == number).all()
        assert rows.products[number] == space.gpu.product
        np.testing.assert_array_equal(mine.replicas, replicas)
        np.testing.assert_array_equal(mine.nodes_per_replica, space.nodes_per_replica[index])
        for degree, its in zip(mine.layouts.split, space.layouts.take(index).split, strict=True):
            np.testing.assert_array_equal(degree, its)
        start += index.size


def test_slower_steps_take_capacity_and_faster_ones_give_none(
    models: dict[str, ModelSpec], gpus: dict[str, GpuSpec]
) -> None:
    spaces, model = spaces_of(models, gpus)
    load, free = Load(BURSTY, requests_per_second=60.0), Reserve(headroom=0.3)
    plain, taught = (
        evaluate(spaces, Question(model, VariedPredictor(), load, "P95", corrections=corrections, reserve=free))
        for corrections in (Corrections(), CORRECTIONS)
    )
    able = np.isfinite(plain.itl_ms)
    share = plain.utilization / plain.utilization_limit
    assert (share[plain.sustainable] <= 1 + 1e-6).all()
    assert ((share > 1.1) & (share < 1.4) & np.isfinite(plain.ttft_upper_ms)).any()
    factor = np.ones(len(plain))
    factor[able] = np.maximum(taught.itl_ms[able] / plain.itl_ms[able], 1.0)
    fits = np.zeros(len(plain), dtype=bool)
    fits[able] = plain.utilization[able] * factor[able] <= plain.utilization_limit[able] * (1 + 1e-9)
    np.testing.assert_array_equal(taught.sustainable, plain.sustainable & fits)
    assert (plain.sustainable & ~taught.sustainable).any()
    assert (~plain.sustainable & fits).any() or (~plain.sustainable & able).any()
    np.testing.assert_allclose(taught.utilization[able], plain.utilization[able] * factor[able])


@pytest.mark.parametrize("rows", [1, 7, 60])
def test_candidates_of_one_layout_are_predicted_in_one_call(
    rows: int, models: dict[str, ModelSpec], gpus: dict[str, GpuSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their common terms are then computed once, and equal to the last digit."""
    calls: list[tuple[GpuSpec, int, set[tuple[int, ...]]]] = []

    class Recorded(VariedPredictor):
        def at_rate(self, model: ModelSpec, gpu: GpuSpec, layouts: Layouts, *rest: Any, **options: Any) -> Prediction:
            degrees = np.stack([np.asarray(column) for column in layouts.split[:4]], axis=1)
            calls.append((gpu, len(layouts), {tuple(row) for row in degrees.astype(int).tolist()}))
            return super().at_rate(model, gpu, layouts, *rest, **options)

    monkeypatch.setattr(module, "CACHED_ROWS", rows)
    spaces, model = spaces_of(models, gpus)
    found = evaluate(spaces, Question(model, Recorded(), RATE, "P95"))
    assert sum(count for _, count, _ in calls) == int((found.supported & found.fits).sum())
    for number, (gpu, count, layouts) in enumerate(calls):
        others = [seen for other, _, seen in calls[number + 1 :] if other == gpu]
        assert all(layouts.isdisjoint(seen) for seen in others)
        # A part ends with the layout in which it is full.
        assert count >= rows or not others
    assert len(calls) > 4
    if rows == 1:
        assert all(len(layouts) == 1 for _, _, layouts in calls)
