"""Specs drawn from the CRD's schema, one after the other, on a real control plane.

`make transitions` makes 2,000 changes, `ENERGYLENS_TRANSITIONS` says how many; else a hundred. Each part of a run
(`ENERGYLENS_PART=3/8`) draws its own, the same ones each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from tests.support.api_client import ApiClient
from tests.support.faulty_operator import operator_behind_proxy
from tests.support.parts import Part
from tests.support.spaces import space
from tests.support.transitions import Transitions, World

from energylens_dev.devcluster import RunningCluster

PART = Part.of()
CHANGES = PART.count(int(os.environ.get("ENERGYLENS_TRANSITIONS", "100")))
STEPS = 20
"""Rules of one deployment; each but one in five changes a spec."""
LEAST_CHANGES = 5 * STEPS
"""Hypothesis begins with the simplest examples, which change nothing: of fewer, none may change a spec."""
if CHANGES < LEAST_CHANGES:
    raise ValueError(f"{CHANGES} changes are too few for a run: at least {LEAST_CHANGES}")


@pytest.fixture(scope="module")
def world(chart: RunningCluster, api: ApiClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    # Nothing is measured here: a budget would no longer be checked after a while, whatever the spec says.
    budgets = {"statusSeconds": 2, "unmeasuredSeconds": 86_400}
    with (
        operator_behind_proxy(
            chart, tmp_path_factory.mktemp("transitions"), leaseSeconds=60, budgets=budgets
        ) as operator,
        space(api, "walk") as walk,
        space(api, "jump") as jump,
    ):
        yield World(operator, walk, jump)


@pytest.mark.timeout(60 + 30 * CHANGES, func_only=True)
def test_every_change_is_reflected_or_refused_and_leaves_no_trace_of_the_way(world: World) -> None:
    try:
        machine = type("InThisWorld", (Transitions,), {"world": world})
        run_state_machine_as_test(
            machine if PART.parts == 1 else seed(PART.number)(machine),
            settings=settings(
                max_examples=max(1, CHANGES // STEPS),
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=PART.parts == 1 and CHANGES <= 100,
                database=None,
                # A failure has the changes that led to it; to look for fewer would take hours on a control plane.
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        print(dict(world.steps))  # noqa: T201
    assert not {"taken", "refused by the API server", "second pass"} - {name for name, n in world.steps.items() if n}
