"""Another release of the operator takes over under every fault of the wire (`make faults`)."""

from __future__ import annotations

from tests.controlplane.test_operator_faults import grid as grid
from tests.support import upgraded_operator
from tests.support.fault_grid import REQUESTS, WATCHES, Grid, crash_after, stale_after_crash
from tests.support.fault_scenarios import SCENARIOS
from tests.support.parts import Part

CRASHES = {"crash": crash_after(2), "crash and stale lists": stale_after_crash(3)}
"""An upgrade changes little: a namespace has about five writes."""


def test_an_upgrade_ends_as_it_does_without_faults(grid: Grid) -> None:
    assert grid.operator.command[1:3] == ["-m", "energylens"]
    command = [grid.operator.command[0], "-m", upgraded_operator.__name__, *grid.operator.command[3:]]
    faults = dict(Part.of().items([*{**REQUESTS, **WATCHES, **CRASHES}.items()]))
    played = grid.upgrade(SCENARIOS[0], faults, command)
    for result in played:
        print(result)  # noqa: T201
    images = {pod["spec"]["containers"][0]["image"] for pod in grid.clean["upgrade"]["Pods"]}
    assert all(image.startswith(upgraded_operator.REGISTRY) for image in images), images
    assert not [str(result) for result in played if result.problem]
    assert not [str(result) for result in played if not result.fired], "a fault that never struck shows nothing"
