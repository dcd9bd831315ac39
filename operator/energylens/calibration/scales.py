"""The meaning of a fit's parameter vector: shared constants, and how each product differs from its relative."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from energylens.calibration.parameters import CONSTANTS, ENGINE_SPREADS, RATIO_PRODUCT, REFERENCE, Constant
from energylens.calibration.products import derived_ratios, relative_of
from energylens.predictor.fitted.profiles import EngineProfile
from energylens.predictor.types import FloatArray, GpuSpec
from energylens.records import dataclass

DERIVED_SPREAD = 2.0
"""How much further ratios may move whose prior follows from data sheets, compared with the ratio of H100 and B200."""


@dataclass(frozen=True)
class Ratios:
    """The ratios of a product to its relative."""

    product: str
    relative: str
    prior: Mapping[str, float]
    """Constant -> ratio; 1 where there is none."""
    spread: float
    """Factor on the spread of the constants' ratios."""


@dataclass(frozen=True)
class ProfileFactors:
    """An engine profile relative to the engine of the constants."""

    profile: str
    prior: Mapping[str, float]
    """Constant -> factor; 1 where there is none."""


@dataclass(frozen=True)
class Scales:
    """Free constants in the order of the parameter vector: shared constants, ratios of products, factors of engines."""

    shared: tuple[Constant, ...]
    ratios: tuple[Constant, ...]
    products: tuple[Ratios, ...]
    engines: tuple[ProfileFactors, ...] = ()

    @property
    def size(self) -> int:
        """Length of the parameter vector."""
        ratios = len(self.ratios) * len(self.products)
        return len(self.shared) + ratios + len(ENGINE_SPREADS) * len(self.engines)

    @property
    def names(self) -> tuple[str, ...]:
        """Name of each parameter: a constant, or constant/product for a ratio."""
        return (
            tuple(c.name for c in self.shared)
            + tuple(f"{c.name}/{product.product}" for product in self.products for c in self.ratios)
            + tuple(f"{name}@{engine.profile}" for engine in self.engines for name in ENGINE_SPREADS)
        )

    def membership(self, gpu_names: npt.NDArray[np.str_] | Sequence[str]) -> FloatArray:
        """Return the products whose ratios apply to each run, shape (products, n): its product and its relatives."""
        names = np.asarray(gpu_names, dtype=np.str_)
        parents = {ratios.product: ratios.relative for ratios in self.products}
        out = np.zeros((len(self.products), names.size))
        for name in np.unique(names):
            at: str | None = str(name)
            while at in parents:
                row = next(i for i, ratios in enumerate(self.products) if ratios.product == at)
                out[row, names == name] = 1.0
                at = parents[at]
        return out


def scales_for(gpu_names: Sequence[str], gpus: Mapping[str, GpuSpec], engines: Sequence[EngineProfile] = ()) -> Scales:
    """Return the parameters that a fit to runs on these products may change.

    Args:
        gpu_names: Short names of GPU products.
        gpus: Products by short name.
        engines: Profiles of the runs' engines. The profile without factors is the engine of the constants.

    Raises:
        ValueError: A product has an unknown architecture; the message names it.
    """
    shared = tuple(c for c in CONSTANTS if c.spread > 0)
    products = [Ratios(RATIO_PRODUCT, REFERENCE, {c.name: c.ratio for c in CONSTANTS}, 1.0)]
    for name in sorted(set(gpu_names) - {REFERENCE, RATIO_PRODUCT}):
        relative = relative_of(gpus[name])
        if relative is None:
            raise ValueError(f"gpu_model {name!r}: its architecture {gpus[name].architecture} is unknown")
        products.append(Ratios(name, relative, derived_ratios(gpus[name], gpus[relative]), DERIVED_SPREAD))
    unlike = {profile.name: profile for profile in engines if profile.factors}
    factors = tuple(ProfileFactors(name, unlike[name].factors) for name in sorted(unlike))
    return Scales(shared, tuple(c for c in shared if c.ratio_spread > 0), tuple(products), factors)


def constants_of(theta: FloatArray, scales: Scales, membership: FloatArray) -> dict[str, FloatArray]:
    """Return the constants of every run.

    Args:
        theta: Parameters in prior standard deviations, shape (p,).
        scales: Meaning of the parameters.
        membership: From `Scales.membership`, shape (products, n).
    """
    moved = {c.name: theta[i] for i, c in enumerate(scales.shared)}
    end = len(scales.shared) + len(scales.products) * len(scales.ratios)
    turned = theta[len(scales.shared) : end].reshape(len(scales.products), len(scales.ratios))
    free = {c.name: i for i, c in enumerate(scales.ratios)}
    out = {}
    for c in CONSTANTS:
        apart = np.array([np.log(product.prior.get(c.name, 1.0)) for product in scales.products])
        if c.name in free:
            apart += turned[:, free[c.name]] * c.ratio_spread * [product.spread for product in scales.products]
        out[c.name] = c.prior * np.exp(moved.get(c.name, 0.0) * c.spread) * np.exp(apart @ membership)
    return out


def engine_factors(theta: FloatArray, scales: Scales) -> dict[str, dict[str, float]]:
    """Return the factors of each fitted engine profile on constants: profile -> constant -> factor.

    Args:
        theta: Parameters in prior standard deviations, shape (p,).
        scales: Meaning of the parameters.
    """
    start = len(scales.shared) + len(scales.products) * len(scales.ratios)
    moved = theta[start:].reshape(len(scales.engines), len(ENGINE_SPREADS))
    found = {}
    for engine, row in zip(scales.engines, moved, strict=True):
        factors = dict(engine.prior)
        for (name, spread), value in zip(ENGINE_SPREADS.items(), row.tolist(), strict=True):
            factors[name] = factors.get(name, 1.0) * float(np.exp(value * spread))
        found[engine.profile] = factors
    return found


def product_constants(theta: FloatArray, scales: Scales) -> dict[str, dict[str, float]]:
    """Return the constants of every fitted product."""
    names = [REFERENCE, *(ratios.product for ratios in scales.products)]
    found = constants_of(theta, scales, scales.membership(names))
    return {name: {k: float(v[i]) for k, v in found.items()} for i, name in enumerate(names)}
