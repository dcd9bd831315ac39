"""The work of every run, computed once, so that the fit only applies constants to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from energylens.calibration.runs import Runs
from energylens.predictor.fitted.coefficients import Coefficients
from energylens.predictor.fitted.features import run_features
from energylens.predictor.fitted.profiles import EngineProfile, parse_engine, select_profile
from energylens.predictor.fitted.residual import RunFeatures
from energylens.predictor.load.scenario import Role
from energylens.predictor.load.steady import phase_work
from energylens.predictor.load.workloads import loaded, sampled_of
from energylens.predictor.model.architecture import ModelSpec, served_on
from energylens.predictor.model.einsum import Collective
from energylens.predictor.model.memory import memory, resident_sequences
from energylens.predictor.step.moe_tables import MoeTables
from energylens.predictor.step.rates import DataSheet, data_sheet
from energylens.predictor.step.work import CollectiveWork, LayerCounts, Work
from energylens.predictor.types import FloatArray, GpuSpec, IntArray, Workload
from energylens.records import dataclass

KINDS = (*[Collective.ALL_REDUCE] * 5, Collective.ALL_GATHER, Collective.ALL_TO_ALL, Collective.NONE)
"""Slots for the collectives of any model, so that runs of all models fit into one array."""


@dataclass(frozen=True)
class Dataset:
    """Runs with their work: arrays over the runs, with operations padded to those of the longest model."""

    runs: Runs
    running: FloatArray
    """Sequences decoded at once: those of the benchmark's requests in flight that fit, otherwise as measured."""
    decode: Work
    mixed: Work
    starts: FloatArray
    ranks: FloatArray
    """Data-parallel ranks, among which the running sequences are divided."""
    itl_rows: IntArray
    """The m runs with a measured median inter-token latency; the next four attributes are of them, shape (m,)."""
    itl_decode: Work
    """Work of the steps of the median inter-token latency."""
    itl_mixed: Work
    itl_starts: FloatArray
    itl_level: FloatArray
    sheet: DataSheet
    features: RunFeatures
    engines: npt.NDArray[np.str_]
    """Name of the engine profile of each run."""

    @property
    def mean_step(self) -> FloatArray:
        """Mean step, s: the time per output token, otherwise running sequences / throughput."""
        throughput = self.running / self.runs.output_tokens_per_second
        return np.where(np.isnan(self.runs.median_tpot_ms), throughput, 1e-3 * self.runs.median_tpot_ms)

    def take(self, index: IntArray) -> Dataset:
        """Return the runs of an ascending index array of shape (r,)."""
        kept = np.flatnonzero(np.isin(self.itl_rows, index))
        return Dataset(
            self.runs.take(index),
            self.running[index],
            take_work(self.decode, index),
            take_work(self.mixed, index),
            self.starts[index],
            self.ranks[index],
            np.searchsorted(index, self.itl_rows[kept]),
            take_work(self.itl_decode, kept),
            take_work(self.itl_mixed, kept),
            self.itl_starts[kept],
            self.itl_level[kept],
            take_sheet(self.sheet, index),
            self.features.take(index),
            self.engines[index],
        )

    def factors(self, by_profile: Mapping[str, Mapping[str, float]]) -> dict[str, FloatArray]:
        """Return the factors that the engine profile of each run applies to constants, by constant, shape (n,).

        Args:
            by_profile: Factors of each profile; an absent profile or constant means a factor of 1.
        """
        names = sorted({name for factors in by_profile.values() for name in factors})
        mine = [by_profile.get(engine, {}) for engine in self.engines.tolist()]
        return {name: np.array([factors.get(name, 1.0) for factors in mine]) for name in names}


def engine_profiles(engines: Sequence[str], profiles: Sequence[EngineProfile]) -> tuple[EngineProfile, ...]:
    """Return the profile of each run's engine; a run without an engine uses the newest profile of vLLM.

    Args:
        engines: Engines such as ``vllm==0.11.1``; empty if a run names none.
        profiles: All known profiles.

    Raises:
        UnknownEngineError: An engine or version has no profile.
        ValueError: A version is malformed, or a profile overlaps collectives, which fits do not support.
    """
    found = tuple(select_profile(profiles, *parse_engine(engine or "vllm")) for engine in engines)
    for profile in found:
        if profile.overlap is not None:
            raise ValueError(f"engine profile {profile.name} overlaps collectives, which fits do not support")
    return found


def build_dataset(
    runs: Runs,
    models: Mapping[str, ModelSpec],
    gpus: Mapping[str, GpuSpec],
    tables: MoeTables,
    engines: Sequence[EngineProfile],
) -> Dataset:
    """Return the work of every run.

    Args:
        runs: The runs.
        models: Architecture by model id, for every id of ``runs``.
        gpus: GPU product by short name, for every name of ``runs``.
        tables: Kernel curves.
        engines: Profile of each run's engine.

    Raises:
        KeyError: A model or a GPU is unknown.
    """
    shell = Coefficients("work", {}, {}, {}, tables)
    found = [_worked(runs.take(np.array([i])), models, gpus, shell, engines[i]) for i in range(len(runs))]
    itl_rows = [i for i, one in enumerate(found) if one.itl is not None]
    itl = [one.itl for one in found if one.itl is not None]
    sheets = [data_sheet(gpus[str(name)]) for name in runs.gpu_model]
    fields = DataSheet.__dataclass_fields__
    sheet = DataSheet(**{f: np.array([getattr(s, f) for s in sheets], dtype=np.float64) for f in fields})
    # If no run has an ITL, the work of the first run provides the shapes.
    timed = itl or [found[0].steps]
    return Dataset(
        runs,
        np.array([one.running for one in found]),
        concatenate([one.steps.decode for one in found]),
        concatenate([one.steps.mixed for one in found]),
        np.array([one.steps.starts for one in found]),
        runs.data_parallel.astype(np.float64),
        np.array(itl_rows, dtype=np.int64),
        concatenate([steps.decode for steps in timed]),
        concatenate([steps.mixed for steps in timed]),
        np.array([steps.starts for steps in itl]),
        np.array([found[i].itl_level for i in itl_rows]),
        sheet,
        join_features([one.features for one in found]),
        np.array([profile.name for profile in engines], dtype=np.str_),
    )


@dataclass(frozen=True)
class _Steps:
    """Work of the steps of one run."""

    decode: Work
    mixed: Work
    starts: float
    """Mean starts per step."""


@dataclass(frozen=True)
class _Worked:
    """One run with its work."""

    running: float
    features: RunFeatures
    steps: _Steps
    itl: _Steps | None
    """Work of the steps of the median inter-token latency; None if it was not measured."""
    itl_level: float


def _worked(
    one: Runs, models: Mapping[str, ModelSpec], gpus: Mapping[str, GpuSpec], shell: Coefficients, engine: EngineProfile
) -> _Worked:
    """Return the work of a single run."""
    workload, layouts = one.workload(0), one.layouts
    model, gpu = models[str(one.model_id[0])], gpus[str(one.gpu_model[0])]
    sampled = sampled_of(str(one.task[0]), float(one.max_num_seqs[0]))
    running = one.concurrency
    model = served_on(loaded(str(one.task[0]), model), fp4_arithmetic=gpu.flops_fp4 > 0)
    lockstep = engine.lockstep_of(gpu, layouts, model)
    if one.waiting_counts[0]:
        held = memory(model, gpu, layouts, workload, engine.memory_utilization)
        # The memory estimate may leave no room for a run that nevertheless ran.
        running = resident_sequences(running, layouts, held, engine.full_cache) if held.fits[0] else running
    role: Role = "decode" if one.decodes_only[0] else "aggregated"

    def steps(load: Workload, sequences: FloatArray) -> _Steps:
        decode, mixed, starts = phase_work(model, gpu, layouts, load, sequences, shell, role, lockstep)
        return _Steps(decode, mixed, float(starts[0]))

    features = run_features(model, gpu, layouts, workload, running, engine.tag)
    whole, level = steps(workload, running), 0.5
    itl = whole
    if sampled is not None:
        level = sampled.level
        age = workload.age_share if sampled.age_share is None else sampled.age_share
        itl = steps(replace(workload, age_share=age), running * sampled.running_share)
    measured = bool(np.isfinite(one.median_itl_ms[0]))
    return _Worked(float(running[0]), features, whole, itl if measured else None, level)


def take_sheet(sheet: DataSheet, index: IntArray) -> DataSheet:
    """Return the peaks of the runs of an index array; numbers that all runs share stay numbers."""
    return DataSheet(**{name: np.asarray(getattr(sheet, name))[index] for name in DataSheet.__dataclass_fields__})


def take_work(work: Work, index: IntArray) -> Work:
    """Return the joined work of the runs of an index array of shape (r,)."""
    c, layers = work.collectives, work.layers
    found: dict[str, Any] = {
        name: np.asarray(getattr(work, name))[..., index]
        for name in Work.__dataclass_fields__
        # No fitted run used speculative decoding.
        if name not in ("labels", "collectives", "layers", "logit_rows", "drafts")
    }
    return Work(
        labels=work.labels,
        collectives=CollectiveWork(
            c.kind, c.count[:, index], c.message_bytes[:, index], c.group[:, index], c.host_share[:, index]
        ),
        layers=LayerCounts(
            **{name: np.asarray(getattr(layers, name))[index] for name in LayerCounts.__dataclass_fields__}
        ),
        **found,
    )


def join_features(parts: Sequence[RunFeatures]) -> RunFeatures:
    """Return the features of several sets of runs as one."""
    keys = {name: np.concatenate([p.each(p.keys[name]) for p in parts]) for name in parts[0].keys}
    return RunFeatures(keys, np.concatenate([p.log_batch for p in parts]))


def concatenate(works: Sequence[Work]) -> Work:
    """Return the works of single candidates as one, with operations padded by empty ones."""
    k = max(w.kernel.shape[0] for w in works)

    def pad(name: str, fill: float) -> FloatArray:
        out = np.full((k, len(works)), fill, dtype=np.float64)
        for j, work in enumerate(works):
            value = np.asarray(getattr(work, name), dtype=np.float64)
            out[: value.shape[0], j] = value if value.ndim == 1 else value[:, 0]
        return out

    def row(name: str) -> FloatArray:
        return np.array([float(np.asarray(getattr(w, name)).reshape(-1)[0]) for w in works])

    layers = LayerCounts(
        **{f: np.array([float(getattr(w.layers, f)) for w in works]) for f in LayerCounts.__dataclass_fields__}
    )
    return Work(
        kernel=pad("kernel", 0).astype(np.int64),
        labels=(),
        launches=pad("launches", 0),
        flops=pad("flops", 0),
        weight_bytes=pad("weight_bytes", 0),
        cache_bytes=pad("cache_bytes", 0),
        activation_bytes=pad("activation_bytes", 0),
        prefill_attention_flops=pad("prefill_attention_flops", 0),
        table_seconds=pad("table_seconds", 0),
        imbalance=pad("imbalance", 1),
        weight_imbalance=pad("weight_imbalance", 1),
        small_bytes=row("small_bytes"),
        collectives=_collectives(works),
        layers=layers,
        tokens=row("tokens"),
        sequences=row("sequences"),
        gpus=row("gpus"),
        graph_tokens=row("graph_tokens"),
        sampled_vocab=row("sampled_vocab"),
        sorts=row("sorts"),
        tile_flops=pad("tile_flops", 0),
        aligned_flops=pad("aligned_flops", 0),
        padded_flops=pad("padded_flops", 0),
        replaced=pad("replaced", 0),
        coarse_tiles=pad("coarse_tiles", 0),
    )


def _collectives(works: Sequence[Work]) -> CollectiveWork:
    count = np.zeros((len(KINDS), len(works)))
    message, group, share = np.zeros_like(count), np.ones_like(count), np.zeros_like(count)
    for j, work in enumerate(works):
        free = list(range(len(KINDS)))
        for i, kind in enumerate(work.collectives.kind):
            slot = next(s for s in free if KINDS[s] is kind)
            free.remove(slot)
            count[slot, j] = work.collectives.count[i, 0]
            message[slot, j] = work.collectives.message_bytes[i, 0]
            group[slot, j] = work.collectives.group[i, 0]
            share[slot, j] = work.collectives.host_share[i, 0]
    return CollectiveWork(KINDS, count, message, group, share)
