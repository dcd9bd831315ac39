"""When a plan is given up: only after several windows, at a like load, for what was asked, and never twice."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.decide.observations import HASH, NOW, OTHER, deployment, measured, plan

from energylens.api.llmdeployment import LastGoodPlan, LLMDeployment, PlanStatus, RollbackStatus
from energylens.decide.deployment.trials import rollback
from energylens.decide.deployment.trials.rollback import Return, after_return, after_window, due, rejected_for, triggers
from energylens.measure.types import EnergyReason

OLD, NEW = plan(HASH), plan(OTHER, tensor_parallel=2, layout="TP2")
GOOD = LastGoodPlan(plan=OLD, joules_per_output_token="400m", output_tokens_per_second=2000)


def asking(state: RollbackStatus | None, followed: PlanStatus = NEW, **spec: Any) -> LLMDeployment:
    spec = {"validation": {"onDrift": "Rollback"}, "slo": {"itlMilliseconds": 50}, **spec}
    status: dict[str, Any] = {"plan": followed.model_dump(mode="json", by_alias=True, exclude_none=True)}
    if state is not None:
        status["rollback"] = state.model_dump(mode="json", by_alias=True, exclude_none=True)
    return deployment(status, **spec)


def run(windows: list[float], state: RollbackStatus | None = None, **spec: Any) -> RollbackStatus | None:
    """Return the state after windows of the new plan with these joules per token."""
    state = state or RollbackStatus(last_good_plan=GOOD)
    for joules in windows:
        found = after_window(asking(state, **spec), NEW, measured(joules_per_output_token=joules))
        assert found is not None
        state = found
    return state


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({}, set()),
        ({"validation": {"onDrift": "Recalibrate"}}, set()),
        ({"validation": {"onDrift": "Rollback"}}, {"SLOViolation", "HigherEnergy"}),
        ({"rollout": {"rollbackOn": ["ProgressDeadline"]}}, {"ProgressDeadline"}),
        ({"validation": {"onDrift": "Rollback"}, "planning": {"mode": "Manual"}}, set()),
    ],
)
def test_what_triggers(spec: dict[str, Any], expected: set[str]) -> None:
    assert triggers(deployment(**spec).spec) == expected


def test_two_bad_windows_in_a_row_are_due() -> None:
    assert due(asking(run([0.5])), "") is None
    back = due(asking(run([0.5, 0.5])), "")
    assert back is not None
    assert (back.plan, back.reason) == (OLD, "HigherEnergy")
    assert back.message == "0.5 J per output token measured, the previous plan 0.4 J"
    assert due(asking(run([0.5, 0.4, 0.5])), "") is None


def test_a_little_more_energy_is_not_worse() -> None:
    state = run([0.41, 0.41])
    assert state is not None
    assert state.last_good_plan is not None
    assert state.last_good_plan.plan.hash == OTHER


@pytest.mark.parametrize(
    ("joules", "reason"), [(0.419, None), (rollback.MORE_ENERGY * 0.4, None), (0.421, "HigherEnergy")]
)
def test_more_energy_begins_at_five_percent(joules: float, reason: str | None) -> None:
    state = run([joules])
    assert state is not None
    assert state.trial is not None
    assert state.trial.reason == reason


def test_the_first_good_window_makes_a_good_plan_and_later_ones_its_mean() -> None:
    state = after_window(asking(None, OLD), OLD, measured(joules_per_output_token=0.4))
    assert state is not None
    assert state.last_good_plan == GOOD
    state = after_window(
        asking(state, OLD), OLD, measured(joules_per_output_token=0.5, output_tokens_per_second=1000.0)
    )
    assert state is not None
    assert state.last_good_plan is not None
    assert (state.last_good_plan.joules_per_output_token, state.last_good_plan.output_tokens_per_second) == (
        "430m",
        1700,
    )


def test_a_window_that_breaks_the_objective_makes_no_good_plan() -> None:
    found = measured()
    state = after_window(asking(None, OLD, slo={"itlMilliseconds": 10}), OLD, found)
    assert state == RollbackStatus()


@pytest.mark.parametrize("reason", ["TooFewTokens", "Implausible", "SourceUnreachable"])
def test_a_window_without_a_figure_changes_nothing(reason: EnergyReason) -> None:
    state = run([0.5])
    assert after_window(asking(state), NEW, measured(reason)) == state
    assert after_window(asking(state), NEW, measured(reason, joules_per_output_token=0.5)) == state
    assert after_window(asking(state), NEW, measured(joules_per_output_token=None)) == state


@pytest.mark.parametrize(
    ("tokens", "reason"),
    [
        (1000.0, None),
        (1499.0, None),
        (1500.0, "HigherEnergy"),
        (1600.0, "HigherEnergy"),
        (2660.0, "HigherEnergy"),
        (2661.0, None),
        (3000.0, None),
    ],
)
def test_energy_is_compared_at_a_like_load(tokens: float, reason: str | None) -> None:
    found = measured(joules_per_output_token=0.6, output_tokens_per_second=tokens)
    state = after_window(asking(RollbackStatus(last_good_plan=GOOD)), NEW, found)
    assert state is not None
    assert (state.trial.reason if state.trial else None) == reason


def test_a_plan_that_cannot_carry_the_load_breaks_the_objective() -> None:
    found = measured(output_tokens_per_second=500.0)
    state = after_window(asking(RollbackStatus(last_good_plan=GOOD), slo={"itlMilliseconds": 10}), NEW, found)
    assert state is not None
    assert state.trial is not None
    assert state.trial.reason == "SLOViolation"


def test_a_missed_deadline_is_due_at_once_where_it_was_asked_for() -> None:
    state = RollbackStatus(last_good_plan=GOOD)
    asked: dict[str, Any] = {"rollout": {"rollbackOn": ["ProgressDeadline"]}}
    back = due(asking(state, **asked), "no progress for 3600 s")
    assert back == Return(OLD, "ProgressDeadline", "no progress for 3600 s")
    assert due(asking(state), "no progress") is None
    assert due(asking(state, OLD, **asked), "no progress") is None


def test_what_was_left_is_not_tried_again_for_the_same_spec() -> None:
    given_up = asking(run([0.5, 0.5]))
    back = due(given_up, "")
    assert back is not None
    state = after_return(given_up, back, NOW)
    assert state.trial is None
    (kept,) = rejected_for(asking(state, OLD))
    assert (kept.hash, kept.tensor_parallel, kept.time) == (OTHER, 2, "2026-03-01T12:00:00Z")
    assert due(asking(state, OLD), "") is None
    assert rejected_for(asking(state, OLD, slo={"itlMilliseconds": 60})) == ()
    assert rejected_for(deployment(asking(state).status.model_dump(mode="json", by_alias=True))) == ()


def test_no_more_than_ten_are_remembered() -> None:
    state = RollbackStatus(last_good_plan=GOOD)
    for index in range(12):
        state = after_return(asking(state, plan(f"{index:016x}")), Return(OLD, "HigherEnergy", "more"), NOW)
    assert len(state.rejected_plans) == 10
    assert state.rejected_plans[-1].hash == f"{11:016x}"


@given(st.lists(st.sampled_from([0.3, 0.4, 0.5, 0.6]), max_size=30))
def test_it_is_never_due_without_two_worse_windows_in_a_row(windows: list[float]) -> None:
    state: RollbackStatus | None = RollbackStatus(last_good_plan=GOOD)
    worse = 0
    for joules in windows:
        assert state is not None
        if state.last_good_plan is not None and state.last_good_plan.plan.hash == OTHER:
            assert due(asking(state), "") is None
            return
        state = after_window(asking(state), NEW, measured(joules_per_output_token=joules))
        worse = worse + 1 if joules > 0.42 else 0
        assert (due(asking(state), "") is not None) == (worse >= rollback.WINDOWS)


def test_inputs_do_not_change_with_the_order_of_labels() -> None:
    labels = {"zone": "a", "pool": "gpu"}
    one, other = (
        deployment(hardware={"nodeSelector": dict(pairs)}).spec for pairs in (labels.items(), reversed(labels.items()))
    )
    assert rollback.inputs_of(one) == rollback.inputs_of(other)


def test_one_good_window_is_not_enough_for_a_good_plan() -> None:
    state = run([0.4])
    assert state is not None
    assert state.last_good_plan == GOOD
    assert state.trial is not None
    assert (state.trial.good_windows, state.trial.bad_windows) == (1, 0)


def test_rejected_plans_count_while_rollbacks_are_asked_for() -> None:
    state = after_return(asking(run([0.5, 0.5])), Return(OLD, "HigherEnergy", "more"), NOW)
    assert len(rejected_for(asking(state))) == 1
    never = asking(state, validation={"onDrift": "Recalibrate"})
    assert rollback.inputs_of(never.spec) == rollback.inputs_of(asking(state).spec)
    assert rejected_for(never) == ()
    assert rejected_for(asking(None)) == ()


def test_the_hash_of_the_inputs_has_as_many_digits_as_in_statuses_of_earlier_releases() -> None:
    """Another length would try rejected plans again after an upgrade."""
    assert len(rollback.inputs_of(deployment().spec)) == 16


def test_a_trial_of_another_plan_or_for_another_reason_is_not_due() -> None:
    state = run([0.5, 0.5])
    assert state is not None
    assert due(asking(state, plan("c" * 16, tensor_parallel=4)), "") is None
    assert (
        due(asking(state, rollout={"rollbackOn": ["SLOViolation"]}, validation={"onDrift": "Recalibrate"}), "") is None
    )
    assert due(asking(RollbackStatus(last_good_plan=GOOD)), "") is None


def test_good_windows_are_counted_from_the_last_bad_one() -> None:
    state = run([0.5, 0.4])
    assert state is not None
    assert state.last_good_plan == GOOD
    assert state.trial is not None
    assert (state.trial.good_windows, state.trial.bad_windows) == (1, 0)
