"""Who gives power up, how much, and when it is given back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.budget.shed import COMING_DOWN_SECONDS, Share, Shed, shed


def share(name: str, watts: float = 1000, *, priority: int = 0, least: float = 700, floor: float = 300) -> Share:
    return Share(("team", name), priority, watts, least, floor)


def step(
    *shares: Share, allowed: float, hysteresis: int = 10, since: float | None = 600.0, growth: float | None = None
) -> Shed:
    return shed(
        shares,
        allowed,
        growth_watts=growth,
        hysteresis_percent=hysteresis,
        seconds_since=since,
        cooldown_seconds=600.0,
    )


def watts(found: Shed) -> dict[str, float]:
    return {name: cap.watts for (_, name), cap in found.caps.items()}


def test_nothing_is_taken_while_the_budget_holds() -> None:
    assert step(share("a"), share("b"), allowed=2000) == Shed({}, False, 0.0)


def test_the_lowest_priority_gives_first_plans_then_replicas() -> None:
    low, high = share("low", priority=-1), share("high", priority=1)
    assert watts(step(low, high, allowed=1800)) == {"low": 800}
    assert watts(step(low, high, allowed=1500)) == {"low": 500}
    assert watts(step(low, high, allowed=1300)) == {"low": 300}
    assert watts(step(low, high, allowed=1100)) == {"low": 300, "high": 800}


def test_of_equal_priority_the_largest_gives_first_and_all_plans_before_any_replica() -> None:
    large, small = share("large", 2000, least=1500, floor=500), share("small", 1000, least=900)
    assert watts(step(small, large, allowed=2500)) == {"large": 1500}
    assert watts(step(small, large, allowed=2400)) == {"large": 1500, "small": 900}
    assert watts(step(small, large, allowed=2000)) == {"large": 1100, "small": 900}


def test_nobody_falls_below_its_floor_and_what_is_missing_is_said() -> None:
    found = step(share("a"), share("b"), allowed=100)
    assert watts(found) == {"a": 300, "b": 300}
    assert found.missing_watts == 500


def test_power_comes_back_only_with_room_to_spare_and_after_the_cooldown() -> None:
    taken = replace(share("a", 700), cap_watts=700.0, former_watts=1000.0)
    assert watts(step(taken, share("b"), allowed=2100)) == {"a": 700}
    assert watts(step(taken, share("b"), allowed=2300, since=599.0)) == {"a": 700}
    assert watts(step(taken, share("b"), allowed=2300)) == {}


def test_the_highest_priority_gets_power_back_first() -> None:
    low = replace(share("low", 300, priority=-1), cap_watts=300.0, former_watts=1000.0)
    high = replace(share("high", 700, priority=1), cap_watts=700.0, former_watts=1000.0)
    assert watts(step(low, high, allowed=1500, hysteresis=0)) == {"low": 300}
    # Not enough for its former plan, but for one that holds its objectives.
    assert watts(step(low, high, allowed=1700, hysteresis=0)) == {"low": 700}


def test_a_member_that_is_still_on_its_way_down_is_not_asked_again() -> None:
    coming = replace(share("a", 1000), cap_watts=700.0, former_watts=1000.0)
    found = step(coming, share("b"), allowed=1700, since=COMING_DOWN_SECONDS - 1)
    assert (watts(found), found.took) == ({"a": 700}, False)


def test_a_member_that_never_comes_down_counts_with_what_it_draws_and_others_give_the_rest() -> None:
    stays = replace(share("a", 1000, priority=-1), cap_watts=700.0, former_watts=1000.0)
    found = step(stays, share("b"), allowed=1700, since=COMING_DOWN_SECONDS)
    assert watts(found) == {"a": 700, "b": 700}
    # And it is not asked for what it does not give.
    found = step(stays, share("b"), allowed=1000)
    assert watts(found) == {"a": 700, "b": 300}
    assert found.missing_watts == 300


def test_giving_back_must_last_as_any_growth() -> None:
    taken = replace(share("a", 700), cap_watts=700.0, former_watts=1000.0)
    assert watts(step(taken, share("b"), allowed=5000, growth=1800)) == {"a": 700}
    assert watts(step(taken, share("b"), allowed=5000, growth=2300)) == {}


def test_when_priorities_change_the_one_that_is_the_lowest_now_gives_instead() -> None:
    raised = replace(share("a", 700, priority=5), cap_watts=700.0, former_watts=1000.0)
    lowest = share("b", priority=0)
    assert watts(step(raised, lowest, allowed=1750, since=599.0)) == {"a": 700}
    found = step(raised, lowest, allowed=1750)
    assert (watts(found), found.took) == ({"b": 750}, True)
    # As it is afterwards, nothing is out of order any more.
    after = replace(lowest, watts=750, least_watts=700, cap_watts=750.0, former_watts=1000.0)
    assert watts(step(share("a", priority=5), after, allowed=1750)) == {"b": 750}


shares = st.lists(
    st.builds(
        lambda priority, floor, more, most: (priority, float(floor), float(floor + more), float(floor + more + most)),
        st.integers(-2, 2),
        st.integers(0, 500),
        st.integers(0, 500),
        st.integers(0, 500),
    ),
    min_size=1,
    max_size=8,
).map(
    lambda rows: [
        Share(("team", f"m{i}"), priority, most, least, floor) for i, (priority, floor, least, most) in enumerate(rows)
    ]
)


@given(shares, st.integers(0, 6000))
def test_taking_holds_the_budget_or_everybody_is_at_the_floor(members: list[Share], allowed: int) -> None:
    found = step(*members, allowed=float(allowed))
    after = {m.key: found.caps[m.key].watts if m.key in found.caps else m.watts for m in members}
    assert sum(after.values()) <= allowed + found.missing_watts + 1
    assert all(after[m.key] >= m.floor_watts - 1e-6 for m in members)
    if found.missing_watts:
        assert all(after[m.key] == pytest.approx(m.floor_watts, abs=0.6) for m in members)
    touched = [m for m in members if m.key in found.caps]
    for m in touched:
        # No member of lower priority has anything left to give.
        below = [other for other in members if other.priority < m.priority]
        assert all(after[other.key] == pytest.approx(other.floor_watts, abs=0.6) for other in below)


@given(
    shares,
    st.lists(st.integers(0, 6000), min_size=1, max_size=10),
    st.integers(0, 50),
    st.lists(st.integers(-2, 2), min_size=8, max_size=8),
)
def test_at_a_steady_budget_shedding_comes_to_rest_whatever_priorities_were_before(
    members: list[Share], budgets: list[int], hysteresis: int, priorities: list[int]
) -> None:
    now = members
    for number, allowed in enumerate([*budgets, *[budgets[-1]] * 12]):
        if number == len(budgets):
            now = [replace(m, priority=priority) for m, priority in zip(now, priorities, strict=False)]
        found = step(*now, allowed=float(allowed), hysteresis=hysteresis)
        now = [
            replace(
                m,
                watts=found.caps[m.key].watts if m.key in found.caps else m.former_watts or m.watts,
                cap_watts=found.caps[m.key].watts if m.key in found.caps else None,
                former_watts=found.caps[m.key].former_watts if m.key in found.caps else None,
            )
            for m in now
        ]
    again = step(*now, allowed=float(budgets[-1]), hysteresis=hysteresis)
    assert not again.took
    assert watts(again) == {m.key[1]: m.cap_watts for m in now if m.cap_watts is not None}
