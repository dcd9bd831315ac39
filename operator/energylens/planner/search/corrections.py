"""Factors learned from measurement, for every candidate of a planning space.

A measurement of one layout also corrects every other layout of the same product. If the factors of the others stayed at
1, a layout could look better merely because nobody measured it, and plans would alternate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import numpy as np

from energylens.api.llmdeployment import CorrectionFactors, describe_layout
from energylens.api.quantity import format_milli
from energylens.predictor.fitted.recalibration import FIGURES, Factors, Lesson, Places, factors_at, factors_of
from energylens.predictor.types import FloatArray, Layouts
from energylens.records import dataclass


@dataclass(frozen=True)
class Correction:
    """Factors on predictions: numbers, or arrays of shape (n,) with one factor per candidate."""

    itl: float | FloatArray = 1.0
    ttft: float | FloatArray = 1.0
    power: float | FloatArray = 1.0
    energy: float | FloatArray = 1.0
    """Factor on joules per output token."""


@dataclass(frozen=True)
class Corrections:
    """Factors learned for one model under one engine."""

    lessons: Mapping[str, tuple[Lesson, ...]] = field(default_factory=dict)
    """Lessons by GPU product."""
    kind: str = ""
    """Kind of the planned load, see `predictor.fitted.features.load_kind`."""

    def of(self, product: str, layout: str, sequences: float) -> Factors:
        """Return the factors of a layout on a product, with ``sequences`` running at once in one replica."""
        return factors_of(self.lessons.get(product, ()), layout, self.kind, sequences)

    def for_candidates(self, product: str, layouts: Layouts, sequences: FloatArray) -> Correction:
        """Return one factor per layout, arrays of shape (n,); ``sequences``, shape (n,), run at once in one replica."""
        lessons = self.lessons.get(product, ())
        if not lessons:
            return Correction()
        degrees = np.stack(
            [layouts.tensor_parallel, layouts.pipeline_parallel, layouts.expert_parallel, layouts.data_parallel]
        )
        distinct, inverse = np.unique(degrees, axis=1, return_inverse=True)
        names = np.array(
            [describe_layout(tensor=int(t), pipeline=int(p), expert=int(e), data=int(d)) for t, p, e, d in distinct.T],
            dtype=np.str_,
        )
        places = Places(names[inverse.reshape(-1)], np.full(len(layouts), self.kind), sequences)
        return Correction(**factors_at(lessons, places))

    def document(self) -> dict[str, Any]:
        """Return plain values that are equal for equal corrections; empty if nothing was learned."""
        return {
            f"{product} {one.layout} {one.kind} {one.sequences:.6g}": {
                name: [round(one.learned.means[name], 6), round(weight, 4)]
                for name, weight in sorted(one.learned.weights.items())
            }
            for product, lessons in sorted(self.lessons.items())
            for one in sorted(lessons, key=lambda one: (one.layout, one.kind, one.sequences))
        }


def correction_status(factors: Factors) -> CorrectionFactors | None:
    """Return factors at the resolution of the API; None if all are 1."""
    values = {name: format_milli(getattr(factors, name)) for name in FIGURES}
    return CorrectionFactors(**values) if set(values.values()) != {"1000m"} else None
