"""Verification of a new plan by measuring one replica of it beside the running pods. Pure.

The state is ``status.verification``. Each reconcile makes one step: a verification begins, continues, or ends with the
plan adopted or rejected. A rejected plan is not tried again for the same inputs, so that plans do not alternate; a plan
that could not be judged is tried again after the cooldown.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

from energylens.api.llmdeployment import (
    FollowedPlan,
    GivenUpPlan,
    LLMDeployment,
    PlanStatus,
    VerdictReason,
    VerificationStatus,
    describe_plan,
)
from energylens.api.timestamp import timestamp
from energylens.decide.reasons import Reason
from energylens.measure.types import WindowMeasurement
from energylens.planner.search.identity import action_hash
from energylens.records import dataclass

WINDOWS = 2
"""Number of consecutive windows that decide, because a single one may contain a burst or the end of a warm-up."""
MOST_WINDOWS = 8
"""Number of windows after the warm-up within which a verdict is required, because one more replica costs energy."""
MOST_GIVEN_UP = 10
PASSING: tuple[VerdictReason, ...] = ("NotMeasured", "Unschedulable")
"""Reasons that are no evidence about the plan, which is therefore tried again after the cooldown."""


@dataclass(frozen=True)
class Verdict:
    """Result of one window of the replica."""

    good: bool | None
    """None if there is no verdict."""
    text: str
    """The figures, or why there is no verdict."""
    reason: VerdictReason | None = None
    """The objective that a bad window broke."""


@dataclass(frozen=True)
class SeenReplica:
    """The observed state of the one replica of the new plan."""

    ready: bool = False
    trouble: str = ""
    """Why the replica is not ready."""
    unschedulable: bool = False
    """Whether no node has room for the replica."""
    queued: bool = False
    """Whether a queue holds the replica back; time in a queue does not count as a failure."""
    admitted_since: str = ""
    """Time at which its last pod left a queue, RFC 3339; "" for pods that were in no queue."""
    window: WindowMeasurement | None = None
    """The last window of the replica."""
    plan_hash: str = ""
    """Hash of the plan on its object; "" if there is no object."""


@dataclass(frozen=True)
class Beside:
    """The state of the running plan on which the verification of a new plan depends."""

    running: PlanStatus | None
    """The running plan; None if no pods run, or if their plan is unknown."""
    serving: bool = False
    """Whether a replica of the running plan is ready."""
    same_model: bool = True
    """Whether the running pods serve the model in the spec."""
    window: WindowMeasurement | None = None
    """The last window of its pods."""
    replica: SeenReplica = SeenReplica()
    exclusive: str = ""
    """Why no further pod can mount the volume claims of the running pods; "" if one can."""


@dataclass(frozen=True)
class Situation:
    """Inputs of one step."""

    deployment: LLMDeployment
    running: PlanStatus
    """The running plan."""
    wanted: PlanStatus
    """The plan that planning would adopt."""
    inputs: str
    """Hash of the inputs for which a verdict holds."""
    still_holds: Callable[[PlanStatus], bool]
    """Whether a plan is possible for the current spec and cluster."""
    is_needed: Callable[[], bool]
    """Whether the running plan does not meet the spec, so that it cannot stay."""
    obstacle: Callable[[PlanStatus], str]
    """Why no replica of a plan can be verified beside the running pods now; "" if one can."""
    judge: Callable[[PlanStatus, WindowMeasurement], Verdict]
    replica: SeenReplica
    deadline_seconds: float
    """Time within which the replica must be ready, s."""
    now: datetime


@dataclass(frozen=True)
class Step:
    """Action on the new plan in this reconcile."""

    action: Literal["Follow", "Verify", "Keep"]
    """Whether all replicas run the new plan, one replica, or none."""
    plan: PlanStatus
    """The new plan."""
    status: VerificationStatus
    reason: Reason
    message: str
    began: bool = False
    """Whether one replica of the plan runs from this reconcile on."""
    gave_up: GivenUpPlan | None = None
    """The plan that was rejected in this reconcile."""


def without_trial(before: VerificationStatus | None) -> VerificationStatus:
    """Return the state without a verification in progress."""
    known = before or VerificationStatus()
    return VerificationStatus(given_up=known.given_up, followed=known.followed)


def followed_at_once(
    before: VerificationStatus | None, plan: PlanStatus, why: str, now: datetime
) -> VerificationStatus:
    """Return the state after a plan is adopted without measurement; ``why`` is the reason."""
    said = FollowedPlan(plan_hash=plan.hash, verified=False, message=why, time=timestamp(now))
    return without_trial(before).model_copy(update={"followed": said})


def as_many(memory: VerificationStatus, running: PlanStatus, wanted: PlanStatus) -> VerificationStatus:
    """Return the state while the running pods belong to the plan to adopt, possibly with another number of replicas.

    The result of their verification is kept; results of other pods are no evidence about them.
    """
    followed = memory.followed
    if followed is None or followed.plan_hash == wanted.hash:
        return memory
    if followed.plan_hash != running.hash:
        return memory.model_copy(update={"followed": None})
    return memory.model_copy(update={"followed": followed.model_copy(update={"plan_hash": wanted.hash})})


def same_pods(a: PlanStatus, b: PlanStatus) -> bool:
    """Return whether two plans run equal pods, possibly with different numbers of replicas."""
    alone = {"replicas": 1, "shed_from_replicas": None, "planned_replicas": None}
    return action_hash(a.model_copy(update=alone)) == action_hash(b.model_copy(update=alone))


def step(situation: Situation) -> Step:
    """Return the next step for a new plan whose pods differ from the running pods."""
    status = situation.deployment.status.verification or VerificationStatus()
    plan = _candidate(situation, status)
    known = _given_up(situation, status, plan)
    if known is not None:
        text = f"{describe_plan(plan)} was rejected at {known.time}: {known.message}; {_stays(situation)}"
        return Step("Keep", plan, without_trial(status), Reason.GIVEN_UP, text)
    why_not = situation.obstacle(plan)
    if why_not and situation.is_needed():
        text = f"the running plan does not meet the spec, and no replica can be verified first: {why_not}"
        after = followed_at_once(status, plan, text, situation.now)
        return Step("Follow", plan, after, Reason.NOT_VERIFIED, text)
    if why_not:
        text = f"{describe_plan(plan)} waits for verification on one replica: {why_not}; {_stays(situation)}"
        return Step("Keep", plan, without_trial(status), Reason.NO_ROOM_TO_VERIFY, text)
    if status.plan is None or status.inputs != situation.inputs or not same_pods(status.plan, plan):
        return _begun(situation, status, plan)
    return _gone_on(situation, status.model_copy(update={"plan": _kept(plan)}), plan)


def _candidate(situation: Situation, status: VerificationStatus) -> PlanStatus:
    """Return the plan to verify: the plan in verification, as long as it is possible for the same inputs.

    Planning may alternate between nearly equal plans, and each change would restart the windows.
    """
    known, wanted = status.plan, situation.wanted
    if known is None or status.inputs != situation.inputs or same_pods(known, wanted):
        return wanted
    made = situation.replica.plan_hash
    if made and made != known.hash:
        # The status was edited while no operator ran, or is stale.
        return wanted
    return known if situation.still_holds(known) else wanted


def _given_up(situation: Situation, status: VerificationStatus, plan: PlanStatus) -> GivenUpPlan | None:
    cooldown = situation.deployment.spec.planning.replan.cooldown_seconds
    for known in status.given_up:
        if known.hash == plan.hash and known.inputs == situation.inputs:
            passed = (situation.now - datetime.fromisoformat(known.time)).total_seconds()
            if known.reason not in PASSING or passed < cooldown:
                return known
    return None


def _begun(situation: Situation, status: VerificationStatus, plan: PlanStatus) -> Step:
    text = f"one replica of {describe_plan(plan)} starts beside the running ones"
    after = VerificationStatus(
        plan=_kept(plan),
        inputs=situation.inputs,
        start_time=timestamp(situation.now),
        message="the replica is starting",
        given_up=status.given_up,
        followed=status.followed,
    )
    return Step("Verify", plan, after, Reason.VERIFYING, f"{text}; {_stays(situation)}", began=True)


def _gone_on(situation: Situation, status: VerificationStatus, plan: PlanStatus) -> Step:
    replica = situation.replica
    if replica.ready and status.ready_time is None:
        status = status.model_copy(update={"ready_time": timestamp(situation.now), "message": "the replica is ready"})
    window = replica.window
    if window is not None and _is_new(window, status):
        status = _after_window(situation, status, plan, window)
        if status.good_windows >= WINDOWS:
            text = f"one replica was measured for {WINDOWS} windows: {status.message}"
            said = FollowedPlan(plan_hash=plan.hash, verified=True, message=text, time=timestamp(situation.now))
            after = without_trial(status).model_copy(update={"followed": said})
            return Step("Follow", plan, after, Reason.VERIFIED, text)
        if status.bad_windows >= WINDOWS:
            return _give_up(situation, status, plan, status.reason or "SLOViolation", status.message or "")
    late = _late(situation, status)
    if late is not None:
        return _give_up(situation, status, plan, *late)
    done = f"{status.good_windows} of {WINDOWS} windows passed"
    state = status.message if replica.ready else replica.trouble or "the replica is not ready yet"
    text = f"one replica of {describe_plan(plan)} serves beside the running ones, {done}: {state}"
    return Step("Verify", plan, status, Reason.VERIFYING, f"{text}; {_stays(situation)}")


def _after_window(
    situation: Situation, status: VerificationStatus, plan: PlanStatus, window: WindowMeasurement
) -> VerificationStatus:
    found = situation.judge(plan, window)
    seen = status.model_copy(update={"window_end": _time(window.window_end), "message": found.text})
    if found.good is None:
        return seen
    good = seen.good_windows + 1 if found.good else 0
    bad = 0 if found.good else seen.bad_windows + 1
    return seen.model_copy(update={"good_windows": good, "bad_windows": bad, "reason": found.reason})


def _is_new(window: WindowMeasurement, status: VerificationStatus) -> bool:
    """Return whether a window is complete, belongs to this replica, and was not judged yet."""
    if window.window_start is None or window.window_end is None or window.reason == "Collecting":
        return False
    # Whole seconds, as in the status.
    return _time(window.window_end) != status.window_end and _time(window.window_start) >= (status.start_time or "")


def _late(situation: Situation, status: VerificationStatus) -> tuple[VerdictReason, str] | None:
    """Return why the verification must end without a verdict; None while there is time."""
    replica, validation = situation.replica, situation.deployment.spec.validation
    if replica.queued:
        return None
    if status.ready_time is None:
        began = max(status.start_time or "", replica.admitted_since) or None
        if replica.ready or _age(began, situation.now) <= situation.deadline_seconds:
            return None
        text = f"the replica was not ready within {situation.deadline_seconds:.0f} s"
        trouble = f"{text}: {replica.trouble}" if replica.trouble else text
        return ("Unschedulable" if replica.unschedulable else "ProgressDeadline"), trouble
    limit = max(
        validation.warmup_seconds + MOST_WINDOWS * validation.window_seconds,
        # A restarted replica may take as long as a first start.
        0 if replica.ready else situation.deadline_seconds,
    )
    if _age(status.ready_time, situation.now) <= limit:
        return None
    if not replica.ready:
        text = f"the replica is no longer ready: {replica.trouble or 'it restarts'}"
        return ("Unschedulable" if replica.unschedulable else "ProgressDeadline"), text
    return "NotMeasured", f"no verdict within {limit} s of serving: {status.message or 'nothing was measured'}"


def _give_up(
    situation: Situation, status: VerificationStatus, plan: PlanStatus, reason: VerdictReason, message: str
) -> Step:
    given_up = GivenUpPlan(
        hash=plan.hash,
        gpu_product=plan.gpu_product,
        replicas=plan.replicas,
        layout=plan.layout,
        max_batch_size=plan.max_batch_size,
        inputs=situation.inputs,
        reason=reason,
        message=message,
        time=timestamp(situation.now),
    )
    others = tuple(known for known in status.given_up if (known.hash, known.inputs) != (plan.hash, situation.inputs))
    after = without_trial(status).model_copy(update={"given_up": (*others, given_up)[-MOST_GIVEN_UP:]})
    text = f"{describe_plan(plan)} was rejected at {given_up.time}: {message}; {_stays(situation)}"
    return Step("Keep", plan, after, Reason.GIVEN_UP, text, gave_up=given_up)


def _stays(situation: Situation) -> str:
    return f"{describe_plan(situation.running)} stays"


def _kept(plan: PlanStatus) -> PlanStatus:
    """Return a plan without the parts that only ``status.plan`` has."""
    return plan.model_copy(update={"alternatives": (), "fewer_replicas": (), "inputs_hash": None})


def _age(since: str | None, now: datetime) -> float:
    return 0.0 if since is None else (now - datetime.fromisoformat(since)).total_seconds()


def _time(seconds: float | None) -> str:
    return "" if seconds is None else timestamp(datetime.fromtimestamp(seconds, tz=UTC))
