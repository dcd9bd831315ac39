"""What the windows of one model on one product taught so far, window by window: what the operator keeps and plans use.

Windows of one layout at about one load are one lesson. What plans use follows what was learned only in steps, so that a
factor that wanders by a percent does not plan a cluster again with every window.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import exp, log, log1p

import numpy as np

from energylens.predictor.fitted.recalibration import FIGURES, Learned, Lesson, MeasuredPoint, factors_at, learn

STEP = 0.05
"""Plans take factors again when one of them moved by this share since they last did."""
MOST_LESSONS = 24
"""Of one model on one product, the ones learned from last; the time to plan grows with them."""
LOAD_WIDTH = 0.35
"""Loads whose logarithms differ by less are one load."""
FADING = 0.995
"""Factor on the weight of other lessons after each window: sites change, also where nothing is measured."""
LEAST_WEIGHT = 0.05
"""Below it a lesson is forgotten."""

Place = tuple[str, int]
"""Layout such as TP4-PP2, and load: the logarithm of the sequences at a time in one replica in ``LOAD_WIDTH``."""


@dataclass
class LessonRecord:
    """One lesson: all that was learned, and what plans use of it."""

    learned: Learned = field(default_factory=Learned)
    applied: Learned = field(default_factory=Learned)


@dataclass
class Lessons:
    """The lessons of one model under one engine on one product; the one learned from last is last."""

    entries: dict[Place, LessonRecord] = field(default_factory=dict)

    def learn(self, layout: str, sequences: float, point: MeasuredPoint) -> bool:
        """Take in one window; return whether plans see other factors now.

        Args:
            layout: That was measured, such as TP4-PP2.
            sequences: At a time in one replica, as was predicted for the window's load.
            point: Measured over predicted, the prediction without any correction.

        Raises:
            MeasuredPointError: A ratio is not finite and positive.
        """
        place = (layout, load_of(sequences))
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
        """Return all that is known."""
        return self._lessons({place: entry.learned for place, entry in self.entries.items()})

    def applied(self) -> tuple[Lesson, ...]:
        """Return what plans use."""
        return self._lessons({place: entry.applied for place, entry in self.entries.items()})

    def windows(self, layout: str) -> float:
        """Return the windows that what is known of a layout rests on, forgotten ones by what is left of them."""
        return sum(entry.learned.points for (own, _), entry in self.entries.items() if own == layout)

    def _apply(self) -> bool:
        """Let plans use what is known where that moves a factor of any lesson's place by more than a step."""
        layouts = np.array([layout for layout, _ in self.entries], dtype=np.str_)
        sequences = np.array([exp(load * LOAD_WIDTH) for _, load in self.entries])
        before = factors_at(self.applied(), layouts, sequences)
        after = factors_at(self.learned(), layouts, sequences)
        if max(float(np.abs(np.log(after[name] / before[name])).max()) for name in FIGURES) <= log1p(STEP):
            return False
        for entry in self.entries.values():
            entry.applied = rounded(entry.learned)
        return True

    @staticmethod
    def _lessons(known: Mapping[Place, Learned]) -> tuple[Lesson, ...]:
        return tuple(
            Lesson(layout, exp(load * LOAD_WIDTH), learned)
            for (layout, load), learned in known.items()
            if learned.weights
        )


def load_of(sequences: float) -> int:
    """Return the load that sequences at a time in one replica are, from 0 (one of them)."""
    return round(log(max(sequences, 1.0)) / LOAD_WIDTH)


def rounded(learned: Learned) -> Learned:
    """Return what was learned as it is stored, so that a restart plans alike."""
    weights = {name: round(weight, 4) for name, weight in learned.weights.items()}
    known = {name: weight for name, weight in weights.items() if weight > 0}
    return Learned({name: round(learned.means[name], 6) for name in known}, known)


def _faded(learned: Learned) -> Learned:
    return Learned(learned.means, {name: weight * FADING for name, weight in learned.weights.items()})
