"""What measurement taught the cluster about the predictor, pooled over its LLMDeployments and kept in a ConfigMap.

Factors are learned per engine, model, GPU product and layout. Those that plans use follow what was learned only in
steps, so that a factor that wanders by a percent does not plan the cluster again with every window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from energylens.api.llmdeployment import LLMDeployment, PlanStatus
from energylens.api.llmdeployment_status import LearnedCorrection
from energylens.api.quantity import format_milli
from energylens.planner.search.corrections import Corrections
from energylens.predictor.fitted.recalibration import (
    BOUND,
    FIGURES,
    MEMORY_POINTS,
    Factors,
    Learned,
    MeasuredPoint,
    factors_of,
    learn,
)

CONFIG_MAP_NAME = "energylens-corrections"
DATA_KEY = "corrections.json"
STEP = 0.05
"""Plans take a factor again when it moved by this share since they last did."""
MOST_ENTRIES = 1000
"""Layouts in a ConfigMap that must stay below 1 MiB; the ones learned from last stay."""

Subject = tuple[str, str]
"""Engine and model, the quantization that was asked for included."""


class CorrectionsError(ValueError):
    """The stored corrections cannot be used; one line."""


@dataclass
class _Entry:
    learned: Learned = field(default_factory=Learned)
    applied: Factors = field(default_factory=Factors)


@dataclass
class Pool:
    """All that was learned; ``changed`` says that it should be stored, ``version`` counts changes that plans see."""

    changed: bool = False
    version: int = 0
    stored: bool = False
    """Whether there is, as far as is known, a ConfigMap of it."""
    _layouts: dict[tuple[str, str, str, str], _Entry] = field(default_factory=dict)
    """(engine, model, product, layout); the one learned from last is last."""
    _products: dict[tuple[str, str, str], _Entry] = field(default_factory=dict)

    def learn(self, deployment: LLMDeployment, plan: PlanStatus, point: MeasuredPoint) -> bool:
        """Take in one window of a plan; return whether plans see another factor now."""
        product, layout = (*subject(deployment), plan.gpu_product), plan.layout
        whole = self._products.setdefault(product, _Entry())
        whole.learned = learn(whole.learned, point)
        key = (*product, layout)
        own = self._layouts.pop(key, None) or _Entry()
        own.learned = learn(own.learned, point)
        self._layouts[key] = own
        while len(self._layouts) > MOST_ENTRIES:
            self._forget_oldest()
        self.changed = True
        prior = factors_of(whole.learned)
        moved = _apply(whole, prior)
        for other, entry in self._layouts.items():
            if other[:3] == product:
                moved |= _apply(entry, factors_of(entry.learned, prior))
        self.version += moved
        return moved

    def _forget_oldest(self) -> None:
        oldest = next(iter(self._layouts))
        del self._layouts[oldest]
        if not any(key[:3] == oldest[:3] for key in self._layouts):
            del self._products[oldest[:3]]

    def forget(self) -> None:
        """Forget everything: plans see no factor any more."""
        self._layouts, self._products = {}, {}
        self.changed, self.stored = False, False
        self.version += 1

    def of(self, deployment: LLMDeployment, plan: PlanStatus) -> LearnedCorrection | None:
        """Return what is known of a plan's layout, as its object shows it; None when nothing was learned."""
        product = (*subject(deployment), plan.gpu_product)
        own = self._layouts.get((*product, plan.layout))
        if own is None:
            return None
        known = factors_of(own.learned, factors_of(self._products[product].learned))
        return LearnedCorrection(
            **{name: format_milli(getattr(known, name)) for name in FIGURES},
            gpu_product=plan.gpu_product,
            layout=plan.layout,
            windows=math.ceil(own.learned.points),
        )

    def for_planning(self, deployment: LLMDeployment) -> Corrections | None:
        """Return the factors for a deployment's plans; None where it does not ask for them or nothing was learned."""
        if deployment.spec.validation.on_drift != "Recalibrate":
            return None
        about = subject(deployment)
        layouts = {(key[2], key[3]): entry.applied for key, entry in self._layouts.items() if key[:2] == about}
        products = {key[2]: entry.applied for key, entry in self._products.items() if key[:2] == about}
        return Corrections(layouts, products) if products else None

    def dump(self) -> str:
        """Return everything as JSON, a line per entry."""
        entries = [*self._products.items(), *self._layouts.items()]
        lines = [json.dumps({"key": list(key), **_plain(entry)}, separators=(",", ":")) for key, entry in entries]
        return '{"version":1,"entries":[\n' + ",\n".join(lines) + "\n]}"

    def load(self, text: str) -> None:
        """Take what :meth:`dump` wrote.

        Raises:
            CorrectionsError: the text is something else.
        """
        try:
            document = json.loads(text)
            if document["version"] != 1:
                raise CorrectionsError(f"version {document['version']!r} is not known, 1 is")
            layouts, products = {}, {}
            for each in document["entries"]:
                key, entry = tuple(map(str, each["key"])), _entry(each)
                if len(key) == 4:
                    layouts[key] = entry
                elif len(key) == 3:
                    products[key] = entry
                else:
                    raise CorrectionsError(f"key {each['key']!r} has neither 3 nor 4 parts")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CorrectionsError):
                raise
            raise CorrectionsError(f"not in the operator's format: {error!r}") from error
        missing = [key for key in layouts if key[:3] not in products]
        if missing:
            raise CorrectionsError(f"no entry for the product of {'/'.join(missing[0])}")
        self._layouts, self._products = layouts, products
        self.changed = False


def subject(deployment: LLMDeployment) -> Subject:
    """Return what factors are about, GPU and layout apart."""
    model = deployment.spec.model
    name = model.name if model.quantization is None else f"{model.name}@{model.quantization}"
    return deployment.spec.engine.type, name


def _apply(entry: _Entry, known: Factors) -> bool:
    ratios = [abs(math.log(getattr(known, name) / getattr(entry.applied, name))) for name in FIGURES]
    if max(ratios) <= math.log1p(STEP):
        return False
    # What plans use is what their status can show.
    entry.applied = Factors(**{name: round(getattr(known, name), 3) for name in FIGURES})
    return True


def _plain(entry: _Entry) -> dict[str, Any]:
    return {
        "means": {name: round(value, 6) for name, value in entry.learned.means.items()},
        "weights": {name: round(value, 4) for name, value in entry.learned.weights.items()},
        "applied": {name: getattr(entry.applied, name) for name in FIGURES},
    }


def _entry(document: Mapping[str, Any]) -> _Entry:
    means = {name: _number(document["means"], name) for name in FIGURES if name in document["means"]}
    weights = {name: _number(document["weights"], name) for name in means}
    for name, weight in weights.items():
        if not 0 < weight <= MEMORY_POINTS + 1:
            raise CorrectionsError(f"weight {name}={weight} is not within 0 and {MEMORY_POINTS + 1:g}")
    applied = {name: _number(document["applied"], name) for name in FIGURES}
    for name, value in applied.items():
        if not 1 / BOUND[name] <= value <= BOUND[name]:
            raise CorrectionsError(f"factor {name}={value} is not within 1/{BOUND[name]:g} and {BOUND[name]:g}")
    return _Entry(Learned(means, weights), Factors(**applied))


def _number(values: Mapping[str, Any], name: str) -> float:
    value = float(values[name])
    if not math.isfinite(value):
        raise CorrectionsError(f"{name}={values[name]!r} is not finite")
    return value
