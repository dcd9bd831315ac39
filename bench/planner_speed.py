"""Time of ``energylens plan`` as a process over spaces of three GPU products, beside importing NumPy and pydantic.

Run it from a checkout: ``.venv/bin/python bench/planner_speed.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TARGET_RATIO = 6.0
PRODUCTS = ("NVIDIA-A100-SXM4-80GB", "NVIDIA-H100-80GB-HBM3", "NVIDIA-H200")
SMALL, LARGE, EXPERTS = "meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-70B-Instruct", "Qwen/Qwen3-235B-A22B"
REFERENCE = (sys.executable, "-c", "import numpy, pydantic")


@dataclass(frozen=True)
class Case:
    """One question to the planner."""

    name: str
    model: str
    gpus: int
    """Of each product."""
    energy: dict[str, Any]
    planning: dict[str, Any]
    is_target: bool = True


@dataclass(frozen=True)
class Timing:
    """Time of a whole process, and the ratio of its wall time to that of the reference."""

    case: str
    candidates: int
    wall_ms: float
    """Best of the repeats, as all times here."""
    cpu_ms: float
    ratio: float
    is_target: bool


CASES = (
    Case("1 GPU of each, 8B", SMALL, 1, {}, {}),
    Case("8 GPUs of each, 70B", LARGE, 8, {}, {}),
    Case("64 GPUs of each, 70B", LARGE, 64, {}, {}),
    Case("64 GPUs of each, 235B experts", EXPERTS, 64, {}, {}),
    Case("64 GPUs, 70B, six power caps", LARGE, 64, {"powerCap": {"mode": "Plan"}}, {}, is_target=False),
    Case("64 GPUs, 70B, roles apart, too", LARGE, 64, {}, {"disaggregation": "Compare"}, is_target=False),
)


def files(case: Case, folder: Path) -> tuple[Path, Path]:
    """Write the deployment and the inventory of a case, as JSON, which is YAML too."""
    spec = {
        "model": {"name": case.model},
        "workload": {"inputTokens": 300, "outputTokens": 400, "requestsPerSecond": "4"},
        "slo": {"percentile": "P95", "ttftMilliseconds": 3000, "itlMilliseconds": 60},
        "energy": case.energy,
        "planning": case.planning,
    }
    document = {"apiVersion": "energylens.dev/v1alpha1", "kind": "LLMDeployment", "metadata": {"name": "bench"}}
    pools = [{"product": p, "gpus": min(8, case.gpus), "count": -(-case.gpus // 8)} for p in PRODUCTS]
    deployment, inventory = folder / "deployment.json", folder / "inventory.json"
    deployment.write_text(json.dumps(document | {"spec": spec}), encoding="utf-8")
    inventory.write_text(json.dumps({"nodes": pools}), encoding="utf-8")
    return deployment, inventory


def candidates(case: Case) -> int:
    """Return how many candidates the space of a case has."""
    from energylens.api.llmdeployment import Overrides, PowerCap
    from energylens.data import load_gpus, load_model
    from energylens.planner.search.space import enumerate_space

    cap = PowerCap.model_validate(case.energy.get("powerCap", {}))
    sizes = [min(8, case.gpus)] * -(-case.gpus // 8)
    model, gpus = load_model(case.model), load_gpus()
    return sum(len(enumerate_space(model, gpus[p], sizes, Overrides(), cap)) for p in PRODUCTS)


def milliseconds(command: tuple[str, ...]) -> tuple[float, float]:
    """Return the wall time and the CPU time (user and system, all threads) of a process."""
    # As users run it: a shell that forbids compiled modules would time the compiler, more of it here than in NumPy.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment) as process:
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    taken = time.perf_counter() - start
    if process.returncode not in (0, 3):
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return 1e3 * taken, 1e3 * (used.ru_utime + used.ru_stime)


def measure(cases: tuple[Case, ...], repeats: int) -> tuple[tuple[float, float], list[Timing]]:
    """Return wall and CPU time of the reference in ms, and the timings; all take turns, so that load hits all alike."""
    program = str(Path(sys.executable).with_name("energylens"))
    with tempfile.TemporaryDirectory() as name:
        commands: dict[str, tuple[str, ...]] = {"": REFERENCE}
        for number, case in enumerate(cases):
            folder = Path(name) / str(number)
            folder.mkdir()
            deployment, inventory = files(case, folder)
            commands[case.name] = (program, "plan", "-f", str(deployment), "--inventory", str(inventory))
        taken: dict[str, list[tuple[float, float]]] = {key: [] for key in commands}
        for _ in range(repeats + 1):
            for key, command in commands.items():
                taken[key].append(milliseconds(command))
    # The first round fills the file cache and the caches of compiled modules.
    best = {key: (min(w for w, _ in values[1:]), min(c for _, c in values[1:])) for key, values in taken.items()}
    timings = [Timing(c.name, candidates(c), *best[c.name], best[c.name][0] / best[""][0], c.is_target) for c in cases]
    return best[""], timings


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=10, help="processes of each kind (default 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    reference, timings = measure(CASES, args.repeats)
    if args.json:
        print(json.dumps({"reference_ms": reference, "cases": [asdict(t) for t in timings]}))
    else:
        print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}")
        print(f"target: at most {TARGET_RATIO:g} times the reference, wall time, best of {args.repeats}\n")
        print(f"{'':34}{'candidates':>10}{'wall':>12}{'CPU':>12}{'ratio':>8}")
        print(f"{'python -c import numpy, pydantic':34}{'':10}{reference[0]:9.0f} ms{reference[1]:9.0f} ms")
        for t in timings:
            row = f"{t.case:34}{t.candidates:10,}{t.wall_ms:9.0f} ms{t.cpu_ms:9.0f} ms{t.ratio:8.1f}"
            print(row + ("" if t.is_target else "  no target"))
    return int(any(t.ratio > TARGET_RATIO for t in timings if t.is_target))


if __name__ == "__main__":
    sys.exit(main())
