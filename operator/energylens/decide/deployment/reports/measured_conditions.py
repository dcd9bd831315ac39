"""The conditions that compare a measured window with the prediction and the objectives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from energylens.api.base import Condition
from energylens.decide.deployment.loads.following import at_load
from energylens.decide.deployment.observed.observation import Observation
from energylens.decide.deployment.pods.rollouts import rollout
from energylens.decide.deployment.reports.condition import condition
from energylens.decide.learned.comparison import (
    energy_error_percent,
    is_comparable,
    load_differences,
    load_share,
    objectives,
)
from energylens.decide.reasons import ConditionType, Reason
from energylens.measure.types import EnergyReason

_DISPROVED = ("NoSource", "SourceUnreachable", "NoSeries", "PodLabelsMissing", "NotAttributable", "InternalError")
"""Reasons for which no window can be collected; obsolete once a window is being collected."""
KEPT_WINDOWS = 3
"""Windows, besides the warm-up, for which the last measurement is kept; the restart of a pod costs one window."""
LEAST_KEPT_SECONDS = 900.0
"""Shortest time for which a measurement is kept, s: an update of the operator takes minutes."""


_COLLECTING = "Collecting"
_VERDICTS: dict[ConditionType, dict[str, str]] = {
    ConditionType.ENERGY_METRICS_AVAILABLE: {
        reason: "True" if reason == "Measured" else "Unknown" if reason == _COLLECTING else "False"
        for reason in get_args(EnergyReason)
    },
    ConditionType.PREDICTION_ACCURATE: {
        _COLLECTING: "Unknown",
        Reason.NOT_MEASURED.value: "Unknown",
        Reason.LOAD_DIFFERS.value: "Unknown",
        Reason.WITHIN_TOLERANCE.value: "True",
        Reason.OUTSIDE_TOLERANCE.value: "False",
    },
    ConditionType.SLO_MET: {
        _COLLECTING: "Unknown",
        Reason.NOT_MEASURED.value: "Unknown",
        Reason.NO_OBJECTIVE.value: "True",
        Reason.MET.value: "True",
        Reason.VIOLATED.value: "False",
    },
}
"""Condition on a measurement -> its reasons -> the status of each reason."""


def measured_conditions(observed: Observation) -> list[Condition]:
    """Return EnergyMetricsAvailable, PredictionAccurate and SLOMet."""
    kinds = (ConditionType.ENERGY_METRICS_AVAILABLE, ConditionType.PREDICTION_ACCURATE, ConditionType.SLO_MET)
    spec, found = observed.deployment.spec, observed.measurement
    if spec.validation.source == "None":
        text = "spec.validation.source is None"
        return [condition(observed, kind, "Unknown", Reason.DISABLED, text) for kind in kinds]
    if found is None or found.reason == _COLLECTING:
        return _as_before(observed, kinds, found.message if found is not None else "")
    available = "True" if found.reason == "Measured" else "False"
    energy = condition(observed, kinds[0], available, found.reason, found.message)
    return [energy, _accuracy(observed), _slo_met(observed)]


def _as_before(observed: Observation, kinds: Sequence[ConditionType], message: str) -> list[Condition]:
    """Return the last verdict on the same revision, for a limited time, so that a restart changes nothing."""
    status = observed.deployment.status
    state = rollout(observed)
    if not state.ready:
        text = "no replica is ready"
        return [condition(observed, kind, "Unknown", Reason.NOT_SERVING, text) for kind in kinds]
    same = status.active_revision is not None and status.active_revision.plan_hash == state.running_hash
    old_window = _too_old(observed)
    reason, text = _COLLECTING, message or "the first window is not complete"
    if old_window:
        text = f"{old_window}; {state.ready} of {state.wanted} replicas are ready"
    # Without a window there may be a verdict, such as missing metrics, which stays while pods serve.
    passed = (Reason.NOT_SERVING.value, Reason.DISABLED.value)
    old = {each.type: each for each in status.conditions if same and not old_window and each.reason not in passed}
    energy = old.get(ConditionType.ENERGY_METRICS_AVAILABLE.value)
    if observed.measurement is not None and energy is not None and energy.reason in _DISPROVED:
        old = {}
    kept = []
    for kind in kinds:
        before = old.get(kind.value)
        # The status may have been edited: the reason must belong to this condition, and determines its status.
        said = None if before is None else _VERDICTS[kind].get(before.reason)
        kept.append(
            condition(observed, kind, said, before.reason, before.message)
            if before is not None and said is not None
            else condition(observed, kind, "Unknown", reason, text)
        )
    return kept


def _too_old(observed: Observation) -> str:
    """Return why the last window is stale; "" if there is no window, or a current window."""
    measured, validation = observed.deployment.status.measured, observed.deployment.spec.validation
    if measured is None or not measured.window_end:
        return ""
    age = (observed.now - datetime.fromisoformat(measured.window_end)).total_seconds()
    most = max(LEAST_KEPT_SECONDS, validation.warmup_seconds + KEPT_WINDOWS * validation.window_seconds)
    return f"no complete window since {measured.window_end}" if age > most else ""


def _accuracy(observed: Observation) -> Condition:
    kind, found, plan = ConditionType.PREDICTION_ACCURATE, observed.measurement, observed.planning.plan
    error = energy_error_percent(plan, found.joules_per_output_token if found is not None else None)
    if error is None or plan is None or found is None:
        return condition(observed, kind, "Unknown", Reason.NOT_MEASURED, "no energy per token was measured")
    share = load_share(observed.deployment, plan, found)
    asked = at_load(observed.deployment, observed.load)
    other = "".join(f"; {difference}" for difference in load_differences(asked, found))
    if not is_comparable(share):
        served = "unknown" if share is None else f"{100 * share:.0f} % of the planned load"
        text = f"the load was {served}, so energy per token cannot be compared; the error is {error:+d} %{other}"
        return condition(observed, kind, "Unknown", Reason.LOAD_DIFFERS, text)
    tolerance = observed.deployment.spec.validation.tolerance_percent
    text = f"predicted energy per token is off by {error:+d} %; tolerancePercent={tolerance}{other}"
    if abs(error) <= tolerance:
        return condition(observed, kind, "True", Reason.WITHIN_TOLERANCE, text)
    return condition(observed, kind, "False", Reason.OUTSIDE_TOLERANCE, text)


def _slo_met(observed: Observation) -> Condition:
    kind = ConditionType.SLO_MET
    answers = objectives(observed.deployment, observed.measurement)
    if not answers:
        return condition(observed, kind, "True", Reason.NO_OBJECTIVE, "spec.slo has no objective")
    broken = [text for text, holds in answers.values() if holds is False]
    if broken:
        return condition(observed, kind, "False", Reason.VIOLATED, "; ".join(broken))
    missing = [text for text, holds in answers.values() if holds is None]
    if missing:
        return condition(observed, kind, "Unknown", Reason.NOT_MEASURED, f"{', '.join(missing)} was not measured")
    return condition(observed, kind, "True", Reason.MET, "; ".join(text for text, _ in answers.values()))
