"""The metrics of dcgm-exporter, in joules and watts by GPU UUID.

Both generations of names are in use: DCGM 4.6 renamed the fields and dcgm-exporter 4.9.0 made the new names its
default, while a custom counter file may keep the old ones. The unit is a property of the name, in one table.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

from energylens.measure.exposition import MetricSample, parse
from energylens.measure.types import GpuObservation, PodRef
from energylens.records import dataclass

Quantity = Literal["energy_joules", "power_watts", "power_limit_watts"]

# name -> (quantity, factor to J or W). Where one GPU has several names of a quantity the first in this table wins:
# averaged before instantaneous power, the limit in force before the one asked for.
# Sources: etc/default-counters.csv of NVIDIA/dcgm-exporter; DCGM field identifiers 155 to 164, 1611 (docs.nvidia.com).
METRICS: Mapping[str, tuple[Quantity, float]] = {
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": ("energy_joules", 1.0),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": ("energy_joules", 1e-3),
    "DCGM_FI_DEV_BOARD_POWER_WATTS": ("power_watts", 1.0),
    "DCGM_FI_DEV_POWER_USAGE": ("power_watts", 1.0),
    "DCGM_FI_DEV_BOARD_POWER_RAW_WATTS": ("power_watts", 1.0),
    "DCGM_FI_DEV_POWER_USAGE_INSTANT": ("power_watts", 1.0),
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_ENFORCED_WATTS": ("power_limit_watts", 1.0),
    "DCGM_FI_DEV_ENFORCED_POWER_LIMIT": ("power_limit_watts", 1.0),
    "DCGM_FI_DEV_BOARD_POWER_LIMIT_REQUESTED_WATTS": ("power_limit_watts", 1.0),
    "DCGM_FI_DEV_POWER_MGMT_LIMIT": ("power_limit_watts", 1.0),
}
_RANK = {name: rank for rank, name in enumerate(METRICS)}

UUID_LABELS = ("UUID", "uuid")
HOST_LABELS = ("Hostname", "hostname")
# Prometheus with honorLabels false renames the exporter's own labels to exported_*, because the scraped pod's win; the
# exporter's option for old names writes pod_name and pod_namespace.
EXPORTED = ("exported_pod", "exported_namespace")
PLAIN = (("pod", "namespace"), ("pod_name", "pod_namespace"))

CLAIMED_PART = "dra_mig_device_uuid"
"""Label of a board's series for each MIG device that a ResourceClaim holds (``internal/pkg/transformation`` of
dcgm-exporter); devices that no claim holds have no series, so that the rest of the board is not known."""

# DCGM's blank values, "not supported" and "not permissioned" among them, are a base and the few numbers after it
# (dcgm_structs.h: DCGM_FP64_BLANK is 2^47, DCGM_INT64_BLANK 0x7ffffffffffffff0). Old exporters served them.
_FP64_BLANK = 2.0**47
_INT64_BLANK = float(0x7FFFFFFFFFFFFFF0)
MAX_WATTS = 1e5
"""Upper bound of any GPU, board or superchip, W; the INT32 blanks of power fields are above it."""


@dataclass(frozen=True)
class DcgmReading:
    """Contents of one exposition."""

    gpus: tuple[GpuObservation, ...]
    rejected: tuple[str, ...] = ()
    """One sentence for each impossible sample: blanks, negative values, no UUID."""


def is_blank(value: float) -> bool:
    """Return whether a raw value is one of DCGM's blanks rather than a reading."""
    return value >= _INT64_BLANK or _FP64_BLANK <= value < _FP64_BLANK + 16


def parse_dcgm(text: str, *, time: float, source: str) -> DcgmReading:
    """Return one observation per GPU of a dcgm-exporter exposition.

    Lines of one UUID are merged: time-slicing repeats the board's value for each pod and MIG for each instance, so
    that adding them up would multiply energy. The observation names all owners instead, and says so when a MIG
    instance has none.

    Args:
        text: Prometheus text exposition.
        time: when it was read, in seconds since the Unix epoch; a line's own earlier timestamp goes before it.
        source: name of the source, kept on the observations.

    Raises:
        MalformedExpositionError: a DCGM line of interest cannot be parsed.
    """
    return observe(parse(text, METRICS), time=time, source=source)


def observe(samples: Iterable[MetricSample], *, time: float, source: str) -> DcgmReading:
    """Merge samples of the metrics in `METRICS`, from any source, into one observation per GPU."""
    samples = list(samples)
    renamed = any(sample.labels.get(EXPORTED[0]) for sample in samples)
    values: dict[str, dict[Quantity, tuple[int, float, float]]] = defaultdict(dict)
    owners: dict[str, set[PodRef]] = defaultdict(set)
    instances: dict[str, dict[str, bool]] = defaultdict(dict)
    claimed_parts: set[str] = set()
    products: dict[str, str] = {}
    hosts: dict[str, str] = {}
    rejected = []
    for sample in samples:
        quantity, factor = METRICS[sample.name]
        uuid = next((sample.labels[label] for label in UUID_LABELS if sample.labels.get(label)), None)
        if uuid is None:
            rejected.append(f"{sample.name} without a UUID label")
            continue
        value = sample.value * factor
        if sample.value < 0 or is_blank(sample.value) or (quantity != "energy_joules" and value > MAX_WATTS):
            rejected.append(f"{sample.name} of {uuid} is {sample.value:g}, which is a blank or impossible")
            continue
        owner = _owner(sample.labels, renamed)
        if owner is not None:
            owners[uuid].add(owner)
        if sample.labels.get(CLAIMED_PART):
            claimed_parts.add(uuid)
        instance = sample.labels.get("GPU_I_ID", "")
        if instance:
            instances[uuid][instance] = instances[uuid].get(instance, False) or owner is not None
        products[uuid] = sample.labels.get("modelName", "")
        hosts[uuid] = next((sample.labels[label] for label in HOST_LABELS if sample.labels.get(label)), "")
        rank = _RANK[sample.name]
        known = values[uuid].get(quantity)
        if known is None or rank < known[0]:
            # A timestamp in the future comes from another clock.
            values[uuid][quantity] = (rank, value, time if sample.time is None else min(sample.time, time))
    gpus = tuple(
        GpuObservation(
            uuid=uuid,
            time=max(moment for _, _, moment in quantities.values()),
            source=source,
            energy_joules=_value(quantities, "energy_joules"),
            power_watts=_value(quantities, "power_watts"),
            power_limit_watts=_value(quantities, "power_limit_watts"),
            owners=frozenset(owners[uuid]),
            partly_unallocated=bool(owners[uuid]) and (uuid in claimed_parts or not all(instances[uuid].values())),
            product=products[uuid],
            host=hosts[uuid],
        )
        for uuid, quantities in values.items()
    )
    return DcgmReading(gpus, tuple(rejected))


def _value(quantities: Mapping[Quantity, tuple[int, float, float]], quantity: Quantity) -> float | None:
    known = quantities.get(quantity)
    return None if known is None else known[1]


def _owner(labels: Mapping[str, str], renamed: bool) -> PodRef | None:
    """Return the pod that holds the GPU; empty labels mean none.

    When any series of the batch carries exported_* labels, the plain ones name the exporter's own pod everywhere.
    """
    for pod, namespace in (EXPORTED,) if renamed else PLAIN:
        if labels.get(pod):
            return PodRef(labels.get(namespace, ""), labels[pod])
    return None
