"""What the residual and the range check know of a candidate."""

from __future__ import annotations

import numpy as np

from energylens.predictor.architecture import ModelSpec
from energylens.predictor.residual import RunFeatures
from energylens.predictor.types import FloatArray, GpuSpec, Layouts, Workload


def architecture_key(model: ModelSpec) -> str:
    """Return a key that siblings share: releases of one architecture and size, whatever their name."""
    return f"{model.family}/{model.hidden}/{model.layer_count}"


def run_features(
    model: ModelSpec, gpu: GpuSpec, layouts: Layouts, workload: Workload, concurrency: FloatArray
) -> RunFeatures:
    """Return the residual's features of every candidate."""
    raise NotImplementedError
