"""The table and the picture of scale.py, from the figures that it keeps as JSON."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Run = Mapping[str, Any]
PROCESSES = ("operator", "kube-apiserver", "kube-controller-manager", "etcd", "kube-scheduler", "kwok")


def _share(phase: Mapping[str, Any], process: str = "operator") -> float:
    return 100.0 * float(phase["cpu_seconds"].get(process, 0.0)) / float(phase["seconds"])


def _total(counts: Mapping[str, int]) -> int:
    return sum(counts.values())


def _percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile of sorted values by the nearest rank."""
    return values[max(0, math.ceil(share * len(values)) - 1)] if values else math.nan


def _each(run: Run, process: str) -> str:
    return f"{1000.0 * run['rollout']['cpu_seconds'].get(process, math.nan) / run['objects']:.0f} ms"


def _reaction(kind: str, share: float, part: str = "reaction") -> Callable[[Run], str]:
    return lambda run: f"{_percentile(run[part].get(kind, ()), share):.2f} s"


def _at_rest(run: Run) -> str:
    """Return what else went on while objects were applied at a pace."""
    return "nothing" if run["reaction_began_at_rest"] else "the roll-out"


def _planned(run: Run) -> str:
    seconds = run["planned_seconds"]
    if seconds is not None:
        return f"{seconds:.0f} s"
    at, count = run["planned_curve"][-1]
    return f"{count:,} after {at:.0f} s"


ROWS: tuple[tuple[str, str, Callable[[Run], str]], ...] = (
    ("nodes, budgets", "", lambda r: f"{r['nodes']}, {r['budgets']}"),
    ("all planned after", "600 s at 5,000", _planned),
    ("Ready at the end", "", lambda r: f"{r['ready']:,}"),
    *((f"CPU of {name} per object", "", lambda r, name=name: _each(r, name)) for name in PROCESSES),
    ("passes per object", "", lambda r: f"{r['rollout']['passes'] / r['objects']:.1f}"),
    ("writes per object", "<= 6", lambda r: f"{_total(r['rollout']['writes']) / r['objects']:.2f}"),
    ("reads per object", "", lambda r: f"{_total(r['rollout']['reads']) / r['objects']:.2f}"),
    ("memory: without an object", "", lambda r: f"{r['empty_mib']:.0f} MiB"),
    ("memory: highest", "<= 200 MiB", lambda r: f"{r['peak_mib']:.0f} MiB"),
    ("memory: after the roll-out", "<= 200 MiB", lambda r: f"{r['rolled_out_mib']:.0f} MiB"),
    ("memory: after a restart", "<= 200 MiB", lambda r: f"{r['restarted_mib']:.0f} MiB"),
    ("idle: of a core", "<= 3 %", lambda r: f"{_share(r['idle']):.1f} %"),
    ("idle: writes in a minute", "", lambda r: f"{60.0 * _total(r['idle']['writes']) / r['idle']['seconds']:.1f}"),
    ("one node added: CPU", "<= 30 s", lambda r: f"{r['node_added']['cpu_seconds']['operator']:.1f} s"),
    ("one node added: writes", "", lambda r: f"{_total(r['node_added']['writes'])}"),
    ("one member added: CPU", "", lambda r: f"{r['member_added']['cpu_seconds']['operator']:.1f} s"),
    ("one member added: writes", "", lambda r: f"{_total(r['member_added']['writes'])}"),
    ("restart: lists are in after", "", lambda r: f"{r['lists_seconds']:.1f} s"),
    ("restart: a new object's plan, from then", "<= 5 s", lambda r: f"{r['new_after_lists_seconds']:.1f} s"),
    ("restart: writes (the new object's included)", "0 + 6", lambda r: f"{_total(r['restart']['writes'])}"),
    ("restart: CPU", "", lambda r: f"{r['restart']['cpu_seconds']['operator']:.1f} s"),
    ("apply to plan at 10/s, P50", "", _reaction("LLMDeployment", 0.5)),
    ("apply to plan at 10/s, P99", "<= 2 s", _reaction("LLMDeployment", 0.99)),
    ("Kubernetes' own Deployment, P50", "", _reaction("Deployment", 0.5)),
    ("Kubernetes' own Deployment, P99", "", _reaction("Deployment", 0.99)),
    ("beside these applies", "nothing", _at_rest),
    ("the same while others are rolled out: how many", "", lambda r: f"{r['crowd']}"),
    ("apply to plan, P50", "", _reaction("LLMDeployment", 0.5, "busy_reaction")),
    ("apply to plan, P99", "", _reaction("LLMDeployment", 0.99, "busy_reaction")),
    ("Kubernetes' own Deployment, P99, then", "", _reaction("Deployment", 0.99, "busy_reaction")),
    ("largest object", "< 256 kB", lambda r: f"{r['largest_object_bytes'] / 1000:.0f} kB ({r['largest_object']})"),
)
NOT_RUN = "not run"


def _shown(read: Callable[[Run], str], run: Run) -> str:
    """Return a figure, or that its part of the run was left out or not reached."""
    try:
        return read(run)
    except KeyError:
        return NOT_RUN


def _cut(phase: Mapping[str, Any]) -> str:
    return "; the part's time was over before the operator was at rest" if phase["cut_short"] else ""


def table(runs: Sequence[Run]) -> str:
    """Return the figures as a table in Markdown, one column per size, and the writes by kind below."""
    head = ["", "target", *(f"{run['objects']:,}" for run in runs)]
    lines = [head, ["---"] * len(head)]
    lines += [[name, target, *(_shown(read, run) for run in runs)] for name, target, read in ROWS]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    kinds = []
    for run in runs:
        if "ended" in run:
            kinds.append(f"- {run['objects']:,}: ended before its end: {run['ended']}")
        for part in ("rollout", "idle", "node_added", "member_added", "restart"):
            if part not in run:
                continue
            counts = ", ".join(f"{count} {kind}" for kind, count in sorted(run[part]["writes"].items()))
            kinds.append(f"- {run['objects']:,}, {part.replace('_', ' ')}: {counts or 'no write'}{_cut(run[part])}")
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    return f"{machine}\n\n{text}\n\nWrites by kind:\n\n" + "\n".join(kinds)


def plotted(runs: Sequence[Run], path: Path) -> None:
    """Draw processor time, memory and writes by the number of objects."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 3, figsize=(12, 3.6), layout="constrained")

    def draw(axis: Any, figures: Callable[[Run], float], label: str = "") -> None:
        """Draw what there is: a part of a run may have been left out."""
        known = [(run["objects"], value) for run in runs if not math.isnan(value := _number(figures, run))]
        axis.plot([at for at, _ in known], [value for _, value in known], marker="o", label=label)

    for name in PROCESSES[:3]:
        draw(axes[0], lambda r, name=name: 1000.0 * r["rollout"]["cpu_seconds"][name] / r["objects"], name)
    axes[0].set_ylabel("CPU per object from apply to Ready, ms")
    axes[0].legend()
    draw(axes[1], lambda r: float(r["peak_mib"]), "highest")
    draw(axes[1], lambda r: float(r["restarted_mib"]), "after a restart")
    axes[1].axhline(200.0, linestyle=":", label="target")
    axes[1].set_ylabel("resident memory of the operator, MiB")
    axes[1].legend()
    draw(axes[2], lambda r: _total(r["rollout"]["writes"]) / r["objects"])
    axes[2].axhline(6.0, linestyle=":")
    axes[2].set_ylabel("writes per object from apply to Ready")
    for axis in axes:
        axis.set_xlabel("LLMDeployments")
        axis.set_ylim(bottom=0)
    figure.savefig(path)


def _number(read: Callable[[Run], float], run: Run) -> float:
    try:
        return read(run)
    except KeyError:
        return math.nan


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Print and draw figures that scale.py kept with --json.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    found = sorted((run for file in options.files for run in json.loads(file.read_text())), key=lambda r: r["objects"])
    print(table(found))
    if options.plot is not None:
        plotted(found, options.plot)
