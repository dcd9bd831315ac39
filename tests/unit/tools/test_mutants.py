"""The list of mutants, and how one is applied."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

from tools.mutants import Order, forked, named_in
from tools.mutation import ROOT, mutants
from tools.reach import Reach

PATH = ROOT / "operator/energylens/module.py"
SOURCE = """
LIMIT = 5

def within(value: int, most: int = 3) -> bool:
    if value < LIMIT and value != 2:
        return True
    return False
"""


def test_each_place_of_functions_and_constants_is_changed_once(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(SOURCE)
    found = list(mutants(path))
    texts = [ast.unparse(mutant.change_in(ast.parse(SOURCE))) for mutant in found]
    before = ast.unparse(ast.parse(SOURCE)).splitlines()
    changed = [[(old, new) for old, new in zip(before, text.splitlines(), strict=True) if old != new] for text in texts]
    assert all(len(lines) == 1 for lines in changed)
    assert {mutant.change for mutant in found} == {
        "5 -> 6", "And -> Or", "Lt -> LtE", "NotEq -> Eq", "2 -> 3", "True -> False", "False -> True",
    }  # fmt: skip
    assert {mutant.function for mutant in found} == {"LIMIT", "within"}
    assert [mutant.is_constant for mutant in found if mutant.function == "LIMIT"] == [True]
    assert len(set(texts)) == len(texts)


TYPED = """
Found = int | dict[str, bool | None]
_Names = Literal[1, 2]
flags = A | B
_SINCE: dict[str, int | None] = {"a": 7}
LATER: int

def typed(value: int | None) -> int | str:
    found: int | None = value
    other: Literal[3] | None
    def inner(each: int | str) -> Literal[4]:
        return each
    return found | inner
"""


def test_types_are_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(TYPED)
    found = [(mutant.function, mutant.line, mutant.change) for mutant in mutants(path)]
    assert found == [
        ("typed", 13, "BitOr -> BitAnd"), ("flags", 4, "BitOr -> BitAnd"), ("_SINCE", 5, "7 -> 8"),
    ]  # fmt: skip


def test_survivors_of_an_earlier_run_are_found_again(tmp_path: Path) -> None:
    path, log = tmp_path / "module.py", tmp_path / "log"
    path.write_text(SOURCE)
    log.write_text(
        "# 3 of 3 tests\nsurvived: a.py:2 f: Lt -> LtE\nno test: b.py:3 g: 1 -> 2\n2 of 2 mutants: 1 survived\n"
    )
    assert named_in(log) == {"a.py f: Lt -> LtE", "b.py g: 1 -> 2"}


BRANCHES = """
LIMIT = 5

def of(value: int) -> int:
    if (
        value > 1
        and value < LIMIT
    ):
        return max(
            value,
            1,
        )
    return sum(each for each in (1, 2) if each)
"""


def test_a_mutant_is_tried_with_the_tests_that_run_its_line_and_else_its_statement(tmp_path: Path) -> None:
    written = tmp_path / "branches.py"
    written.write_text(BRANCHES)
    found = {mutant.change: replace(mutant, path=PATH) for mutant in mutants(written)}
    ran = {6: [1], 7: [2], 9: [3], 13: [5]}
    reach = Reach({str(PATH.relative_to(ROOT)): ran}, dict.fromkeys(range(6), 0.1))
    assert {change: reach.tests_of(found[change]) for change in ("Gt -> GtE", "Lt -> LtE", "And -> Or")} == {
        "Gt -> GtE": [1], "Lt -> LtE": [2], "And -> Or": [1, 2],
    }  # fmt: skip
    assert reach.tests_of(found["if not each"]) == [5]
    assert reach.tests_of(found["max -> min"]) == [3]


def test_tests_that_killed_nearby_come_first_then_the_quickest(tmp_path: Path) -> None:
    written = tmp_path / "module.py"
    written.write_text(SOURCE)
    by_function = {each.function: replace(each, path=PATH) for each in mutants(written)}
    limit, within = by_function["LIMIT"], by_function["within"]
    costs = {1: 0.2, 2: 0.1, 3: 0.3}
    order = Order()
    assert order.of(within, [1, 2, 3], costs.__getitem__) == [2, 1, 3]
    order.killed(within, 3)
    assert order.of(within, [1, 2, 3], costs.__getitem__) == [3, 2, 1]
    for _ in range(9):
        order.killed(limit, 1)
    assert order.of(limit, [1, 2, 3], costs.__getitem__)[0] == 1
    assert order.of(within, [1, 2, 3], costs.__getitem__) == [3, 1, 2]


def test_a_fork_ends_with_its_code_or_its_time() -> None:
    def loop() -> int:
        while True:
            pass

    assert [forked(lambda: 0, 1), forked(lambda: 1, 1), forked(lambda: 1 // 0, 1)] == [0, 1, 3]
    assert forked(loop, 0) == -1
