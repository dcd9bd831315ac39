"""Ways for an exporter to go wrong, each a transformation of the rows it would report, and ways for an engine to.

They compose in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from energylens_dev.replay.exposition import Row
from energylens_dev.replay.fleet import ITL_BOUNDS, Engine

Fault = Callable[[Sequence[Row]], list[Row]]
EngineFault = Callable[[Engine], Engine]


class ExporterDeadError(Exception):
    """The exporter does not answer."""


def drop_pod_labels(table: Sequence[Row]) -> list[Row]:
    """Lose every pod label, as when the kubelet's socket cannot be reached."""
    return [replace(row, pod={}) for row in table]


def dead(table: Sequence[Row]) -> list[Row]:
    """Do not answer."""
    raise ExporterDeadError


def millijoules_as_joules(table: Sequence[Row]) -> list[Row]:
    """Report energy 1000-fold too large under a name that says joules."""
    return [replace(row, joules=row.joules * 1000) for row in table]


def joules_as_millijoules(table: Sequence[Row]) -> list[Row]:
    """Report energy 1000-fold too small."""
    return [replace(row, joules=row.joules / 1000) for row in table]


def time_slicing(table: Sequence[Row]) -> list[Row]:
    """Report every allocated board once more for a second pod."""
    return [*table, *(replace(row, pod=row.pod | {"pod": "stranger"}) for row in table if row.pod)]


def one_gpu_missing(table: Sequence[Row]) -> list[Row]:
    """Leave out the first GPU that a pod holds."""
    first = next((row for row in table if row.pod), None)
    return [row for row in table if row is not first]


@dataclass
class DriverReload:
    """Counters restart from zero at the first collection that this sees."""

    _zero: dict[str, float] = field(default_factory=dict)

    def __call__(self, table: Sequence[Row]) -> list[Row]:
        """Take each GPU's first value off all later ones."""
        return [replace(row, joules=row.joules - self._zero.setdefault(row.uuid, row.joules)) for row in table]


@dataclass
class Hungry:
    """GPUs draw so many times as much from the first collection that this sees."""

    times: float = 1.2
    _since: dict[str, float] = field(default_factory=dict)

    def __call__(self, table: Sequence[Row]) -> list[Row]:
        """Let what is counted from then on, and the power, be as many times as large."""
        grown = []
        for row in table:
            start = self._since.setdefault(row.uuid, row.joules)
            grown.append(replace(row, joules=start + self.times * (row.joules - start), watts=self.times * row.watts))
        return grown


FAULTS: dict[str, Callable[[], Fault]] = {
    "drop-labels": lambda: drop_pod_labels,
    "dead": lambda: dead,
    "millijoules-as-joules": lambda: millijoules_as_joules,
    "joules-as-millijoules": lambda: joules_as_millijoules,
    "time-slicing": lambda: time_slicing,
    "driver-reload": DriverReload,
    "hungry": Hungry,
    "hungrier": lambda: Hungry(1.5),
    "one-gpu-missing": lambda: one_gpu_missing,
}
"""By the name that the command line and PUT /faults take; each call makes a fresh one."""


def dead_engine(engine: Engine) -> Engine:
    """Do not answer."""
    raise LookupError(f"{engine.pod.name} is dead, as asked for")


@dataclass
class Load:
    """Engines carry a share of their load from the first page that this sees; the GPUs draw what they drew."""

    share: float
    _since: dict[str, Engine] = field(default_factory=dict)

    def __call__(self, engine: Engine) -> Engine:
        """Let that share of what is counted from then on, and of what runs, be there."""
        start = self._since.setdefault(engine.pod.uid, replace(engine))

        def part(before: float, now: float) -> float:
            return before + self.share * (now - before)

        return replace(
            engine,
            point=replace(engine.point, concurrency=self.share * engine.point.concurrency),
            tokens=part(start.tokens, engine.tokens),
            requests=part(start.requests, engine.requests),
            itl_counts=list(map(part, start.itl_counts, engine.itl_counts)),
            tpot_counts=list(map(part, start.tpot_counts, engine.tpot_counts)),
        )


@dataclass
class Slow:
    """Every token takes 0.4 s from the first page that this sees, as the histogram shows it."""

    _since: dict[str, Engine] = field(default_factory=dict)

    def __call__(self, engine: Engine) -> Engine:
        """Count what came from then on in the bucket that ends at 0.4 s."""
        start = self._since.setdefault(engine.pod.uid, replace(engine))
        late = [bound >= 0.4 for bound in (*ITL_BOUNDS, float("inf"))]

        def counts(before: list[float], new: float) -> list[float]:
            return [n + new * is_late for n, is_late in zip(before, late, strict=True)]

        return replace(
            engine,
            itl_counts=counts(start.itl_counts, engine.tokens - start.tokens),
            tpot_counts=counts(start.tpot_counts, engine.requests - start.requests),
        )


ENGINE_FAULTS: dict[str, Callable[[], EngineFault]] = {
    "dead-engine": lambda: dead_engine,
    "idle": lambda: Load(0.0),
    "half-load": lambda: Load(0.5),
    "slow": Slow,
}
"""Likewise, of engines."""


def fault_named(name: str) -> tuple[Fault | None, EngineFault | None]:
    """Return a fresh fault of an exporter or of an engine; one of both is None.

    ``NAME@PART`` hits only pods with PART in their name: ``slow@canary``.

    Raises:
        ValueError: no fault has this name.
    """
    kind, _, part = name.partition("@")
    if kind in FAULTS:
        return _rows_of(FAULTS[kind](), part), None
    if kind in ENGINE_FAULTS:
        return None, _engines_of(ENGINE_FAULTS[kind](), part)
    known = ", ".join((*FAULTS, *ENGINE_FAULTS))
    raise ValueError(f"fault {name!r} is not one of {known}, each with @PART for pods with PART in their name")


def _rows_of(fault: Fault, part: str) -> Fault:
    def hit(table: Sequence[Row]) -> list[Row]:
        others = [row for row in table if part not in row.pod.get("pod", "")]
        return [*others, *fault([row for row in table if part in row.pod.get("pod", "")])]

    return hit if part else fault


def _engines_of(fault: EngineFault, part: str) -> EngineFault:
    return lambda engine: fault(engine) if part in engine.pod.name else engine


def apply(faults: Iterable[Fault], table: Sequence[Row]) -> list[Row]:
    """Return the rows after all faults, in order.

    Raises:
        ExporterDeadError: the exporter does not answer.
    """
    for fault in faults:
        table = fault(table)
    return list(table)
