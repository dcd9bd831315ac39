"""The verdict of one replica's window on its plan: latencies against the SLO, energy against the running plan.

The replica gets the share of the load that the Service gives to any pod, which is seldom the load of its plan, and
energy per token depends mostly on the load. So each side's measured energy is divided by its prediction at the measured
load, and the ratio is applied to the prediction at the planned load: the predictor provides the change with load, and
its constant error cancels. Pure.
"""

from __future__ import annotations

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.quantity import format_milli
from energylens.decide.deployment.plans.case import Case
from energylens.decide.deployment.trials.rollback import MORE_ENERGY
from energylens.decide.deployment.trials.verification import Verdict
from energylens.decide.learned.comparison import MOST_LOAD, joules, objectives
from energylens.measure.types import WindowMeasurement
from energylens.planner.shedding import Running


def judged(
    case: Case,
    running: PlanStatus,
    plan: PlanStatus,
    window: WindowMeasurement,
    other: WindowMeasurement | None,
) -> Verdict:
    """Return the verdict of a window of one replica on its plan.

    Args:
        case: The case that is planned.
        running: The running plan.
        plan: The new plan.
        window: Window of its canary.
        other: Window of the running pods; None if there is none.
    """
    if window.reason != "Measured" or window.joules_per_output_token is None:
        return Verdict(None, f"{window.reason}: {window.message}")
    load, most = _load(case, window), _most_load(case, running, plan)
    if load > most:
        return Verdict(None, f"the replica served {load:.4g} {_unit(case)}, too many to judge (limit {most:.4g})")
    answers = objectives(case.inputs.deployment, window)
    answers.pop("energy", None)
    broken = [text for text, holds in answers.values() if holds is False]
    at = f"at {load:.4g} {_unit(case)}"
    if broken:
        return Verdict(False, f"{'; '.join(broken)} {at}", "SLOViolation")
    energy = _energy(case, running, plan, window, other)
    if energy.good is False:
        return energy
    missing = [text for text, holds in answers.values() if holds is None]
    if missing:
        return Verdict(None, f"{', '.join(missing)} was not measured")
    held = "".join(f"{text}, " for text, _ in answers.values())
    return Verdict(energy.good, f"{held}{energy.text} {at}" if energy.good else energy.text)


def _energy(
    case: Case,
    running: PlanStatus,
    plan: PlanStatus,
    window: WindowMeasurement,
    other: WindowMeasurement | None,
) -> Verdict:
    """Compare the energy of both sides at the planned load."""
    asked, limit = case.asked(case.inputs.load), case.inputs.deployment.spec.slo.joules_per_output_token
    new = _projected(case, asked, plan, 1, window, joules(plan.predicted.joules_per_output_token))
    if new is None:
        return Verdict(None, "the replica's energy at the planned load is not known")
    text = f"{new:.3g} J per output token at the planned load (measured {window.joules_per_output_token:.3g} J)"
    if limit is not None and new > joules(limit):
        return Verdict(False, f"{text}, over spec.slo.joulesPerOutputToken={limit}", "SLOViolation")
    before = figures(case, asked, running, running.replicas)
    if before is None:
        # The spec or the nodes changed, so that another plan must follow whatever its energy.
        return Verdict(True, f"{text}; the running plan is no longer possible, so its energy is not compared")
    promised = joules(before.predicted.joules_per_output_token)
    if joules(plan.predicted.joules_per_output_token) >= promised:
        # A required plan may cost more, as its adoption message said.
        return Verdict(True, f"{text}; the new plan was not expected to save energy")
    if other is None or other.joules_per_output_token is None or not window.shares_half(other):
        return Verdict(None, "the running replicas have no window of the same time to compare energy with")
    old = _projected(case, asked, running, running.replicas, other, promised)
    if old is None:
        return Verdict(None, "the running plan's energy at the planned load is not known")
    against = f"{text}, the running plan {old:.3g} J (measured {other.joules_per_output_token:.3g} J)"
    return Verdict(True, against) if new <= MORE_ENERGY * old else Verdict(False, against, "HigherEnergy")


def _projected(
    case: Case, asked: LLMDeployment, plan: PlanStatus, replicas: int, window: WindowMeasurement, planned: float
) -> float | None:
    """Return the energy per token at the planned load from a measurement at another load, J; None if unknown.

    Args:
        case: The case that is planned.
        asked: The deployment with the planned load.
        plan: The plan of the measured replicas.
        replicas: Number of measured replicas.
        window: Window of these replicas.
        planned: Predicted energy per token of the whole plan at the planned load, J.
    """
    measured, load = window.joules_per_output_token, _load(case, window)
    if measured is None or load <= 0:
        return None
    found = figures(case, _with_load(asked, load), plan, replicas)
    expected = None if found is None else joules(found.predicted.joules_per_output_token)
    return measured / expected * planned if expected else None


def figures(case: Case, asked: LLMDeployment, plan: PlanStatus, replicas: int) -> PlanStatus | None:
    """Return the predicted figures of a plan's replicas under a load, without budgets."""
    inputs = case.inputs
    running = Running(asked, case.model, plan, inputs.snapshot, case.gpus, case.predictor, inputs.corrections)
    return running.at(replicas)


def _is_rate(case: Case) -> bool:
    return case.inputs.deployment.spec.workload.concurrency is None


def _unit(case: Case) -> str:
    return "requests/s" if _is_rate(case) else "requests in flight"


def _load(case: Case, window: WindowMeasurement) -> float:
    """Return the load of a window in the unit of the spec; a rate is derived from the generated tokens.

    Requests have the length of the plans, which may be a followed length.
    """
    if _is_rate(case):
        tokens = case.asked(case.inputs.load).spec.workload.mean_output_tokens
        return (window.output_tokens_per_second or 0.0) / tokens
    return window.mean_running or 0.0


def _most_load(case: Case, running: PlanStatus, plan: PlanStatus) -> float:
    """Return the largest load at which a canary is judged: its part of the planned load, or its present share."""
    workload = case.asked(case.inputs.load).spec.workload
    whole = float(joules(workload.requests_per_second)) if workload.requests_per_second else workload.concurrency or 0
    return MOST_LOAD * whole / min(plan.replicas, running.replicas + 1)


def with_share(asked: LLMDeployment, share: float) -> LLMDeployment:
    """Return the deployment with a part of its load."""
    workload = asked.spec.workload
    rate = workload.requests_per_second
    return _with_load(asked, share * (joules(rate) if rate is not None else float(workload.concurrency or 1)))


def _with_load(asked: LLMDeployment, load: float) -> LLMDeployment:
    """Return the deployment with another load, in the unit of the spec."""
    workload = asked.spec.workload
    changed = (
        {"requests_per_second": format_milli(max(load, 0.001))}
        if workload.concurrency is None
        else {"concurrency": max(1, round(load))}
    )
    spec = asked.spec.model_copy(update={"workload": workload.model_copy(update=changed)})
    return asked.model_copy(update={"spec": spec})
