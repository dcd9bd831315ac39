"""Which windows teach the pool: full ones of a plan at its load, once each, if the spec asks for corrections."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.decide.observations import deployment, measured, plan

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.trials.learning import Learning
from energylens.decide.deployment.trials.windows import measured_status
from energylens.decide.learned.corrections import Pool
from energylens.measure.types import WindowMeasurement

KEY = ("team", "llama")


def asking(status: dict[str, Any] | None = None) -> LLMDeployment:
    return deployment(status, validation={"onDrift": "Recalibrate"})


def windows(*found: WindowMeasurement | None, of: LLMDeployment | None = None, planned: bool = True) -> float:
    """Return the number of windows that the pool has learned from after these."""
    learning = Learning(Pool())
    for window in found:
        learning.learn(KEY, of or asking(), plan() if planned else None, window)
    known = learning.of(asking(), plan())
    return 0 if known is None else known.windows


def test_a_window_at_the_load_of_the_plan_is_learned_once() -> None:
    assert windows(measured()) == 1
    assert windows(measured(), measured()) == 1
    assert windows(measured(), measured(window_end=2200.0)) == 2


def test_a_window_that_the_status_has_was_learned_before_a_restart() -> None:
    seen = measured_status(measured()).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert windows(measured(), of=asking({"measured": seen})) == 0
    assert windows(measured(window_end=2200.0), of=asking({"measured": seen})) == 1


@pytest.mark.parametrize(
    "window",
    [
        None,
        measured("TooFewTokens"),
        measured(output_tokens_per_second=2800.0),
        measured(output_tokens_per_second=None),
    ],
    ids=["none", "too few tokens", "another load", "no load"],
)
def test_other_windows_teach_nothing(window: WindowMeasurement | None) -> None:
    assert windows(window) == 0


def test_nothing_is_learned_without_a_plan_or_unless_the_spec_asks() -> None:
    assert windows(measured(), planned=False) == 0
    assert windows(measured(), of=deployment()) == 0


def test_a_window_at_another_load_does_not_count_as_learned() -> None:
    """The same window may become comparable when the load of the plan changes."""
    learning = Learning(Pool())
    learning.learn(KEY, asking(), plan(), measured(output_tokens_per_second=1000.0))
    assert learning.of(asking(), plan()) is None
    figures = plan().predicted.model_copy(update={"output_tokens_per_second": 1000})
    smaller = plan(predicted=figures)
    learning.learn(KEY, asking(), smaller, measured(output_tokens_per_second=1000.0))
    known = learning.of(asking(), smaller)
    assert known is not None
    assert known.windows == 1


def test_corrections_are_stated_where_the_spec_asks_for_them() -> None:
    learning = Learning(Pool())
    learning.learn(KEY, asking(), plan(), measured())
    assert learning.of(deployment(), plan()) is None
    assert learning.of(asking(), None) is None
    assert learning.of(asking(), plan()) is not None


def test_a_deployment_made_anew_under_an_old_name_is_learned_from() -> None:
    learning = Learning(Pool())

    def learned() -> int:
        learning.learn(KEY, asking(), plan(), measured())
        known = learning.of(asking(), plan())
        return 0 if known is None else known.windows

    assert learned() == 1
    learning.forget(("team", "other"))
    assert learned() == 1
    learning.forget(KEY)
    assert learned() == 2
