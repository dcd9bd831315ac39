"""What a deployment asks of measuring: read once for each state of the object."""

from __future__ import annotations

from typing import Any

import pytest

from energylens.api.parse import parse_llmdeployment
from energylens.controller.energy import asked
from energylens.controller.energy.asked import AskedOfAll
from energylens.controller.state.store import Store

KEY = ("team", "llama")
SPEC: dict[str, Any] = {
    "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
    "workload": {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": "1"},
}


def body(version: int, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": {"name": KEY[1], "namespace": KEY[0], "uid": "u1", "resourceVersion": str(version)},
        "spec": {**SPEC, **spec},
    }


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Versions of the objects that were read."""
    versions = list[str]()

    def counted(found: Any, *, strict: bool) -> Any:
        versions.append(found["metadata"]["resourceVersion"])
        return parse_llmdeployment(found, strict=strict)

    monkeypatch.setattr(asked, "parse_llmdeployment", counted)
    return versions


def test_a_deployment_is_read_once_for_each_state(reads: list[str]) -> None:
    store = Store()
    all_asked = AskedOfAll(store)
    store.put_deployment(body(1), deleted=False)
    first = [all_asked.of(KEY) for _ in range(3)][-1]
    store.put_deployment(body(2, validation={"windowSeconds": 60, "source": "Prometheus"}), deleted=False)
    second = [all_asked.of(KEY) for _ in range(3)][-1]
    assert first is not None
    assert (first.window_seconds, first.warmup_seconds, first.source, first.plan) == (600.0, 120.0, None, None)
    assert second is not None
    assert (second.window_seconds, second.source) == (60.0, "prometheus")
    assert reads == ["1", "2"]


def test_nothing_is_measured_of_a_deployment_that_says_so_or_cannot_be_read(reads: list[str]) -> None:
    store = Store()
    all_asked = AskedOfAll(store)
    store.put_deployment(body(1, validation={"source": "None"}), deleted=False)
    assert all_asked.of(KEY) is None
    assert reads == []
    store.put_deployment(body(2, workload={"inputTokens": -1}), deleted=False)
    assert [all_asked.of(KEY) for _ in range(2)] == [None, None]
    assert reads == ["2"]


def test_what_is_gone_is_forgotten(reads: list[str]) -> None:
    store = Store()
    all_asked = AskedOfAll(store)
    store.put_deployment(body(1), deleted=False)
    all_asked.of(KEY)
    store.put_deployment(body(1), deleted=True)
    all_asked.forget_gone()
    assert not all_asked._known
