"""`energylens calibrate run` on an engine that streams for real over loopback, and GPUs whose counters run."""

from __future__ import annotations

import csv
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from tests.support.fake_nvml import FakeLibrary
from tests.support.streaming_engine import StreamingEngine, streaming_engine

from energylens.benchmark.client import ServerUnderTest
from energylens.benchmark.points import Point, poisson_point
from energylens.benchmark.processes import processes_for
from energylens.benchmark.record import COLUMNS, append
from energylens.cli.commands import calibrate_run
from energylens.cli.inputs import local_window
from energylens.cli.inputs.engine_points import Bench, PointFailedError, measure_point
from energylens.cli.main import cli
from energylens.clock import SystemClock
from energylens.measure.nvml import NvmlSource
from energylens.runs import read_runs
from energylens_dev.devcluster import eventually

WATTS = 300.0
SERVE = "vllm serve Qwen/Qwen3-8B --max-num-seqs 256"


@dataclass
class RunningGpus(FakeLibrary):
    """GPUs that draw the same all the time."""

    count: int = 1

    def nvmlInit(self):  # noqa: N802
        pass

    def nvmlShutdown(self):  # noqa: N802
        pass

    def nvmlDeviceGetCount(self):  # noqa: N802
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index):  # noqa: N802
        return index

    def nvmlDeviceGetUUID(self, handle):  # noqa: N802
        return f"GPU-{handle}"

    def nvmlDeviceGetPowerUsage(self, handle):  # noqa: N802
        return int(1000 * WATTS)

    def nvmlDeviceGetEnforcedPowerLimit(self, handle):  # noqa: N802
        return 700_000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):  # noqa: N802
        return int(1000 * WATTS * time.monotonic())


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_window, "INTERVAL_SECONDS", 0.1)


def bench(engine: StreamingEngine, seconds: float = 1.0) -> Bench:
    source = NvmlSource(SystemClock(), library=RunningGpus())
    return Bench(ServerUnderTest(engine.url, engine.model, 150_000), (), seconds, 1, source, SystemClock())


def test_closed_loops_are_as_many_as_asked_for_and_their_figures_agree() -> None:
    with streaming_engine() as engine:
        found = measure_point(bench(engine), Point("closed", 6, 20, 30))
    assert found.power_watts == pytest.approx(WATTS, rel=0.05)
    assert found.running == pytest.approx(6, rel=0.25)
    # Little's law: loops over tokens per second is the time between two tokens of one of them.
    assert found.latencies.mean_tpot_ms == pytest.approx(1000 * 6 / found.output_tokens_per_second, rel=0.25)
    assert found.latencies.itl_ms[50] >= 1000 * engine.step_seconds
    assert found.latencies.itl_ms[50] <= found.latencies.itl_ms[90] <= found.latencies.itl_ms[99]
    assert found.latencies.first_tokens >= found.latencies.requests - 6
    assert {len(prompt) for prompt in engine.prompts} == {20}
    assert len(set(engine.prompts)) == len(engine.prompts), "no prompt hits the prefix cache"


def test_arrivals_come_at_their_rate() -> None:
    with streaming_engine() as engine:
        found = measure_point(bench(engine), poisson_point(20.0, 5, 4))
    assert found.latencies.requests / found.seconds == pytest.approx(20.0, rel=0.5)


def test_loops_are_spread_over_processes() -> None:
    assert [processes_for(Point("closed", level, 1, 2), 16) for level in (1, 48, 49, 256)] == [1, 1, 2, 6]
    assert processes_for(Point("closed", 256, 1, 2), 2) == 2
    with streaming_engine() as engine:
        found = measure_point(bench(engine), Point("closed", 49, 5, 20))
    assert found.running == pytest.approx(49, rel=0.25)


FAULTS: dict[str, tuple[Callable[[StreamingEngine], None], str]] = {
    "refuses": (lambda engine: setattr(engine, "refuse", True), "requests failed: status 503: .*too busy"),
    "says nothing": (lambda engine: setattr(engine, "answers", "empty"), "an answer ended after 0 of .* tokens"),
    "sends no JSON": (lambda engine: setattr(engine, "answers", "garbage"), "not a JSON object: b'<html>bad gateway"),
    "dies": (lambda engine: setattr(engine, "answers", "cut"), "requests failed: Client"),
    "somebody else": (lambda engine: setattr(engine, "uncounted", 2.0), "others use the engine"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_point_that_says_nothing_is_refused(name: str) -> None:
    break_it, reason = FAULTS[name]
    with streaming_engine() as engine:
        break_it(engine)
        with pytest.raises(PointFailedError, match=reason):
            measure_point(bench(engine), Point("closed", 2, 5, 20))


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> RunningGpus:
    gpus = RunningGpus()
    monkeypatch.setattr(calibrate_run, "NvmlSource", partial(NvmlSource, library=gpus))
    return gpus


def run(engine: StreamingEngine, out: Path, *more: str, command: str = SERVE) -> Result:
    arguments = ["calibrate", "run", "--url", engine.url, "--out", str(out), "--seconds", "5", *more, "--"]
    return CliRunner().invoke(cli, [*arguments, *shlex.split(command)])


def test_rows_are_written_one_by_one_and_what_is_there_is_not_measured_again(nvml: RunningGpus, tmp_path: Path) -> None:
    out, page = tmp_path / "runs.csv", tmp_path / "runs.html"
    shape = ("--input-tokens", "20", "--output-tokens", "30", "--no-poisson")
    with streaming_engine() as engine:
        # The engine is up already; what is started in its place is stopped at the end.
        started = f"sh -c 'echo $$ > {tmp_path}/pid; exec sleep 600; {SERVE}'"
        first = run(engine, out, *shape, "--concurrency", "4", "--start", command=started)
        assert first.exit_code == 0, first.output
        assert "healthy after" in first.stderr
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)
        before = out.read_text()
        again = run(engine, out, *shape, "--concurrency", "4,512", "--report", str(page))
        assert again.exit_code == 0, again.output
    assert out.read_text() == before
    assert "1/1 c4-20-30: already in" in again.stderr
    (row,) = csv.DictReader(out.read_text().splitlines())
    assert (row["run_id"], row["engine"], row["gpu_model"]) == ("qwen3-8b-h100-tp1-c4-20-30", "vllm==0.26.0", "H100")
    assert float(row["joules_per_output_token"]) == pytest.approx(
        float(row["power_watts"]) / float(row["output_tokens_per_second"]), rel=1e-3
    )
    (found,) = read_runs(out, measured=True).runs
    assert (found.concurrency, found.counts_waiting, found.max_num_seqs) == (4.0, True, 256)
    assert "measured / predicted (error)" in again.stdout
    assert "EnergyLens measured runs" in page.read_text()


CLIENT = """
import sys, time
from energylens.benchmark.client import ServerUnderTest
from energylens.benchmark.points import Point
from energylens.benchmark.processes import running
if __name__ == "__main__":
    with running(ServerUnderTest(sys.argv[1], "m", 2000), Point("closed", 2, 5, 20), 1):
        time.sleep(600)
"""


def test_the_load_of_a_killed_command_ends(tmp_path: Path) -> None:
    script = tmp_path / "client.py"
    script.write_text(CLIENT)
    with streaming_engine() as engine:
        command = subprocess.Popen([sys.executable, str(script), engine.url])
        try:
            eventually(lambda: len(engine.prompts) > 2)
        finally:
            command.kill()
            command.wait()

        def silent() -> bool:
            asked = len(engine.prompts)
            time.sleep(0.5)
            return len(engine.prompts) == asked

        eventually(silent)


def test_a_row_begins_a_line_after_an_editor_took_the_last_line_break(tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    row = dict.fromkeys(COLUMNS, "1")
    append(out, row)
    out.write_text(out.read_text().rstrip())
    append(out, row)
    assert len(list(csv.DictReader(out.read_text().splitlines()))) == 2


BAD: dict[str, tuple[list[str], str, str]] = {
    "no engine": ([], "python train.py", "COMMAND: its command starts no known engine"),
    "no model": ([], "vllm serve", "COMMAND: names no model"),
    "no batch": ([], "vllm serve Qwen/Qwen3-8B", "must set --max-num-seqs"),
    "pipeline": ([], f"{SERVE} -pp 2", "pipeline parallelism has no column"),
    "another engine": ([], "trtllm-serve Qwen/Qwen3-8B", "TensorRT-LLM is not measured"),
    "unknown model": ([], "vllm serve org/nobody-knows --max-num-seqs 8", "the models of the catalogue only"),
    "other model": (
        [],
        "vllm serve Qwen/Qwen3-32B --max-num-seqs 8",
        "serves Qwen/Qwen3-8B, and COMMAND names Qwen/Qwen3-32B",
    ),
    "more GPUs": ([], f"{SERVE} -tp 2", "1 GPUs, but COMMAND uses 2"),
    "no such GPU": (["--gpu", "7"], SERVE, "--gpu=7: no such GPU"),
    "levels": (["--concurrency", "a"], SERVE, "--concurrency=a: must be whole numbers"),
    "too many": (
        ["--concurrency", "512", "--no-poisson"],
        SERVE,
        "every value exceeds the engine's batch",
    ),
    "no server": (["--url", "http://127.0.0.1:1"], SERVE, "--url=http://127.0.0.1:1: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_and_code_2(name: str, nvml: RunningGpus, tmp_path: Path) -> None:
    more, command, reason = BAD[name]
    with streaming_engine() as engine:
        answer = run(engine, tmp_path / "runs.csv", *more, command=command)
    assert (answer.exit_code, answer.stderr.count("\n")) == (2, 1), answer.output
    assert reason in answer.stderr
    assert not (tmp_path / "runs.csv").exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a,b\n1,2\n", "is another kind of table"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), "is another kind of table"),
    ],
)
def test_another_table_is_not_written_to(text: str, reason: str, nvml: RunningGpus, tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    out.write_text(text)
    with streaming_engine() as engine:
        answer = run(engine, out)
    assert (answer.exit_code, reason in answer.stderr) == (2, True), answer.output
    assert out.read_text() == text


def test_a_command_that_ends_is_told_with_its_output(nvml: RunningGpus, tmp_path: Path) -> None:
    out = tmp_path / "runs.csv"
    with streaming_engine() as engine:
        pass
    answer = run(engine, out, "--start", command=f"sh -c 'echo broken; exit 7; {SERVE}'")
    assert (answer.exit_code, answer.stderr.count("\n")) == (2, 1), answer.output
    assert f"COMMAND: ended with code 7; its output is in {tmp_path}/runs.log" in answer.stderr
    assert (tmp_path / "runs.log").read_text() == "broken\n"
