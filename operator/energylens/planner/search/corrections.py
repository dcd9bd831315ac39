"""Factors learned from measurement, for every candidate of a planning space.

A layout that was measured has factors of its own. Any other of the same product has those of the product: were it
left at 1, a layout would look better only because nobody measured it, and plans would hop from one to the next.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from energylens.api.llmdeployment_status import CorrectionFactors, describe_layout
from energylens.api.quantity import format_milli
from energylens.predictor.fitted.recalibration import FIGURES, Factors
from energylens.predictor.types import FloatArray, Layouts


@dataclass(frozen=True)
class Correction:
    """What predictions are multiplied with: numbers, or arrays of shape (n,) with one factor per candidate."""

    itl: float | FloatArray = 1.0
    ttft: float | FloatArray = 1.0
    power: float | FloatArray = 1.0
    energy: float | FloatArray = 1.0
    """On joules per output token."""


@dataclass(frozen=True)
class Corrections:
    """The factors of one model under one engine; what is not there is 1."""

    by_layout: Mapping[tuple[str, str], Factors] = field(default_factory=dict)
    """(GPU product, layout such as TP4-PP2) -> factors."""
    by_product: Mapping[str, Factors] = field(default_factory=dict)

    def of(self, product: str, layout: str) -> Factors:
        """Return the factors of a layout on a product."""
        return self.by_layout.get((product, layout)) or self.by_product.get(product) or Factors()

    def for_candidates(self, product: str, layouts: Layouts) -> Correction:
        """Return one factor per layout, arrays of shape (n,)."""
        if product not in self.by_product and not any(known == product for known, _ in self.by_layout):
            return Correction()
        degrees = np.stack(
            [layouts.tensor_parallel, layouts.pipeline_parallel, layouts.expert_parallel, layouts.data_parallel]
        )
        distinct, inverse = np.unique(degrees, axis=1, return_inverse=True)
        found = [
            self.of(product, describe_layout(tensor=int(t), pipeline=int(p), expert=int(e), data=int(d)))
            for t, p, e, d in distinct.T
        ]
        rows = inverse.reshape(-1)
        return Correction(**{name: np.array([getattr(each, name) for each in found])[rows] for name in FIGURES})

    def document(self) -> dict[str, Any]:
        """Return what makes two sets equal, as plain values; empty when every factor is 1."""
        named = {f"{product} {layout}": each for (product, layout), each in self.by_layout.items()}
        named |= self.by_product
        plain = {key: [format_milli(getattr(each, name)) for name in FIGURES] for key, each in named.items()}
        return {key: factors for key, factors in sorted(plain.items()) if set(factors) != {"1000m"}}


def correction_status(factors: Factors) -> CorrectionFactors | None:
    """Return factors at the resolution of the API; None when all are 1."""
    values = {name: format_milli(getattr(factors, name)) for name in FIGURES}
    return CorrectionFactors(**values) if set(values.values()) != {"1000m"} else None
