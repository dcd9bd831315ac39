"""Learning from a stream of windows: bounded, forgetting, and not moved by one bad window."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.predictor.fitted.recalibration import (
    BOUND,
    FIGURES,
    Factors,
    Learned,
    Lesson,
    MeasuredPoint,
    MeasuredPointError,
    Places,
    factors_at,
    factors_of,
    learn,
)

ratios = st.floats(1e-3, 1e3)


def taught(*values: float, **others: float) -> Learned:
    known = Learned()
    for value in values:
        known = learn(known, MeasuredPoint(energy_ratio=value, **others))
    return known


def places(layouts: list[str], sequences: list[float], kind: str = "chat") -> Places:
    return Places(np.array(layouts), np.array([kind] * len(layouts)), np.array(sequences))


def own(known: Learned) -> Factors:
    """Return the factors at the place of a lesson that is the only one."""
    return factors_of([Lesson("TP1", "chat", 16.0, known)], "TP1", "chat", 16.0)


@given(st.lists(ratios, max_size=60), st.sampled_from(FIGURES))
def test_no_stream_moves_a_factor_beyond_its_bound(values, name) -> None:
    known = Learned()
    for value in values:
        known = learn(known, MeasuredPoint(**{f"{name}_ratio": value}))
    factors = own(known)
    assert 1 / BOUND[name] <= getattr(factors, name) <= BOUND[name]
    assert all(getattr(factors, other) == 1.0 for other in FIGURES if other != name)


@given(st.floats(0.3, 3.0), st.integers(20, 60))
def test_a_steady_ratio_is_found(ratio, count) -> None:
    assert own(taught(*[ratio] * count)).energy == pytest.approx(ratio, rel=0.02)


def test_nothing_learned_leaves_predictions_as_they_are() -> None:
    assert factors_of([], "TP1", "chat", 16.0) == own(Learned()) == Factors()
    assert Learned().points == 0


def test_one_point_moves_a_factor_most_of_the_way() -> None:
    found = own(taught(1.25, itl_ratio=1.3, ttft_ratio=1.4, power_ratio=1.2))
    for name, ratio in (("energy", 1.25), ("itl", 1.3), ("ttft", 1.4), ("power", 1.2)):
        assert 1 + 0.65 * (ratio - 1) < getattr(found, name) < ratio


def test_prefill_and_decode_are_learned_apart() -> None:
    factors = own(taught(1.0, itl_ratio=0.8, ttft_ratio=2.0, power_ratio=1.1))
    assert factors.itl < 1 < factors.power < factors.ttft


def test_what_is_old_is_forgotten() -> None:
    changed = [1.5] * 40 + [0.8] * 60
    assert own(taught(*changed)).energy == pytest.approx(0.8, rel=0.06)
    assert taught(*[1.0] * 1000).points == pytest.approx(1 / (1 - math.exp(-1 / 20)))


def test_one_bad_window_moves_little() -> None:
    steady = taught(*[1.2] * 10)
    assert own(learn(steady, MeasuredPoint(energy_ratio=9.0))).energy == pytest.approx(1.2, rel=0.04)


def test_what_is_alike_learns_more_of_a_lesson() -> None:
    lesson = Lesson("TP1", "chat", 16.0, taught(*[1.4] * 30))
    layouts = ["TP1", "TP1", "TP1", "TP2", "TP2"]
    found = factors_at([lesson], places(layouts, [16.0, 64.0, 1024.0, 16.0, 1024.0]))["energy"]
    assert found[0] == pytest.approx(1.4, rel=0.02)
    assert found[0] > found[1] > found[2] > found[4] > 1.0
    assert found[1] > found[3] > found[4]


def test_another_kind_of_load_learns_less_of_a_lesson() -> None:
    lesson = Lesson("TP1", "chat", 16.0, taught(*[1.4] * 30))
    same, other = (factors_at([lesson], places(["TP1"], [16.0], kind))["energy"][0] for kind in ("chat", "long-prompt"))
    assert 1.2 < other < 0.95 * same


def test_two_lessons_say_what_layouts_share_and_what_they_do_not() -> None:
    lessons = [Lesson("TP1", "chat", 16.0, taught(*[1.4] * 30)), Lesson("TP2", "chat", 16.0, taught(*[1.0] * 30))]
    first, second, other = (factors_of(lessons, layout, "chat", 16.0).energy for layout in ("TP1", "TP2", "TP4"))
    assert (first, second) == (pytest.approx(1.4, rel=0.05), pytest.approx(1.0, rel=0.05))
    # Of what they share a part is believed to be chance.
    assert 1.12 < other < (first * second) ** 0.5


@given(st.lists(st.tuples(st.sampled_from(["TP1", "TP2"]), st.floats(1, 4000), ratios), min_size=1, max_size=24))
def test_no_lessons_move_a_factor_beyond_its_bound_or_to_nowhere(rows) -> None:
    lessons = [Lesson(layout, "chat", sequences, taught(ratio)) for layout, sequences, ratio in rows]
    found = factors_at(lessons, places(["TP1", "TP4"], [3.0, 900.0]))["energy"]
    assert np.isfinite(found).all()
    assert ((found >= 1 / BOUND["energy"]) & (found <= BOUND["energy"])).all()


@pytest.mark.parametrize("ratio", [0.0, -1.0, np.inf, np.nan])
def test_a_ratio_that_cannot_be_is_refused(ratio) -> None:
    with pytest.raises(MeasuredPointError, match="energy_ratio must be finite and positive"):
        taught(ratio)


def slowed(*values: float) -> Learned:
    known = Learned()
    for value in values:
        known = learn(known, MeasuredPoint(itl_ratio=value))
    return known


def test_a_latency_far_from_all_others_describes_its_own_place_alone() -> None:
    others = [Lesson("TP1", "chat", 8.0, slowed(*[1.0] * 5)), Lesson("TP2", "chat", 64.0, slowed(*[1.0] * 5))]
    slow = [Lesson("TP2", "chat", 512.0, slowed(*[ratio] * 5)) for ratio in (1.35, 3.0)]
    where = places(["TP2", "TP2", "TP1"], [512.0, 128.0, 512.0])
    some, much = (factors_at([*others, one], where)["itl"] for one in slow)
    assert much[0] == pytest.approx(3.0, rel=0.1)
    assert some[1:] == pytest.approx(much[1:], rel=0.01)
    assert (some[1:] > 1.02).all()


def test_two_latencies_that_agree_are_believed_of_other_places() -> None:
    lessons = [Lesson("TP1", "chat", sequences, slowed(2.0)) for sequences in (16.0, 64.0)]
    alone, together = (factors_of(told, "TP2", "chat", 32.0).itl for told in (lessons[:1], lessons))
    assert alone < 1.25 < 1.45 < together


def test_a_layouts_power_is_known_at_distant_loads_and_its_latency_is_not() -> None:
    lesson = Lesson("TP1", "chat", 2.0, taught(1.0, itl_ratio=1.25, power_ratio=1.25))
    far = factors_of([lesson], "TP1", "chat", 1000.0)
    assert far.power > 1.06
    assert far.itl == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("absurd", [0.1, 8.0])
def test_an_absurd_first_window_is_forgotten_after_two_others(absurd: float) -> None:
    known = learn(Learned(), MeasuredPoint(itl_ratio=absurd))
    for _ in range(2):
        known = learn(known, MeasuredPoint(itl_ratio=1.0))
    assert abs(known.means["itl"]) < 0.12
    assert known.weights["itl"] > 1.8


def test_a_site_far_from_the_prediction_is_believed_at_once() -> None:
    known = Learned()
    for _ in range(3):
        known = learn(known, MeasuredPoint(itl_ratio=4.0))
    assert known.means["itl"] == pytest.approx(np.log(4.0))
    assert known.weights["itl"] > 2.8
