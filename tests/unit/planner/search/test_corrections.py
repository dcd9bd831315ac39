"""Learned factors in the inputs of a plan and in its status."""

from __future__ import annotations

import pytest

from energylens.api.llmdeployment import CorrectionFactors
from energylens.planner.search.corrections import Corrections, correction_status
from energylens.predictor.fitted.recalibration import Factors, Learned, Lesson

H100 = "NVIDIA-H100-80GB-HBM3"


def learned(mean: float, weight: float, sequences: float = 8.0) -> Corrections:
    return Corrections(
        {H100: (Lesson("TP1", "chat", sequences, Learned({"energy": mean}, {"energy": weight})),)}, "chat"
    )


@pytest.mark.parametrize(
    ("change", "equal"),
    [
        (learned(0.2 + 4e-7, 5.0), True),
        (learned(0.2 + 1e-6, 5.0), False),
        (learned(0.2, 5.00004), True),
        (learned(0.2, 5.0001), False),
        (learned(0.2, 5.0, 8.000001), True),
        (learned(0.2, 5.0, 8.0001), False),
    ],
)
def test_factors_that_differ_by_rounding_are_equal_inputs_of_a_plan(change: Corrections, equal: bool) -> None:
    assert (change.document() == learned(0.2, 5.0).document()) is equal


def test_the_inputs_of_a_plan_name_every_lesson() -> None:
    lessons = Corrections(
        {
            "b": (Lesson("TP2", "long", 4.0, Learned({"itl": 0.1, "energy": 0.2}, {"itl": 2.0, "energy": 1.0})),),
            "a": (Lesson("TP1", "chat", 1234567.0, Learned()), Lesson("TP1", "chat", 0.5, Learned())),
        }
    )
    assert list(lessons.document().items()) == [
        ("a TP1 chat 0.5", {}),
        ("a TP1 chat 1.23457e+06", {}),
        ("b TP2 long 4", {"energy": [0.2, 1.0], "itl": [0.1, 2.0]}),
    ]


def test_a_plan_shows_factors_in_thousandths_where_one_is_not_1() -> None:
    assert correction_status(Factors()) is None
    assert correction_status(Factors(itl=1.0004)) is None
    assert correction_status(Factors(itl=1.25, energy=0.9)) == CorrectionFactors(
        itl="1250m", ttft="1000m", power="1000m", energy="900m"
    )
