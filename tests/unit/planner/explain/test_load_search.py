"""The nearest load, in a world in which each limit is a number of requests, and the nearest deadline of a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from energylens.api.llmdeployment import LLMDeployment
from energylens.api.quantity import parse_quantity
from energylens.planner.explain import relaxations
from energylens.planner.search.constraints import Constraint, Kind
from energylens.planner.types import Change, Relaxation
from energylens.predictor.types import BoolArray

INFINITE = float("inf")


@dataclass(frozen=True)
class World:
    """A problem with a candidate that keeps each kind of limit up to its own load, and one that sustains nothing."""

    offered: float
    sustained: float = INFINITE
    in_objective: float = INFINITE
    in_power: float = INFINITE
    least_for_energy: float | None = None
    in_flight: bool = False
    load_factor: float = 1.0
    within_limits: bool = False
    within_power: bool = False
    tried: list[float] = field(default_factory=list, compare=False)

    @property
    def amount(self) -> float:
        return max(int(self.offered * self.load_factor), 1) if self.in_flight else self.offered * self.load_factor

    @property
    def load(self) -> Any:
        return SimpleNamespace(
            concurrency=self.amount if self.in_flight else None,
            requests_per_second=None if self.in_flight else self.amount,
        )

    @property
    def spec(self) -> Any:
        return SimpleNamespace(
            workload=SimpleNamespace(in_flight=self.offered if self.in_flight else None),
            slo=SimpleNamespace(joules_per_output_token=self.least_for_energy),
        )


def rule(kind: Kind, holds: BoolArray) -> Constraint:
    return Constraint(rule=kind, kind=kind, field=kind, value="", holds=holds, message="")


def solved(world: Any) -> Any:
    world.tried.append(world.load_factor)
    powered = world.amount <= world.in_power
    # A candidate above the available power is not among the rows if the caller leaves such candidates out.
    rows = [0, 1] if powered or not world.within_power else []

    def keeps(kind: Kind, holds: bool) -> Constraint:
        return rule(kind, np.asarray([holds, kind != "Load"][: len(rows)], dtype=bool))

    constraints = [
        keeps("Load", 0 < world.amount <= world.sustained),
        keeps("SLO", (world.least_for_energy or 0) <= world.amount <= world.in_objective),
        keeps("Power", powered),
    ]
    return SimpleNamespace(rows=rows, constraints=constraints)


@pytest.fixture(autouse=True)
def _world(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaxations, "solve", solved)


def largest(world: Any, leave_out: tuple[str, ...] = ()) -> float:
    return float(parse_quantity(relaxations.largest_load(world, solved(world), leave_out)))


@pytest.mark.parametrize("offered", [10.5, 11.0, 333.0, 1000.0, 1e12])
@pytest.mark.parametrize("limit", [{"sustained": 10.09}, {"in_objective": 10.0, "sustained": 10.4}])
def test_the_largest_load_has_three_digits_wherever_the_search_begins(offered: float, limit: dict[str, float]) -> None:
    assert largest(World(offered, **limit)) == 10.0  # type: ignore[arg-type]


@pytest.mark.parametrize("offered", [13, 1000, 1024, 50_000])
@pytest.mark.parametrize("sustained", [1, 2, 12])
def test_the_largest_number_in_flight_is_known_to_the_request(offered: int, sustained: int) -> None:
    assert largest(World(offered, sustained, in_flight=True)) == sustained


def test_a_load_of_nothing_is_named_when_no_load_is_sustained() -> None:
    assert largest(World(1000.0, 0.0)) == 0
    assert largest(World(1000, 0, in_flight=True)) == 0


def test_an_objective_is_tried_down_to_thirteen_halvings() -> None:
    assert largest(World(8192.0, in_objective=1.0)) == 1.0
    assert largest(World(8192.0, in_objective=0.99)) == 0
    last = World(8192.0, in_objective=1.0)
    largest(last)
    assert min(last.tried) == 2.0**-13


def test_energy_per_token_may_need_a_higher_load() -> None:
    assert largest(World(1.0, least_for_energy=5.0)) == 5.0
    assert largest(World(1.0, least_for_energy=5.0, sustained=4.0)) == 0
    assert largest(World(8.0, least_for_energy=2.0, sustained=3.0)) == 3.0


def test_kinds_that_are_left_out_do_not_count() -> None:
    assert largest(World(100.0, 50.0, in_objective=20.0, in_power=10.0)) == 10.0
    assert largest(World(100.0, 50.0, in_objective=20.0, in_power=10.0), ("Power",)) == 20.0
    assert largest(World(100.0, 50.0, in_objective=20.0, in_power=10.0), ("SLO",)) == 10.0
    assert largest(World(100.0, 50.0, in_objective=20.0, in_power=10.0), ("SLO", "Power")) == 50.0


@pytest.mark.parametrize(
    ("world", "factor"),
    [
        (World(1000.0), 1.0),
        (World(1000.0, in_objective=1.0), 1.0),
        (World(1000.0, 999.0), 0.5),
        (World(1000.0, 499.0), 0.25),
        (World(1000.0, 10.0), 2.0**-7),
        (World(2.0**40, 2.0**-40), 2.0**-80),
        (World(2.0**40, 2.0**-41), 1.0),
        (World(1000, 1, in_flight=True), 2.0**-9),
        (World(1000, 0, in_flight=True), 1.0),
    ],
)
def test_the_part_of_a_load_that_is_sustained_is_a_power_of_a_half(world: Any, factor: float) -> None:
    assert relaxations._carried_factor(world, solved(world)) == factor


def test_few_loads_are_tried_however_far_the_load_is_from_the_sustained_one() -> None:
    world: Any = World(2.0**40, 2.0**-20)
    relaxations._carried_factor(world, solved(world))
    # The load itself, 1, 2, 4, ..., 64 halvings, then five more tries between 32 and 64.
    assert [round(-np.log2(each)) for each in world.tried] == [0, 1, 2, 4, 8, 16, 32, 64, 48, 56, 60, 58, 59]


@pytest.mark.parametrize(
    ("found", "broken", "between"),
    [
        (World(2.0, load_factor=0.5), 1.0, 1.41 / 2),
        (World(2.0, load_factor=0.5), 1.02 / 2, 1.01 / 2),
        (World(2.0, load_factor=0.5), 1.01 / 2, None),
        (World(2.0, load_factor=1.01 / 2), 0.5, None),
        (World(2.0, load_factor=1.0), 0.5, 1.41 / 2),
        (World(1000, in_flight=True, load_factor=0.1), 0.2, 0.1415),
        (World(1000, in_flight=True, load_factor=0.1), 0.101, None),
        (World(10, in_flight=True, load_factor=0.1), 0.3, 0.25),
        (World(10, in_flight=True, load_factor=0.1), 0.2, None),
    ],
)
def test_loads_between_two_others_are_as_a_spec_writes_them(found: Any, broken: float, between: float | None) -> None:
    assert relaxations._written_between(found, broken) == (None if between is None else pytest.approx(between))


def only(*factors: float) -> Callable[[float], Any]:
    return lambda factor: factor if any(factor == pytest.approx(each) for each in factors) else None


def test_a_found_load_is_rounded_to_one_that_works() -> None:
    found: Any = World(2.469, load_factor=0.5)
    assert relaxations._as_written(only(1.23 / 2.469, 1.24 / 2.469), found) == pytest.approx(1.23 / 2.469)
    assert relaxations._as_written(only(1.24 / 2.469), found) == pytest.approx(1.24 / 2.469)
    assert relaxations._as_written(only(), found) is found
    for whole in (World(2.46, load_factor=0.5), World(10, in_flight=True)):
        assert relaxations._as_written(lambda factor: pytest.fail("was tried"), whole) is whole  # type: ignore[arg-type]


@dataclass(frozen=True)
class Late:
    """A problem of a job without a plan that ends in time."""

    spec: Any
    load: Any
    model: Any = None
    products: tuple[str, ...] = ("gpu",)
    gpus: Any = field(default_factory=lambda: {"gpu": "the GPU"})


def late(complete_within_seconds: int) -> Any:
    load = {"inputTokens": 300, "outputTokens": 400}
    job = {"requests": 1000, "completeWithinSeconds": complete_within_seconds}
    document = {"model": {"name": "meta-llama/Llama-3.1-8B-Instruct"}, "workload": load | {"job": job}}
    asked = LLMDeployment.model_validate({"metadata": {"name": "chat", "namespace": "team-a"}, "spec": document})

    def start_of(gpu: str, weights: float) -> Any:
        assert (gpu, weights) == ("the GPU", 7.0)
        return SimpleNamespace(seconds=100.0)

    return Late(asked.spec, SimpleNamespace(job=SimpleNamespace(start_of=start_of)))


def ends(*candidates: tuple[float, float, bool]) -> Any:
    """Return a solution of candidates, each with its end, the limit of its load, and whether it keeps the objective."""
    seconds, limits, holds = (np.asarray(column) for column in zip(*candidates, strict=True))

    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return len(candidates)

    constraints = [rule("Load", np.zeros(len(candidates), dtype=bool)), rule("SLO", holds)]
    return SimpleNamespace(rows=Rows(completion_seconds=seconds, utilization_limit=limits), constraints=constraints)


IMPOSSIBLE = ((INFINITE, 1.0, True), (400.0, 0.0, True), (400.0, 1.0, False))
"""Candidates that never end, that may have no load, and that break an objective."""


def found_deadlines(
    monkeypatch: pytest.MonkeyPatch, problem: Any, solution: Any, needed: int
) -> list[tuple[str, float]]:
    def in_time(tried: Any) -> Any:
        chosen = 1 if tried.spec.workload.job.complete_within_seconds >= needed else None
        return SimpleNamespace(chosen=chosen, rows=SimpleNamespace(joules_per_output_token=[9.0, 2.5]))

    monkeypatch.setattr(relaxations, "solve", in_time)
    monkeypatch.setattr(relaxations, "weight_bytes", lambda model: 7.0)
    found = list(relaxations._deadlines(problem, solution))
    assert {(each.field, each.change.value) for each in found} <= {("spec.workload.job.completeWithinSeconds", "600")}
    return [(each.allowed, each.joules_per_output_token) for each in found]


def test_the_nearest_deadline_leaves_time_for_the_start_and_the_headroom(monkeypatch: pytest.MonkeyPatch) -> None:
    # The start takes 100 s, and 990 s of requests take 1100 s with a tenth of the throughput kept free.
    solution = ends(*IMPOSSIBLE, (1300.0, 1.0, True), (1090.0, 0.9, True))
    assert found_deadlines(monkeypatch, late(600), solution, 1200) == [("1200", 2.5)]


def test_no_deadline_is_named_without_a_plan_that_meets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found_deadlines(monkeypatch, late(600), ends(*IMPOSSIBLE), 1200) == []
    solution = ends(*IMPOSSIBLE, (1090.0, 0.9, True))
    assert found_deadlines(monkeypatch, late(600), solution, 1201) == []
    assert found_deadlines(monkeypatch, Late(late(600).spec, SimpleNamespace(job=None)), solution, 1200) == []


@pytest.mark.parametrize(
    ("world", "changes"),
    [
        (World(100.0, 50.0, in_objective=0.0, in_power=20.0), [("20", "SLO")]),
        (World(100.0, 50.0, in_objective=20.0, in_power=0.0), [("20", "Power")]),
        (World(100.0, 50.0, in_objective=0.0, in_power=0.0), []),
    ],
)
def test_a_load_is_named_with_the_only_limit_that_it_breaks(
    monkeypatch: pytest.MonkeyPatch, world: Any, changes: list[tuple[str, str]]
) -> None:
    def relaxed(problem: Any, solution: Any, mask: BoolArray, constraints: tuple[Constraint, ...]) -> Relaxation:
        assert mask.tolist() == [True, False]
        (twin,) = constraints
        return Relaxation(Change(twin.field, "", "more"), 2.5)

    monkeypatch.setattr(relaxations, "_relaxed", relaxed)
    found = list(relaxations._loads_with_objective(world, solved(world)))
    assert [(each.field, each.joules_per_output_token) for each in found] == [("Load", 2.5) for _ in changes]
    assert [(each.allowed, each.also.field) for each in found if each.also is not None] == changes


@pytest.mark.parametrize(("value", "nearest"), [(1, "2"), (7, "8"), (5, "2"), (600, "700")])
def test_the_value_of_an_override_that_works_is_the_nearest_one(
    monkeypatch: pytest.MonkeyPatch, value: int, nearest: str
) -> None:
    class Rows(SimpleNamespace):
        def __len__(self) -> int:
            return 4

        def choice(self, column: str) -> Any:
            assert column == "power_cap_watts"
            return np.asarray([2.0, 6.0, 8.0, np.nan])

    rows = Rows(products=("gpu",), product=np.zeros(4, dtype=int), joules_per_output_token=np.arange(4.0))
    solution = SimpleNamespace(chosen=0, rows=rows, constraints=[rule("SLO", np.asarray([True, False, True, True]))])
    monkeypatch.setattr(relaxations, "solve", lambda problem: solution)
    monkeypatch.setattr(relaxations, "best", lambda rows, mask, objective: int(np.flatnonzero(mask)[0]))

    @dataclass(frozen=True)
    class Asked:
        within_limits: bool = False
        within_power: bool = False
        gpus: Any = field(default_factory=lambda: {"gpu": SimpleNamespace(power_limit_watts=700.0)})
        spec: Any = field(default_factory=lambda: SimpleNamespace(energy=SimpleNamespace(objective=None)))

    asked: Any = Asked()
    (found,) = relaxations._chosen(asked, "a field", "power_cap_watts", value)
    assert (found.change, found.joules_per_output_token) == (
        Change("a field", str(value), nearest),
        {"2": 0.0, "8": 2.0, "700": 3.0}[nearest],
    )
