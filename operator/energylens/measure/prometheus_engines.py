"""Serving metrics of engines from a Prometheus that scrapes them, as observations of each pod."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from energylens.measure.engine_metrics import ENGINE_METRICS, observe_engine
from energylens.measure.exposition import MetricSample
from energylens.measure.prometheus import Series
from energylens.measure.types import EngineObservation, PodRef

_POD_LABELS = (
    ("exported_pod", "exported_namespace"),
    ("pod", "namespace"),
    ("kubernetes_pod_name", "kubernetes_namespace"),
    ("pod_name", "namespace"),
)
"""Labels that identify an engine's pod in common scrape configurations; labels of the engine itself take precedence."""


def engine_observations(series: Iterable[Series], pods_by_address: Mapping[str, PodRef]) -> list[EngineObservation]:
    """Return one observation per pod and scrape.

    Args:
        series: What was scraped, of any metric.
        pods_by_address: Pods by IP address, for scrapes that only have the label ``instance``.

    Raises:
        MalformedExpositionError: A bucket of a histogram has no bound.
    """
    scrapes: dict[tuple[PodRef, float], list[MetricSample]] = defaultdict(list)
    for each in series:
        if each.name not in ENGINE_METRICS:
            continue
        pod = _pod(each.labels, pods_by_address)
        if pod is not None:
            for time, value in each.values:
                if value == value:  # not NaN
                    scrapes[pod, time].append(MetricSample(each.name, each.labels, value, time))
    found = (observe_engine(samples, pod=pod, time=time) for (pod, time), samples in sorted(scrapes.items()))
    return [observation for observation in found if observation is not None]


def _pod(labels: Mapping[str, str], pods_by_address: Mapping[str, PodRef]) -> PodRef | None:
    for pod, namespace in _POD_LABELS:
        if labels.get(pod):
            return PodRef(labels.get(namespace, ""), labels[pod])
    address = labels.get("instance", "").rpartition(":")[0].strip("[]")
    return pods_by_address.get(address)
