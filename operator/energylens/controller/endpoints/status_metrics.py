"""Series of every LLMDeployment and budget, read off their statuses at each scrape.

Nothing is counted: a restart forgets no series, a deletion leaves none, and a figure that is no longer measured is
absent rather than old.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from energylens.api.quantity import parse_quantity
from energylens.controller.state.store import Body, Key, Store
from energylens.decide.deployment.reports.revisions import saved_watts
from energylens.decide.trimmed import Packed
from energylens.records import dataclass

OBJECT = ("namespace", "name")
FRESH = ("Measured", "TooFewTokens", "TokensMissing")
"""Reasons of EnergyMetricsAvailable under which ``status.measured`` is of the last window."""
CONDITION_VALUES = {"True": 1.0, "False": 0.0, "Unknown": -1.0}
ERRORS = {
    "energy": "energyErrorPercent",
    "power": "powerErrorPercent",
    "itl": "itlErrorPercent",
    "tpot": "tpotErrorPercent",
    "end_to_end": "endToEndErrorPercent",
    "ttft": "ttftErrorPercent",
}
FIGURES = ("energy", "power", "itl", "ttft")

Status = Mapping[str, Any]
Sample = tuple[tuple[str, ...], float]
"""Values of the labels beyond namespace and name, and the value."""
Samples = Iterator[Sample]


@dataclass(frozen=True)
class _Family:
    name: str
    text: str
    read: Callable[[Status], Samples]
    labels: tuple[str, ...] = ()


def _at(*path: str, scale: float = 1.0) -> Callable[[Status], Samples]:
    """Return a reader of one number or quantity in a status; nothing where it is absent."""

    def read(status: Status) -> Samples:
        value: Any = status
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            yield (), float(parse_quantity(value) if isinstance(value, str) else value) * scale

    return read


def _measured(name: str, scale: float = 1.0) -> Callable[[Status], Samples]:
    read = _at("measured", name, scale=scale)
    return lambda status: read(status) if _is_fresh(status) else iter(())


def _is_fresh(status: Status) -> bool:
    return any(c["type"] == "EnergyMetricsAvailable" and c["reason"] in FRESH for c in status.get("conditions") or ())


def _errors(status: Status) -> Samples:
    found = status.get("prediction") or {}
    for figure, name in ERRORS.items():
        if name in found and _is_fresh(status):
            yield (figure,), found[name] / 100.0


def _corrections(status: Status) -> Samples:
    found = (status.get("plan") or {}).get("correction") or {}
    for figure in FIGURES:
        if figure in found:
            yield (figure,), float(parse_quantity(found[figure]))


def _conditions(status: Status) -> Samples:
    for condition in status.get("conditions") or ():
        yield (condition["type"], condition["reason"]), CONDITION_VALUES.get(condition["status"], -1.0)


def _plan(status: Status) -> Samples:
    plan = status.get("plan")
    if plan is not None:
        names = ("hash", "gpuProduct", "layout", "predictorVersion", "confidence")
        yield tuple(str(plan.get(name, "")) for name in names), 1.0


def _saved(status: Status) -> Samples:
    """Yield the power saved against the previous plan, if both plans were measured at a similar load.

    Beside the canary of another plan, the measured window covers the running pods at their share of the load only.
    """
    if (status.get("verification") or {}).get("plan"):
        return
    before, now = status.get("previousRevision") or {}, status.get("measured") or {}
    figures = (
        before.get("measuredJoulesPerOutputToken"),
        before.get("measuredOutputTokensPerSecond"),
        now.get("joulesPerOutputToken"),
        now.get("outputTokensPerSecond"),
    )
    if not _is_fresh(status) or any(figure is None for figure in figures):
        return
    saved = saved_watts(*(float(parse_quantity(str(figure))) for figure in figures))
    if saved is not None:
        yield (), saved


_PREDICTED = ("plan", "predicted")
_LATENCIES = (
    ("itl", "inter-token latency", "itlMilliseconds"),
    ("tpot", "time per output token of a request", "tpotMilliseconds"),
    ("end_to_end", "time from a request's arrival to its last token", "endToEndMilliseconds"),
    ("ttft", "time to first token", "ttftMilliseconds"),
)
"""Latencies with a predicted and a measured family: part of the name, words of the help text, field of the status."""


def _latency_families(name: str, words: str, field: str) -> tuple[_Family, _Family]:
    at = f"{words} at the percentile of spec.slo, s."
    return (
        _Family(f"energylens_predicted_{name}_seconds", f"Predicted {at}", _at(*_PREDICTED, field, scale=1e-3)),
        _Family(f"energylens_measured_{name}_seconds", f"Measured {at}", _measured(field, 1e-3)),
    )


DEPLOYMENT_FAMILIES = (
    _Family(
        "energylens_predicted_joules_per_output_token",
        "Predicted GPU energy per output token of the plan, J.",
        _at(*_PREDICTED, "joulesPerOutputToken"),
    ),
    _Family(
        "energylens_measured_joules_per_output_token",
        "Measured GPU energy per output token of the last window, J.",
        _measured("joulesPerOutputToken"),
    ),
    _Family(
        "energylens_previous_plan_predicted_joules_per_output_token",
        "Predicted GPU energy per output token of the plan that the running plan replaced, J.",
        _at("previousRevision", "joulesPerOutputToken"),
    ),
    _Family(
        "energylens_previous_plan_measured_joules_per_output_token",
        "Measured GPU energy per output token of the plan that the running plan replaced, J.",
        _at("previousRevision", "measuredJoulesPerOutputToken"),
    ),
    _Family(
        "energylens_saved_power_watts",
        "Power saved at the present load against the plan that the running plan replaced, both measured, W.",
        _saved,
    ),
    _Family("energylens_predicted_power_watts", "Predicted power of all GPUs, W.", _at(*_PREDICTED, "powerWatts")),
    _Family("energylens_measured_power_watts", "Measured mean power of all GPUs owned, W.", _measured("powerWatts")),
    _Family(
        "energylens_measured_idle_power_watts",
        "Measured power of all GPUs owned while no request ran, W.",
        _measured("idlePowerWatts"),
    ),
    *(family for latency in _LATENCIES for family in _latency_families(*latency)),
    _Family(
        "energylens_predicted_output_tokens_per_second",
        "Tokens per second that the plan was made for.",
        _at(*_PREDICTED, "outputTokensPerSecond"),
    ),
    _Family(
        "energylens_measured_output_tokens_per_second",
        "Tokens generated per second over the last window.",
        _measured("outputTokensPerSecond"),
    ),
    _Family(
        "energylens_measured_requests_per_second",
        "Requests that ended per second over the last window.",
        _measured("requestsPerSecond"),
    ),
    _Family(
        "energylens_measured_prefix_cache_hit_ratio",
        "Share of the prompt tokens of the last window that the prefix cache had.",
        _measured("prefixCacheHitPercent", 1e-2),
    ),
    _Family(
        "energylens_measured_draft_acceptance_ratio",
        "Accepted over drafted tokens of the last window.",
        _measured("acceptancePercent", 1e-2),
    ),
    _Family("energylens_prediction_error_ratio", "(predicted - measured) / measured.", _errors, ("figure",)),
    _Family(
        "energylens_plan_correction_ratio",
        "Factor from measurement in the plan's predicted figures.",
        _corrections,
        ("figure",),
    ),
    _Family(
        "energylens_plan_info",
        "1; the plan that is followed.",
        _plan,
        ("hash", "gpu_product", "layout", "predictor_version", "confidence"),
    ),
    _Family("energylens_plan_gpus", "GPUs of the plan over all replicas.", _at("plan", "gpus")),
    _Family("energylens_plan_replicas", "Copies of the model in the plan.", _at("plan", "replicas")),
    _Family(
        "energylens_condition_status",
        "A condition of the LLMDeployment: 1 True, 0 False, -1 Unknown.",
        _conditions,
        ("type", "reason"),
    ),
)


class StatusPage:
    """The series of all objects in a store as Prometheus reads them, made again only for statuses that changed.

    The page of 2,000 deployments has 40,000 series. As samples of a registry they took 40 MiB and 0.56 s of the event
    loop at each scrape; each deployment keeps its lines compressed instead, which takes 4 MiB and 0.03 s.
    """

    def __init__(self, store: Store) -> None:
        """Read ``store`` at each scrape."""
        self._store = store
        self._known: dict[Key, tuple[Body, Packed]] = {}
        """The lines of each deployment by family, and the object that they were read from."""

    async def texts(self) -> AsyncIterator[bytes]:
        """Yield the page in parts, and let the event loop do other work in between."""
        pages = [bytearray(_text(_metric(family, ()))) for family in DEPLOYMENT_FAMILIES]
        for number, key in enumerate(tuple(self._store.deployments)):
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)
            # It may have been deleted meanwhile.
            if (body := self._store.deployments.get(key)) is not None:
                for page, lines in zip(pages, self._lines(key, body), strict=True):
                    page += lines
        if len(self._known) > len(self._store.deployments):
            self._known = {key: kept for key, kept in self._known.items() if key in self._store.deployments}
        # Lines of one family must be together. A family is dropped as soon as it is sent.
        for page in pages:
            yield bytes(page)
            page.clear()

    def _lines(self, key: Key, body: Body) -> Iterable[bytes]:
        """Return the lines of a deployment by family."""
        known = self._known.get(key)
        if known is None or known[0] is not body:
            status = dict(body["status"])
            lines = {f.name: _lines_of(_metric(f, ((key, one) for one in f.read(status)))) for f in DEPLOYMENT_FAMILIES}
            known = self._known[key] = body, Packed(lines, "series")
        return known[1].unpacked().values()


_AT_ONCE = 50
"""Deployments whose lines are put together at once: some milliseconds."""


@dataclass(frozen=True)
class _Only(Collector):
    """A registry of one family."""

    metric: Metric

    def collect(self) -> Iterable[Metric]:
        """Yield the family."""
        yield self.metric


def _metric(family: _Family, samples: Iterable[tuple[Key, Sample]]) -> Metric:
    metric = GaugeMetricFamily(family.name, family.text, labels=(*OBJECT, *family.labels))
    for key, (labels, value) in samples:
        metric.add_metric([*key, *labels], value)
    return metric


def _text(metric: Metric) -> bytes:
    """Return a family as Prometheus reads it: two lines of comments, and a line for each series."""
    return generate_latest(_Only(metric))


def _lines_of(metric: Metric) -> bytes:
    """Return the series of a family without the comments."""
    return _text(metric).split(b"\n", 2)[2] if metric.samples else b""
