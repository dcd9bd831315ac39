"""Time and memory of the predictor over the whole space of a model on 8 GPUs, beside aiconfigurator's default sweep.

Run it from a checkout: ``.venv/bin/python bench/predictor_speed.py``. See README.md beside this file.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
import venv
from dataclasses import asdict, dataclass
from pathlib import Path

AICONFIGURATOR = "aiconfigurator==0.12.0"
MODELS = ("Qwen/Qwen3-32B", "Qwen/Qwen3-235B-A22B")
GPUS = 8
BATCHES = 64
GPU, AIC_SYSTEM = "H100", "h100_sxm"
TARGET_SPACE_MS, TARGET_IMPORT_MS = 20.0, 150.0
CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "energylens" / "bench"


class BenchError(RuntimeError):
    """The bench cannot run; the message says why."""


@dataclass(frozen=True)
class Ours:
    model: str
    candidates: int
    supported: int
    layouts: int
    first_ms: float
    """First call in a fresh process, whose caches are cold."""
    concurrency_ms: tuple[float, float]
    """Best and median warm call of at_concurrency over the whole space."""
    rate_ms: tuple[float, float]
    """Best and median warm call of at_rate over the whole space."""
    peak_mib: float


@dataclass(frozen=True)
class Theirs:
    model: str
    seconds: float
    peak_mib: float


def worker(model_name: str, splits: str, repeats: int) -> Ours:
    """Evaluate the space in this process."""
    import resource

    import numpy as np

    from energylens.data import find_gpu, load_model, load_predictor
    from energylens.predictor.types import Layouts, Workload

    model, gpu, predictor = load_model(model_name), find_gpu(GPU), load_predictor()
    sizes = [1, 2, 4, 8] if splits == "powers-of-two" else list(range(1, GPUS + 1))
    layouts = [
        (tensor, pipeline, expert, data)
        for tensor in sizes
        for pipeline in sizes
        for data in sizes
        if tensor * pipeline * data <= GPUS
        for expert in ([e for e in sizes if (tensor * data) % e == 0] if model.is_moe else [1])
    ]
    batches = np.unique(np.rint(np.geomspace(1, 1024, 2 * BATCHES)).astype(np.int64))
    batches = batches[np.rint(np.linspace(0, len(batches) - 1, BATCHES)).astype(np.int64)]
    columns = np.repeat(np.array(layouts, dtype=np.int64), BATCHES, axis=0).T
    batch = np.tile(batches, len(layouts))
    space = Layouts(
        tensor_parallel=columns[0],
        pipeline_parallel=columns[1],
        expert_parallel=columns[2],
        data_parallel=columns[3],
        max_batch_size=batch,
        power_cap_watts=np.full(len(batch), np.nan),
    )
    workload = Workload(input_tokens=4000, output_tokens=1000)
    concurrency = (batch * space.data_parallel).astype(np.float64)
    rate = np.full(len(batch), 1.0)

    def timed(call: object) -> float:
        start = time.perf_counter()
        call()  # type: ignore[operator]
        return 1e3 * (time.perf_counter() - start)

    def saturated() -> object:
        return predictor.at_concurrency(model, gpu, space, workload, concurrency)

    def arriving() -> object:
        return predictor.at_rate(model, gpu, space, workload, rate)

    first = timed(saturated)
    found = saturated()
    return Ours(
        model=model_name,
        candidates=len(batch),
        supported=int(found.supported.sum()),  # type: ignore[attr-defined]
        layouts=len(layouts),
        first_ms=first,
        concurrency_ms=best_and_median([timed(saturated) for _ in range(repeats)]),
        rate_ms=best_and_median([timed(arriving) for _ in range(repeats)]),
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def best_and_median(times: list[float]) -> tuple[float, float]:
    """Return both: other processes only ever add time, so that the best is what the code takes."""
    return min(times), statistics.median(times)


def ours(model: str, splits: str, repeats: int) -> Ours:
    """Run the worker in a process of its own, so that memory and cold caches are its own."""
    command = [sys.executable, __file__, "--worker", model, "--splits", splits, "--repeats", str(repeats)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"the predictor failed on {model}:\n{done.stderr}")
    return Ours(**json.loads(done.stdout))


def import_ms(statement: str, repeats: int) -> tuple[float, float]:
    """Return best and median of an import in fresh processes, interpreter start not counted, NumPy counted."""
    code = f"import time; s = time.perf_counter(); {statement}; print(1e3 * (time.perf_counter() - s))"
    times = []
    for _ in range(repeats + 1):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"{statement!r} failed:\n{done.stderr}")
        times.append(float(done.stdout))
    return best_and_median(times[1:])  # The first fills the page cache and writes bytecode.


def aiconfigurator() -> Path:
    """Return the command of aiconfigurator in a virtual environment of its own, installed on first use."""
    home = CACHE / AICONFIGURATOR.replace("==", "-")
    command = home / "bin" / "aiconfigurator"
    if not command.exists():
        print(f"installing {AICONFIGURATOR} into {home} (about 850 MB, a minute) ...", file=sys.stderr)
        venv.create(home, with_pip=True)
        done = subprocess.run(
            [home / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", AICONFIGURATOR],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not command.exists():
            raise BenchError(
                f"{AICONFIGURATOR} cannot be installed from the package index, so there is no ratio; the predictor "
                f"alone is measured with --alone. pip said:\n{done.stderr.strip()[-800:]}"
            )
    return command


def theirs(command: Path, model: str) -> Theirs:
    """Run aiconfigurator's default sweep of one model on 8 GPUs of one product."""
    arguments = ["cli", "default", "--model-path", model, "--total-gpus", str(GPUS), "--system", AIC_SYSTEM]
    arguments += ["--backend", "vllm", "--no-color"]
    log = CACHE / "aiconfigurator.log"
    with log.open("w") as output:
        start = time.perf_counter()
        process = subprocess.Popen([command, *arguments], stdout=output, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
    # wait4 took the exit status; without this Popen would wait for it again.
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchError(f"aiconfigurator failed with exit code {process.returncode}; its output is in {log}")
    return Theirs(model, seconds, usage.ru_maxrss / 1024)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", help=f"may be repeated; default: {', '.join(MODELS)}")
    parser.add_argument("--splits", choices=["powers-of-two", "all"], default="powers-of-two",
                        help="degrees of parallelism: 1, 2, 4, 8, or every whole number")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=31)
    parser.add_argument("--alone", action="store_true", help="leave aiconfigurator out")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(asdict(worker(options.worker, options.splits, options.repeats))))
        return 0
    try:
        models = options.model or list(MODELS)
        imports = {
            "numpy": import_ms("import numpy", 9),
            "energylens.predictor": import_ms("import energylens.predictor", 9),
            "load_predictor()": import_ms("from energylens.data import load_predictor; load_predictor()", 9),
        }
        mine = [ours(model, options.splits, options.repeats) for model in models]
        command = None if options.alone else aiconfigurator()
        other = [] if command is None else [theirs(command, model) for model in models]
    except BenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    if options.json:
        document = {"import_ms": imports, "ours": [asdict(m) for m in mine], "theirs": [asdict(t) for t in other]}
        print(json.dumps(document, indent=1))
    else:
        show(imports, mine, other)
    met = imports["energylens.predictor"][0] <= TARGET_IMPORT_MS
    met &= all(space.concurrency_ms[0] <= TARGET_SPACE_MS for space in mine)
    return 0 if met else 1


def show(imports: dict[str, tuple[float, float]], mine: list[Ours], other: list[Theirs]) -> None:
    print(f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}, {GPUS} x {GPU}")
    print(f"target: import in <= {TARGET_IMPORT_MS:g} ms; a space in <= {TARGET_SPACE_MS:g} ms after import")
    print(f"{'':32}{'best':>10}{'median':>10}")
    for name, took in imports.items():
        print(f"{'import ' + name:32}{took[0]:>7.1f} ms{took[1]:>7.1f} ms")
    for space in mine:
        print(f"\n{space.model}: {space.layouts} layouts x {BATCHES} batches = {space.candidates} candidates")
        print(f"{'  of which the model can run':32}{space.supported:>7}")
        print(f"{'  saturated, at_concurrency':32}{space.concurrency_ms[0]:>7.1f} ms{space.concurrency_ms[1]:>7.1f} ms")
        print(f"{'  the same, first call':32}{space.first_ms:>7.1f} ms")
        print(f"{'  arrivals, at_rate':32}{space.rate_ms[0]:>7.1f} ms{space.rate_ms[1]:>7.1f} ms")
        print(f"{'  peak memory':32}{space.peak_mib:>7.1f} MiB")
        for sweep in other:
            if sweep.model == space.model:
                times = [1e3 * sweep.seconds / took[0] for took in (space.concurrency_ms, space.rate_ms)]
                print(f"  {AICONFIGURATOR} default sweep: {sweep.seconds:.1f} s, peak {sweep.peak_mib:.0f} MiB: "
                      f"{times[0]:,.0f} x at_concurrency, {times[1]:,.0f} x at_rate, "
                      f"{sweep.peak_mib / space.peak_mib:.1f} x the memory")  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
