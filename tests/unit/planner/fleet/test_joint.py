"""The joint plan: equal to exhaustive search, and what it says when nothing holds."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bench.joint_speed import exhaustive, problem
from hypothesis import given, settings
from hypothesis import strategies as st

from energylens.planner.fleet.joint import (
    BrokenObjective,
    FrontierPoint,
    JointInfeasible,
    JointMember,
    JointPlan,
    JointProblem,
    PowerLimit,
    limit_costs,
    solve_joint,
)
from energylens.planner.fleet.packing import Hole, Node

H100, L40S = "NVIDIA-H100-80GB-HBM3", "NVIDIA-L40S"
SLOW = (BrokenObjective("spec.slo.itlMilliseconds", "20", "35"),)


def point(
    watts: float, *, gpus: int = 1, pods: int = 1, product: str = H100, energy: float | None = None, slow: bool = False
) -> FrontierPoint:
    return FrontierPoint(product, gpus, pods, watts, watts if energy is None else energy, SLOW if slow else ())


def nodes(*gpus: int, product: str = H100) -> tuple[Node, ...]:
    return tuple(Node(f"{product}-{number}", product, size) for number, size in enumerate(gpus))


def limit(watts: float, *members: str, name: str = "feed", products: frozenset[str] | None = None) -> PowerLimit:
    return PowerLimit(name, watts, frozenset(members), products)


def solved(problem: JointProblem) -> JointPlan:
    result = solve_joint(problem)
    assert isinstance(result, JointPlan), result
    return result


def failed(problem: JointProblem) -> JointInfeasible:
    result = solve_joint(problem)
    assert isinstance(result, JointInfeasible), result
    return result


points = st.builds(
    lambda product, gpus, pods, watts, energy, slow: FrontierPoint(
        product, gpus, pods, float(watts), float(energy), SLOW if slow else ()
    ),
    st.sampled_from((H100, L40S)),
    # 3 beside 2 and 4: sizes that do not divide each other.
    st.sampled_from((1, 2, 3, 4)),
    st.integers(1, 3),
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
)


@st.composite
def problems(draw: st.DrawFn) -> JointProblem:
    placed = tuple(
        Node(f"n{number}", product, gpus)
        for number, (product, gpus) in enumerate(
            draw(st.lists(st.tuples(st.sampled_from((H100, L40S)), st.integers(0, 6)), min_size=1, max_size=4))
        )
    )
    names = [node.name for node in placed]
    members = tuple(
        JointMember(
            f"m{number}",
            tuple(draw(st.lists(points, min_size=1, max_size=4))),
            draw(st.none() | st.frozensets(st.sampled_from(names))),
        )
        for number in range(draw(st.integers(1, 4)))
    )
    limits = tuple(
        PowerLimit(
            f"l{number}",
            float(draw(st.integers(0, 100))),
            draw(st.frozensets(st.sampled_from([m.name for m in members]))),
            draw(st.none() | st.frozensets(st.sampled_from((H100, L40S)))),
        )
        for number in range(draw(st.integers(0, 3)))
    )
    return JointProblem(members, placed, limits)


def without_broken(asked: JointProblem) -> JointProblem:
    members = tuple(replace(m, points=tuple(p for p in m.points if not p.broken)) for m in asked.members)
    return replace(asked, members=members)


@settings(max_examples=150, deadline=None)
@given(problems())
def test_the_answer_equals_exhaustive_search(asked: JointProblem) -> None:
    best = exhaustive(without_broken(asked))
    result = solve_joint(asked, explain=False)
    if isinstance(result, JointPlan):
        assert best == pytest.approx(result.energy_watts)
        assert not any(m.points[result.chosen[m.name]].broken for m in asked.members)
    else:
        assert best is None


@settings(max_examples=60, deadline=None)
@given(problems())
def test_what_would_have_to_give_way_is_enough_and_the_least(asked: JointProblem) -> None:
    result = solve_joint(asked)
    if isinstance(result, JointPlan):
        return
    assert set(result.impossible) == {m.name for m in asked.members if all(p.broken for p in m.points)}
    if result.extra_watts:
        raised = tuple(
            replace(given_, watts=given_.watts + result.extra_watts.get(given_.name, 0.0)) for given_ in asked.limits
        )
        assert exhaustive(without_broken(replace(asked, limits=raised))) is not None
        total = sum(result.extra_watts.values())
        # Watts are whole here, so that one less in any one limit must not do where only one has to rise.
        if len(result.extra_watts) == 1:
            lower = tuple(replace(r, watts=r.watts - (r.name in result.extra_watts)) for r in raised)
            assert exhaustive(without_broken(replace(asked, limits=lower))) is None
        assert total > 0
    if result.extra_gpus:
        more = tuple(
            Node(f"more-{number}", hole.product, hole.gpus)
            for number, hole in enumerate(h for h in result.extra_gpus for _ in range(h.count))
        )
        everywhere = tuple(
            replace(m, nodes=None if m.nodes is None else m.nodes | {n.name for n in more}) for m in asked.members
        )
        helped = replace(asked, members=everywhere, nodes=asked.nodes + more)
        assert exhaustive(without_broken(helped)) is not None
    if result.relaxed:
        loosened = tuple(
            m
            if m.name not in result.relaxed
            else replace(m, points=(replace(m.points[result.relaxed[m.name]], broken=()),))
            for m in asked.members
        )
        assert exhaustive(without_broken(replace(asked, members=loosened))) is not None


def test_a_shared_limit_goes_where_it_saves_most() -> None:
    a = JointMember("a", (point(700, energy=10), point(350, energy=12)))
    b = JointMember("b", (point(700, energy=10), point(350, energy=30)))
    plan = solved(JointProblem((a, b), nodes(8), (limit(1100, "a", "b"),)))
    assert plan.chosen == {"a": 1, "b": 0}
    assert plan.watts_of == {"feed": 1050.0}


def test_nested_limits_hold_together() -> None:
    a = JointMember("a", (point(700, energy=1), point(300, energy=5)))
    b = JointMember("b", (point(700, energy=1), point(300, energy=2)))
    inner, outer = limit(500, "a", name="team"), limit(1000, "a", "b", name="cluster")
    assert solved(JointProblem((a, b), nodes(8), (outer,))).chosen == {"a": 0, "b": 1}
    assert solved(JointProblem((a, b), nodes(8), (outer, inner))).chosen == {"a": 1, "b": 0}


def test_a_limit_of_some_products_leaves_the_others_alone() -> None:
    a = JointMember("a", (point(700), point(900, product=L40S)))
    racks = nodes(8) + nodes(8, product=L40S)
    assert solved(JointProblem((a,), racks, (limit(600, "a", products=frozenset({H100})),))).chosen == {"a": 1}


def test_pods_must_fit_on_nodes_and_not_only_in_their_sum() -> None:
    a = JointMember("a", (point(10, gpus=4), point(20, gpus=2, pods=2)))
    # Six GPUs are free, nowhere four of them.
    assert solved(JointProblem((a,), nodes(3, 3))).chosen == {"a": 1}
    assert solved(JointProblem((a,), nodes(4, 2))).chosen == {"a": 0}


def test_sizes_that_do_not_divide_each_other_are_packed_exactly() -> None:
    # 3 + 3 + 2 fits on 8, 3 + 3 + 3 does not although the GPUs of two nodes would suffice for five of them.
    a = JointMember("a", (point(10, gpus=3, pods=5), point(50, gpus=2, pods=8)))
    assert solved(JointProblem((a,), nodes(8, 8))).chosen == {"a": 1}
    b = JointMember("b", (point(10, gpus=3, pods=4),))
    c = JointMember("c", (point(10, gpus=2, pods=2),))
    assert solved(JointProblem((b, c), nodes(8, 8))).chosen == {"b": 0, "c": 0}


@pytest.mark.parametrize("small", [1, 2])
def test_the_number_of_pods_costs_nothing_by_itself(small: int) -> None:
    """Pods of one GPU beside pods of three count slots, pods of two are packed one by one."""
    one, four = point(11, gpus=small, energy=10.5), point(11, gpus=small, pods=4, energy=10.0)
    a = JointMember("a", (one, four, point(11, gpus=3, energy=10.2)))
    found = solved(JointProblem((a,), nodes(8)))
    assert (found.chosen, found.energy_watts) == ({"a": 1}, pytest.approx(10.0))


def test_a_member_stays_on_its_own_nodes() -> None:
    first, second = nodes(4, 4)
    a = JointMember("a", (point(10, gpus=4), point(20, gpus=2)), frozenset({first.name}))
    b = JointMember("b", (point(10, gpus=4), point(30, gpus=2)), frozenset({first.name}))
    assert solved(JointProblem((a, b), (first, second))).chosen == {"a": 1, "b": 1}
    free = replace(b, nodes=None)
    assert solved(JointProblem((a, free), (first, second))).chosen == {"a": 0, "b": 0}


def test_it_says_how_many_watts_are_missing() -> None:
    a, b = JointMember("a", (point(700), point(400))), JointMember("b", (point(500),))
    inner, outer = limit(600, "b", name="team"), limit(800, "a", "b", name="cluster")
    assert failed(JointProblem((a, b), nodes(8), (inner, outer))).extra_watts == {"cluster": pytest.approx(100.0)}


def test_parts_of_a_watt_are_missing_too() -> None:
    asked = JointProblem((JointMember("a", (point(400.5),)),), nodes(8), (limit(400, "a"),))
    assert failed(asked).extra_watts == {"feed": pytest.approx(0.5)}


def test_it_says_how_many_gpus_are_missing_and_that_they_must_be_together() -> None:
    a = JointMember("a", (point(10, gpus=4, pods=2),))
    result = failed(JointProblem((a,), nodes(5, 3)))
    assert result.extra_gpus == (Hole(H100, 4),)
    assert result.extra_watts == {}


def test_it_says_whose_objectives_would_have_to_relax() -> None:
    a = JointMember("a", (point(700), point(300, slow=True), point(200, slow=True)))
    b = JointMember("b", (point(700),))
    result = failed(JointProblem((a, b), nodes(8), (limit(1000, "a", "b"),)))
    assert result.relaxed == {"a": 2}
    assert result.impossible == ()
    assert a.points[result.relaxed["a"]].broken[0].needed == "35"


@pytest.mark.parametrize("watts", [(200, 300), (300, 200)])
def test_of_points_that_break_objectives_the_one_of_least_energy_serves(watts: tuple[int, int]) -> None:
    a = JointMember("a", (point(700), *(point(each, slow=True) for each in watts)))
    result = failed(JointProblem((a,), nodes(8), (limit(400, "a"),)))
    assert result.relaxed == {"a": 1 + watts.index(200)}


def test_no_more_members_break_objectives_than_have_to() -> None:
    # The energy would be lower if the second relaxed its objectives as well.
    a = JointMember("a", (point(100, slow=True),))
    b = JointMember("b", (point(300, energy=5, slow=True), point(700, energy=10)))
    assert failed(JointProblem((a, b), nodes(8))).relaxed == {"a": 0}


def test_a_member_that_can_never_hold_its_objectives_is_named() -> None:
    a, b = JointMember("a", (point(1, slow=True),)), JointMember("b", (point(1),))
    result = failed(JointProblem((a, b), nodes(8)))
    assert result.impossible == ("a",)
    assert result.relaxed == {"a": 0}


def test_a_limit_says_what_it_costs() -> None:
    a = JointMember("a", (point(700, energy=100), point(400, energy=130)))
    asked = JointProblem((a,), nodes(8), (limit(500, "a"), limit(9000, "a", name="loose")))
    (cost,) = limit_costs(asked, solved(asked))
    assert (cost.limit, cost.energy_watts, cost.watts_more) == ("feed", pytest.approx(30), pytest.approx(200))


def test_a_limit_that_is_half_a_watt_too_low_has_a_cost() -> None:
    a = JointMember("a", (point(500.5, energy=100), point(400, energy=130)))
    asked = JointProblem((a,), nodes(8), (limit(500, "a"),))
    (cost,) = limit_costs(asked, solved(asked))
    assert (cost.energy_watts, cost.watts_more) == (pytest.approx(30), pytest.approx(0.5))


@pytest.mark.parametrize("watts", [(700, 400), (400, 700)])
def test_a_limit_that_saves_no_energy_costs_nothing(watts: tuple[int, int]) -> None:
    a = JointMember("a", tuple(point(each, energy=100) for each in watts))
    asked = JointProblem((a,), nodes(8), (limit(500, "a"),))
    assert limit_costs(asked, solved(asked)) == ()


def test_the_most_expensive_limit_comes_first() -> None:
    a = JointMember("a", (point(700, energy=100), point(400, energy=130)))
    b = JointMember("b", (point(700, energy=100), point(400, energy=150)))
    limits = (limit(500, "a", name="first"), limit(500, "b", name="second"))
    asked = JointProblem((a, b), nodes(8), limits)
    assert [cost.limit for cost in limit_costs(asked, solved(asked))] == ["second", "first"]


@pytest.mark.parametrize("watts", [0.0, 0.5])
def test_a_point_may_draw_less_than_a_watt(watts: float) -> None:
    assert solved(JointProblem((JointMember("a", (point(watts),)),), nodes(1))).power_watts == watts


def test_a_point_counts_the_gpus_of_all_pods() -> None:
    assert point(1, gpus=4, pods=3).gpus == 12


def test_nobody_is_a_plan_of_nothing() -> None:
    assert solved(JointProblem((), nodes(8))).chosen == {}


def test_equal_problems_have_equal_answers() -> None:
    asked = problem(7, 40, 10, 16, tight=0.6, rate=False)
    assert solved(asked).chosen == solved(asked).chosen


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            JointProblem(tuple(JointMember(name, (point(1),)) for name in ("a", "b", "a")), ()),
            "members: a is listed twice",
        ),
        (JointProblem((JointMember("a", (point(1),)),), (), (limit(1, "b"),)), "limit feed: b is not a member"),
        (JointProblem((JointMember("a", (point(-1.0),)),), ()), "power_watts=-1.0"),
        (JointProblem((JointMember("a", (point(1, energy=float("nan")),)),), ()), "energy_watts=nan"),
        (JointProblem((JointMember("a", (point(1, pods=0),)),), ()), "0 pods of 1 GPU;"),
    ],
)
def test_a_problem_that_makes_no_sense_is_refused(asked: JointProblem, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        solve_joint(asked)
