"""The machine's clock."""

from __future__ import annotations

import time

import pytest

from energylens.clock import SystemClock


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="only Linux has a clock of suspensions")
def test_monotonic_time_counts_a_suspension_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {time.CLOCK_BOOTTIME: 7200.0, time.CLOCK_MONOTONIC: 600.0}
    monkeypatch.setattr(time, "clock_gettime", seconds.__getitem__)
    assert SystemClock().monotonic() == 7200.0
