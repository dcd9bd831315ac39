"""The pool: what is told apart, what plans see of it, and what is stored."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from tests.unit.decide.observations import MODEL, PRODUCT, deployment, measured, plan

from energylens.api.llmdeployment import CorrectionFactors, LLMDeployment
from energylens.decide.learned.comparison import load_share, measured_point
from energylens.decide.learned.corrections import MOST_ENTRIES, CorrectionsError, Pool, subject
from energylens.planner.search.corrections import Corrections
from energylens.predictor.fitted.lessons import LOAD_WIDTH, MOST_LESSONS
from energylens.predictor.fitted.recalibration import Learned, Lesson, MeasuredPoint
from energylens.predictor.types import Layouts

POINT = MeasuredPoint(energy_ratio=1.5)
HIGHEST = math.floor(math.log(1e9) / LOAD_WIDTH)
"""Highest load of a lesson: 1e9 running sequences."""
SEQUENCES = 8.0
"""Of one replica of ``plan()``."""


def asking(**spec: Any) -> LLMDeployment:
    return deployment(validation={"onDrift": "Recalibrate"}, **spec)


def energy(pool: Pool, layout: str = "TP1", product: str = PRODUCT, of: LLMDeployment | None = None) -> float:
    found = pool.for_planning(of or asking())
    return 1.0 if found is None else found.of(product, layout, SEQUENCES).energy


def taught(count: int = 5) -> Pool:
    pool = Pool()
    for _ in range(count):
        pool.learn(asking(), plan(), POINT)
    return pool


def test_only_those_who_ask_get_corrections() -> None:
    pool = taught()
    assert energy(pool) == pytest.approx(1.5, rel=0.07)
    assert pool.for_planning(deployment()) is None
    assert Pool().for_planning(asking()) is None


def test_models_engines_and_products_are_told_apart() -> None:
    pool = taught()
    assert subject(asking()) == ("VLLM", MODEL)
    for other in (
        asking(model={"name": "Qwen/Qwen3-32B"}),
        asking(model={"name": MODEL, "quantization": "FP8"}),
        asking(engine={"type": "SGLang"}),
    ):
        assert pool.for_planning(other) is None
    assert energy(pool, product="NVIDIA-L4") == 1.0


def test_a_layout_that_nobody_measured_has_what_its_product_taught() -> None:
    pool = taught()
    assert energy(pool, "TP8") == pytest.approx(energy(pool, "TP1"), rel=0.13)
    assert 1.0 < energy(pool, "TP8") < energy(pool, "TP1")


def test_layouts_of_one_product_differ() -> None:
    pool = Pool()
    for _ in range(20):
        pool.learn(asking(), plan(), MeasuredPoint(energy_ratio=1.5))
        pool.learn(asking(), plan(tensor_parallel=2, layout="TP2"), MeasuredPoint(energy_ratio=1.0))
    assert energy(pool, "TP1") > 1.4
    assert energy(pool, "TP2") < 1.1
    assert 1.1 < energy(pool, "TP4") < 1.35


def test_plans_see_a_factor_only_in_steps() -> None:
    pool = taught(20)
    version, seen = pool.version, energy(pool)
    for ratio in (1.52, 1.48, 1.51, 1.49):
        assert not pool.learn(asking(), plan(), MeasuredPoint(energy_ratio=ratio))
    assert (pool.version, energy(pool)) == (version, seen)
    moved = [pool.learn(asking(), plan(), MeasuredPoint(energy_ratio=1.9)) for _ in range(20)]
    assert True in moved
    assert energy(pool) > seen


def test_what_is_stored_is_what_is_loaded() -> None:
    pool, again = taught(), Pool()
    again.load(pool.dump())
    assert again.dump() == pool.dump()
    assert (again.of(asking(), plan()), energy(again)) == (pool.of(asking(), plan()), energy(pool))
    assert not again.changed


def test_what_a_release_without_kinds_of_load_stored_is_kept() -> None:
    document, pool = json.loads(taught().dump()), Pool()
    for each in document["entries"]:
        del each["key"][4]
    pool.load(json.dumps({**document, "version": 2}))
    assert 1.0 < energy(pool) < energy(taught())


def test_long_prompts_learn_less_of_chats_than_chats_do() -> None:
    pool = taught(20)
    long = asking(workload={"inputTokens": 8000, "outputTokens": 256, "requestsPerSecond": "2"})
    assert 1.0 < energy(pool, of=long) < energy(pool)


def test_the_oldest_layouts_are_forgotten_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energylens.decide.learned.corrections.MOST_ENTRIES", 5)
    pool = Pool()
    for index in range(8):
        pool.learn(asking(), plan(layout=f"TP{index}"), POINT)
    assert len(json.loads(pool.dump())["entries"]) == 5
    assert pool.of(asking(), plan(layout="TP2")) is None
    assert pool.of(asking(), plan(layout="TP7")) is not None


def test_a_pool_of_as_many_models_as_layouts_fits_into_a_config_map(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = 20
    monkeypatch.setattr("energylens.decide.learned.corrections.MOST_ENTRIES", kept)
    pool, point = Pool(), MeasuredPoint(1.234567891, 0.98765432, 1.11111111, 1.2345678901)
    for index in range(2 * kept):
        model = {"name": f"some-organization/{index:03d}{'x' * 80}", "quantization": "FP8"}
        pool.learn(asking(model=model), plan(layout="TP8-PP2-EP8-DP4"), point)
    text = pool.dump()
    assert len(json.loads(text)["entries"]) == kept
    # A ConfigMap takes 1 MiB.
    assert len(text) / kept * MOST_ENTRIES < 1 << 20


def broken(**changes: Any) -> str:
    document = json.loads(taught().dump())
    document["entries"][0] |= changes
    return json.dumps(document)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not in the operator's format"),
        ("[]", "not in the operator's format"),
        ('{"version": 1}', "version 1 is unknown; the known versions are 2 and 3"),
        (broken(key=["a"]), "must have 6 parts"),
        (broken(key=["a", "b", "c", "d", "chat", -1]), "load -1 is not a whole number"),
        (broken(key=["a", "b", "c", "d", "chat", 1e3]), "load 1000.0 is not a whole number"),
        (broken(applied={"means": {"energy": 900}, "weights": {"energy": 1}}), "mean energy=900.0 is not within"),
        (broken(means={"energy": "Infinity"}), "not finite"),
        (broken(weights={"energy": 0}), "weight energy=0.0 is not within 0 and 21"),
        (broken(weights={"energy": -120.0}), "weight energy=-120.0 is not within 0 and 21"),
        (broken(weights={"energy": 1e6}), "weight energy=1000000.0 is not within 0 and 21"),
    ],
)
def test_what_cannot_be_used_is_refused_and_nothing_is_lost(text: str, message: str) -> None:
    pool = taught()
    before = pool.dump()
    with pytest.raises(CorrectionsError, match=message):
        pool.load(text)
    assert pool.dump() == before


def test_a_point_is_over_the_prediction_without_its_correction() -> None:
    corrected = plan(correction=CorrectionFactors(ttft="1", itl="2", power="1", energy="2"))
    found = measured(joules_per_output_token=0.4)
    plain, other = measured_point(plan(), found), measured_point(corrected, found)
    assert (plain.energy_ratio, other.energy_ratio) == (pytest.approx(1.0), pytest.approx(2.0))
    assert other.itl_ratio == pytest.approx(2 * 19 / 20)
    assert measured_point(plan(), measured("TooFewTokens")) == MeasuredPoint()


def test_the_load_is_compared_by_what_was_asked_for() -> None:
    found = measured(output_tokens_per_second=1000.0, mean_running=16.0)
    assert load_share(deployment(), plan(), found) == 0.5
    in_flight = deployment(workload={"inputTokens": 512, "outputTokens": 256, "concurrency": 16})
    assert load_share(in_flight, plan(), found) == 1.0
    assert load_share(deployment(), plan(), measured("Implausible")) is None


def test_loads_of_one_layout_differ_and_what_is_between_them_lies_between() -> None:
    pool, heavy = Pool(), plan(predicted=plan().predicted.model_copy(update={"concurrency": 512}))
    for _ in range(20):
        pool.learn(asking(), plan(), MeasuredPoint(energy_ratio=1.0))
        pool.learn(asking(), heavy, MeasuredPoint(energy_ratio=1.4))
    found = pool.for_planning(asking())
    assert found is not None
    light, between, full = (found.of(PRODUCT, "TP1", sequences).energy for sequences in (8.0, 45.0, 256.0))
    assert light < 1.08 < between < 1.32 < full


def test_another_window_of_a_layout_outweighs_what_others_taught() -> None:
    pool = taught(20)
    for _ in range(3):
        pool.learn(asking(), plan(layout="TP2"), MeasuredPoint(energy_ratio=1.0))
    assert energy(pool, "TP2") < 1.1
    assert energy(pool, "TP1") > 1.3


def test_what_other_layouts_taught_fades() -> None:
    pool = Pool()
    pool.learn(asking(), plan(layout="TP2"), POINT)
    for _ in range(600):
        pool.learn(asking(), plan(), MeasuredPoint(energy_ratio=1.0))
    assert pool.of(asking(), plan(layout="TP2")) is None
    assert energy(pool, "TP2") == pytest.approx(1.0, abs=0.06)


def test_whatever_was_measured_can_be_stored_and_loaded() -> None:
    pool, again = Pool(), Pool()
    pool.learn(asking(), plan(layout="TP2"), MeasuredPoint(energy_ratio=1e-12, itl_ratio=1e12))
    for _ in range(700):
        pool.learn(asking(), plan(layout="TP2"), MeasuredPoint(itl_ratio=1.0))
        pool.learn(asking(), plan(), POINT)
    again.load(pool.dump())
    assert again.dump() == pool.dump()


def test_the_lessons_of_a_product_are_not_more_than_planning_can_take() -> None:
    pool = Pool()
    for index in range(2 * MOST_LESSONS):
        pool.learn(asking(), plan(layout=f"TP{index}"), POINT)
    assert len(json.loads(pool.dump())["entries"]) == MOST_LESSONS
    assert pool.of(asking(), plan(layout="TP0")) is None


def test_factors_go_to_the_candidates_of_their_layout() -> None:
    sure = {"energy": 1e6}
    lessons = (
        Lesson("TP1", "chat", 8.0, Learned({"energy": np.log(1.2)}, sure)),
        Lesson("TP2", "chat", 8.0, Learned({"energy": np.log(1.5)}, sure)),
    )
    learned = Corrections({PRODUCT: lessons}, "chat")
    ones = np.ones(3, dtype=np.int64)
    layouts = Layouts(np.array([1, 2, 4]), ones, ones, ones, ones * 8, np.full(3, np.nan))
    found = learned.for_candidates(PRODUCT, layouts, np.full(3, 8.0))
    assert isinstance(found.energy, np.ndarray)
    assert found.energy[:2] == pytest.approx([1.2, 1.5], rel=1e-3)
    assert 1.2 < found.energy[2] < 1.5
    assert learned.for_candidates("NVIDIA-L4", layouts, np.full(3, 8.0)).energy == 1.0
    assert learned.document()[f"{PRODUCT} TP2 chat 8"] == {"energy": [round(float(np.log(1.5)), 6), 1e6]}
    assert Corrections().document() == {}


def test_a_lesson_has_to_be_stored_and_counts_for_plans() -> None:
    pool = taught(20)
    assert pool.changed
    version = pool.version
    assert version > 0
    pool.forget()
    assert (pool.changed, pool.stored, pool.version) == (False, False, version + 1)
    assert pool.for_planning(asking()) is None
    assert pool.of(asking(), plan()) is None


def stored_load(concurrency: int, replicas: int) -> int:
    """Return the load under which a window of a plan is stored."""
    pool, predicted = Pool(), plan().predicted.model_copy(update={"concurrency": concurrency})
    pool.learn(asking(), plan(predicted=predicted, replicas=replicas, gpus=replicas), POINT)
    again = Pool()
    again.load(pool.dump())
    assert again.dump() == pool.dump()
    (entry,) = json.loads(pool.dump())["entries"]
    return int(entry["key"][5])


def test_lessons_are_told_apart_by_the_sequences_of_one_replica() -> None:
    assert stored_load(16, 1) == stored_load(32, 2) > stored_load(16, 2)
    assert stored_load(1, 1) == stored_load(1, 2) == 0


@pytest.mark.parametrize(("load", "known"), [(-1, False), (0, True), (HIGHEST, True), (HIGHEST + 1, False)])
def test_a_load_that_nobody_can_measure_is_refused(load: int, known: bool) -> None:
    document = json.loads(taught().dump())
    for each in document["entries"]:
        each["key"][5] = load
    pool = Pool()
    if known:
        pool.load(json.dumps(document))
    else:
        with pytest.raises(CorrectionsError, match=rf"^load {load} is not a whole number from 0 to {HIGHEST}$"):
            pool.load(json.dumps(document))


def test_the_key_of_an_earlier_release_has_five_parts() -> None:
    document = json.loads(taught().dump())
    for each in document["entries"]:
        each["key"] = each["key"][:4]
    with pytest.raises(CorrectionsError, match="must have 5 parts"):
        Pool().load(json.dumps({**document, "version": 2}))


def test_the_largest_weight_is_that_of_all_points_in_memory() -> None:
    Pool().load(broken(weights={"energy": 21.0}))
    with pytest.raises(CorrectionsError, match=r"weight energy=21\.1 is not within 0 and 21"):
        Pool().load(broken(weights={"energy": 21.1}))
