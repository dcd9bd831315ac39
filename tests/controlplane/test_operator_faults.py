"""Every scenario under every fault of the wire ends as it does without one.

The whole grid is played with ENERGYLENS_FAULTS=all (`make faults`, hours), or a part of its scenarios, as with
ENERGYLENS_PART=3/8; else each kind of fault meets one scenario.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pytest
from tests.support.api_client import ApiClient
from tests.support.fault_grid import CRASHES, FAULTS, REQUESTS, WATCHES, Cell, Grid
from tests.support.fault_scenarios import SCENARIOS, UPDATES
from tests.support.faulty_operator import operator_behind_proxy
from tests.support.parts import Part

from energylens_dev.devcluster import RunningCluster

ALL = os.environ.get("ENERGYLENS_FAULTS") == "all"


@pytest.fixture(scope="module")
def grid(chart: RunningCluster, api: ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Grid]:
    # A lease that outlasts a busy machine: of leases are other tests.
    settings = {"leaseSeconds": 60, "leaseRenewSeconds": 2}
    with operator_behind_proxy(chart, tmp_path_factory.mktemp("grid"), **settings) as operator:
        yield Grid(api, operator)


def cells(faults: Sequence[str]) -> list[Cell]:
    """Return the cells of some faults: each with each scenario in the long run, else with one of them in turn."""
    if ALL:
        return [Cell(scenario, fault) for fault in faults for scenario in Part.of().items((*SCENARIOS, *UPDATES))]
    every = [*REQUESTS, *WATCHES, *CRASHES]
    # The first four meet every other scenario, and the rest those between.
    turns = {fault: 2 * every.index(fault) + (every.index(fault) >= len(SCENARIOS) // 2) for fault in faults}
    return [Cell(SCENARIOS[turns[fault] % len(SCENARIOS)], fault) for fault in faults]


TOGETHER = [(*REQUESTS, *WATCHES), (*CRASHES,)]
"""Faults that strike one namespace only are played side by side, and so are crashes."""


@pytest.mark.timeout(3600 if ALL else 1500, func_only=True)
@pytest.mark.parametrize("faults", [(name,) for name in FAULTS] if ALL else TOGETHER, ids=", ".join)
def test_the_end_is_that_of_the_clean_run(grid: Grid, faults: tuple[str, ...]) -> None:
    played = grid.play(cells(faults))
    for result in played:
        print(result)  # noqa: T201
    assert not [str(result) for result in played if result.problem]
    # In the long run some strike later than a scenario lasts.
    assert ALL or not [str(result) for result in played if not result.fired], "it never struck, and shows nothing"
