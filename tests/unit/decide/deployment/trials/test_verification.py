"""Whether one replica's windows let a plan be followed: step by step, and over any history of what happens to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.decide.observations import NOW, deployment, measured, plan

from energylens.api.llmdeployment import PlanStatus, VerificationStatus
from energylens.decide.deployment.reports.status_check import checked_status
from energylens.decide.deployment.trials.verification import (
    MOST_GIVEN_UP,
    PASSING,
    WINDOWS,
    SeenReplica,
    Situation,
    Step,
    Verdict,
    same_pods,
    step,
)
from energylens.decide.reasons import Reason
from energylens.measure.types import WindowMeasurement
from energylens.planner.search.identity import action_hash

INPUTS, OTHER_INPUTS = "1" * 16, "2" * 16
GOOD, BAD, NOTHING = Verdict(True, "0.3 J"), Verdict(False, "0.6 J", "HigherEnergy"), Verdict(None, "TooFewTokens")


def made(**changes: Any) -> PlanStatus:
    found = plan(**changes)
    return found.model_copy(update={"hash": action_hash(found)})


RUNNING = made()
WANTED, THIRD = made(tensor_parallel=2, gpus=4, layout="TP2"), made(max_batch_size=64)


def situation(memory: VerificationStatus | None = None, **changes: Any) -> Situation:
    asked = deployment(
        {"verification": (memory or VerificationStatus()).model_dump(mode="json", by_alias=True, exclude_none=True)},
        rollout={"verify": "Measured"},
    )
    fields: dict[str, Any] = {
        "deployment": asked,
        "running": RUNNING,
        "wanted": WANTED,
        "inputs": INPUTS,
        "still_holds": lambda candidate: True,
        "is_needed": lambda: False,
        "obstacle": lambda candidate: "",
        "judge": lambda candidate, window: GOOD,
        "replica": SeenReplica(ready=True),
        "deadline_seconds": 900.0,
        "now": NOW,
    }
    return Situation(**{**fields, **changes})


def window(minutes: float) -> WindowMeasurement:
    """Return a window of ten minutes that ends so long after the start."""
    end = (NOW + timedelta(minutes=minutes)).timestamp()
    return measured(window_start=end - 600, window_end=end)


def after(memory: VerificationStatus, *minutes: float, **changes: Any) -> Step:
    """Take a step for each window that ends so many minutes after the start; return the last."""
    found = None
    for minute in minutes:
        replica = SeenReplica(ready=True, window=window(minute))
        now = NOW + timedelta(minutes=minute)
        found = step(situation(memory, replica=replica, now=now, **changes))
        memory = found.status
    assert found is not None
    return found


def begun() -> VerificationStatus:
    found = step(situation())
    assert (found.action, found.began, found.reason) == ("Verify", True, Reason.VERIFYING)
    return found.status


def test_two_good_windows_are_followed() -> None:
    assert after(begun(), 11).action == "Verify"
    found = after(begun(), 11, 21)
    assert (found.action, found.plan, found.reason) == ("Follow", WANTED, Reason.VERIFIED)
    assert found.status.plan is None
    assert found.status.followed is not None
    assert found.status.followed.verified


def test_two_bad_windows_give_a_plan_up_until_the_inputs_change() -> None:
    bad: dict[str, Any] = {"judge": lambda candidate, window: BAD}
    found = after(begun(), 11, 21, **bad)
    assert (found.action, found.reason) == ("Keep", Reason.GIVEN_UP)
    assert found.gave_up is not None
    assert (found.gave_up.hash, found.gave_up.reason, found.gave_up.message) == (WANTED.hash, "HigherEnergy", "0.6 J")
    again = step(situation(found.status, now=NOW + timedelta(days=900)))
    assert (again.action, again.gave_up, again.reason) == ("Keep", None, Reason.GIVEN_UP)
    assert step(situation(found.status, inputs=OTHER_INPUTS)).began


def test_windows_that_say_nothing_count_neither_way() -> None:
    verdicts = iter([GOOD, NOTHING, GOOD])
    found = after(begun(), 11, 21, 31, judge=lambda candidate, window: next(verdicts))
    assert found.action == "Follow"


def test_a_window_from_before_it_began_is_not_counted() -> None:
    assert after(begun(), 5).status.good_windows == 0


def test_a_plan_nearly_as_good_does_not_begin_it_anew_and_an_impossible_one_does() -> None:
    memory = after(begun(), 11).status
    found = step(situation(memory, wanted=THIRD))
    assert (found.plan.hash, found.status.good_windows) == (WANTED.hash, 1)
    found = step(situation(memory, wanted=THIRD, still_holds=lambda candidate: False))
    assert (found.plan.hash, found.status.good_windows, found.began) == (THIRD.hash, 0, True)


def test_another_number_of_replicas_is_the_same_replica() -> None:
    more = made(tensor_parallel=2, gpus=6, replicas=3, layout="TP2")
    assert same_pods(more, WANTED)
    found = step(situation(after(begun(), 11).status, wanted=more))
    assert (found.plan.hash, found.status.good_windows) == (more.hash, 1)


def test_what_is_needed_does_not_wait_for_room_and_what_saves_does() -> None:
    full: dict[str, Any] = {"obstacle": lambda candidate: "1 GPU for one replica is not free"}
    found = step(situation(**full))
    assert (found.action, found.reason) == ("Keep", Reason.NO_ROOM_TO_VERIFY)
    assert found.message.endswith(
        "1 GPU for one replica is not free; 2 x NVIDIA-H100-80GB-HBM3 TP1, max batch 32 stays"
    )
    found = step(situation(is_needed=lambda: True, **full))
    assert (found.action, found.reason) == ("Follow", Reason.NOT_VERIFIED)
    assert found.status.followed is not None
    assert not found.status.followed.verified


def test_time_in_a_queue_does_not_count_against_a_replica() -> None:
    late = timedelta(seconds=2000)
    status = begun()
    queued = SeenReplica(trouble="p0 waits for admission by Kueue", queued=True)
    assert step(situation(status, replica=queued, now=NOW + late)).action == "Verify"
    admitted = (NOW + late - timedelta(seconds=100)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert step(situation(status, replica=SeenReplica(admitted_since=admitted), now=NOW + late)).action == "Verify"
    gone = step(situation(status, replica=SeenReplica(admitted_since=admitted), now=NOW + 2 * late))
    assert gone.reason is Reason.GIVEN_UP


def test_what_says_nothing_of_the_plan_is_tried_again_after_the_cooldown() -> None:
    memory = begun()
    waits = SeenReplica(trouble="p0 waits for a node", unschedulable=True)
    found = step(situation(memory, replica=waits, now=NOW + timedelta(seconds=901)))
    assert found.gave_up is not None
    assert found.gave_up.reason == "Unschedulable"
    assert step(situation(found.status, now=NOW + timedelta(seconds=902))).action == "Keep"
    assert step(situation(found.status, now=NOW + timedelta(seconds=901 + 3600))).began


def test_a_replica_that_was_ready_and_stays_down_is_given_up() -> None:
    memory = step(situation(begun())).status
    down = SeenReplica(trouble="p0: CrashLoopBackOff")
    assert step(situation(memory, replica=down, now=NOW + timedelta(seconds=900))).action == "Verify"
    found = step(situation(memory, replica=down, now=NOW + timedelta(hours=3)))
    assert found.gave_up is not None
    assert (found.gave_up.reason, "CrashLoopBackOff" in found.gave_up.message) == ("ProgressDeadline", True)


def test_no_more_than_ten_are_remembered() -> None:
    memory = VerificationStatus()
    for index in range(12):
        wanted = made(max_batch_size=100 + index)
        memory = step(situation(memory, wanted=wanted)).status
        memory = after(memory, 11, 21, wanted=wanted, judge=lambda candidate, window: BAD).status
    assert len(memory.given_up) == MOST_GIVEN_UP
    assert memory.given_up[-1].max_batch_size == 111


def test_a_memory_that_cannot_be_true_is_left_out() -> None:
    def left(memory: VerificationStatus) -> bool:
        body = {
            "apiVersion": "energylens.dev/v1alpha1",
            "kind": "LLMDeployment",
            "metadata": {"name": "llama", "namespace": "team", "generation": 1},
            "spec": {},
            "status": {"verification": memory.model_dump(mode="json", by_alias=True, exclude_none=True)},
        }
        return "verification" not in checked_status(body, NOW)[0]

    good = after(begun(), 0, 11).status.model_copy(update={"window_end": None})
    assert not left(good)
    assert left(good.model_copy(update={"good_windows": WINDOWS}))
    assert left(good.model_copy(update={"bad_windows": -1}))
    assert left(good.model_copy(update={"start_time": "2031-01-01T00:00:00Z"}))
    assert left(good.model_copy(update={"start_time": None}))
    assert left(good.model_copy(update={"plan": WANTED.model_copy(update={"hash": "f" * 16})}))
    assert left(good.model_copy(update={"plan": WANTED.model_copy(update={"gpus": 400})}))
    assert left(VerificationStatus(good_windows=1))


Happening = Literal["good", "bad", "nothing", "same", "down", "full", "edit", "waver", "needed", "later"]


@dataclass
class History:
    """A model of what may happen: which windows in a row spoke for which plan."""

    memory: VerificationStatus = field(default_factory=VerificationStatus)
    now: datetime = NOW
    inputs: str = INPUTS
    wanted: PlanStatus = WANTED
    full: bool = False
    needed: bool = False
    ready: bool = True
    verdict: Verdict = NOTHING
    last: WindowMeasurement | None = None
    streak: tuple[str, str, int] = ("", "", 0)
    """Plan and inputs, and windows in a row that held for them."""

    def takes(self, happening: Happening) -> Step:
        """Let something happen, and take the step after it."""
        self.now += timedelta(minutes=11)
        self.ready = happening != "down"
        if happening in ("good", "bad", "nothing"):
            self.verdict = {"good": GOOD, "bad": BAD, "nothing": NOTHING}[happening]
            end = self.now.timestamp()
            self.last = measured(window_start=end - 600, window_end=end)
        elif happening == "edit":
            self.inputs = OTHER_INPUTS if self.inputs == INPUTS else INPUTS
        elif happening == "waver":
            self.wanted = THIRD if self.wanted is WANTED else WANTED
        elif happening == "full":
            self.full = not self.full
        elif happening == "needed":
            self.needed = not self.needed
        elif happening == "later":
            self.now += timedelta(hours=5)
        return self.look()

    def look(self) -> Step:
        """Take a step though nothing happened."""
        return step(
            situation(
                self.memory,
                now=self.now,
                inputs=self.inputs,
                wanted=self.wanted,
                obstacle=lambda candidate: "no GPU is free" if self.full else "",
                is_needed=lambda: self.needed,
                judge=lambda candidate, found: self.verdict,
                replica=SeenReplica(ready=self.ready, window=self.last if self.ready else None),
            )
        )

    def count(self, happening: Happening, found: Step) -> None:
        """Keep the books on windows in a row, apart from the code under test."""
        of, under, held = self.streak
        if found.began or found.status.plan is None:
            of, under, held = found.plan.hash, self.inputs, held if found.action == "Follow" else 0
        if happening == "good" and not found.began and found.action != "Keep":
            held += 1
        elif happening == "bad":
            held = 0
        self.streak = of, under, held


KINDS: tuple[Happening, ...] = (
    "good", "good", "good", "bad", "bad", "nothing", "same", "down", "full", "edit", "waver", "needed", "later",
)  # fmt: skip


@settings(max_examples=400)
@given(st.lists(st.sampled_from(KINDS), max_size=40))
def test_over_any_history_nothing_is_followed_unmeasured_or_tried_again(happenings: list[Happening]) -> None:
    history = History()
    broken: set[tuple[str, str]] = set()
    for happening in happenings:
        before = history.memory
        found = history.takes(happening)
        history.count(happening, found)
        memory = found.status
        # What is written is what is read, and none of it is taken for an edit.
        again = VerificationStatus.model_validate(memory.model_dump(mode="json", by_alias=True, exclude_none=True))
        assert again == memory
        assert (found.action == "Verify") == (memory.plan is not None)
        assert 0 <= memory.good_windows < WINDOWS
        assert 0 <= memory.bad_windows < WINDOWS
        assert not (memory.good_windows and memory.bad_windows)
        if found.action == "Follow" and found.reason is Reason.VERIFIED:
            assert history.streak[2] >= WINDOWS
            assert before.plan is not None
            assert found.plan.hash == before.plan.hash
        if found.action == "Follow" and found.reason is not Reason.VERIFIED:
            assert history.needed
            assert history.full
        if found.action != "Keep":
            assert (found.plan.hash, history.inputs) not in broken
        if found.gave_up is not None and found.gave_up.reason not in PASSING:
            broken.add((found.gave_up.hash, history.inputs))
        if found.began:
            assert not history.full
        if found.action == "Follow":
            # What follows is the end of this plan's history.
            return
        # Looking again changes nothing, but for the time from which on the replica is known to be ready.
        history.memory = memory
        if found.gave_up is not None:
            # Another plan may be next.
            continue
        looked = history.look().status
        assert looked.model_copy(update={"ready_time": None, "message": None}) == memory.model_copy(
            update={"ready_time": None, "message": None}
        )
        history.memory = looked
        assert history.look().status == looked


def test_the_replica_is_ready_from_the_first_time_on() -> None:
    first = step(situation(begun()))
    assert first.status is not None
    assert first.status.ready_time == NOW.strftime("%Y-%m-%dT%H:%M:%SZ")
    later = step(situation(first.status, now=NOW + timedelta(minutes=3)))
    assert later.status is not None
    assert later.status.ready_time == first.status.ready_time


def test_a_replica_that_is_not_ready_says_why_and_a_ready_one_what_was_measured() -> None:
    waiting = step(situation(begun(), replica=SeenReplica(ready=False, trouble="p0: ImagePullBackOff")))
    assert "p0: ImagePullBackOff" in waiting.message
    assert "the replica is ready" in step(situation(begun())).message
