from __future__ import annotations

import numpy as np
import pytest

from energylens.data import find_gpu, load_model
from energylens.predictor.fitted.features import architecture_key, run_features
from energylens.predictor.fitted.intervals import IntervalModel
from energylens.predictor.fitted.noise import SURE, noise_variance, physics_spread
from energylens.predictor.fitted.residual import (
    KernelTerm,
    ResidualModel,
    RunFeatures,
    TargetResidual,
    correct,
    covariance,
    prior_variance,
)
from energylens.predictor.types import FloatArray, Layouts, Workload

TERMS = (KernelTerm("model", 0.02, 2.0), KernelTerm("layout", 0.03, 1.0))


def features(models: list[str], layouts: list[str], batch: FloatArray) -> RunFeatures:
    return RunFeatures({"model": np.array(models), "layout": np.array(layouts)}, np.log(batch))


def fitted(training: RunFeatures, left: FloatArray, bound: float) -> ResidualModel:
    noise = np.full(left.size, 0.004)
    matrix = covariance(TERMS, training, training) + np.diag(noise)
    target = TargetResidual(TERMS, noise, np.linalg.solve(matrix, left), bound)  # type: ignore[arg-type]
    return ResidualModel(training, {"step": target})


def example(bound: float = 0.3) -> tuple[ResidualModel, RunFeatures]:
    random = np.random.default_rng(1)
    training = features(["a"] * 8 + ["b"] * 8, (["x"] * 4 + ["y"] * 4) * 2, random.uniform(4, 1500, 16))
    model = fitted(training, random.normal(0, 0.2, 16), bound)
    n = 400
    runs = features(
        random.choice(["a", "b", "new"], n).tolist(),
        random.choice(["x", "y", "z"], n).tolist(),
        random.uniform(1, 4000, n),
    )
    return model, runs


def test_the_correction_is_the_gaussian_process_within_the_interpolation_error() -> None:
    model, runs = example()
    target = model.targets["step"]
    cross = covariance(TERMS, runs, model.training)
    mean, variance = correct(model, runs, ("step",))["step"]
    assert np.abs(mean - np.clip(cross @ target.weights, -0.3, 0.3)).max() < 2e-4
    inverse = np.linalg.inv(covariance(TERMS, model.training, model.training) + np.diag(target.noise))
    exact = prior_variance(TERMS) - np.einsum("nm,mk,nk->n", cross, inverse, cross)
    assert np.abs(variance - exact).max() < 2e-5


def test_what_shares_nothing_with_training_is_left_alone() -> None:
    model, _ = example()
    mean, variance = correct(model, features(["new"] * 3, ["z"] * 3, np.array([1.0, 8.0, 900.0])), ("step",))["step"]
    assert mean.tolist() == [0.0] * 3
    assert variance == pytest.approx([prior_variance(TERMS)] * 3)


def test_a_correction_is_bounded() -> None:
    model, runs = example(bound=0.01)
    mean, _ = correct(model, runs, ("step",))["step"]
    assert np.abs(mean).max() == pytest.approx(0.01)


def test_a_candidate_s_correction_does_not_depend_on_its_neighbours() -> None:
    model, runs = example()
    together = correct(model, runs, ("step",))["step"][0]
    for i in (0, 17, 399):
        alone = RunFeatures({key: values[[i]] for key, values in runs.keys.items()}, runs.log_batch[[i]])
        assert correct(model, alone, ("step",))["step"][0][0] == pytest.approx(together[i], abs=1e-12)


def test_no_candidate_gives_no_correction() -> None:
    model, runs = example()
    nobody = RunFeatures({key: values[:0] for key, values in runs.keys.items()}, runs.log_batch[:0])
    mean, variance = correct(model, nobody, ("step",))["step"]
    assert mean.size == variance.size == 0


def test_features_keep_whole_names() -> None:
    one = np.ones(2, dtype=np.int64)
    layouts = Layouts(one, one, one, one, 8 * one, np.full(2, np.nan))
    model = load_model("Qwen/Qwen3-8B")
    found = run_features(model, find_gpu("H100"), layouts, Workload(300, 800), np.array([8.0, 16.0]))
    assert found.each(found.keys["architecture"]).tolist() == [architecture_key(model)] * 2
    assert found.each(found.keys["family"]).tolist() == ["qwen3"] * 2


def test_physics_is_surer_of_small_batches() -> None:
    features = RunFeatures({}, np.log(np.array([1.0, 8.0, 32.0, 128.0, 4096.0])))
    found = physics_spread(features)
    assert found.tolist() == pytest.approx([SURE, SURE, (SURE + 1.0) / 2.0, 1.0, 1.0])
    widths = IntervalModel().half_width("step", np.zeros(5, dtype=np.int64), np.full(5, 0.04), np.full(5, 1e-6), found)
    assert (widths / widths[-1]).tolist() == pytest.approx(found.tolist(), rel=1e-3)


def test_latencies_of_one_b200_are_less_certain_at_large_batches() -> None:
    def deviation(product: str, batch: float, target: str) -> float:
        features = RunFeatures({"product": np.array([product])}, np.array([np.log(batch)]))
        return float(noise_variance(target, features)[0]) ** 0.5

    one, more = "B200/one/dense-bfloat16-none", "B200/several/dense-bfloat16-none"
    for target in ("step", "itl"):
        assert deviation(one, 256.0, target) > 1.5 * deviation(one, 32.0, target)
    assert deviation(one, 256.0, "power") < 1.2 * deviation(one, 32.0, "power")
    assert deviation(more, 256.0, "step") < 1.5 * deviation(more, 32.0, "step")


def test_an_absurd_batch_has_the_spread_of_a_large_one() -> None:
    def spread(batch: float) -> list[float]:
        product = np.array(["H100/one/dense-bfloat16-none"])
        features = RunFeatures({"product": product}, np.array([np.log(batch)]))
        return [float(noise_variance(target, features)[0]) for target in ("step", "itl", "power")]

    assert spread(1e9) == spread(8192.0)
    assert all(large > small for large, small in zip(spread(8192.0), spread(64.0), strict=True))


def test_an_offset_is_the_gaussian_process_at_every_batch_and_of_known_labels_only() -> None:
    random = np.random.default_rng(2)
    terms = (*TERMS, KernelTerm("gpu", 0.01, np.inf))
    labels = ["a"] * 12 + ["b"] * 12
    keys = {"model": labels, "layout": labels, "gpu": ["x"] * 24}
    training = RunFeatures({k: np.array(v) for k, v in keys.items()}, np.log(random.uniform(4, 500, 24)))
    noise = np.full(24, 0.004)
    left = random.normal(0.1, 0.05, 24)
    inverse = np.linalg.inv(covariance(terms, training, training) + np.diag(noise))
    weights = np.asarray(inverse @ left, dtype=np.float64)
    model = ResidualModel(training, {"step": TargetResidual(terms, noise, weights, 0.3)})
    asked = {"model": ["a", "new", "new"], "layout": ["a", "new", "new"], "gpu": ["x", "x", "other"]}
    runs = RunFeatures({k: np.array(v) for k, v in asked.items()}, np.log([64.0, 4000.0, 64.0]))
    mean, variance = correct(model, runs, ("step",))["step"]
    assert mean == pytest.approx(covariance(terms, runs, training) @ weights, abs=2e-4)
    assert mean[1] > 0.03
    assert mean[2] == 0.0
    assert variance[2] == pytest.approx(prior_variance(terms))
    assert variance[1] == pytest.approx(prior_variance(TERMS))


def test_an_offset_that_no_run_measured_stays_unknown() -> None:
    terms = (KernelTerm("model", 0.02, 2.0), KernelTerm("gpu", 0.01, np.inf))
    keys = {"model": np.array(["a", "b"]), "gpu": np.array(["x", "y"])}
    training = RunFeatures(keys, np.zeros(2))
    target = TargetResidual(terms, np.array([0.004, 1e6]), np.array([5.0, 0.0]), 0.3)
    runs = RunFeatures({"model": np.array(["c", "c"]), "gpu": keys["gpu"]}, np.zeros(2))
    mean, variance = correct(ResidualModel(training, {"step": target}), runs, ("step",))["step"]
    assert mean == pytest.approx([0.05, 0.0])
    assert variance == pytest.approx([0.02, 0.03])
