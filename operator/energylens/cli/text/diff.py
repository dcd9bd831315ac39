"""Two sets of plans side by side, as text and as an object. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from energylens.api.llmdeployment import PlanStatus, describe_plan
from energylens.api.quantity import format_milli, parse_quantity
from energylens.cli.text.tables import columns
from energylens.decide.preview import Preview, World
from energylens.records import dataclass

HOURS_PER_DAY = 24
_ABSENT = "-"
_AT_ZERO, _SUSPENDED = "spec.replicas is 0", "spec.suspend is true"
_IN_KWH = ("energyWattHoursPerDay", "jobEnergyWattHours")
_SUMMED = ("gpus", "powerWatts", "idlePowerWatts", *_IN_KWH)
_HEADER = ("", "A", "B", "B - A")


@dataclass(frozen=True)
class Side:
    """One side of a comparison."""

    name: str
    world: World
    previews: Sequence[Preview]


@dataclass(frozen=True)
class BothSides:
    """A deployment on both sides; None on a side that lacks it."""

    namespace: str
    name: str
    a: Preview | None
    b: Preview | None


@dataclass(frozen=True)
class FieldChange:
    """A value that differs; None on a side where it is not set."""

    field: str
    a: Any
    b: Any


@dataclass(frozen=True)
class Comparison:
    """A comparison of two sets of plans."""

    a: Side
    b: Side
    pairs: tuple[BothSides, ...]


@dataclass(frozen=True)
class _Figure:
    words: str
    field: str
    a: float | None
    b: float | None
    digits: int = 0

    @property
    def change(self) -> float | None:
        return None if self.a is None or self.b is None else self.b - self.a


def compare(a: Side, b: Side) -> Comparison:
    """Return the two sides matched by deployment.

    If each side has only one, the two are compared even under different names.
    """
    if len(a.previews) == len(b.previews) == 1:
        (one,), (other,) = a.previews, b.previews
        metadata = one.deployment.metadata
        return Comparison(a, b, (BothSides(metadata.namespace, metadata.name, one, other),))
    found: dict[tuple[str, str], list[Preview | None]] = {}
    for number, side in enumerate((a, b)):
        for preview in side.previews:
            metadata = preview.deployment.metadata
            found.setdefault((metadata.namespace, metadata.name), [None, None])[number] = preview
    return Comparison(a, b, tuple(BothSides(*key, *sides) for key, sides in found.items()))


def report(found: Comparison) -> str:
    """Return the comparison as text."""
    lines = [f"A: {found.a.name}", f"B: {found.b.name}"]
    lines += [f"  {change.field}: {change.a} in A, {change.b} in B" for change in inventory_changes(found)]
    for pair in found.pairs:
        lines += ["", f"{pair.namespace}/{pair.name}", *_pair(pair)]
    if len(found.pairs) > 1:
        lines += [
            "",
            "All with a plan on both sides",
            *columns([("", "A", "B", "B - A"), *map(_row, _totals(found.pairs))]),
        ]
    return "\n".join(lines)


def as_object(found: Comparison) -> dict[str, Any]:
    """Return the comparison for programs; differences are B - A."""
    return {
        "a": found.a.name,
        "b": found.b.name,
        "inventoryChanges": [_change_object(change) for change in inventory_changes(found)],
        "deployments": [_pair_object(pair) for pair in found.pairs],
        "total": {side: _figures_object(_totals(found.pairs), side) for side in ("a", "b", "difference")},
    }


def inventory_changes(found: Comparison) -> Iterator[FieldChange]:
    """Yield the GPU products whose numbers differ between the two clusters."""
    gpus = [Counter[str](), Counter[str]()]
    for count, side in zip(gpus, (found.a, found.b), strict=True):
        for node in side.world.snapshot.nodes:
            count[node.product] += node.allocatable
    for product in sorted({*gpus[0], *gpus[1]}):
        if gpus[0][product] != gpus[1][product]:
            yield FieldChange(f"GPUs of {product}", gpus[0][product], gpus[1][product])


def spec_changes(pair: BothSides) -> Iterator[FieldChange]:
    """Yield the fields of spec that differ."""
    if pair.a is None or pair.b is None:
        return
    a, b = (dict(_leaves(side.deployment.spec.model_dump(mode="json", by_alias=True, exclude_unset=True), "spec"))
            for side in (pair.a, pair.b))  # fmt: skip
    for field in sorted({*a, *b}):
        if a.get(field) != b.get(field):
            yield FieldChange(field, a.get(field), b.get(field))


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _leaves(entry, f"{path}.{key}")
    else:
        yield path, value


def _pair(pair: BothSides) -> list[str]:
    if pair.a is None or pair.b is None:
        return [f"  only in {'B' if pair.a is None else 'A'}", *columns(_table(pair))]
    lines = [f"  {change.field}: {_text(change.a)} in A, {_text(change.b)} in B" for change in spec_changes(pair)]
    plans = [side.planning.plan for side in (pair.a, pair.b)]
    for name, side in (("A", pair.a), ("B", pair.b)):
        if not side.planning.good:
            lines.append(f"  {name} has no plan: {side.planning.reason}: {side.planning.message}")
        if side.deployment.spec.is_stopped:
            lines.append(
                f"  {name} runs no pods: {'spec.suspend is true' if side.deployment.spec.suspend else _AT_ZERO}"
            )
    if plans[0] is not None and plans[1] is not None and describe_plan(plans[0]) == describe_plan(plans[1]):
        lines.append("  the plan is the same")
    return [*lines, *(columns(_table(pair)) if any(plans) else ())]


def _table(pair: BothSides) -> list[tuple[str, str, str, str]]:
    a, b = (None if side is None else side.planning.plan for side in (pair.a, pair.b))
    plans = [_ABSENT if plan is None else describe_plan(plan) for plan in (a, b)]
    return [_HEADER, ("plan", plans[0], plans[1], ""), *map(_row, _figures(pair.a, pair.b))]


def _row(figure: _Figure) -> tuple[str, str, str, str]:
    shown = [_ABSENT if value is None else f"{value:.{figure.digits}f}" for value in (figure.a, figure.b)]
    change = figure.change
    if change is None or figure.a is None:
        return figure.words, shown[0], shown[1], _ABSENT
    share = f" ({100 * change / figure.a:+.0f} %)" if figure.a and change else ""
    return figure.words, shown[0], shown[1], f"{change:+.{figure.digits}f}{share}" if change else "same"


def _figures(a: Preview | None, b: Preview | None) -> list[_Figure]:
    """Return the figures that the plan of at least one of two sides has.

    Without pods, GPUs, power and energy are 0, and nothing else has a figure.
    """

    def value(side: Preview | None, field: str, of: Callable[[PlanStatus], float | None]) -> float | None:
        plan = None if side is None else side.planning.plan
        found = None if plan is None else of(plan)
        if side is None or found is None or not side.deployment.spec.is_stopped:
            return found
        return 0.0 if field in _SUMMED else None

    def both(words: str, field: str, of: Callable[[PlanStatus], float | None], digits: int = 0) -> _Figure:
        return _Figure(words, field, value(a, field, of), value(b, field, of), digits)

    found = [
        both("GPUs", "gpus", lambda plan: plan.gpus),
        both(
            "J per output token",
            "joulesPerOutputToken",
            lambda plan: float(parse_quantity(plan.predicted.joules_per_output_token)),
            3,
        ),
        both("power, W", "powerWatts", lambda plan: plan.predicted.power_watts),
        both("kWh per day", "energyWattHoursPerDay", lambda plan: _unless_job(plan, _kwh_per_day(plan)), 1),
        both("kWh of the job", "jobEnergyWattHours", _kwh_of_job, 1),
        both("end of the job, s", "completionSeconds", _end_of_job),
        both("idle power, W", "idlePowerWatts", lambda plan: plan.predicted.idle_power_watts),
        both("TTFT, ms", "ttftMilliseconds", lambda plan: _unless_job(plan, plan.predicted.ttft_milliseconds)),
        both("ITL, ms", "itlMilliseconds", lambda plan: plan.predicted.itl_milliseconds),
        both("TPOT, ms", "tpotMilliseconds", lambda plan: plan.predicted.tpot_milliseconds),
        both("E2E, ms", "endToEndMilliseconds", lambda plan: _unless_job(plan, plan.predicted.end_to_end_milliseconds)),
        both("output tokens per second", "outputTokensPerSecond", lambda plan: plan.predicted.output_tokens_per_second),
    ]
    return [figure for figure in found if figure.a is not None or figure.b is not None]


def _kwh_per_day(plan: PlanStatus) -> float:
    return HOURS_PER_DAY * plan.predicted.power_watts / 1000.0


def _kwh_of_job(plan: PlanStatus) -> float | None:
    return None if plan.job is None else plan.job.energy_watt_hours / 1000.0


def _end_of_job(plan: PlanStatus) -> float | None:
    return None if plan.job is None else plan.job.completion_seconds


def _unless_job(plan: PlanStatus, value: float | None) -> float | None:
    """Return a figure of a steady load; None for a job, which runs once and for whose single requests nobody waits."""
    return value if plan.job is None else None


def _totals(pairs: Sequence[BothSides]) -> list[_Figure]:
    """Return the sums over the deployments that have a plan on both sides."""
    sums: dict[str, _Figure] = {}
    for pair in pairs:
        planned = all(side is not None and side.planning.plan is not None for side in (pair.a, pair.b))
        for figure in _figures(pair.a, pair.b) if planned else ():
            if figure.field in _SUMMED:
                old = sums.get(figure.field, replace(figure, a=0.0, b=0.0))
                sums[figure.field] = replace(old, a=(old.a or 0) + (figure.a or 0), b=(old.b or 0) + (figure.b or 0))
    return list(sums.values())


def _text(value: Any) -> str:
    return "not set" if value is None else str(value)


def _pair_object(pair: BothSides) -> dict[str, Any]:
    found: dict[str, Any] = {"namespace": pair.namespace, "name": pair.name}
    found["specChanges"] = [_change_object(change) for change in spec_changes(pair)]
    for name, side in (("a", pair.a), ("b", pair.b)):
        if side is None:
            continue
        plan = side.planning.plan
        found[name] = {
            "feasible": side.planning.good,
            "reason": str(side.planning.reason),
            "message": side.planning.message,
        }
        if plan is not None:
            found[name]["plan"] = plan.model_dump(
                mode="json", by_alias=True, exclude_none=True, exclude={"alternatives"}
            )
    found["difference"] = _figures_object(_figures(pair.a, pair.b), "difference")
    return found


def _figures_object(figures: Sequence[_Figure], side: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for figure in figures:
        value = {"a": figure.a, "b": figure.b, "difference": figure.change}[side]
        if value is not None:
            found[figure.field] = _value(figure.field, value)
    return found


def _value(field: str, value: float) -> int | str:
    if field == "joulesPerOutputToken":
        return format_milli(value)
    return round(1000 * value) if field in _IN_KWH else round(value)


def _change_object(change: FieldChange) -> dict[str, Any]:
    return {"field": change.field, "a": change.a, "b": change.b}
