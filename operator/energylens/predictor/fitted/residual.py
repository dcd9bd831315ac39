"""A small, bounded correction of the errors that physics leaves, which fades outside its training range.

Gaussian-process regression (Rasmussen and Williams 2006, chapter 2) on the logarithm of measured / predicted, with a
sum of kernels: model family, model, layout and task, each smooth in the logarithm of the batch, and constant offsets of
what many models share, such as a GPU under one engine. Far from every training run all kernels are zero, and so is the
correction.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from math import isinf
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from energylens.predictor.types import BoolArray, FloatArray, IntArray
from energylens.records import dataclass

_Value = TypeVar("_Value", bound=np.generic)
TARGETS = ("step", "itl", "power")
LAYOUT_KEYS = ("layout", "load")
"""Keys of the terms that distinguish the layouts of one model on one product."""
KNOT_SPACING = 0.03
"""Length scale in log(batch)."""


@dataclass(frozen=True)
class RunFeatures:
    """Features that the residual's kernels compare, for n runs or candidates of u kinds.

    A kind is everything but the batch.
    """

    keys: Mapping[str, npt.NDArray[np.str_]]
    """Labels by key, shape (u,)."""
    log_batch: FloatArray
    """Logarithm of the batch, shape (n,)."""
    rows: IntArray | None = None
    """Kind of each run, shape (n,); None if each is its own kind."""
    alike: dict[tuple[int, tuple[str, ...]], _Agreements] = field(default_factory=dict, compare=False, repr=False)
    """Cache of :func:`_agreements` for these labels, by the identity of the training runs and the keys."""

    def at(self, rows: IntArray, log_batch: FloatArray) -> RunFeatures:
        """Return candidates of the given kinds, shape (n,), with the same labels."""
        return RunFeatures(self.keys, log_batch, rows, self.alike)

    def each(self, values: npt.NDArray[_Value]) -> npt.NDArray[_Value]:
        """Expand values by kind, shape (u,), to values by run, shape (n,)."""
        return values if self.rows is None else values[self.rows]

    def take(self, index: npt.NDArray[np.int64] | npt.NDArray[np.bool_]) -> RunFeatures:
        """Return the runs that an index array or a mask selects."""
        rows = np.arange(self.log_batch.size) if self.rows is None else self.rows
        kinds, inverse = np.unique(rows[index], return_inverse=True)
        keys = {key: labels[kinds] for key, labels in self.keys.items()}
        return RunFeatures(keys, self.log_batch[index], inverse.reshape(-1))

    @cached_property
    def lengths(self) -> FloatArray:
        """Logarithms of the mean tokens of a prompt and of an output of each run, shape (n, 2)."""
        pairs = [label.split("/") for label in self.keys["lengths"].tolist()]
        logs = np.log(np.array(pairs, dtype=np.float64).reshape(len(pairs), 2))
        return logs if self.rows is None else logs[self.rows]

    @cached_property
    def memo(self) -> dict[str, frozenset[str]]:
        """Cache of label sets that are derived from the keys, because every call queries the training runs."""
        return {}

    @cached_property
    def members(self) -> Mapping[str, Mapping[str, BoolArray]]:
        """By key and label, the runs that have it, shape (n,); cached, because every call queries the training runs."""
        return {
            key: {label: self.each(values == label) for label in dict.fromkeys(values.tolist())}
            for key, values in self.keys.items()
        }


@dataclass(frozen=True)
class KernelTerm:
    """One summand of the kernel: runs that agree in ``key`` are similar, the more so the closer their batches are."""

    key: str
    variance: float
    length: float
    """Length scale in units of log(batch); infinity for an offset, which does not depend on the batch."""

    @property
    def is_offset(self) -> bool:
        """Whether the summand is a constant of each label."""
        return isinf(self.length)


@dataclass(frozen=True)
class TargetResidual:
    """The correction of one target."""

    terms: tuple[KernelTerm, ...]
    noise: FloatArray
    """Variance of each training run around the smooth curve, shape (m,)."""
    weights: FloatArray
    """Solution of (K + noise) w = residuals, shape (m,)."""
    bound: float
    """Largest absolute correction, as a logarithm."""

    @cached_property
    def smooth(self) -> tuple[KernelTerm, ...]:
        """The terms that depend on the batch."""
        return tuple(term for term in self.terms if not term.is_offset)


@dataclass(frozen=True)
class ResidualModel:
    """Corrections of all targets over the same training runs."""

    training: RunFeatures
    targets: Mapping[str, TargetResidual]

    @cached_property
    def inverses(self) -> Mapping[str, FloatArray]:
        """Return the inverse of K + noise by target, shape (m, m).

        It is computed on first use, because predictions without correction, as for an engine that was never measured,
        do not need it.
        """
        return {
            name: np.asarray(
                np.linalg.inv(covariance(target.terms, self.training, self.training) + np.diag(target.noise)),
                dtype=np.float64,
            )
            for name, target in self.targets.items()
        }

    @cached_property
    def offsets(self) -> Mapping[str, Mapping[str, Mapping[str, float]]]:
        """By target and key of an offset, the posterior mean of each label whose runs say more than the prior."""
        return {
            name: {
                term.key: {
                    label: term.variance * float(target.weights[runs].sum())
                    for label, runs in self.training.members[term.key].items()
                    if term.variance * (1.0 / target.noise[runs]).sum() >= 1.0
                }
                for term in target.terms
                if term.is_offset
            }
            for name, target in self.targets.items()
        }


def covariance(terms: tuple[KernelTerm, ...], a: RunFeatures, b: RunFeatures) -> FloatArray:
    """Return the prior covariance between two sets of runs, shape (len(a), len(b))."""
    gap = a.log_batch[:, None] - b.log_batch[None, :]
    total = np.zeros(gap.shape)
    for term in terms:
        # Comparing numbers is a hundred times faster than comparing strings.
        number = {label: i for i, label in enumerate(dict.fromkeys(b.keys[term.key].tolist()))}
        rows = np.array([number.get(label, -1) for label in a.keys[term.key].tolist()], dtype=np.int64)
        columns = np.array([number[label] for label in b.keys[term.key].tolist()], dtype=np.int64)
        same = a.each(rows)[:, None] == b.each(columns)[None, :]
        smooth = 1.0 if np.isinf(term.length) else np.exp(-0.5 * (gap / term.length) ** 2)
        total += term.variance * same * smooth
    return total


def prior_variance(terms: tuple[KernelTerm, ...]) -> float:
    """Return the variance if nothing is known."""
    return sum(term.variance for term in terms)


def layout_variance(terms: tuple[KernelTerm, ...]) -> float:
    """Return the part of :func:`prior_variance` that layouts of one model, product and engine do not share."""
    return sum(term.variance for term in terms if term.key in LAYOUT_KEYS)


def correct(
    model: ResidualModel, runs: RunFeatures, targets: Sequence[str] = TARGETS
) -> dict[str, tuple[FloatArray, FloatArray]]:
    """Return by target the log correction and its posterior variance without noise, each of shape (n,).

    Only training runs that share a key take part. Candidates that agree in every key with the same training runs are
    computed together; a space has only a few such sets. For each set both results are smooth functions of log(batch)
    with length scales of at least 1, so they are computed at knots and interpolated, with an error below 1e-4.

    An offset is known from many models, so that its variance counts as 0; without a run, it is that of the prior.
    """
    n = runs.log_batch.shape[0]
    found = {target: (np.zeros(n), np.full(n, prior_variance(model.targets[target].smooth))) for target in targets}
    if n == 0:
        return found
    keys = sorted({term.key for target in targets for term in model.targets[target].smooth})
    for members, same in _kinds(model.training, runs, keys):
        related = np.flatnonzero(np.any(list(same.values()), axis=0))
        if related.size == 0:
            continue
        place = runs.log_batch[members] / KNOT_SPACING
        below = np.floor(place)
        part = place - below
        knots, inverse = np.unique(np.concatenate([below, below + 1.0]), return_inverse=True)
        lower, upper = inverse.reshape(2, -1)
        squared = (knots[:, None] * KNOT_SPACING - model.training.log_batch[None, related]) ** 2
        smooth: dict[float, FloatArray] = {}
        for target in targets:
            fitted = model.targets[target]
            cross = np.zeros(squared.shape)
            for length in sorted({term.length for term in fitted.smooth}):
                if length not in smooth:
                    smooth[length] = np.exp(squared * (-0.5 / length**2))
                shared = sum(
                    (term.variance * same[term.key][related] for term in fitted.smooth if term.length == length),
                    start=np.zeros(related.size),
                )
                cross += shared * smooth[length]
            mean, variance = found[target]
            prior = prior_variance(fitted.smooth)
            explained = np.einsum("nm,nm->n", cross @ model.inverses[target][np.ix_(related, related)], cross)
            at_knots = cross @ fitted.weights[related], prior - explained
            between = [(1.0 - part) * values[lower] + part * values[upper] for values in at_knots]
            mean[members] = between[0]
            variance[members] = np.clip(between[1], 0.0, prior)
    for target, (mean, variance) in found.items():
        fitted = model.targets[target]
        for term in fitted.terms:
            if term.is_offset:
                offset, unknown = _offset(model.offsets[target][term.key], runs, term)
                mean += offset
                variance += unknown
        np.clip(mean, -fitted.bound, fitted.bound, out=mean)
    return found


def _offset(known: Mapping[str, float], runs: RunFeatures, term: KernelTerm) -> tuple[FloatArray, FloatArray]:
    """Return the offset of each candidate and its variance, shape (n,) each."""
    labels = runs.keys[term.key].tolist()
    offsets = np.array([known.get(label, 0.0) for label in labels], dtype=np.float64)
    unknown = np.array([0.0 if label in known else term.variance for label in labels], dtype=np.float64)
    return runs.each(offsets), runs.each(unknown)


def _kinds(
    training: RunFeatures, runs: RunFeatures, keys: Sequence[str]
) -> Iterator[tuple[IntArray, dict[str, BoolArray]]]:
    """Return sets of candidates and, by key, the training runs, shape (m,), with which all of the set agree."""
    asked = id(training), tuple(keys)
    if asked not in runs.alike:
        runs.alike[asked] = _agreements(training, runs, keys)
    agreements = runs.alike[asked].by_key
    kind = runs.each(runs.alike[asked].kind)
    for value in np.flatnonzero(np.bincount(kind)).tolist():
        rest, agreed = value, {}
        for key in reversed(keys):
            rest, row = divmod(rest, len(agreements[key]))
            agreed[key] = agreements[key][row]
        yield np.flatnonzero(kind == value), agreed


@dataclass(frozen=True)
class _Agreements:
    """Sets of kinds of candidates that agree with the same training runs."""

    training: RunFeatures
    """The training runs, kept so that their identity stays theirs."""
    kind: IntArray
    """Set of each kind of candidates, shape (u,): the numbers of its agreements as digits, in the order of the keys."""
    by_key: dict[str, list[BoolArray]]
    """By key, the training runs with which candidates agree, each of shape (m,)."""


def _agreements(training: RunFeatures, runs: RunFeatures, keys: Sequence[str]) -> _Agreements:
    """Return the sets of candidates that agree in every key with the same training runs."""
    kind = np.zeros(runs.keys[keys[0]].shape, dtype=np.int64)
    agreements: dict[str, list[BoolArray]] = {}
    for key in keys:
        labels, codes = _codes(runs.keys[key])
        # Labels without training runs are equivalent.
        rows: dict[bytes, int] = {}
        none = np.zeros(training.log_batch.shape[0], dtype=np.bool_)
        agreeing = [training.members[key].get(label, none).tobytes() for label in labels]
        alike = np.array([rows.setdefault(row, len(rows)) for row in agreeing], dtype=np.int64)
        agreements[key] = [np.frombuffer(row, dtype=np.bool_) for row in rows]
        kind = kind * len(rows) + alike[codes]
    return _Agreements(training, kind, agreements)


def _codes(values: npt.NDArray[np.str_]) -> tuple[list[str], IntArray]:
    """Return the u distinct values, and the index of each value among them, shape (n,)."""
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    # Equal candidates are adjacent, so hashing the first of each stretch is faster than sorting all of the long
    # strings.
    seen: dict[str, int] = {}
    codes = np.array([seen.setdefault(value, len(seen)) for value in values[starts].tolist()], dtype=np.int64)
    return list(seen), np.repeat(codes, np.diff(np.append(starts, values.size)))
