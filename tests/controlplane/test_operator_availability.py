"""Three operators while the leader is killed, frozen or cut off: never do two of them write, and nothing is lost.

`make faults` breaks leaders for longer.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path

import pytest
from tests.support.api_client import ApiClient
from tests.support.fault_scenarios import runs, settled
from tests.support.faulty_operator import FAST, SYSTEM
from tests.support.operator_cluster import GRACE_SECONDS, Object, llmdeployment
from tests.support.operator_pods import OperatorPod, operator_pods, writers
from tests.support.spaces import Space, replicas, space

from energylens.cluster.resources import LEASE
from energylens.controller.runner import LEASE_NAME
from energylens_dev.devcluster import RunningCluster, eventually
from energylens_dev.devcluster.audit import AuditLog

ALL = os.environ.get("ENERGYLENS_FAULTS") == "all"
ROUNDS = 40
"""Of the long run."""
NAMES = ("one", "two", "three")
LEASE_SECONDS = 8.0
HAND_OVER_SECONDS = 2.0
"""Longest time, s, after the lease of a leader that ended has run out."""
BUSY_SECONDS = 0.0 if ALL else 10.0
"""More of it in `make test`, which shares the machine with other control planes."""


@dataclass
class Stage:
    """The operators, and what was seen of them."""

    api: ApiClient
    place: Space
    pods: list[OperatorPod]
    log: AuditLog
    led: list[str] = field(default_factory=list)
    """Names of the leaders, in their order."""

    def lease(self) -> Object:
        body = self.api.get(LEASE, SYSTEM, LEASE_NAME)
        assert body is not None
        spec: Object = body["spec"]
        return spec

    def leader(self) -> OperatorPod:
        (found,) = [pod for pod in self.pods if pod.name == self.lease()["holderIdentity"]]
        return found

    def writes_more(self, pod: OperatorPod) -> None:
        """Wait until an operator has written five more times."""
        before = writers(self.log, self.pods).count(pod.name)
        eventually(lambda: writers(self.log, self.pods).count(pod.name) >= before + 5)

    def succeeded(self, broken: OperatorPod) -> OperatorPod:
        """Wait until another one holds the lease, neither too early nor too late; return it."""
        last = self.lease()

        def check() -> Object | None:
            nonlocal last
            now = self.lease()
            if now["holderIdentity"] != broken.name:
                return now
            last = now
            return None

        taken = eventually(check, interval=0.05)
        assert taken is not None
        free = datetime.fromisoformat(last["renewTime"]) + timedelta(seconds=LEASE_SECONDS)
        late = (datetime.fromisoformat(taken["acquireTime"]) - free).total_seconds()
        print(f"{broken.name} is succeeded by {taken['holderIdentity']}, {late:.2f} s after its lease ran out")  # noqa: T201
        assert 0.0 <= late <= HAND_OVER_SECONDS + BUSY_SECONDS
        return self.leader()


def kill(pod: OperatorPod) -> Callable[[], None]:
    """End the leader as the kernel does when memory is short."""
    pod.process.kill()
    assert pod.process.wait(GRACE_SECONDS) == -signal.SIGKILL
    return lambda: None


def freeze(pod: OperatorPod) -> Callable[[], None]:
    """Suspend the leader; it goes on where it was when another one leads."""
    os.kill(pod.process.pid, signal.SIGSTOP)

    def thaw() -> None:
        os.kill(pod.process.pid, signal.SIGCONT)
        assert pod.process.wait(GRACE_SECONDS) == 1

    return thaw


def cut_off(pod: OperatorPod, *, answers: bool = True) -> Callable[[], None]:
    """Cut the leader's network; what it has sent arrives when another one leads."""
    pod.network.cut(answers=answers)

    def mend() -> None:
        # It ended with its lease: nobody waits for the answers any more.
        assert pod.process.wait(GRACE_SECONDS) == 1
        pod.network.mend()

    return mend


def mute(pod: OperatorPod) -> Callable[[], None]:
    """Cut the leader's network in one direction: it hears of changes, and its writes are on their way."""
    return cut_off(pod, answers=False)


def rounds() -> list[Callable[[OperatorPod], Callable[[], None]]]:
    """Return how each leader in turn is broken; what is returned by that mends it."""
    return random.Random(0).choices([kill, freeze, cut_off, mute], k=ROUNDS) if ALL else [mute, freeze, kill]


@contextmanager
def edits(place: Space) -> Iterator[None]:
    """Change specs all the time, so that a leader is broken in the middle of its work."""
    stop = threading.Event()

    def edit() -> None:
        count = 1
        while not stop.wait(0.2):
            count = 3 - count
            place.apply(*(llmdeployment(name, planning=replicas(count)) for name in NAMES))
        place.api.close()

    thread = threading.Thread(target=edit)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def stage(chart: RunningCluster, api: ApiClient, tmp_path: Path) -> Iterator[Stage]:
    settings = {**FAST, "leaseSeconds": LEASE_SECONDS, "leaseRenewSeconds": 2.0}
    with space(api, "available") as place, operator_pods(chart, tmp_path, 3, settings) as pods:
        yield Stage(api, place, pods, AuditLog(chart.audit_log))


@pytest.mark.timeout(ROUNDS * 60 if ALL else 600, func_only=True)
def test_of_three_operators_one_writes_while_leaders_are_killed_frozen_and_cut_off(stage: Stage) -> None:
    with edits(stage.place):
        for breaks in rounds():
            leader = stage.leader()
            stage.led.append(leader.name)
            stage.writes_more(leader)
            for pod in stage.pods:
                pod.ready()
            mends = breaks(leader)
            successor = stage.succeeded(leader)
            stage.writes_more(successor)
            mends()
            # What the network brings late, the API server has done by now.
            time.sleep(1.0)
            leader.launch()
            leader.ready()
        stage.led.append(stage.leader().name)
    assert [name for name, _ in groupby(writers(stage.log, stage.pods))] == stage.led
    # No edit of the meantime is lost.
    stage.place.apply(*(llmdeployment(name, planning=replicas(2)) for name in NAMES))
    for name in NAMES:
        runs(stage.place, 2, name)
        settled(stage.place, name)
