"""Which tests run which lines of the operator, and how long each test takes."""

from __future__ import annotations

import ast
import functools
import gc
import hashlib
import importlib
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
        known = json.loads(kept.read_text(encoding="utf-8")) if kept is not None and kept.exists() else {}
        changed = _Digests(f"operator/{module.replace('.', '/')}.py" for module in modules)
        remembering, state = _remembering(modules), _State(modules)
        warm: set[Path] = set()
        traced = []
        measure = coverage.Coverage(data_file=None, source=[str(SOURCE / "energylens")], config_file=False)
        measure.set_option("run:disable_warnings", ["no-data-collected"])
        for item in session.items:
            row = known.get(item.nodeid)
            if row is None or not changed.are_those_of(row, item.path):
                known[item.nodeid] = _traced(item, session, remembering, measure)
                traced.append(item)
            elif item.path not in warm and row["passed"]:
                run(item, None, session)
            warm.add(item.path)
        ran = _lines(measure.get_data())
        for item in traced:
            lines = ran.get(item.nodeid, {})
            known[item.nodeid].update(lines=lines, digests=changed.of(item.path, lines))
        for function in remembering:
            function.cache_clear()
        state.restore()
        session.testsfailed = 0
        if kept is not None:
            kept.write_text(json.dumps(known), encoding="utf-8")
        return cls._of({number: known[item.nodeid] for number, item in enumerate(session.items)})

    @classmethod
    def _of(cls, rows: dict[int, dict[str, Any]]) -> Reach:
        passed = {number: row for number, row in rows.items() if row["passed"]}
        lines: dict[str, dict[int, list[int]]] = {}
        for number, row in passed.items():
            for path, ran in row["lines"].items():
                for line in ran:
                    lines.setdefault(path, {}).setdefault(line, []).append(number)
        return cls(lines, {number: row["seconds"] for number, row in passed.items()})

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


def _lines(data: coverage.CoverageData) -> dict[str, dict[str, list[int]]]:
    """Return the lines that each test ran, by the test's name and the path below the root."""
    ran: dict[str, dict[str, list[int]]] = {}
    for path in data.measured_files():
        for line, tests in data.contexts_by_lineno(path).items():
            for test in filter(None, tests):
                ran.setdefault(test, {}).setdefault(str(Path(path).relative_to(ROOT)), []).append(line)
    return ran


class _Digests:
    """Tells whether a test and the mutated modules that it runs are as they were when its lines were noted."""

    def __init__(self, mutated: Iterable[str]) -> None:
        self._mutated = set(mutated)
        self._known: dict[Path, str] = {}

    def of(self, test: Path, lines: Iterable[str]) -> dict[str, str]:
        """Return the digests of the file of a test and of the modules that the test runs."""
        return {path: self._digest(ROOT / path) for path in (str(test.relative_to(ROOT)), *lines)}

    def are_those_of(self, row: dict[str, Any], test: Path) -> bool:
        """Return whether what was noted of a test holds: a changed module that is not mutated does not matter."""
        paths = {str(test.relative_to(ROOT)), *(self._mutated & row["lines"].keys())}
        return all(row["digests"].get(path) == self._digest(ROOT / path) for path in paths)

    def _digest(self, path: Path) -> str:
        if path not in self._known:
            self._known[path] = hashlib.sha256(path.read_bytes()).hexdigest()[:12]
        return self._known[path]


class _State:
    """The dictionaries and lists of the mutated modules, which tests fill."""

    def __init__(self, modules: Iterable[str]) -> None:
        values = [
            (n, v) for m in modules for n, v in vars(importlib.import_module(m)).items() if not n.startswith("__")
        ]
        self._lists = [(value, list(value)) for _, value in values if isinstance(value, list)]
        self._mappings = [(value, dict(value)) for _, value in values if isinstance(value, dict)]

    def restore(self) -> None:
        """Give every one the content that it had."""
        for value, content in self._lists:
            value[:] = content
        for mapping, entries in self._mappings:
            mapping.clear()
            mapping.update(entries)


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
