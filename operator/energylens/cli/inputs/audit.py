"""Inputs of an audit: pods and nodes of a cluster or of a file, and the counters of engines and GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energylens.audit.assessment import Assessment, AuditOptions
from energylens.audit.claimed import listed_gpus, with_claimed_gpus
from energylens.audit.cluster import assessments, product_by_node, shared_nodes
from energylens.audit.containers import config_map_names, pod_spec, reference_of
from energylens.audit.hosts import HostPower, host_powers, unknown_meters
from energylens.audit.served import ServedModel, served_models
from energylens.audit.telemetry import Telemetry
from energylens.cli.errors import InputError
from energylens.cli.inputs.files import device_objects, objects_of, read_documents, read_text
from energylens.cli.inputs.live import ClusterAccess, read_cluster
from energylens.cli.progress import progress
from energylens.clock import Clock, SystemClock
from energylens.data import load_gpus
from energylens.documents import DocumentError, json_document
from energylens.measure.dcgm import METRICS, parse_dcgm
from energylens.measure.engine_metrics import ENGINE_METRICS, parse_engine
from energylens.measure.exposition import MalformedExpositionError
from energylens.measure.host_meters import METERS, host_meters
from energylens.measure.prometheus import LabelMap, Series, observations, series_of
from energylens.measure.prometheus_engines import engine_observations
from energylens.measure.prometheus_http import Access, PrometheusError, PrometheusHttp
from energylens.measure.types import EngineObservation, GpuObservation, PodRef
from energylens.planner.inventory.snapshot import NO_DEVICE_OBJECTS, DeviceObjects, snapshot_from_objects
from energylens.planner.types import ClusterSnapshot
from energylens.records import dataclass

if TYPE_CHECKING:
    from energylens.cluster.client import KubeClient

Object = dict[str, Any]

LONGEST_STEP_SECONDS = 30
"""Longest step of the samples read from Prometheus: the default interval of dcgm-exporter."""
LEAST_SAMPLES = 120
"""Fewest samples of a window, unless the step would be below 5 s."""
PAUSE_SECONDS = 10.0
"""Time between two reads of the pods' metrics pages."""
_EXPORTER_LABELS = (
    ("app.kubernetes.io/name", "dcgm-exporter"),
    ("app.kubernetes.io/name", "nvidia-dcgm-exporter"),
    ("app", "nvidia-dcgm-exporter"),
    ("app", "dcgm-exporter"),
)
"""Labels of dcgm-exporter's pods in NVIDIA's chart and in the GPU operator."""
_EXPORTER_PORT = 9400
_NAMES = frozenset({*METRICS, *ENGINE_METRICS, *METERS})


@dataclass(frozen=True)
class Audited:
    """The objects that an audit reads."""

    nodes: Sequence[Object]
    pods: Sequence[Object]
    """With requests of the GPUs that their claims hold."""
    config_maps: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    devices: DeviceObjects = NO_DEVICE_OBJECTS
    """ResourceSlices, ResourceClaims, DeviceClasses and DeviceTaintRules."""
    pods_as_read: Sequence[Object] | None = None
    """The pods without requests of the GPUs that their claims hold; None if no pod has such requests."""

    def snapshot_pods(self) -> Sequence[Object]:
        """Return the pods for a snapshot, which counts the claims itself."""
        return self.pods if self.pods_as_read is None else self.pods_as_read

    def pods_by_address(self) -> dict[str, PodRef]:
        """Return the pods by IP address, without pods in the host's network, which share their address."""
        return {
            str(pod["status"]["podIP"]): reference_of(pod)
            for pod in self.pods
            if (pod.get("status") or {}).get("podIP") and not pod_spec(pod).get("hostNetwork")
        }


def audited_file(path: Path) -> Audited:
    """Return the objects of a file, as ``kubectl get nodes,pods,configmaps -A -o json`` prints them.

    With dynamic resource allocation also resourceslices, resourceclaims and deviceclasses.

    Raises:
        InputError: The file cannot be read or has no pod.
    """
    kinds = ("Node", "Pod", "ConfigMap", "ResourceSlice", "ResourceClaim", "DeviceClass", "DeviceTaintRule")
    by_kind: dict[str, list[Object]] = {kind: [] for kind in kinds}
    for found in objects_of(read_documents(path)):
        if isinstance(found, Mapping) and found.get("kind") in by_kind:
            if not isinstance(found.get("metadata"), Mapping) or not found["metadata"].get("name"):
                raise InputError(f"{path}: a {found['kind']} has no metadata.name, which kubectl prints")
            by_kind[found["kind"]].append(dict(found))
    if not by_kind["Pod"]:
        raise InputError(f"{path}: holds no Pod; write the file with `kubectl get nodes,pods -A -o json`")
    return _claimed(by_kind, _keyed(by_kind["ConfigMap"]), str(path))


def audited_cluster(access: ClusterAccess) -> Audited:
    """Return the objects of a live cluster; of ConfigMaps only those that pods with GPUs name and the user may read.

    Raises:
        InputError: The cluster cannot be read.
    """
    from energylens.cluster.resources import CONFIG_MAP, DEVICE_OBJECTS, NODE, POD

    # GPUs that pods of other namespaces hold are not free, whichever namespace is asked for.
    everywhere = (NODE, POD, *DEVICE_OBJECTS)
    found = read_cluster(access, everywhere=everywhere, optional=DEVICE_OBJECTS, if_allowed=DEVICE_OBJECTS).objects
    pods = _claimed(found, {}, "the cluster").pods
    wanted = {
        (pod["metadata"]["namespace"], name)
        for pod in pods
        if _asks_for_gpus(pod)
        for name in config_map_names(pod)
        if name
    }
    maps: list[Object] = []
    if wanted:
        named = [(CONFIG_MAP, *key) for key in sorted(wanted)]
        maps = read_cluster(access, named=named, if_allowed=(CONFIG_MAP,)).objects.get(CONFIG_MAP.kind, [])
    return _claimed(found, _keyed(maps), "the cluster")


def _claimed(found: Mapping[str, list[Object]], maps: Mapping[tuple[str, str], Object], source: str) -> Audited:
    """Return what an audit reads, with the GPUs that pods claim among their requests.

    Raises:
        InputError: An object is not as kubectl prints it.
    """
    devices = device_objects(found)
    try:
        return Audited(found["Node"], with_claimed_gpus(found["Pod"], devices), maps, devices, found["Pod"])
    except KeyError as error:
        raise InputError(f"{source}: an object lacks the field {error.args[0]!r}, which kubectl prints") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{source}: an object is not as kubectl prints it: {error}") from error


def served(audited: Audited, ids: Mapping[str, str], source: str) -> tuple[ClusterSnapshot, list[ServedModel]]:
    """Return the GPUs and the models that are served.

    Args:
        audited: The objects, which a person may have written.
        ids: Hugging Face ids by the name of the workload, for models that are served from a path.
        source: The origin of the objects, for messages.

    Raises:
        InputError: An object is not as kubectl prints it.
    """
    try:
        snapshot = snapshot_from_objects(audited.nodes, audited.snapshot_pods(), load_gpus(), audited.devices)
        return snapshot, served_models(
            audited.pods, product_by_node(snapshot), audited.config_maps, ids, shared_nodes(snapshot)
        )
    except KeyError as error:
        raise InputError(f"{source}: an object lacks the field {error.args[0]!r}, which kubectl prints") from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{source}: an object is not as kubectl prints it: {error}") from error


def assessed(
    models: Sequence[ServedModel], audited: Audited, telemetry: Telemetry, question: AuditOptions
) -> list[Assessment]:
    """Return the assessment of each model, by the clock of this machine; long work shows its progress."""
    now = SystemClock().now()
    pods = audited.snapshot_pods()
    found = assessments(models, audited.nodes, pods, telemetry, load_gpus(), now, question, audited.devices)
    with progress(found, "auditing", len(models), worth_showing=12) as answers:
        return list(answers)


def hosts_of(audited: Audited, telemetry: Telemetry) -> tuple[tuple[HostPower, ...], tuple[str, ...]]:
    """Return the power of the nodes by their meters, and a sentence for each metric that names no node."""
    listed = listed_gpus(audited.devices)
    return host_powers(audited.nodes, audited.pods, telemetry, listed), unknown_meters(audited.nodes, telemetry)


def _asks_for_gpus(pod: Object) -> bool:
    return "nvidia.com/gpu" in str(pod_spec(pod).get("containers"))


def _keyed(maps: Iterable[Object]) -> dict[tuple[str, str], Object]:
    return {(body["metadata"].get("namespace") or "default", body["metadata"]["name"]): body for body in maps}


def telemetry_of_files(paths: Sequence[Path], audited: Audited) -> Telemetry:
    """Return the counters in files that hold answers of a Prometheus to a range of raw samples.

    Raises:
        InputError: A file cannot be read, or is not such an answer.
    """
    answers = []
    for path in paths:
        try:
            found = json_document(read_text(path), infinite=True)
        except DocumentError as error:
            raise InputError(f"{path}: {error}") from error
        if not isinstance(found, Mapping):
            raise InputError(f"{path}: is not an answer of Prometheus, which is an object")
        answers.append(found)
    return telemetry_of_series(answers, audited, ", ".join(path.name for path in paths))


def telemetry_of_series(answers: Sequence[Mapping[str, Any]], audited: Audited, source: str) -> Telemetry:
    """Return the counters in answers of a Prometheus; a file may have the whole answer, or its ``data`` alone.

    Raises:
        InputError: One is not an answer to a selector with a range.
    """
    series: list[Series] = []
    for answer in answers:
        data = answer.get("data", answer)
        if not isinstance(data, Mapping) or "resultType" not in data:
            raise InputError(
                f"{source}: is not an answer of Prometheus; ask its /api/v1/query for a selector with a range, [1h:30s]"
            )
        try:
            series += series_of(data, _NAMES)
        except PrometheusError as error:
            raise InputError(f"{source}: {error}") from error
    return _of_series(series, audited, source)


def telemetry_of_prometheus(access: Access, seconds: float, audited: Audited) -> Telemetry:
    """Return the counters that a Prometheus scraped in the last seconds.

    Raises:
        InputError: The Prometheus does not answer.
    """
    step = round(min(max(seconds / LEAST_SAMPLES, 5), LONGEST_STEP_SECONDS))
    selector = f'{{__name__=~"{"|".join(sorted(_NAMES))}"}}[{round(seconds)}s:{step}s]'

    async def ask() -> list[Series]:
        async with PrometheusHttp(access, timeout_seconds=120.0) as prometheus:
            return series_of((await prometheus.query(selector)).data, _NAMES)

    try:
        series = asyncio.run(ask())
    except PrometheusError as error:
        raise InputError(f"--prometheus={access.url}: {error}") from error
    return _of_series(series, audited, f"Prometheus {access.url}")


def _of_series(series: Sequence[Series], audited: Audited, source: str) -> Telemetry:
    times = [time for each in series if each.name not in METERS for time, _ in each.values]
    if not times:
        return Telemetry(0.0, 0.0, (f"{source} has no metric of an engine or a GPU",), source)
    found = Telemetry(min(times), max(times), source=source, meters=host_meters(series))
    gpus = observations([each for each in series if each.name in METRICS], LabelMap(), 0.0, "prometheus")
    try:
        engines = engine_observations(series, audited.pods_by_address())
    except MalformedExpositionError as error:
        raise InputError(f"{source}: {error}") from error
    found.record(gpus.observations, engines)
    return found


def telemetry_of_pods(
    access: ClusterAccess,
    audited: Audited,
    served: Sequence[ServedModel],
    seconds: float,
    clock: Clock | None = None,
    pause: float = PAUSE_SECONDS,
) -> Telemetry:
    """Return the counters on the pods' metrics pages, read repeatedly through the API server.

    Args:
        access: The cluster.
        audited: The cluster's pods; dcgm-exporter's are read for energy.
        served: The models whose engines are read.
        seconds: Length of the measurement.
        clock: This process's clock.
        pause: Seconds between two reads.

    Raises:
        InputError: The kubeconfig is not usable.
    """
    from energylens.cluster.connecting import connect_as_user
    from energylens.cluster.kubeconfig import UnusableConfigError

    clock = clock or SystemClock()
    engines = [(pod, each.arguments.port) for each in served if each.arguments for pod in each.engine_pods]
    exporters = [(reference_of(pod), _EXPORTER_PORT) for pod in audited.pods if _is_exporter(pod)]

    async def read() -> Telemetry:
        client, _ = await connect_as_user(access.kubeconfig, access.context)
        async with client:
            return await _read_pages(client, engines, exporters, seconds, clock, pause)

    try:
        return asyncio.run(read())
    except UnusableConfigError as error:
        raise InputError(str(error)) from error


async def _read_pages(
    client: KubeClient,
    engines: Sequence[tuple[PodRef, int]],
    exporters: Sequence[tuple[PodRef, int]],
    seconds: float,
    clock: Clock,
    pause: float,
) -> Telemetry:
    from energylens.cluster.errors import ClusterError

    failures: dict[str, None] = {}
    gpus: list[GpuObservation] = []
    tokens: list[EngineObservation] = []

    async def page(pod: PodRef, port: int) -> tuple[str, float] | None:
        try:
            text = await client.pod_page(pod.namespace, pod.pod, port, "metrics")
        except ClusterError as error:
            failures[f"{pod}: {error}"] = None
            return None
        return text, clock.now().timestamp()

    start = clock.now().timestamp()
    while True:
        pages = await asyncio.gather(*(page(*each) for each in (*engines, *exporters)))
        for (pod, _), found in zip((*engines, *exporters), pages, strict=True):
            if found is None:
                continue
            text, time = found
            try:
                if (pod, _) in exporters:
                    gpus += parse_dcgm(text, time=time, source="dcgm-exporter").gpus
                elif (observed := parse_engine(text, pod=pod, time=time)) is not None:
                    tokens.append(observed)
                else:
                    failures[f"{pod}: its page has no metric of vLLM or SGLang"] = None
            except MalformedExpositionError as error:
                failures[f"{pod}: {error}"] = None
        now = clock.now().timestamp()
        if now - start >= seconds:
            break
        await asyncio.sleep(min(pause, max(seconds - (now - start), 0.1)))
    result = Telemetry(start, now, tuple(failures), "the pages of pods, through the API server")
    result.record(gpus, tokens)
    return result


def _is_exporter(pod: Object) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return (pod.get("status") or {}).get("phase") == "Running" and any(
        labels.get(name) == value for name, value in _EXPORTER_LABELS
    )
