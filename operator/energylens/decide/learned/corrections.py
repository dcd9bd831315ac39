"""Corrections of the predictor learned by the cluster, pooled over its LLMDeployments and stored in a ConfigMap.

Lessons are stored per engine, model, GPU product, layout and load; each lesson also corrects the other layouts and
loads of its product. Plans use new factors only after a change of a minimum size, so that small fluctuations do not
replan the cluster with every window.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from energylens.api.llmdeployment import LearnedCorrection, LLMDeployment, PlanStatus
from energylens.api.quantity import format_milli
from energylens.planner.search.corrections import Corrections
from energylens.predictor.fitted.features import load_kind
from energylens.predictor.fitted.lessons import LOAD_WIDTH, LessonRecord, Lessons, Place, rounded
from energylens.predictor.fitted.recalibration import (
    FIGURES,
    LARGEST_LOG,
    MEMORY_POINTS,
    Learned,
    MeasuredPoint,
    factors_of,
)
from energylens.records import dataclass

CONFIG_MAP_NAME = "energylens-corrections"
DATA_KEY = "corrections.json"
VERSION = 3
"""Version of the storage format."""
MOST_ENTRIES = 1000
"""Most lessons in a ConfigMap, which must stay below 1 MiB; the latest lessons are kept."""

Subject = tuple[str, str]
"""Engine and model, including the requested quantization."""


class CorrectionsError(ValueError):
    """The stored corrections cannot be used; one line."""


Product = tuple[str, str, str]
"""Engine, model, GPU product."""


@dataclass
class Pool:
    """All corrections; ``changed`` means that the ConfigMap is stale, ``version`` counts changes that affect plans."""

    changed: bool = False
    version: int = 0
    stored: bool = False
    """Whether a ConfigMap with the corrections is known to exist."""
    _lessons: dict[Product, Lessons] = field(default_factory=dict)
    """Lessons by product; the product with the latest lesson is last."""

    def learn(self, deployment: LLMDeployment, plan: PlanStatus, point: MeasuredPoint) -> bool:
        """Learn from one window of a plan; return whether the factors that plans use have changed."""
        product = (*subject(deployment), plan.gpu_product)
        lessons = self._lessons.pop(product, None) or Lessons()
        self._lessons[product] = lessons
        moved = lessons.learn(plan.layout, kind_of(deployment), _sequences(plan), point)
        while sum(len(one.entries) for one in self._lessons.values()) > MOST_ENTRIES:
            self._forget_oldest()
        self.changed = True
        self.version += moved
        return moved

    def _forget_oldest(self) -> None:
        product = next(iter(self._lessons))
        entries = self._lessons[product].entries
        del entries[next(iter(entries))]
        if not entries:
            del self._lessons[product]

    def forget(self) -> None:
        """Forget everything, so that plans use no factors."""
        self._lessons = {}
        self.changed, self.stored = False, False
        self.version += 1

    def of(self, deployment: LLMDeployment, plan: PlanStatus) -> LearnedCorrection | None:
        """Return the corrections of a plan's layout in the form of its status; None if nothing was learned."""
        lessons = self._lessons.get((*subject(deployment), plan.gpu_product))
        if lessons is None or not (windows := lessons.windows(plan.layout)):
            return None
        known = factors_of(lessons.learned(), plan.layout, kind_of(deployment), _sequences(plan))
        return LearnedCorrection(
            **{name: format_milli(getattr(known, name)) for name in FIGURES},
            gpu_product=plan.gpu_product,
            layout=plan.layout,
            windows=math.ceil(windows),
        )

    def for_planning(self, deployment: LLMDeployment) -> Corrections | None:
        """Return the lessons for a deployment's plans; None if it does not use corrections, or nothing was learned."""
        if deployment.spec.validation.on_drift != "Recalibrate":
            return None
        about = subject(deployment)
        found = {key[2]: lessons.applied() for key, lessons in self._lessons.items() if key[:2] == about}
        if not found:
            return None
        return Corrections({product: lessons for product, lessons in found.items() if lessons}, kind_of(deployment))

    def dump(self) -> str:
        """Return all lessons as JSON, one line per entry."""
        lines = [
            json.dumps({"key": [*product, layout, kind, load], **_plain(entry)}, separators=(",", ":"))
            for product, lessons in self._lessons.items()
            for (layout, kind, load), entry in lessons.entries.items()
        ]
        return f'{{"version":{VERSION},"entries":[\n' + ",\n".join(lines) + "\n]}"

    def load(self, text: str) -> None:
        """Load the output of :meth:`dump`.

        Raises:
            CorrectionsError: The text has another format.
        """
        try:
            document = json.loads(text)
            version = document["version"]
            if version not in (2, VERSION):
                raise CorrectionsError(f"version {version!r} is unknown; the known versions are 2 and {VERSION}")
            found: dict[Product, dict[Place, LessonRecord]] = {}
            for each in document["entries"]:
                key = each["key"]
                if version == 2:  # without kinds of load
                    key = [*key[:4], "", *key[4:]]
                if len(key) != 6:
                    raise CorrectionsError(f"key {each['key']!r} must have {6 if version == VERSION else 5} parts")
                engine, model, product, layout, kind = map(str, key[:5])
                found.setdefault((engine, model, product), {})[layout, kind, _load_from(key[5])] = _entry(each)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            if isinstance(error, CorrectionsError):
                raise
            raise CorrectionsError(f"not in the operator's format: {error!r}") from error
        self._lessons = {product: Lessons(entries) for product, entries in found.items()}
        self.changed = False


def subject(deployment: LLMDeployment) -> Subject:
    """Return the subject of factors, without GPU and layout."""
    model = deployment.spec.model
    name = model.name if model.quantization is None else f"{model.name}@{model.quantization}"
    return deployment.spec.engine.type, name


def kind_of(deployment: LLMDeployment) -> str:
    """Return the kind of a deployment's load."""
    workload = deployment.spec.workload
    return load_kind(workload.mean_input_tokens, workload.mean_output_tokens)


def _sequences(plan: PlanStatus) -> float:
    """Return the running sequences of one replica in the prediction of a plan."""
    return max(plan.predicted.concurrency / max(plan.replicas, 1), 1.0)


def _load_from(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value * LOAD_WIDTH <= math.log(1e9):
        raise CorrectionsError(f"load {value!r} is not a whole number from 0 to {math.log(1e9) / LOAD_WIDTH:.0f}")
    return value


def _plain(entry: LessonRecord) -> dict[str, Any]:
    learned = rounded(entry.learned)
    return {
        "means": dict(learned.means),
        "weights": dict(learned.weights),
        "applied": {"means": dict(entry.applied.means), "weights": dict(entry.applied.weights)},
    }


def _entry(document: Mapping[str, Any]) -> LessonRecord:
    return LessonRecord(_learned(document), _learned(document["applied"]))


def _learned(document: Mapping[str, Any]) -> Learned:
    means = {name: _number(document["means"], name) for name in FIGURES if name in document["means"]}
    weights = {name: _number(document["weights"], name) for name in means}
    for name, weight in weights.items():
        if not 0 < weight <= MEMORY_POINTS + 1:
            raise CorrectionsError(f"weight {name}={weight} is not within 0 and {MEMORY_POINTS + 1:g}")
        if not abs(means[name]) <= LARGEST_LOG:
            raise CorrectionsError(f"mean {name}={means[name]} is not within -{LARGEST_LOG:g} and {LARGEST_LOG:g}")
    return Learned(means, weights)


def _number(values: Mapping[str, Any], name: str) -> float:
    value = float(values[name])
    if not math.isfinite(value):
        raise CorrectionsError(f"{name}={values[name]!r} is not finite")
    return value
