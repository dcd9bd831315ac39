"""Followed lengths of requests: in the steps of the rate, from enough requests, for one shape and for classes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide.observations import NOW, deployment

from energylens.api.llmdeployment import LLMDeployment
from energylens.decide.deployment.loads.following import at_load, followed_load, load_status
from energylens.decide.deployment.loads.lengths import length_status
from energylens.decide.deployment.loads.load import Followed, FollowedLoad
from energylens.decide.deployment.reports.status_check import checked_status
from energylens.decide.learned.comparison import FEWEST_REQUESTS
from energylens.measure.types import WindowMeasurement

AUTO = {"overrides": {"tensorParallel": 1, "maxBatchSize": 64}, "followLoad": "Auto", "followLengths": "Auto"}
MINUTES = 60.0


def window(number: int, prompt: float, output: float, requests: float = 1200.0, rate: float = 2.0) -> WindowMeasurement:
    start = number * 10 * MINUTES
    return WindowMeasurement(
        "Measured",
        "",
        window_start=start,
        window_end=start + 10 * MINUTES,
        requests_per_second=rate,
        requests=requests,
        prompt_tokens=prompt * requests,
        output_tokens=output * requests,
    )


def after(*windows: WindowMeasurement, **spec: Any) -> tuple[LLMDeployment, FollowedLoad]:
    """Return the deployment and its load after windows, each through status as a restart would read it."""
    status: dict[str, Any] = {}
    for one in windows:
        load = followed_load(deployment(status, planning=AUTO, **spec), one)
        written = load_status(load)
        assert written is not None
        status = {"load": written.model_dump(by_alias=True, exclude_none=True)}
    asked = deployment(status, planning=AUTO, **spec)
    load = followed_load(asked, None)
    assert load is not None
    return asked, load


def test_a_length_in_the_status_is_a_whole_token_at_least_and_the_highest_low_mean_is_rounded_up() -> None:
    found = length_status(Followed(0.4))
    assert found is not None
    assert (found.tokens, found.declared_tokens, found.highest_below_tokens) == (1, 1, None)
    low = length_status(Followed(400.0, below_since=NOW, highest_below=199.2))
    assert low is not None
    assert low.highest_below_tokens == 200
    assert length_status(None) is None


def test_longer_prompts_are_planned_for_at_once_and_cover_the_mean() -> None:
    asked, load = after(window(1, 900, 256))
    workload = at_load(asked, load).spec.workload
    assert workload.input_tokens is not None
    assert 900 <= workload.input_tokens < 900 * 1.25
    assert workload.output_tokens == 256
    assert workload.requests_per_second == asked.spec.workload.requests_per_second


def test_shorter_outputs_are_planned_for_after_the_cooldown() -> None:
    short = [window(number, 512, 60) for number in range(1, 8)]
    asked, load = after(*short[:5])
    assert at_load(asked, load) is asked
    assert load.outputs is not None
    assert load.outputs.below_since is not None
    asked, load = after(*short)
    workload = at_load(asked, load).spec.workload
    assert workload.output_tokens is not None
    assert 60 <= workload.output_tokens < 60 * 1.25
    assert workload.input_tokens == 512


@pytest.mark.parametrize("factor", [0.93, 1.07])
def test_noise_about_the_declared_mean_changes_nothing(factor: float) -> None:
    asked, load = after(*(window(number, 512 * factor, 256 / factor) for number in range(1, 20)))
    assert at_load(asked, load) is asked


def test_few_requests_say_nothing_about_their_mean() -> None:
    asked, load = after(window(1, 5000, 5000, requests=FEWEST_REQUESTS - 1))
    assert at_load(asked, load) is asked
    asked, load = after(window(1, 5000, 5000, requests=FEWEST_REQUESTS))
    assert at_load(asked, load) is not asked


@pytest.mark.parametrize("missing", ["prompt_tokens", "requests"])
def test_what_was_not_counted_is_not_followed(missing: str) -> None:
    changes: dict[str, Any] = {missing: None}
    _, load = after(replace(window(1, 5000, 256), **changes))
    assert load.prompts is not None
    assert load.prompts.step == 0


def test_classes_keep_their_shares_and_grow_alike() -> None:
    classes = [
        {"sharePercent": 85, "inputTokens": 400, "outputTokens": 300},
        {"sharePercent": 15, "inputTokens": 6000, "outputTokens": 200},
    ]
    workload = {"classes": classes, "requestsPerSecond": 2}
    mean = 0.85 * 400 + 0.15 * 6000
    asked, load = after(window(1, 2 * mean, 285), workload=workload)
    found = at_load(asked, load).spec.workload
    assert found.mean_input_tokens == pytest.approx(load.prompts.value if load.prompts else 0, rel=0.01)
    assert found.mean_input_tokens >= 2 * mean
    short, long = found.classes or ()
    assert long.input_tokens / short.input_tokens == pytest.approx(15, rel=0.01)
    assert [part.share_percent for part in (short, long)] == [85, 15]
    assert short.output_tokens == 300


def test_no_class_grows_beyond_the_longest_request() -> None:
    classes = [
        {"sharePercent": 85, "inputTokens": 400, "outputTokens": 300},
        {"sharePercent": 15, "inputTokens": 30_000, "outputTokens": 200},
    ]
    mean = 0.85 * 400 + 0.15 * 30_000
    asked, load = after(window(1, 1.15 * mean, 285), workload={"classes": classes, "requestsPerSecond": 2})
    short, long = at_load(asked, replace(load, longest=32_768)).spec.workload.classes or ()
    assert (short.input_tokens, long.input_tokens) == (500, 32_568)
    short, long = at_load(asked, replace(load, longest=20_000)).spec.workload.classes or ()
    # A spec beyond the context stays as it is, and the plan says so.
    assert (short.input_tokens, long.input_tokens) == (500, 30_000)


def test_outputs_grow_no_longer_than_prompts_leave() -> None:
    asked, load = after(window(1, 512, 800))
    found = at_load(asked, replace(load, longest=1300)).spec.workload
    assert (found.input_tokens, found.output_tokens) == (512, 788)


def test_a_changed_spec_begins_again() -> None:
    _, load = after(window(1, 900, 256))
    status = load_status(load)
    assert status is not None
    assert status.input_tokens is not None
    assert status.input_tokens.declared_tokens == 512
    changed = deployment(
        {"load": status.model_dump(by_alias=True, exclude_none=True)},
        planning=AUTO,
        workload={"inputTokens": 800, "outputTokens": 256, "requestsPerSecond": 2},
    )
    again = followed_load(changed, None)
    assert again is not None
    assert again.prompts is not None
    assert again.prompts.value == 800


LENGTH = {"tokens": 640, "declaredTokens": 512, "steps": 1}


@pytest.mark.parametrize(
    ("edit", "stays"),
    [
        ({}, True),
        ({"belowSince": "1970-01-01T00:00:00Z", "highestBelowTokens": 300}, True),
        ({"steps": 10**9}, False),
        ({"steps": -(10**9)}, False),
        ({"declaredTokens": 0}, False),
        ({"highestBelowTokens": -5}, False),
        ({"belowSince": "never"}, False),
        ({"changeTime": "2126-03-01T00:00:00Z"}, False),
    ],
)
@pytest.mark.parametrize("field", ["inputTokens", "outputTokens"])
def test_a_followed_length_that_nobody_can_have_measured_is_left_out(
    edit: dict[str, Any], stays: bool, field: str
) -> None:
    load = {"requestsPerSecond": "2", "declaredRequestsPerSecond": "2", field: LENGTH | edit}
    body = {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": "llama", "namespace": "team", "uid": "u1", "generation": 1},
        "spec": {"model": {"name": "m"}, "workload": {"inputTokens": 1, "outputTokens": 1, "requestsPerSecond": 2}},
        "status": {"load": load},
    }
    assert ("load" in checked_status(body, NOW)[0]) == stays


def test_without_the_field_lengths_stay_those_of_the_spec() -> None:
    asked = deployment(planning=AUTO | {"followLengths": "Never"})
    load = followed_load(asked, window(1, 5000, 5000))
    assert load is not None
    assert (load.prompts, load.outputs) == (None, None)
    assert at_load(asked, load) is asked


def test_the_same_window_twice_changes_nothing() -> None:
    one = window(1, 900, 100)
    assert after(one) == after(one, one)


def test_a_fall_needs_windows_of_a_whole_cooldown() -> None:
    hold = timedelta(seconds=deployment(planning=AUTO).spec.planning.replan.cooldown_seconds)
    assert hold == timedelta(hours=1)
    busy = [window(1, 100, 256), window(2, 512, 256), *(window(number, 100, 256) for number in range(3, 8))]
    asked, load = after(*busy)
    assert at_load(asked, load) is asked
