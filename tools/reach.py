"""Which tests run which lines of the operator, and how long each test takes."""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import json
import time
from collections.abc import Iterable, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import coverage
import pytest
from tools.mutation import ROOT, SOURCE, Function, Mutant, owners, parsed

_FUNCTIONS_BELOW = ("energylens.predictor", "energylens.api", "tests.")
"""Where functions remember nothing that depends on a mutated package: their caches are kept for the forks."""


def run(item: pytest.Item, following: pytest.Item | None, session: pytest.Session) -> int:
    """Run a test; return how many tests of the session have failed."""
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    return session.testsfailed


@dataclass(frozen=True)
class Reach:
    """What a first pass over the tests has found."""

    lines: dict[str, dict[int, list[int]]]
    """By path below the root and by line: the numbers of the tests that run the line."""
    costs: dict[int, float]
    """CPU seconds of each test that passes, by its number."""

    @classmethod
    def measured(cls, session: pytest.Session, modules: Set[str], kept: Path | None) -> Reach:
        """Run all tests once, but for those whose lines are kept in a file, and leave caches warm."""
        known: dict[str, Any] = {}
        if kept is not None and kept.exists():
            known = json.loads(kept.read_text(encoding="utf-8"))
        source = _digest(sorted(SOURCE.rglob("*.py")))
        remembering = _remembering(modules)
        warm: set[str] = set()
        rows: dict[int, dict[str, Any]] = {}
        traced: dict[str, dict[str, Any]] = {}
        measure = coverage.Coverage(data_file=None, source=[str(SOURCE / "energylens")], config_file=False)
        measure.set_option("run:disable_warnings", ["no-data-collected"])
        for number, item in enumerate(session.items):
            state = f"{source}:{_digest([item.path])}"
            row = known.get(item.nodeid)
            if row is None or row["state"] != state:
                row = {"state": state, "lines": {}, **_traced(item, session, remembering, measure)}
                known[item.nodeid] = traced[item.nodeid] = row
            elif str(item.path) not in warm and row["passed"]:
                run(item, None, session)
            warm.add(str(item.path))
            rows[number] = row
        data = measure.get_data()
        for path in data.measured_files():
            for line, tests in data.contexts_by_lineno(path).items():
                for test in filter(None, tests):
                    traced[test]["lines"].setdefault(str(Path(path).relative_to(ROOT)), []).append(line)
        for function in remembering:
            function.cache_clear()
        session.testsfailed = 0
        if kept is not None:
            kept.write_text(json.dumps(known), encoding="utf-8")
        lines: dict[str, dict[int, list[int]]] = {}
        for number, row in rows.items():
            if row["passed"]:
                for path, ran in row["lines"].items():
                    for line in ran:
                        lines.setdefault(path, {}).setdefault(line, []).append(number)
        return cls(lines, {number: row["seconds"] for number, row in rows.items() if row["passed"]})

    def cost(self, test: int) -> float:
        """Return the CPU seconds of a test."""
        return self.costs[test]

    def tests_of(self, mutant: Mutant) -> list[int]:
        """Return the tests that run a mutant's lines, or else those that run its statement."""
        if mutant.is_constant:
            return self._users_of(mutant)
        ran = self.lines.get(str(mutant.path.relative_to(ROOT)), {})
        found = self._any(ran, range(mutant.line, mutant.last_line + 1))
        return found or self._any(ran, range(mutant.statement[0], mutant.statement[1] + 1))

    def _users_of(self, constant: Mutant) -> list[int]:
        """Return the tests that run a line with a constant's name in its module or in one that imports it."""
        found: set[int] = set()
        for path, ran in self.lines.items():
            found.update(self._any(ran, _uses(ROOT / path, constant.function)))
        return sorted(found)

    def _any(self, ran: dict[int, list[int]], lines: Iterable[int]) -> list[int]:
        return sorted({test for line in lines for test in ran.get(line, ())})


@functools.cache
def _uses(path: Path, name: str) -> list[int]:
    functions = [node for _, node in owners(parsed(path)) if isinstance(node, Function)]
    return sorted(
        {
            node.lineno
            for function in functions
            for statement in function.body
            for node in ast.walk(statement)
            if isinstance(node, ast.Name) and node.id == name
        }
    )


def _traced(
    item: pytest.Item, session: pytest.Session, remembering: Iterable[Any], measure: coverage.Coverage
) -> dict[str, Any]:
    """Run a test; return whether the test passed and its CPU seconds; ``measure`` notes the lines under its name."""
    for function in remembering:
        function.cache_clear()
    failed, before = session.testsfailed, time.process_time()
    measure.start()
    measure.switch_context(item.nodeid)
    try:
        run(item, None, session)
    finally:
        measure.stop()
    return {"passed": session.testsfailed == failed, "seconds": round(time.process_time() - before, 4)}


def _remembering(modules: Set[str]) -> list[Any]:
    """Return the functions with a cache that may hold what a mutated module said."""
    packages = {module.rsplit(".", 1)[0] for module in modules}
    below = tuple(name for name in _FUNCTIONS_BELOW if not any(package.startswith(name) for package in packages))
    found = [each for each in gc.get_objects() if isinstance(each, functools._lru_cache_wrapper)]
    return [
        each
        for each in found
        if each.__module__.startswith(("energylens", "tests")) and not each.__module__.startswith(below)
    ]


def _digest(paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
