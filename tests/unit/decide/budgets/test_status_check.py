"""Which values of a budget's status may be right: an impossible one never makes the budget larger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from energylens.budget.ledger import FOLDED
from energylens.decide.budgets.status_check import MOST_WATTS, checked_budget_status
from energylens.decide.stated import MOST_JOULES

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
START, STAMP = "2026-11-25T00:00:00Z", "2026-11-25T12:00:00Z"
AHEAD, TOO_FAR = "2026-11-25T12:05:00Z", "2026-11-25T12:05:01Z"
ACCOUNT: dict[str, Any] = {
    "uid": "u1",
    "namespace": "team",
    "name": "llama",
    "measuredJoules": 3_600_000,
    "predictedJoules": 360_000,
    "milligrams": 5,
    "ungradedJoules": 6,
    "predictedWatts": 300,
    "accountedUntil": "2026-11-25T11:59:00Z",
}
MEMBER = {"name": "llama", "namespace": "team", "usedWattHours": 1100, "committedPowerWatts": 700, "priority": 0}
STATUS: dict[str, Any] = {
    "observedGeneration": 2,
    "periodStart": START,
    "usedWattHours": 1100,
    "committedPowerWatts": 700,
    "excessPowerWatts": 0,
    "shedTime": "2026-11-25T11:00:00Z",
    "members": [MEMBER],
    "ledger": [ACCOUNT],
    "history": [{"time": "2026-11-25T11:00:00Z", "usedWattHours": 1000}],
    "conditions": [],
}


def checked(spec: dict[str, Any] | None = None, generation: int = 2, **changes: Any) -> Any:
    status = {key: value for key, value in {**STATUS, **changes}.items() if value is not None}
    metadata = {"name": "cap", "namespace": "team", "generation": generation}
    limit = {"energyWattHours": 24000, "period": "Day"}
    return checked_budget_status({"metadata": metadata, "spec": spec or limit, "status": status}, NOW)


def test_what_the_operator_writes_is_left_as_it_is() -> None:
    assert checked() == (STATUS, ())
    assert checked_budget_status({"metadata": {"name": "cap"}, "spec": {}}, NOW) == ({}, ())
    # Nothing is counted while a spec cannot be read.
    assert checked({"powerWatts": "much"}, ledger=[{"uid": ""}]) == ({**STATUS, "ledger": [{"uid": ""}]}, ())


@pytest.mark.parametrize(
    ("name", "edge", "beyond"),
    [
        ("committedPowerWatts", 0, -1),
        ("committedPowerWatts", MOST_WATTS, MOST_WATTS + 1),
        ("excessPowerWatts", 0, -1),
        ("excessPowerWatts", MOST_WATTS, MOST_WATTS + 1),
        ("shedTime", AHEAD, TOO_FAR),
    ],
)
def test_a_value_is_kept_up_to_its_edge_and_dropped_beyond(name: str, edge: Any, beyond: Any) -> None:
    assert checked(**{name: edge})[1] == ()
    found, (line,) = checked(**{name: beyond})
    assert name not in found
    assert line.startswith(f"status.{name}: {beyond}")
    assert found["ledger"] == [ACCOUNT]


@pytest.mark.parametrize("name", ["allowedPowerWatts", "formerPowerWatts"])
@pytest.mark.parametrize(("watts", "is_kept"), [(0, True), (MOST_WATTS, True), (-1, False), (MOST_WATTS + 1, False)])
def test_power_that_no_member_can_draw_is_forgotten(name: str, watts: int, is_kept: bool) -> None:
    other = {**MEMBER, "name": "other", "usedWattHours": 0, "allowedPowerWatts": 5}
    found, left_out = checked(members=[{**MEMBER, name: watts}, other])
    assert (name in found["members"][0]) is is_kept
    assert found["members"][1]["allowedPowerWatts"] == 5
    assert left_out == (() if is_kept else ("status.members: power that no deployment can draw",))


AMOUNTS = ("measuredJoules", "predictedJoules", "milligrams", "ungradedJoules", "predictedWatts")


@pytest.mark.parametrize("name", AMOUNTS)
@pytest.mark.parametrize("value", [-1, MOST_JOULES + 1, "1", True])
def test_an_impossible_amount_is_counted_again(name: str, value: Any) -> None:
    found, left_out = checked(ledger=[{**ACCOUNT, name: value}], usedWattHours=0, members=[], history=[])
    (account,) = found["ledger"]
    assert left_out == (f"status.ledger[u1]: {name}",)
    # Where energy is lost, the whole period is predicted again.
    since = START if name in ("measuredJoules", "predictedJoules") else ACCOUNT["accountedUntil"]
    assert account == {**ACCOUNT, name: 0, "accountedUntil": since}


@pytest.mark.parametrize("name", AMOUNTS)
def test_any_possible_amount_is_kept(name: str) -> None:
    for value in (0, MOST_JOULES):
        kept: dict[str, Any] = {"ledger": [{**ACCOUNT, name: value}], "usedWattHours": 0, "members": [], "history": []}
        assert checked(**kept)[1] == ()


@pytest.mark.parametrize("until", [TOO_FAR, "never", None, 5])
def test_an_account_of_known_energy_goes_on_from_now(until: Any) -> None:
    found, (line,) = checked(ledger=[{**ACCOUNT, "accountedUntil": until}])
    assert line == "status.ledger[u1]: accountedUntil"
    assert found["ledger"] == [{**ACCOUNT, "accountedUntil": STAMP}]
    assert checked(ledger=[{**ACCOUNT, "accountedUntil": AHEAD}])[1] == ()


def test_an_account_of_no_known_time_or_energy_is_counted_from_the_start() -> None:
    found, _ = checked(ledger=[{**ACCOUNT, "accountedUntil": TOO_FAR, "measuredJoules": -1}], usedWattHours=0)
    assert found["ledger"][0]["accountedUntil"] == START


def test_an_amount_that_an_impossible_account_lacks_is_none() -> None:
    known = {name: value for name, value in ACCOUNT.items() if name != "milligrams"}
    found, _ = checked(ledger=[{**known, "accountedUntil": TOO_FAR}])
    assert found["ledger"] == [{**ACCOUNT, "milligrams": 0, "accountedUntil": STAMP}]


def test_members_without_counted_energy_have_used_none() -> None:
    idle = {name: value for name, value in MEMBER.items() if name != "usedWattHours"}
    members = [{**idle, "name": f"m{at}"} for at in range(10)]
    assert checked(members=members, ledger=[], history=[], usedWattHours=None)[1] == ()


@pytest.mark.parametrize("account", [{"uid": ""}, {"uid": 5}, {}, "nonsense"])
def test_an_account_of_nobody_is_dropped(account: Any) -> None:
    found, (line,) = checked(ledger=[account, ACCOUNT])
    assert line == "status.ledger: an account without a uid"
    assert found["ledger"] == [ACCOUNT]


def test_an_account_with_a_strange_field_is_kept_without_it() -> None:
    found, (line,) = checked(ledger=[{**ACCOUNT, "namespace": 5}])
    assert line == "status.ledger[u1]: an unknown field"
    assert found["ledger"] == [{**ACCOUNT, "namespace": "5"}]


@pytest.mark.parametrize(
    ("changes", "missing"),
    [
        ({"usedWattHours": 1101}, 0),
        # A figure is rounded, so that one watt-hour may be lacking.
        ({"usedWattHours": 1102}, 3600),
        ({"usedWattHours": 2101}, 3_600_000),
        ({"history": [{"time": START, "usedWattHours": 9000}, {"time": STAMP, "usedWattHours": 1102}]}, 3600),
        ({"usedWattHours": None, "history": [], "members": []}, 0),
        ({"members": [{**MEMBER, "usedWattHours": 1103}]}, 1.5 * 3600),
        ({"members": [{**MEMBER, "usedWattHours": 552}, {**MEMBER, "name": "b", "usedWattHours": 552}]}, 2 * 3600),
        ({"usedWattHours": 10**15}, 0),
    ],
)
def test_energy_that_the_ledger_lacks_is_filled_up(changes: dict[str, Any], missing: float) -> None:
    found, left_out = checked(**changes)
    others = [account for account in found["ledger"] if account["uid"] == FOLDED]
    assert [(each["predictedJoules"], each["ungradedJoules"]) for each in others] == (
        [(missing, missing)] if missing else []
    )
    assert left_out == (
        (f"status.ledger: {missing / 3600:.0f} Wh less than the status says were used",) if missing else ()
    )


def test_lacking_energy_is_added_to_that_of_members_that_are_gone() -> None:
    gone = {**ACCOUNT, "uid": FOLDED, "name": FOLDED, "namespace": "", "measuredJoules": 0, "ungradedJoules": 10}
    found, _ = checked(ledger=[gone, ACCOUNT], usedWattHours=1301)
    kept, filled = found["ledger"]
    assert kept == ACCOUNT
    assert (filled["uid"], filled["predictedJoules"] - gone["predictedJoules"]) == (FOLDED, 360_000)
    assert filled["ungradedJoules"] == 10 + 360_000


def test_a_period_that_the_ledger_contradicts_is_put_right() -> None:
    stale = "2026-11-24T00:00:00Z"
    found, left_out = checked(periodStart=stale)
    assert found["periodStart"] == START
    assert left_out == (f"status.periodStart: {stale}, and the ledger is of 2026-11-25T00:00:00+00:00",)
    # A ledger of the day before, or a spec with another period, is none of this period.
    before = {**ACCOUNT, "accountedUntil": START}
    assert checked(periodStart=stale, ledger=[before]) == ({**STATUS, "periodStart": stale, "ledger": [before]}, ())
    assert checked(periodStart=stale, generation=3)[1] == ()
    assert checked(periodStart=None)[1] == ()
    assert checked(periodStart=stale, ledger=[])[1] == ()
    # One account of this period is enough: a member without pods is counted no further.
    idle = {**before, "uid": "u2", "name": "idle"}
    assert checked(periodStart=stale, ledger=[ACCOUNT, idle])[0]["periodStart"] == START


def test_energy_of_another_period_is_not_missing_in_this_one() -> None:
    before = {**ACCOUNT, "accountedUntil": START, "measuredJoules": 0}
    assert checked(periodStart="2026-11-24T00:00:00Z", ledger=[before])[1] == ()
    assert checked(ledger=[before])[1] != ()
