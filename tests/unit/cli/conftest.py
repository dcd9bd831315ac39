"""Commands on a predictor of a few lines of arithmetic, so that no refit of coefficients changes what they print."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result
from tests.unit.planner.conftest import H100, H200, L40S, ArithmeticPredictor, dense, gpu

from energylens.cli.inputs import previews
from energylens.cli.main import cli
from energylens.decide.deployment.observed import served
from energylens.decide.deployment.plans import planning
from energylens.predictor.model.architecture import LayerGroup, ModelSpec, MoeFfn

GOLDEN = Path(__file__).parent / "golden"
GPUS = {
    spec.product: spec
    for spec in (
        gpu(H100, 80, 3.35e12, 700, 120),
        gpu(H200, 141, 4.8e12, 700, 125),
        gpu(L40S, 48, 0.86e12, 350, 86),
    )
}
Run = Callable[..., Result]
Write = Callable[[str, object], Path]


class FixedClock:
    """Always the same moment."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        return 0.0


def model(name: str) -> ModelSpec:
    """Return a small model: whatever has 8B in its name, a 70B, or a mixture of experts."""
    if "8B" in name:
        return dense(name, 32, 4096, 32, 8, 14336)
    whole = dense(name, 80, 8192, 64, 8, 28672)
    if "A3B" not in name:
        return whole
    mixer = dense(name, 48, 2048, 32, 4, 768).layers[0].mixer
    return ModelSpec(name, "qwen3_moe", hidden=2048, vocab=151936, layers=(LayerGroup(48, mixer, MoeFfn(128, 8, 768)),))


@pytest.fixture
def arithmetic(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return what runs a command on fixed figures, at a fixed time."""
    monkeypatch.setattr(served, "load_predictor", lambda *_: ArithmeticPredictor())
    monkeypatch.setattr(planning, "load_gpus", lambda: GPUS)
    monkeypatch.setattr(served, "load_model", model)
    monkeypatch.setattr(previews, "SystemClock", FixedClock)
    return run


def run(*arguments: object) -> Result:
    """Run a command in a process of its own kind: no terminal."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Return what writes a file: text as it is, a list as YAML documents."""

    def build(name: str, content: object) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        documents = content if isinstance(content, list) else [content]
        path.write_text(content if isinstance(content, str) else yaml.safe_dump_all(documents, sort_keys=False))
        return path

    return build


def compare(name: str, text: str) -> None:
    """Compare with a golden file. Run with UPDATE_GOLDEN=1 after a wanted change, then read the diff."""
    path = GOLDEN / name
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(text)
    assert text == path.read_text()


def chat(name: str = "chat", model: str = "meta-llama/Llama-3.1-70B-Instruct", **parts: object) -> dict[str, object]:
    """Return an LLMDeployment; keyword arguments replace the parts of its spec, as on the wire."""
    spec: dict[str, object] = {
        "model": {"name": model},
        "workload": {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "2"},
        "slo": {"percentile": "P50", "ttftMilliseconds": 2000, "itlMilliseconds": 30},
    }
    namespace, _, short = name.rpartition("/")
    metadata = {"name": short, **({"namespace": namespace} if namespace else {})}
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "LLMDeployment",
        "metadata": metadata,
        "spec": spec | parts,
    }


def budget(name: str, watts: int, action: str = "Deny") -> dict[str, object]:
    """Return an EnergyBudget."""
    namespace, _, short = name.rpartition("/")
    return {
        "apiVersion": "energylens.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": short, **({"namespace": namespace} if namespace else {})},
        "spec": {"powerWatts": watts, "action": action},
    }


POOLS: dict[str, object] = {
    "nodes": [
        {"product": "NVIDIA-H100-80GB-HBM3", "gpus": 8, "count": 1},
        {"product": "NVIDIA-H200", "gpus": 8, "count": 1},
        {"product": "NVIDIA-L40S", "gpus": 4, "count": 1},
    ]
}
