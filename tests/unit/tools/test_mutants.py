"""The list of mutants, and how one is applied."""

from __future__ import annotations

import ast
from pathlib import Path

from tools.mutants import mutants, named_in

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
    texts = [ast.unparse(mutant.tree) for mutant in found]
    before = ast.unparse(ast.parse(SOURCE)).splitlines()
    changed = [[(old, new) for old, new in zip(before, text.splitlines(), strict=True) if old != new] for text in texts]
    assert all(len(lines) == 1 for lines in changed)
    assert {mutant.change for mutant in found} == {
        "5 -> 6", "And -> Or", "Lt -> LtE", "NotEq -> Eq", "2 -> 3", "True -> False", "False -> True",
    }  # fmt: skip
    assert {mutant.function for mutant in found} == {"LIMIT", "within"}
    assert [mutant.is_constant for mutant in found if mutant.function == "LIMIT"] == [True]
    assert len(set(texts)) == len(texts)


def test_survivors_of_an_earlier_run_are_found_again(tmp_path: Path) -> None:
    path, log = tmp_path / "module.py", tmp_path / "log"
    path.write_text(SOURCE)
    log.write_text(
        "# 3 of 3 tests\nsurvived: a.py:2 f: Lt -> LtE\nno test: b.py:3 g: 1 -> 2\n2 of 2 mutants: 1 survived\n"
    )
    assert named_in(log) == {"a.py f: Lt -> LtE", "b.py g: 1 -> 2"}
