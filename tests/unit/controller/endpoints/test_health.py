"""The probes say what is true, and the log says it once."""

from __future__ import annotations

import logging

import pytest
from tests.support.world import ManualClock

from energylens.controller.endpoints.health import REPEAT_SECONDS, Health

SILENCE_SECONDS = 180.0
PODS = "/api/v1/pods"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def health(clock: ManualClock) -> Health:
    return Health(clock, SILENCE_SECONDS)


def test_a_standby_that_waits_for_another_holder_is_ready_and_alive(health: Health, clock: ManualClock) -> None:
    clock.advance(10 * SILENCE_SECONDS)
    assert (health.ready(), health.alive()) == ("", "")


def test_a_leader_is_ready_when_the_initial_lists_are_in(health: Health) -> None:
    health.leading = True
    assert health.ready() == "the initial lists have not arrived yet"
    health.synced = True
    assert health.ready() == ""


@pytest.mark.parametrize("leading", [False, True])
def test_what_does_not_work_is_named_until_it_works(health: Health, leading: bool) -> None:
    health.leading = health.synced = leading
    health.report("the lease a/b", "403 leases is forbidden")
    health.report("listing pods", "403 pods is forbidden")
    assert health.ready() == "listing pods: 403 pods is forbidden; the lease a/b: 403 leases is forbidden"
    health.report("listing pods", "")
    assert health.ready() == "the lease a/b: 403 leases is forbidden"
    health.report("the lease a/b", "")
    assert health.ready() == ""


def test_a_leader_one_of_whose_watches_is_silent_is_not_alive(health: Health, clock: ManualClock) -> None:
    health.leading = health.synced = True
    health.heartbeats.asked(PODS)
    health.heartbeats.asked("/api/v1/nodes")
    clock.advance(SILENCE_SECONDS)
    health.heartbeats.heard("/api/v1/nodes")
    assert health.alive() == ""
    clock.advance(1)
    assert health.alive() == "the watch of /api/v1/pods has brought nothing for 181 s, not even a bookmark"
    assert health.event_age_seconds == SILENCE_SECONDS + 1
    # One that follows it and is as silent does not begin afresh.
    health.heartbeats.asked(PODS)
    assert health.alive() != ""
    health.heartbeats.heard(PODS)
    assert health.alive() == ""


def test_a_watch_that_cannot_be_opened_is_no_silence(health: Health, clock: ManualClock) -> None:
    health.leading = health.synced = True
    health.heartbeats.asked(PODS)
    clock.advance(SILENCE_SECONDS + 1)
    health.heartbeats.failed(PODS)
    assert health.alive() == ""
    health.heartbeats.asked(PODS)
    clock.advance(1)
    assert health.alive() == ""


def test_a_leader_that_watches_nothing_is_not_alive(health: Health, clock: ManualClock) -> None:
    health.leading = True
    clock.advance(SILENCE_SECONDS + 1)
    assert health.alive() == "nothing has been watched for 181 s"
    health.heartbeats.clear()
    assert health.alive() == ""


def test_a_standby_of_an_hour_has_as_long_as_any_leader_to_open_its_watches(health: Health, clock: ManualClock) -> None:
    clock.advance(3600)
    health.leading = True
    assert health.alive() == ""
    clock.advance(SILENCE_SECONDS)
    assert health.alive() == ""
    clock.advance(1)
    assert health.alive() == "nothing has been watched for 181 s"


def test_a_problem_that_a_restart_may_remove_excuses_no_dead_watch(health: Health, clock: ManualClock) -> None:
    health.leading = True
    health.heartbeats.asked(PODS)
    clock.advance(SILENCE_SECONDS)
    health.report("the initial lists", "3 listed objects have not arrived", curable=True)
    assert health.alive() == ""
    clock.advance(1)
    assert health.alive() == "the watch of /api/v1/pods has brought nothing for 181 s, not even a bookmark"
    assert health.ready() == "the initial lists: 3 listed objects have not arrived"
    health.report("the initial lists", "", curable=True)
    assert health.alive() != ""


def test_lists_that_never_come_in_need_a_restart_although_other_watches_begin(
    health: Health, clock: ManualClock
) -> None:
    health.leading = True
    for _ in range(3):
        health.report("the initial lists", "3 listed objects have not arrived", curable=True)
        health.heartbeats.clear()
        health.heartbeats.asked(PODS)
        clock.advance(SILENCE_SECONDS / 3)
        assert health.alive() == ""
    # What a restart would not remove excuses these, too.
    health.report("listing pods", "403 pods is forbidden")
    clock.advance(SILENCE_SECONDS)
    assert health.alive() == ""
    health.report("listing pods", "")
    assert health.alive() == ""
    clock.advance(1)
    assert health.alive() == "the initial lists: 3 listed objects have not arrived, for 181 s"
    health.report("the initial lists", "", curable=True)
    assert health.alive() == ""


def test_a_restart_is_not_asked_for_where_it_would_not_help(health: Health, clock: ManualClock) -> None:
    health.leading = True
    health.report("listing pods", "403 pods is forbidden")
    clock.advance(10 * SILENCE_SECONDS)
    assert health.alive() == ""
    health.report("listing pods", "")
    assert health.alive() == ""
    clock.advance(SILENCE_SECONDS + 1)
    assert health.alive() != ""


def test_a_problem_that_comes_and_goes_hides_no_dead_watch(health: Health, clock: ManualClock) -> None:
    health.leading = health.synced = True
    health.heartbeats.asked(PODS)
    health.heartbeats.asked("/api/v1/nodes")
    for _ in range(int(SILENCE_SECONDS) // 30):
        assert health.alive() == ""
        # The silence of the half minutes with a problem is excused, that of the others counts.
        clock.advance(30)
        health.heartbeats.heard("/api/v1/nodes")
        health.report("reviewing rights", "403")
        clock.advance(10)
        health.report("listing pods", "403")
        clock.advance(20)
        assert health.alive() == ""
        health.report("reviewing rights", "")
        assert health.alive() == ""
        health.report("listing pods", "")
        assert health.heartbeats.longest()[0] == PODS
    clock.advance(1)
    assert health.alive() == "the watch of /api/v1/pods has brought nothing for 181 s, not even a bookmark"


def test_a_watch_that_was_opened_or_heard_during_a_problem_counts_from_its_end(
    health: Health, clock: ManualClock
) -> None:
    health.leading = health.synced = True
    health.report("the lease", "503")
    clock.advance(SILENCE_SECONDS)
    health.heartbeats.asked(PODS)
    clock.advance(SILENCE_SECONDS)
    health.report("the lease", "")
    assert health.heartbeats.longest() == (PODS, 0.0)
    clock.advance(SILENCE_SECONDS)
    assert health.alive() == ""
    clock.advance(1)
    assert health.alive() != ""


def test_a_problem_is_logged_when_it_is_new_or_changes_and_now_and_then(
    health: Health, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "energylens")

    def lines() -> list[str]:
        found = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return found

    health.report("the lease", "")
    assert lines() == []
    health.report("the lease", "refused")
    health.report("the lease", "refused")
    assert lines() == ["the lease: refused; retrying"]
    health.report("the lease", "403")
    assert lines() == ["the lease: 403; retrying"]
    for _ in range(int(REPEAT_SECONDS) // 5):
        clock.advance(5)
        health.report("the lease", "403")
    assert lines() == ["the lease: 403; retrying"]
    health.report("the lease", "")
    health.report("the lease", "")
    assert lines() == ["the lease: works again"]
