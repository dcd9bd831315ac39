"""Scenarios under faults of the wire: each ends as it does without any."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tests.support.api_calls import Call
from tests.support.api_client import ApiClient
from tests.support.end_state import Object, State, differences, end_state
from tests.support.fault_scenarios import STEP_SECONDS, Scenario, settled, until
from tests.support.faulty_operator import FaultyOperator
from tests.support.faulty_proxy import Answer, Cut, Events, Fault, LoseAnswer, Matches, StaleList, Withhold
from tests.support.spaces import Space, space

SAME_SECONDS = 120.0
"""For the end state to be that of the clean run, a resync or two included."""
REST_SECONDS = 5.0
"""Without a change for so long a namespace is at rest."""
THREADS = 40
"""Scenarios at the same time."""
STALE_LISTS = 24
"""kopf's first list of each kind, and the first comparison with what is there."""

Item = TypeVar("Item")
Done = TypeVar("Done")


@dataclass(frozen=True)
class Armed:
    """What is armed for one namespace."""

    faults: Sequence[Fault] = ()
    events: Sequence[Events] = ()

    @property
    def fired(self) -> int:
        """How often they struck."""
        return sum(fault.fired for fault in self.faults) + sum(event.fired for event in self.events)


Arm = Callable[[str, FaultyOperator], Armed]
"""Takes the namespace of a cell and the operator."""


@dataclass(frozen=True)
class Cell:
    """One scenario under one fault."""

    scenario: Scenario
    fault: str


@dataclass
class Result:
    """How a cell ended."""

    cell: Cell
    seconds: float = 0.0
    fired: int = 0
    problem: str = ""
    """"" where the end state is that of the clean run."""

    def __str__(self) -> str:
        said = f": {self.problem}" if self.problem else ""
        return f"{self.cell.scenario.name} under {self.cell.fault} ({self.fired} faults, {self.seconds:.0f} s){said}"


def writes_in(namespace: str) -> Matches:
    """Match the operator's writes in a namespace."""
    return lambda call: call.is_write and call.namespace == namespace


def requests_in(namespace: str) -> Matches:
    """Match every request in a namespace; watches are of all namespaces."""
    return lambda call: call.namespace == namespace


def lists(call: Call) -> bool:
    """Match lists of every kind that the operator watches."""
    return call.verb == "list"


def about(namespace: str) -> Callable[[Object], bool]:
    """Match objects of a namespace, and its nodes."""

    def check(body: Object) -> bool:
        metadata = body["metadata"]
        name: str = metadata.get("name", "")
        return metadata.get("namespace") == namespace or name == namespace or name.startswith(f"{namespace}-")

    return check


def every_watch(call: Call) -> bool:
    """Match all watches."""
    return call.verb == "watch"


def _answers(status: int, reason: str, share: float = 0.5, **headers: str) -> Arm:
    """The first request is refused, and then a share of them."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    spoilt: dict[str, Any] = {"status": status, "reason": reason, "headers": named}
    return lambda namespace, _: Armed(
        [
            Answer(writes_in(namespace), times=1, **spoilt),
            Answer(requests_in(namespace), after=1, share=share, **spoilt),
        ]
    )


def _events(**spoilt: float) -> Arm:
    def arm(namespace: str, _: FaultyOperator) -> Armed:
        events = Events(every_watch, about=about(namespace))
        for name, value in spoilt.items():
            setattr(events, name, value)
        return Armed(events=[events])

    return arm


def crash_after(number: int, times: float = 1, every: int = 1) -> Arm:
    """The operator dies once the server has done its ``number``-th write in the namespace, before it hears so."""
    return lambda namespace, operator: Armed(
        [LoseAnswer(writes_in(namespace), after=number - 1, times=times, every=every, then=operator.kill)]
    )


def stale_after_crash(number: int) -> Arm:
    """The operator dies likewise, and what it then lists is how things were when it last started."""

    def arm(namespace: str, operator: FaultyOperator) -> Armed:
        stale = StaleList(lists, times=0)

        def crash() -> None:
            # Of each kind once: an API server that is behind catches up.
            stale.times = stale.fired + STALE_LISTS
            operator.kill()

        crashed = LoseAnswer(writes_in(namespace), after=number - 1, times=1, then=crash)
        return Armed([crashed, stale])

    return arm


def lost_after(number: int, share: float) -> Arm:
    """Writes are done, and the connection is cut before the answer: the ``number``-th, and a share of those after."""
    return lambda namespace, _: Armed(
        [
            LoseAnswer(writes_in(namespace), after=number - 1, times=1),
            LoseAnswer(writes_in(namespace), after=number, share=share),
        ]
    )


def withheld_after(number: int) -> Arm:
    """The ``number``-th write is done, and its answer never comes: the client gives up after its time-out."""
    return lambda namespace, _: Armed([Withhold(writes_in(namespace), after=number - 1, times=1)])


REQUESTS: Mapping[str, Arm] = {
    "409": _answers(409, "Conflict"),
    "429": _answers(429, "TooManyRequests", 0.2, Retry_After="1"),
    "500": _answers(500, "InternalError"),
    "503": _answers(503, "ServiceUnavailable"),
    "cut": lambda namespace, _: Armed([Cut(requests_in(namespace), times=1), Cut(requests_in(namespace), share=0.5)]),
    "lost answer": lost_after(1, 0.5),
    "time-out after commit": withheld_after(2),
}
"""Faults of requests; each strikes one namespace only."""
WATCHES: Mapping[str, Arm] = {
    "late events": _events(seconds=1.0),
    "reordered events": _events(window=1.5),
    "dropped events": _events(drop=0.5),
}
"""Faults of watches, of the events of one namespace."""
CRASHES: Mapping[str, Arm] = {
    "crash": crash_after(4),
    "crash and stale lists": stale_after_crash(5),
}
"""Faults that strike every namespace, since there is one operator."""
LONG_RUN: Mapping[str, Arm] = {
    **{f"crash after write {number}": crash_after(number) for number in range(1, 9)},
    **{f"crash after each write {number}": crash_after(number, float("inf"), number) for number in (3, 5)},
    **{f"crash after write {number} and stale lists": stale_after_crash(number) for number in (2, 3, 6)},
    **{f"lost answer {number}": lost_after(number, 0.3) for number in (2, 3)},
    **{f"time-out after write {number}": withheld_after(number) for number in (1, 3, 4)},
    "409 mostly": _answers(409, "Conflict", 0.8),
    "503 mostly": _answers(503, "ServiceUnavailable", 0.8),
    "watches cut": lambda *_: Armed(events=[Events(every_watch, cut_after=4)]),
    "late and reordered events": _events(seconds=2.0, window=3.0),
    "most events dropped": _events(drop=0.8),
}
"""More points at which faults may strike, for the long run."""
FAULTS: Mapping[str, Arm] = {**REQUESTS, **WATCHES, **CRASHES, **LONG_RUN}


@dataclass
class Grid:
    """An operator behind a proxy, and how scenarios end without faults."""

    api: ApiClient
    operator: FaultyOperator
    clean: dict[str, State] = field(default_factory=dict)

    def learn(self, scenarios: Iterable[Scenario]) -> None:
        """Run scenarios without faults, and remember how they end.

        Raises:
            AssertionError: one does not come to an end.
        """
        missing = [scenario for scenario in scenarios if scenario.name not in self.clean]
        for scenario, state in zip(missing, _side_by_side(self.api, self._clean_state, missing), strict=True):
            self.clean[scenario.name] = state

    def _clean_state(self, scenario: Scenario) -> State:
        with space(self.api, "clean", nodes=scenario.nodes, gpus=scenario.gpus) as place:
            scenario.run(place)
            return _at_rest(place)

    def play(self, cells: Sequence[Cell]) -> list[Result]:
        """Play cells side by side, each in a namespace of its own; return how each ended."""
        self.learn({cell.scenario.name: cell.scenario for cell in cells}.values())
        return _side_by_side(self.api, lambda cell: self._play(cell, FAULTS[cell.fault]), cells)

    def upgrade(self, scenario: Scenario, faults: Mapping[str, Arm], command: Sequence[str]) -> list[Result]:
        """Let another release take over what a scenario left, in a namespace for each fault and in one without.

        Args:
            scenario: Played without faults by the operator that runs.
            faults: Armed from the moment when it ends.
            command: Of the other release, which runs from then on.
        """
        before = self.operator.command
        cells = [Cell(scenario, fault) for fault in faults]
        with ExitStack() as stack:
            given = [
                stack.enter_context(space(self.api, "upgrade", nodes=scenario.nodes, gpus=scenario.gpus))
                for _ in (None, *cells)
            ]
            stack.callback(self.operator.restart, before)

            def rested(place: Space) -> State:
                scenario.run(place)
                return _at_rest(place)

            state = _side_by_side(self.api, rested, given)[0]
            first, *places = given
            armed = [
                faults[cell.fault](place.namespace, self.operator) for cell, place in zip(cells, places, strict=True)
            ]
            for one in armed:
                stack.enter_context(self.operator.proxy.broken(one.faults, one.events))
            started = time.monotonic()
            self.operator.restart(command)
            asked = Scenario("upgrade", scenario.run)
            _side_by_side(self.api, lambda place: until(lambda: any(differences(state, end_state(place)))), given)
            self.operator.proxy.heal()
            # Not before: the faults of other namespaces stop the one operator for longer than a namespace at rest is
            # watched, in the middle of a rollout.
            settled(first)
            self.clean["upgrade"] = _at_rest(first)
            problems = _side_by_side(self.api, lambda place: self._difference(asked, place), places)
            seconds = time.monotonic() - started
            return [
                Result(Cell(asked, cell.fault), seconds, one.fired, problem)
                for cell, one, problem in zip(cells, armed, problems, strict=True)
            ]

    def _play(self, cell: Cell, arm: Arm) -> Result:
        started, result = time.monotonic(), Result(cell)
        try:
            with space(self.api, "faults", nodes=cell.scenario.nodes, gpus=cell.scenario.gpus) as place:
                armed = arm(place.namespace, self.operator)
                with self.operator.proxy.broken(armed.faults, armed.events):
                    try:
                        cell.scenario.run(place)
                    finally:
                        result.fired = armed.fired
                result.problem = self._difference(cell.scenario, place)
        except Exception as error:
            # Of one cell: the others go on.
            result.problem = f"{type(error).__name__}: {error}"
            if not isinstance(error, AssertionError):
                result.problem += "\n" + traceback.format_exc()
        result.seconds = time.monotonic() - started
        return result

    def _difference(self, scenario: Scenario, place: Space) -> str:
        """Wait until the state is that of the clean run; return how it differs where it stays different."""
        deadline = time.monotonic() + SAME_SECONDS
        while True:
            found = list(differences(self.clean[scenario.name], end_state(place)))
            if not found:
                return ""
            if time.monotonic() > deadline:
                return f"{len(found)} differences (clean != this): " + "; ".join(found[:12])
            time.sleep(0.5)


def _at_rest(place: Space) -> State:
    """Return the state once it has not changed for a while."""
    state, since = end_state(place), time.monotonic()
    deadline = since + STEP_SECONDS
    while time.monotonic() - since < REST_SECONDS:
        time.sleep(0.5)
        now = end_state(place)
        if now != state:
            state, since = now, time.monotonic()
        assert time.monotonic() < deadline, f"{place.namespace} does not come to rest"
    return state


def _side_by_side(api: ApiClient, work: Callable[[Item], Done], items: Sequence[Item]) -> list[Done]:
    """Map over threads, whose connections to the API server are closed when the work is done."""

    def one(item: Item) -> Done:
        try:
            return work(item)
        finally:
            api.close()

    with ThreadPoolExecutor(max(1, min(THREADS, len(items)))) as pool:
        return list(pool.map(one, items))
