"""A report as text tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite

from energylens.accuracy.after_windows import AfterWindows
from energylens.accuracy.coverage import Coverage
from energylens.accuracy.decisions import BASELINES, Decisions, Pareto
from energylens.accuracy.errors import Errors
from energylens.accuracy.evaluate import QUANTITIES
from energylens.accuracy.losses import AtWidth, Losses
from energylens.accuracy.report import Report
from energylens.accuracy.same_load import SameLoad

HEADINGS = {
    "itl": "median ITL",
    "tpot": "TPOT",
    "ttft": "TTFT",
    "throughput": "throughput",
    "power": "power",
    "energy": "energy",
}
_NAME_WIDTH = 36


def render(judged: Report) -> str:
    """Return the report as tables for a terminal of 120 columns."""
    shown = [q for q in QUANTITIES if any(isfinite(part.mean[q]) for part in judged.errors)]
    blocks = [judged.basis, _errors(judged.errors, shown), _coverage(judged.coverage, shown)]
    if any(row.sets for row in judged.decisions):
        blocks += [_decisions(judged.decisions, judged.by_means), _savings(judged.decisions)]
        blocks += [_losses(judged.losses, judged.at_widths), _same_load(judged.same_load), _pareto(judged.pareto)]
    for windows in dict.fromkeys(part.windows for part in judged.after_windows):
        blocks.append(_after_windows([part for part in judged.after_windows if part.windows == windows], windows))
    if judged.unpredicted:
        blocks.append(_unpredicted(judged.unpredicted))
    return "\n\n".join(blocks)


def _errors(table: Sequence[Errors], shown: Sequence[str]) -> str:
    biased = "energy" if "energy" in shown else next((q for q in ("tpot", "itl") if q in shown), "energy")
    of = HEADINGS[biased]
    lines = [f"Absolute percentage error, mean / median; bias of {of}. Splits cover clean runs only."]
    columns = "".join(f"{HEADINGS[quantity]:>14}" for quantity in shown)
    lines.append(f"{'':{_NAME_WIDTH}}{'runs':>6}{columns}{'bias':>9}")
    heading = "rows"
    for part in table:
        if part.by != heading:
            heading = part.by
            lines += ["", f"by {heading}"]
        cells = "".join(f"{_pair(part.mean[q], part.median[q]):>14}" for q in shown)
        missing = f"   {part.unpredicted} without a prediction" if part.unpredicted else ""
        bias = f"{part.bias[biased]:+.1f}" if isfinite(part.bias[biased]) else "-"
        name = "  with host-bound" if part.with_host_bound else _cut(part.name)
        lines.append(f"  {name:{_NAME_WIDTH - 2}}{part.runs:>6}{cells}{bias:>9}{missing}")
    return "\n".join(lines)


def _coverage(table: Sequence[Coverage], shown: Sequence[str]) -> str:
    lines = ["80 % intervals: share of measured values within, percent (median of upper end / lower end)."]
    lines.append(f"{'':{_NAME_WIDTH}}{'runs':>6}" + "".join(f"{HEADINGS[quantity]:>14}" for quantity in shown))
    for part in table:
        cells = "".join(f"{_share(part.inside[q], part.width[q]):>14}" for q in shown)
        lines.append(f"  {part.name:{_NAME_WIDTH - 2}}{part.runs:>6}{cells}")
    return "\n".join(lines)


def _decisions(table: Sequence[Decisions], by_means: Decisions) -> str:
    lines = [
        "Decisions: per (model, GPU type, task), the planner's choice among candidates whose upper ITL interval "
        "end meets",
        "the bound. Feasible: a measured candidate meets the bound. By means: the lowest predicted energy.",
        f"{'ITL bound':>12}{'sets':>7}{'feasible':>10}{'picks':>8}{'break bound':>15}{'no pick':>15}"
        f"{'energy above best':>20}{'worst':>9}",
    ]
    for row in (*table, by_means):
        bound = "by means" if row is by_means else "all" if row.bound_ms is None else f"{row.bound_ms:g} ms"
        lines.append(
            f"{bound:>12}{row.sets:>7}{row.feasible:>10}{row.picks:>8}"
            f"{f'{row.broken} ({_percent(row.broken_percent)})':>15}"
            f"{f'{row.without_pick} ({_percent(row.without_pick_percent)})':>15}"
            f"{_percent(row.energy_above_best):>20}{_percent(row.worst_energy_above_best):>9}"
        )
    return "\n".join(lines)


def _savings(table: Sequence[Decisions]) -> str:
    lines = [
        "Energy saved by picks that meet the bound against common choices (mean; number compared). The first",
        "two use the largest batch that meets the bound in measurement.",
        f"{'ITL bound':>12}" + "".join(f"{name:>30}" for name in BASELINES),
    ]
    for row in table:
        bound = "all" if row.bound_ms is None else f"{row.bound_ms:g} ms"
        cells = "".join(f"{f'{_percent(row.saved[name])} ({row.compared[name]})':>30}" for name in BASELINES)
        lines.append(f"{bound:>12}{cells}")
    return "\n".join(lines)


def _losses(found: Losses, table: Sequence[AtWidth]) -> str:
    lines = [
        f"Causes of the energy above the best choice ({found.cases} picks that meet the bound): "
        f"ranking {_percent(found.ranking)},",
        f"width of the latency interval {_percent(found.width)}, latency predicted too high {_percent(found.latency)}.",
        f"{'half-width of the latency interval':>36}{'break bound':>14}{'no pick':>10}{'energy above best':>20}",
    ]
    lines += [
        f"{f'{row.factor:g} x':>36}{_percent(row.broken_percent):>14}{_percent(row.without_pick_percent):>10}"
        f"{_percent(row.energy_above_best):>20}"
        for row in table
    ]
    return "\n".join(lines)


def _same_load(table: Sequence[SameLoad]) -> str:
    lines = [
        "Energy saved by choosing the layout at the same load and bound (mean over cases; a case without a pick, or",
        "whose pick breaks the bound, saves nothing).",
        f"{'against':>28}{'cases':>8}{'sets':>7}{'best layout':>14}{'picks':>10}{'break bound':>14}{'no pick':>10}",
    ]
    lines += [
        f"{row.rival:>28}{row.cases:>8}{row.sets:>7}{_percent(row.best_percent):>14}{_percent(row.kept_percent):>10}"
        f"{row.broken:>14}{row.without_pick:>10}"
        for row in table
    ]
    return "\n".join(lines)


def _after_windows(table: Sequence[AfterWindows], windows: int) -> str:
    shown = [q for q in QUANTITIES if any(isfinite(part.after[q]) for part in table)]
    lines = [
        f"After windows: each site (model, GPU type, engine) has measured {windows} of its runs, which pass "
        "through the",
        "operator's correction. Absolute percentage error of its other runs, mean before > after (median after).",
        f"{'':{_NAME_WIDTH}}{'sites':>6}{'runs':>6}" + "".join(f"{HEADINGS[quantity]:>22}" for quantity in shown),
    ]
    for part in table:
        cells = "".join(f"{_moved(part.before[q], part.after[q], part.median_after[q]):>22}" for q in shown)
        lines.append(f"  {_cut(part.name):{_NAME_WIDTH - 2}}{part.sites:>6}{part.runs:>6}{cells}")
    return "\n".join(lines)


def _moved(before: float, after: float, median: float) -> str:
    return f"{before:.1f} > {after:.1f} ({median:.1f})" if isfinite(after) else "-"


def _pareto(found: Pareto) -> str:
    return (
        f"Pareto fronts of energy and median ITL over {found.sets} choice sets of 3 or more: "
        f"{_percent(found.recovered_percent)} of the {found.true_points} true points are recovered; "
        f"{_percent(found.precision_percent)} of the {found.predicted_points} predicted points are true."
    )


def _unpredicted(messages: Mapping[str, str]) -> str:
    counts = Counter(messages.values())
    return "\n".join(["Runs without a prediction:", *(f"  {n:>4}  {text}" for text, n in _sorted(counts))])


def _sorted(counts: Counter[str]) -> Iterator[tuple[str, int]]:
    yield from sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _pair(mean: float, median: float) -> str:
    return f"{mean:.1f} / {median:.1f}" if isfinite(mean) else "-"


def _share(inside: float, width: float) -> str:
    return f"{inside:.1f} ({width:.2f})" if isfinite(inside) else "-"


def _percent(value: float) -> str:
    return f"{value:.1f} %" if isfinite(value) else "-"


def _cut(name: str) -> str:
    return name if len(name) <= _NAME_WIDTH - 3 else name[: _NAME_WIDTH - 6] + "..."
