"""Calibrated coefficients as data: constants per GPU product, kernel curves, residual, intervals, provenance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from energylens.predictor.fitted.intervals import IntervalModel
from energylens.predictor.fitted.residual import ResidualModel
from energylens.predictor.step.moe_tables import MoeTables
from energylens.predictor.types import GpuSpec
from energylens.records import dataclass

FORMAT = 7


class CoefficientsError(ValueError):
    """A coefficient file is invalid or lacks a constant; the message names it."""


@dataclass(frozen=True)
class Coefficients:
    """All results of a calibration."""

    version: str
    constants: Mapping[str, Mapping[str, float]]
    """GPU short name -> constant -> value."""
    measured: Mapping[str, tuple[str, ...]]
    """GPU short name -> names of the engine profiles to whose serving runs its constants were fitted.

    Constants of other products follow from data sheets and kernel tables, those of other engines from profiles.
    """
    architecture_default: Mapping[str, str]
    """GPU architecture -> the product whose constants serve products without their own."""
    tables: MoeTables = field(default_factory=dict)
    engines: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Name of an engine profile -> constant -> factor, fitted to runs of that engine. Other profiles keep their own
    factors."""
    residual: ResidualModel | None = None
    intervals: IntervalModel = field(default_factory=IntervalModel)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def knows_architecture(self, gpu: GpuSpec) -> bool:
        """Return whether runs on a product's architecture were fitted to."""
        return self.architecture_default.get(gpu.architecture) in self.measured or gpu.name in self.measured

    def for_gpu(self, gpu: GpuSpec, engine: str) -> tuple[dict[str, float], bool]:
        """Return the constants of a product, and whether they were fitted to runs on it under an engine.

        Args:
            gpu: The product.
            engine: Name of the engine's profile.

        Raises:
            CoefficientsError: Neither the product nor its architecture has constants.
        """
        if gpu.name in self.constants:
            return dict(self.constants[gpu.name]), engine in self.measured.get(gpu.name, ())
        stand_in = self.architecture_default.get(gpu.architecture)
        if stand_in is None or stand_in not in self.constants:
            known = ", ".join(sorted(self.constants))
            raise CoefficientsError(f"no coefficients for {gpu.name} ({gpu.architecture}); known products: {known}")
        constants = dict(self.constants[stand_in])
        # Static power comes from the product's data: the power of a loaded, idle GPU.
        constants["static_watts"] = gpu.loaded_idle_watts
        return constants, False
