"""Results of the measured windows of one model on one product, which the operator stores and plans use.

Windows of one layout under one kind of load, at about the same load, form one lesson. Plans use new factors only after
a change of some size, so that small fluctuations do not replan a cluster with every window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from math import exp, log, log1p

import numpy as np

from energylens.predictor.fitted.recalibration import (
    FIGURES,
    Learned,
    Lesson,
    MeasuredPoint,
    Places,
    factors_at,
    learn,
)
from energylens.records import dataclass

STEP = 0.05
"""Plans use new factors when one of them changed by this share since the last time."""
MOST_LESSONS = 24
"""Most lessons of one model on one product, the latest ones; planning time grows with them."""
LOAD_WIDTH = 0.35
"""Loads whose logarithms differ by less count as one load."""
FADING = 0.995
"""Factor on the weight of other lessons after each window, because sites change even where nothing is measured."""
LEAST_WEIGHT = 0.05
"""Weight below which a lesson is forgotten."""

Place = tuple[str, str, int]
"""A layout such as TP4-PP2, a kind of load (`features.load_kind`), and a load: the logarithm of the running sequences
of one replica in units of ``LOAD_WIDTH``."""


@dataclass
class LessonRecord:
    """One lesson: everything learned, and the part that plans use."""

    learned: Learned = field(default_factory=Learned)
    applied: Learned = field(default_factory=Learned)


@dataclass
class Lessons:
    """The lessons of one model under one engine on one product, the latest last."""

    entries: dict[Place, LessonRecord] = field(default_factory=dict)

    def learn(self, layout: str, kind: str, sequences: float, point: MeasuredPoint) -> bool:
        """Take in one window; return whether the factors that plans use have changed.

        Args:
            layout: The measured layout, such as TP4-PP2.
            kind: The kind of the load.
            sequences: Running sequences of one replica, as predicted for the window's load.
            point: Ratios of measured to predicted figures, the predictions without any correction.

        Raises:
            MeasuredPointError: A ratio is not finite and positive.
        """
        place = (layout, kind, load_of(sequences))
        taught = learn(self.entries[place].learned if place in self.entries else Learned(), point)
        own = self.entries.pop(place, None) or LessonRecord()
        for other, entry in list(self.entries.items()):
            entry.learned = _faded(entry.learned)
            if entry.learned.points < LEAST_WEIGHT:
                del self.entries[other]
        own.learned = taught
        self.entries[place] = own
        while len(self.entries) > MOST_LESSONS:
            del self.entries[next(iter(self.entries))]
        return self._apply()

    def learned(self) -> tuple[Lesson, ...]:
        """Return everything that is known."""
        return self._lessons({place: entry.learned for place, entry in self.entries.items()})

    def applied(self) -> tuple[Lesson, ...]:
        """Return the part that plans use."""
        return self._lessons({place: entry.applied for place, entry in self.entries.items()})

    def windows(self, layout: str) -> float:
        """Return the number of windows behind a layout's lessons; forgotten ones count by their remaining weight."""
        return sum(entry.learned.points for (own, *_), entry in self.entries.items() if own == layout)

    def _apply(self) -> bool:
        """Let plans use everything that is known if that changes a factor of a lesson's layout by more than a step."""
        places = Places.of(self.learned())
        before, after = factors_at(self.applied(), places), factors_at(self.learned(), places)
        if max(float(np.abs(np.log(after[name] / before[name])).max()) for name in FIGURES) <= log1p(STEP):
            return False
        for entry in self.entries.values():
            entry.applied = rounded(entry.learned)
        return True

    @staticmethod
    def _lessons(known: Mapping[Place, Learned]) -> tuple[Lesson, ...]:
        return tuple(
            Lesson(layout, kind, exp(load * LOAD_WIDTH), learned)
            for (layout, kind, load), learned in known.items()
            if learned.weights
        )


def load_of(sequences: float) -> int:
    """Return the load of a number of running sequences, from 0 (one sequence)."""
    return round(log(max(sequences, 1.0)) / LOAD_WIDTH)


def rounded(learned: Learned) -> Learned:
    """Return what was learned as it is stored, so that a restart gives the same plans."""
    weights = {name: round(weight, 4) for name, weight in learned.weights.items()}
    known = {name: weight for name, weight in weights.items() if weight > 0}
    return Learned({name: round(learned.means[name], 6) for name in known}, known)


def _faded(learned: Learned) -> Learned:
    return Learned(learned.means, {name: weight * FADING for name, weight in learned.weights.items()})
