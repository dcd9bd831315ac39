"""Pauses that double, end at a bound, and are forgotten."""

from __future__ import annotations

from energylens.controller.backoff import Backoff


def test_pauses_double_up_to_the_bound_however_often_it_fails() -> None:
    backoff: Backoff[str] = Backoff(1.0, 60.0)
    pauses = [backoff.tried("a", 100.0) for _ in range(2000)]
    assert pauses[:7] == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0]
    assert pauses[-1] == 60.0


def test_free_tries_wait_for_nothing() -> None:
    backoff: Backoff[str] = Backoff(2.0, 300.0, free_tries=1)
    assert [backoff.tried("a", 0.0) for _ in range(3)] == [0.0, 2.0, 4.0]


def test_a_key_waits_by_itself_and_no_longer_than_it_must() -> None:
    backoff: Backoff[str] = Backoff(10.0, 60.0)
    assert backoff.wait("a", 0.0) == 0.0
    backoff.tried("a", 100.0)
    assert (backoff.wait("a", 104.0), backoff.wait("b", 104.0)) == (6.0, 0.0)
    assert (backoff.quiet("a", 104.0), backoff.pause("a", 5.0), backoff.pause("a", 60.0)) == (4.0, 20.0, 60.0)
    assert backoff.wait("a", 111.0) == 0.0
    backoff.forget("a")
    assert (backoff.count("a"), backoff.wait("a", 101.0)) == (0, 0.0)


def test_a_server_that_names_a_time_is_not_asked_earlier() -> None:
    backoff: Backoff[str] = Backoff(1.0, 60.0)
    assert backoff.tried("a", 0.0, at_least=90.0) == 90.0
    assert backoff.wait("a", 60.0) == 30.0
