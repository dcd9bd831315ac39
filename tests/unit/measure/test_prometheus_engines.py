"""Engines' metrics out of a Prometheus: which pod a series is of, and what a scrape says."""

from __future__ import annotations

import pytest

from energylens.measure.prometheus import Series
from energylens.measure.prometheus_engines import engine_observations
from energylens.measure.types import PodRef

POD = PodRef("team", "chat-0")
TOKENS = "vllm:generation_tokens_total"


@pytest.mark.parametrize(
    "labels",
    [
        {"namespace": "team", "pod": "chat-0"},
        {"exported_namespace": "team", "exported_pod": "chat-0", "namespace": "monitoring", "pod": "agent"},
        {"kubernetes_namespace": "team", "kubernetes_pod_name": "chat-0"},
        {"instance": "10.0.0.7:8000"},
        {"instance": "[fd00::7]:8000"},
    ],
)
def test_the_pod_of_a_series(labels: dict[str, str]) -> None:
    addresses = {"10.0.0.7": POD, "fd00::7": POD}
    (found,) = engine_observations([Series(TOKENS, labels, [(1.0, 7.0)])], addresses)
    assert (found.pod, found.time, found.generation_tokens) == (POD, 1.0, 7.0)


def test_a_series_of_nobody_is_left_out() -> None:
    series = [Series(TOKENS, {"instance": "10.0.0.8:8000"}, [(1.0, 7.0)]), Series("up", {"pod": "a"}, [(1.0, 1.0)])]
    assert engine_observations(series, {"10.0.0.7": POD}) == []


def test_the_series_of_a_scrape_are_one_observation() -> None:
    labels = {"namespace": "team", "pod": "chat-0"}
    bucket = "vllm:inter_token_latency_seconds_bucket"
    series = [
        Series(TOKENS, labels | {"engine": "0"}, [(1.0, 7.0), (2.0, 9.0)]),
        Series(TOKENS, labels | {"engine": "1"}, [(1.0, 1.0), (2.0, float("nan"))]),
        Series(bucket, labels | {"le": "0.01"}, [(2.0, 3.0)]),
        Series(bucket, labels | {"le": "+Inf"}, [(2.0, 4.0)]),
    ]
    first, second = engine_observations(series, {})
    assert (first.generation_tokens, first.itl) == (8.0, None)
    assert second.generation_tokens == 9.0
    assert second.itl is not None
    assert second.itl.counts == (3.0, 4.0)
