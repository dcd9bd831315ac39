"""Memory and open files of the operator over many changes stay flat.

`ENERGYLENS_SOAK=10000` makes so many changes (`make soak`), and `ENERGYLENS_PART=3/8` an eighth of them on an operator
of its own: what grows by less than the bound in each part may grow by more over the whole. Else ninety.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from tests.support.api_client import ApiClient
from tests.support.fault_scenarios import STEP_SECONDS, condition
from tests.support.faulty_operator import FaultyOperator, operator_behind_proxy
from tests.support.operator_cluster import Object, llmdeployment
from tests.support.parts import Part
from tests.support.spaces import Space, replicas, space

from energylens.cluster.resources import LLM_DEPLOYMENT
from energylens_dev.devcluster import RunningCluster, eventually

CHANGES = Part.of().count(int(os.environ.get("ENERGYLENS_SOAK", "90")))
AT_ONCE = 6
"""Deployments that are changed at the same time."""
LIFE = 10
"""Changes of one deployment before one of another name takes its place."""
WARM_UP = 0.4
"""Share of the changes before which nothing is measured: caches fill, and the allocator finds its size."""
MOST_GROWTH_MIB = 24.0
"""Over the measured part of the run, by the line through all samples. What one object and its plans cost, kept for each
object that ever was, would be more: 6 objects of 90 changes, 600 of 10,000."""
MOST_MORE_FILES = 6
"""Connections that happen to be open at one sample and not at another."""


@dataclass
class Samples:
    """Resident memory and open files by the number of changes."""

    at: list[int] = field(default_factory=list)
    mebibytes: list[float] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def take(self, pid: int, changes: int) -> None:
        """Read both from /proc."""
        status = Path(f"/proc/{pid}/status").read_text()
        (resident,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
        self.at.append(changes)
        self.mebibytes.append(int(resident.split()[1]) / 1024)
        self.files.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))

    def growth(self, of: Sequence[float]) -> float:
        """Return the growth over the measured part, by the least-squares line."""
        first = next(number for number, at in enumerate(self.at) if at >= WARM_UP * self.at[-1])
        at, values = np.array(self.at[first:], float), np.array(of[first:], float)
        return float(np.polyfit(at, values, 1)[0] * (at[-1] - at[0]))


@pytest.fixture(scope="module")
def soaked(chart: RunningCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultyOperator]:
    with operator_behind_proxy(chart, tmp_path_factory.mktemp("soak"), leaseSeconds=60) as found:
        yield found


@pytest.fixture
def place(api: ApiClient) -> Iterator[Space]:
    with space(api, "soak", nodes=4, gpus=8) as found:
        yield found


def specs() -> Iterator[Object]:
    """Give parts of specs that follow each other: scalings, rollouts, loads, and one without a plan."""
    for number in itertools.count():
        load = {"inputTokens": 512, "outputTokens": 256, "requestsPerSecond": 1 + number % 3}
        yield {"planning": replicas(1 + number % 2, maxBatchSize=(32, 64, 48)[number % 3]), "workload": load}
        yield {"planning": replicas(1), "podTemplate": {"metadata": {"annotations": {"change": str(number)}}}}
        yield {"planning": replicas(500), "workload": load}


def seen(place: Space, name: str) -> None:
    eventually(lambda: condition(place, "PlanReady", name), STEP_SECONDS, interval=0.05)


@pytest.mark.timeout(900 + 3 * CHANGES, func_only=True)
def test_memory_and_open_files_are_flat(soaked: FaultyOperator, place: Space) -> None:
    pid, starts = soaked.pid, soaked.starts
    samples, following = Samples(), specs()
    for number in range(0, CHANGES, AT_ONCE):
        generation = number // AT_ONCE // LIFE
        names = [f"s{generation}-{which}" for which in range(AT_ONCE)]
        part = next(following)
        for name in names:
            place.apply(llmdeployment(name, **part))
        for name in names:
            seen(place, name)
        if number // AT_ONCE % LIFE == LIFE - 1:
            for name in names:
                place.api.delete(LLM_DEPLOYMENT, place.namespace, name)
        samples.take(pid, number + AT_ONCE)
        # What was asked for is kept to be looked at, and would be the larger part of this process.
        soaked.proxy.calls.clear()
    memory, files = samples.growth(samples.mebibytes), max(samples.files) - samples.files[len(samples.files) // 2]
    print(  # noqa: T201
        f"{samples.at[-1]} changes: {samples.mebibytes[0]:.0f} MiB at first, {samples.mebibytes[-1]:.0f} at last, "
        f"growth {memory:+.1f} MiB after {WARM_UP:.0%}; open files {min(samples.files)} to {max(samples.files)}"
    )
    assert (soaked.pid, soaked.starts) == (pid, starts), "the operator was started again"
    assert memory <= MOST_GROWTH_MIB
    assert files <= MOST_MORE_FILES
