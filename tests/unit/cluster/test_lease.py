"""One operator acts at a time, and stops acting when it cannot know that it is the one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from energylens.cluster.errors import ClusterError, ConflictError, ForbiddenError, NotFoundError, TransientError
from energylens.cluster.lease import READ_SECONDS, LeaseGuard
from energylens.cluster.port import Object
from energylens.cluster.resources import LEASE, Resource

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class FakeClock:
    seconds: float = 0.0

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)

    def monotonic(self) -> float:
        return self.seconds


@dataclass
class LeasePort:
    """The one Lease object of an API server, and what goes wrong on the way to it."""

    lease: Object | None = None
    down: bool = False
    refused: dict[str, ClusterError] = field(default_factory=dict)
    """By verb."""
    before_replace: Callable[[], None] | None = None
    writes: list[str] = field(default_factory=list)

    async def get(self, resource: Resource, namespace: str, name: str) -> Object:
        assert (resource, namespace, name) == (LEASE, "system", "energylens")
        if self.down:
            raise TransientError("connection refused")
        if "get" in self.refused:
            raise self.refused["get"]
        if self.lease is None:
            raise NotFoundError("not found")
        return copy.deepcopy(self.lease)

    async def create(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        if self.lease is not None:
            raise ConflictError("already exists")
        return self._store(resource, manifest, "create")

    async def replace(self, resource: Resource, manifest: Mapping[str, Any]) -> Object:
        if self.before_replace is not None:
            racing, self.before_replace = self.before_replace, None
            racing()
        if self.lease is None:
            raise NotFoundError("not found")
        if self.lease["metadata"]["resourceVersion"] != manifest["metadata"]["resourceVersion"]:
            raise ConflictError("the object has been modified")
        return self._store(resource, manifest, "replace")

    def _store(self, resource: Resource, manifest: Mapping[str, Any], verb: str) -> Object:
        if self.down:
            raise TransientError("connection refused")
        if verb in self.refused:
            raise self.refused[verb]
        assert resource is LEASE
        old = int(self.lease["metadata"]["resourceVersion"]) if self.lease else 0
        self.lease = copy.deepcopy(dict(manifest))
        self.lease["metadata"]["resourceVersion"] = str(old + 1)
        self.writes.append(verb)
        return copy.deepcopy(self.lease)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])

    def foreign_write(self, holder: str, duration: int = 15) -> None:
        version = int(self.lease["metadata"]["resourceVersion"]) if self.lease else 0
        self.lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": "energylens", "namespace": "system", "resourceVersion": str(version + 1)},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": duration, "leaseTransitions": 4},
        }


class StoppedError(Exception):
    """Ends a wait that would go on for ever."""


@dataclass
class Guard:
    """A guard whose sleeps advance the fake clock; ``meanwhile`` says what others do during each of them."""

    port: LeasePort
    clock: FakeClock
    meanwhile: Callable[[int], None] = lambda number: None
    limit: int = 100
    sleeps: int = 0

    said: list[str] = field(default_factory=list)

    def make(self, identity: str = "me") -> LeaseGuard:
        return LeaseGuard(
            self.port,  # type: ignore[arg-type]
            self.clock,
            "system",
            "energylens",
            identity,
            sleep=self._sleep,
            report=self.said.append,
        )

    async def _sleep(self, seconds: float) -> None:
        self.sleeps += 1
        if self.sleeps > self.limit:
            raise StoppedError
        self.clock.seconds += seconds
        self.meanwhile(self.sleeps)


@pytest.fixture
def guard() -> Guard:
    return Guard(LeasePort(), FakeClock())


async def test_the_first_operator_creates_the_lease_without_waiting(guard: Guard) -> None:
    await guard.make().acquire()
    assert guard.sleeps == 0
    assert guard.port.writes == ["create"]
    assert guard.port.lease is not None
    assert guard.port.lease["spec"] == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-03-01T00:00:00.000000Z",
        "renewTime": "2026-03-01T00:00:00.000000Z",
        "leaseTransitions": 0,
    }


async def test_others_wait_for_a_part_of_a_second_too(guard: Guard) -> None:
    holder = guard.make("me")
    holder.duration_seconds = 15.5
    await holder.acquire()
    await guard.make("other").acquire()
    assert guard.port.holder == "other"
    assert not holder.is_held


async def test_a_holder_that_renews_is_waited_for(guard: Guard) -> None:
    guard.port.foreign_write("other")
    guard.meanwhile = lambda number: guard.port.foreign_write("other")
    with pytest.raises(StoppedError):
        await guard.make().acquire()
    assert guard.port.holder == "other"
    assert guard.port.writes == []


async def test_a_holder_that_stopped_renewing_is_succeeded_after_its_duration_and_not_before(guard: Guard) -> None:
    guard.port.foreign_write("other", duration=15)
    guard.clock.seconds = 1000.0  # The foreign lease is old, but this process has not watched it for long enough.
    await guard.make().acquire()
    assert guard.clock.seconds == 1015.0
    assert guard.port.lease is not None
    assert guard.port.lease["spec"]["leaseTransitions"] == 5
    assert guard.port.lease["spec"]["acquireTime"] == "2026-03-01T00:16:55.000000Z"


@pytest.mark.parametrize("renewed_at", [0.0, 0.3, 0.99, 4.5, 21.7])
async def test_a_dead_holder_is_succeeded_within_a_second_after_its_lease(guard: Guard, renewed_at: float) -> None:
    guard.port.foreign_write("other")
    clock, last = guard.clock, [0.0]

    def renews(number: int) -> None:
        while (next_at := min(last[0] + 5.0, renewed_at)) <= clock.seconds and last[0] < renewed_at:
            guard.port.foreign_write("other")
            last[0] = next_at

    guard.meanwhile = renews
    await guard.make("me").acquire()
    assert last == [renewed_at]
    assert 0.0 <= clock.seconds - (renewed_at + 15.0) <= READ_SECONDS


async def test_a_lease_that_is_given_back_is_taken_within_a_second(guard: Guard) -> None:
    guard.port.foreign_write("other")

    def gives_back(number: int) -> None:
        if number == 7:
            guard.port.foreign_write("", duration=1)

    guard.meanwhile = gives_back
    await guard.make().acquire()
    assert guard.sleeps == 7
    assert guard.clock.seconds <= 7 * READ_SECONDS


async def test_the_duration_that_counts_is_the_holders(guard: Guard) -> None:
    guard.port.foreign_write("other", duration=40)
    await guard.make().acquire()
    assert guard.clock.seconds == 40.0


async def test_an_operator_that_restarts_under_its_own_name_goes_on(guard: Guard) -> None:
    guard.port.foreign_write("me")
    await guard.make().acquire()
    assert guard.sleeps == 0
    assert guard.port.lease is not None
    assert guard.port.lease["spec"]["leaseTransitions"] == 4


async def test_two_operators_that_race_for_an_expired_lease_do_not_both_get_it(guard: Guard) -> None:
    guard.port.foreign_write("dead")
    guard.meanwhile = lambda number: guard.port.foreign_write("rival") if number > 3 else None
    guard.port.before_replace = lambda: guard.port.foreign_write("rival")
    with pytest.raises(StoppedError):
        await guard.make().acquire()
    assert guard.port.holder == "rival"


async def test_two_operators_that_race_to_create_it_do_not_both_get_it(guard: Guard) -> None:
    first, second = guard.make("first"), guard.make("second")
    await first.acquire()
    guard.limit = 2
    with pytest.raises(StoppedError):
        await second.acquire()
    assert guard.port.holder == "first"


async def test_an_api_server_that_is_down_is_waited_for(guard: Guard) -> None:
    guard.port.down = True

    def comes_back(number: int) -> None:
        guard.port.down = number < 3

    guard.meanwhile = comes_back
    await guard.make().acquire()
    assert guard.sleeps == 3
    assert guard.port.holder == "me"


async def test_the_holder_renews_and_keeps_when_it_acquired(guard: Guard) -> None:
    mine = guard.make()
    await mine.acquire()
    guard.limit = 10
    with pytest.raises(StoppedError):
        await mine.hold()
    assert guard.port.writes == ["create", *["replace"] * 10]
    assert guard.port.lease is not None
    assert guard.port.lease["spec"]["acquireTime"] == "2026-03-01T00:00:00.000000Z"
    assert guard.port.lease["spec"]["renewTime"] == "2026-03-01T00:00:50.000000Z"
    assert guard.port.lease["spec"]["leaseTransitions"] == 0


async def test_a_holder_cut_off_from_the_api_server_stops_when_its_lease_has_run_out(guard: Guard) -> None:
    mine = guard.make()
    await mine.acquire()

    def cut_off(number: int) -> None:
        guard.port.down = number > 4

    guard.meanwhile = cut_off
    await mine.hold()
    # Renewed last at 20 s; nobody else takes it before 35 s.
    assert guard.clock.seconds == 35.0


async def test_a_cut_off_holder_stops_with_its_lease_though_no_renewal_is_due_then(guard: Guard) -> None:
    mine = guard.make()
    mine.renew_seconds = 4.0
    await mine.acquire()

    def cut_off(number: int) -> None:
        guard.port.down = number > 2

    guard.meanwhile = cut_off
    await mine.hold()
    # Renewed last at 8 s; attempts at 12, 16 and 20 s.
    assert guard.clock.seconds == 23.0


async def test_a_short_break_does_not_stop_the_holder(guard: Guard) -> None:
    mine = guard.make()
    await mine.acquire()

    def short_break(number: int) -> None:
        guard.port.down = number in (2, 3)

    guard.meanwhile = short_break
    guard.limit = 12
    with pytest.raises(StoppedError):
        await mine.hold()
    assert guard.port.writes.count("replace") == 10


async def test_a_holder_stops_at_once_when_another_one_holds_the_lease(guard: Guard) -> None:
    mine = guard.make()
    await mine.acquire()
    guard.meanwhile = lambda number: guard.port.foreign_write("other") if number == 3 else None
    await mine.hold()
    assert guard.clock.seconds == 15.0
    assert guard.port.holder == "other"


async def test_a_renewal_that_hangs_ends_with_the_lease(guard: Guard, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = guard.make()
    await mine.acquire()

    async def hangs(resource: Resource, namespace: str, name: str) -> Object:
        # What is left of the lease passes in the guard's own clock; the wait itself is cut by wait_for.
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(guard.port, "get", hangs)

    def late(number: int) -> None:
        guard.clock.seconds = 20.0

    guard.meanwhile = late
    await mine.hold()
    assert guard.sleeps == 1


async def test_a_released_lease_is_free_at_once(guard: Guard) -> None:
    first = guard.make("first")
    await first.acquire()
    await first.release()
    assert guard.port.holder == ""
    await guard.make("second").acquire()
    assert guard.sleeps == 0
    assert guard.port.holder == "second"


async def test_what_another_one_holds_is_not_released(guard: Guard) -> None:
    first = guard.make("first")
    await first.acquire()
    guard.port.foreign_write("other")
    await first.release()
    assert guard.port.holder == "other"


async def test_releasing_while_the_api_server_is_down_is_no_error(guard: Guard) -> None:
    first = guard.make("first")
    await first.acquire()
    guard.port.down = True
    await first.release()
    guard.port.down = False
    assert guard.port.holder == "first"


@pytest.mark.parametrize("verb", ["get", "create", "replace"])
@pytest.mark.parametrize(
    "error", [ForbiddenError("403 forbidden"), ForbiddenError("401 Unauthorized"), TransientError("certificate")]
)
async def test_why_the_lease_cannot_be_had_is_reported_until_it_can(
    verb: str, error: ClusterError, guard: Guard
) -> None:
    if verb == "replace":
        guard.port.foreign_write("")
    guard.port.refused[verb] = error

    def heals(number: int) -> None:
        if number == 3:
            guard.port.refused.clear()

    guard.meanwhile = heals
    await guard.make().acquire()
    assert guard.said == [*[str(error)] * 3, ""]


async def test_waiting_for_another_holder_is_no_problem(guard: Guard) -> None:
    guard.port.foreign_write("other")
    guard.meanwhile = lambda number: guard.port.foreign_write("other")
    guard.limit = 3
    with pytest.raises(StoppedError):
        await guard.make().acquire()
    assert set(guard.said) == {""}


async def test_a_lost_race_is_no_problem(guard: Guard) -> None:
    guard.port.foreign_write("")
    guard.port.before_replace = lambda: guard.port.foreign_write("rival")
    guard.limit = 2
    with pytest.raises(StoppedError):
        await guard.make().acquire()
    assert set(guard.said) == {""}


async def test_a_holder_that_cannot_renew_says_why(guard: Guard) -> None:
    mine = guard.make()
    await mine.acquire()
    guard.port.refused["get"] = ForbiddenError("403 forbidden")
    await mine.hold()
    assert guard.said == ["", "403 forbidden", "403 forbidden", "403 forbidden"]


async def test_a_lease_is_held_from_the_last_renewal_for_its_duration(guard: Guard) -> None:
    mine = guard.make()
    assert not mine.is_held
    await mine.acquire()
    guard.limit = 2
    with pytest.raises(StoppedError):
        await mine.hold()
    guard.clock.seconds = 24.9
    assert mine.is_held
    guard.clock.seconds = 25.0
    assert not mine.is_held


async def test_a_lease_that_was_given_back_is_not_held(guard: Guard) -> None:
    mine = guard.make()
    await mine.acquire()
    await mine.release()
    assert not mine.is_held
