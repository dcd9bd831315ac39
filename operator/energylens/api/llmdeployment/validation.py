"""How predictions are checked against measurement."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from energylens.api.base import ApiModel


class Validation(ApiModel):
    """How predictions are checked against measurement."""

    source: Literal["Auto", "Prometheus", "DCGMExporter", "None"] = Field(
        default="Auto", description="Source of the energy counters. None: energy is not measured."
    )
    warmup_seconds: int = Field(
        default=120, ge=0, le=86_400, description="Unmeasured time after the pods became ready, s."
    )
    window_seconds: int = Field(default=600, ge=10, le=7200, description="Length of a measurement window, s.")
    tolerance_percent: int = Field(
        default=15, ge=1, le=100, description="Largest error of the predicted energy that counts as accurate, %."
    )
    on_drift: Literal["Report", "Recalibrate", "Rollback"] = Field(
        default="Report",
        description="Reaction to an error above tolerancePercent. Report: a condition reports the error. "
        "Recalibrate: correct the predictor by the measurements. Rollback: return to the last good plan if a new plan "
        "breaks the SLO or measures more energy.",
    )
