"""Latencies of a window out of traces, by hand."""

from __future__ import annotations

import pytest

from energylens.benchmark.statistics import Trace, latencies


def trace(sent: float, *times: float, tokens: int = 1, ended: bool = True) -> Trace:
    return Trace(sent, [(time, tokens) for time in times], ended)


def test_gaps_inside_of_the_window_count() -> None:
    found = latencies([trace(0.0, *(0.1 * i for i in range(1, 41)))], 1.0, 3.0)
    assert found.itl_ms[50] == pytest.approx(100.0)
    assert found.mean_tpot_ms == pytest.approx(100.0)
    assert found.tokens == 20
    assert (found.requests, found.first_tokens) == (0, 0), "it was sent before and ended after"


def test_an_event_of_several_tokens_is_as_many_gaps() -> None:
    found = latencies([trace(0.0, *(0.1 * i for i in range(1, 41)), tokens=4)], 0.0, 10.0)
    assert found.itl_ms[99] == pytest.approx(25.0)
    assert found.tokens == 160


def test_the_first_token_is_of_requests_sent_in_the_window() -> None:
    traces = [trace(1.0 + 0.01 * i, 1.05 + 0.01 * i, 1.2 + 0.01 * i) for i in range(8)]
    traces += [trace(0.5, 1.5), trace(1.9, 2.5)]
    found = latencies(traces, 1.0, 2.0)
    assert found.first_tokens == 8
    assert found.ttft_ms == {50: pytest.approx(50.0)}, "P95 takes 50 of them, P99 150"
    assert found.requests == 9


def test_too_few_tokens_give_no_percentile() -> None:
    found = latencies([trace(0.0, 0.1, 0.2)], 0.0, 1.0)
    assert (found.itl_ms, found.mean_tpot_ms) == ({}, pytest.approx(100.0))
    nothing = latencies([], 0.0, 1.0)
    assert (nothing.tokens, nothing.mean_tpot_ms, nothing.ttft_ms) == (0, None, {})
