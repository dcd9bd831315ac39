"""Who gives power up, how much, and when it is given back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from energylens.budget.shed import COMING_DOWN_SECONDS, Share, Shed, shed


def share(
    name: str, watts: float = 1000, *, priority: int = 0, least: float = 700, levels: tuple[float, ...] = (500, 300)
) -> Share:
    return Share(("team", name), priority, watts, least, levels)


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
    # What a number of replicas draws, never a part of it.
    assert watts(step(low, high, allowed=1600)) == {"low": 500}
    assert watts(step(low, high, allowed=1499)) == {"low": 300}
    assert watts(step(low, high, allowed=1300)) == {"low": 300}
    assert watts(step(low, high, allowed=1100)) == {"low": 300, "high": 800}


def test_of_equal_priority_the_largest_gives_first_and_all_plans_before_any_replica() -> None:
    large, small = share("large", 2000, least=1500, levels=(1100, 500)), share("small", 1000, least=900)
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


def test_a_member_whose_plan_is_the_answer_to_its_cap_is_believed_at_once() -> None:
    answered = replace(share("a", 420, levels=()), cap_watts=300.0, former_watts=1000.0, has_answered=True)
    found = step(answered, share("b"), allowed=1100, since=1.0)
    assert (watts(found), found.took, found.waits) == ({"a": 300, "b": 500}, True, True)
    found = step(answered, replace(share("b", 500, levels=(300,)), cap_watts=500.0), allowed=1100, since=1.0)
    assert (found.took, found.waits, found.missing_watts) == (False, False, 0.0)


def test_one_that_has_not_said_what_its_replicas_draw_is_waited_for_and_no_higher_priority_gives() -> None:
    low = replace(share("low", priority=-1, levels=()), is_priced=False)
    found = step(low, share("high"), allowed=1200)
    assert watts(found) == {"low": 700}
    assert (found.waits, found.missing_watts) == (True, 0.0)
    assert watts(step(replace(low, is_priced=True), share("high"), allowed=1200)) == {"low": 700, "high": 500}


def test_what_was_given_back_and_not_adopted_yet_is_given_back_when_it_was_taken_again() -> None:
    # Its cap was lifted, and before its plan grew the budget became small again.
    half_way = replace(share("a", 500, levels=(300,)), least_watts=500, whole_watts=1000.0)
    taken = step(half_way, allowed=300)
    assert (taken.caps["team", "a"].watts, taken.caps["team", "a"].former_watts) == (300, 1000)
    down = replace(half_way, watts=300, levels_watts=(), cap_watts=300.0, former_watts=500.0)
    assert watts(step(down, allowed=2000)) == {}


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
    lowest = share("b", priority=0, levels=(740, 300))
    assert watts(step(raised, lowest, allowed=1750, since=599.0)) == {"a": 700}
    found = step(raised, lowest, allowed=1750)
    assert (watts(found), found.took) == ({"b": 750}, True)
    # As it is afterwards, nothing is out of order any more.
    after = replace(lowest, watts=750, least_watts=700, cap_watts=750.0, former_watts=1000.0)
    assert watts(step(share("a", priority=5), after, allowed=1750)) == {"b": 750}


def test_giving_back_leaves_the_hysteresis_free() -> None:
    taken = replace(share("a", 700), cap_watts=700.0, former_watts=1000.0)
    # 2000 W are 90 % of 2222.2 W.
    assert watts(step(taken, share("b"), allowed=2222)) == {"a": 700}
    assert watts(step(taken, share("b"), allowed=2223)) == {}


def test_what_a_member_draws_already_costs_no_room_to_give_back() -> None:
    stuck = replace(share("high", 700, priority=1), cap_watts=300.0, former_watts=700.0)
    low = replace(share("low", 700, priority=-1), cap_watts=700.0, former_watts=1000.0)
    assert watts(step(stuck, low, allowed=1700, hysteresis=0)) == {}


def test_in_order_and_without_room_everything_stays() -> None:
    taken = replace(share("a", 700), cap_watts=700.0, former_watts=1000.0)
    found = step(taken, share("b"), allowed=1750)
    assert (watts(found), found.took) == ({"a": 700}, False)


def test_what_was_just_given_back_is_not_shared_out_again() -> None:
    raised = replace(share("a", 700, priority=5, least=900), cap_watts=700.0, former_watts=2000.0)
    found = step(raised, share("b"), allowed=2000, hysteresis=0)
    assert (watts(found), found.took) == ({"a": 900}, False)


def test_a_cap_at_the_least_power_gives_nothing_back_and_hides_no_lower_priority() -> None:
    raised = replace(share("a", 700, priority=5), cap_watts=700.0, former_watts=2000.0)
    found = step(raised, share("b", levels=(300,)), allowed=2000)
    assert (watts(found), found.took) == ({"a": 1700, "b": 300}, True)


def test_one_member_out_of_order_is_enough_to_share_out_again() -> None:
    raised = replace(share("a", 700, priority=5), cap_watts=700.0, former_watts=1000.0)
    low = replace(share("c", 300, least=300, levels=()), cap_watts=300.0, former_watts=1000.0)
    found = step(raised, low, share("b"), allowed=2000)
    assert (watts(found), found.took) == ({"b": 700, "c": 300}, True)


def test_a_lower_priority_at_its_floor_is_not_out_of_order() -> None:
    raised = replace(share("a", 700, priority=5), cap_watts=700.0, former_watts=1000.0)
    found = step(raised, share("b", 300, least=300, levels=()), allowed=1100)
    assert (watts(found), found.took) == ({"a": 700}, False)


def test_nothing_is_taken_from_members_at_their_floors() -> None:
    found = step(share("a", 300, least=300, levels=()), share("b", 300, least=300, levels=()), allowed=100)
    assert found == Shed({}, False, 500.0)


shares = st.lists(
    st.builds(
        lambda priority, powers, least: (priority, sorted(map(float, powers), reverse=True), float(least)),
        st.integers(-2, 2),
        st.lists(st.integers(1, 900), min_size=1, max_size=4, unique=True),
        st.integers(1, 900),
    ),
    min_size=1,
    max_size=8,
).map(
    lambda rows: [
        Share(("team", f"m{i}"), priority, powers[0], min(least, powers[0]), tuple(powers[1:]))
        for i, (priority, powers, least) in enumerate(rows)
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
        # A plan of less power may have any power, replicas have theirs.
        assert after[m.key] >= m.least_watts or after[m.key] in m.levels_watts


@given(shares, st.integers(0, 6000))
def test_answers_end_at_or_below_the_budget_where_some_replicas_do(members: list[Share], allowed: int) -> None:
    """Members answer with the most replicas under their cap; no plan of less power is to be had."""
    if sum(min((m.watts, *m.levels_watts)) for m in members) > allowed:
        return
    before = {m.key: m for m in members}
    for _ in range(2 * len(members) + 2):
        found = step(*members, allowed=float(allowed), since=1.0)
        if not found.took and not found.waits:
            break
        members = [_answer(m, before[m.key], found) for m in members]
    assert sum(m.watts for m in members) <= allowed + 1
    assert not found.missing_watts


def _answer(member: Share, before: Share, found: Shed) -> Share:
    cap = found.caps.get(member.key)
    if cap is None:
        return member
    levels = (member.watts, *member.levels_watts)
    fitting = [level for level in levels if level <= cap.watts]
    watts = max(fitting) if fitting else min(levels)
    left = tuple(level for level in member.levels_watts if level < watts)
    return replace(
        member,
        watts=watts,
        least_watts=min(watts, member.least_watts) if not fitting else watts,
        levels_watts=left,
        has_answered=True,
        cap_watts=cap.watts,
        former_watts=before.watts,
    )
