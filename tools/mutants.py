"""Mutation testing: change the code in one place, run the tests that reach that place, list the changes nobody noticed.

``python tools/mutants.py operator/energylens/budget --tests tests/unit/budget tests/faults`` prints the survivors. Each
is a missing test, or has a reason: the change alters no behaviour, or the wording of a message only.

The tests are collected once. A first pass with counting functions finds the tests that call each function. Then, for
each mutant, the process forks, the fork replaces the code object of the changed function (or the value of a constant,
in every module that imported the constant) and runs those tests, quickest first, until one fails. Default arguments,
decorators, class bodies, strings and ``strict=True`` of ``zip`` (an assertion) are not mutated. ``--sample N`` draws N
mutants with a fixed seed, and ``--again LOG`` takes the survivors of an earlier run, to try them with other tests.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import os
import random
import re
import signal
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "operator"
Function = ast.FunctionDef | ast.AsyncFunctionDef
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip
OPERATIONS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "minimum": "maximum", "maximum": "minimum"}


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    path: Path
    line: int
    function: str
    """Qualified name; the name of the constant for a constant of a module."""
    change: str
    node: int
    """Number of the changed node in the order of :func:`ast.walk` over the module."""
    number: int
    """Which of the node's :func:`changes` this is."""
    is_constant: bool

    @property
    def tree(self) -> ast.Module:
        """The changed module, parsed again: trees of thousands of mutants would take a gigabyte."""
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        node = next(islice(ast.walk(tree), self.node, None))
        _, make = next(islice(changes(node), self.number, None))
        make(node)
        return ast.fix_missing_locations(tree)

    @property
    def module(self) -> str:
        """The dotted name of the module."""
        return ".".join(self.path.relative_to(SOURCE).with_suffix("").parts)

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line} {self.function}: {self.change}"


def changes(node: ast.AST) -> Iterator[tuple[str, Callable[[ast.AST], None]]]:
    """Yield what can be changed at a node: its description, and the function that changes an equal node in place."""
    if isinstance(node, ast.Compare):
        for number, operator in enumerate(node.ops):
            other = COMPARISONS[type(operator)]
            yield f"{type(operator).__name__} -> {other.__name__}", _set_item("ops", number, other)
    elif isinstance(node, ast.BoolOp):
        swapped: type[ast.boolop] = ast.Or if isinstance(node.op, ast.And) else ast.And
        yield f"{type(node.op).__name__} -> {swapped.__name__}", _set("op", swapped)
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in OPERATIONS:
        replaced = OPERATIONS[type(node.op)]
        yield f"{type(node.op).__name__} -> {replaced.__name__}", _set("op", replaced)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float):
        value = other_value(node.value)
        yield f"{node.value} -> {value}", _set("value", lambda: value)
    elif isinstance(node, ast.If | ast.IfExp | ast.While) and not isinstance(node.test, ast.Compare | ast.BoolOp):
        yield f"not {ast.unparse(node.test)}", _negate
    elif isinstance(node, ast.comprehension):
        for number, test in enumerate(node.ifs):
            if not isinstance(test, ast.Compare | ast.BoolOp):
                yield f"if not {ast.unparse(test)}", _set_item("ifs", number, lambda test=test: ast.Not(), wrap=True)
    elif isinstance(node, ast.Break):
        yield "break -> continue", _become(ast.Continue)
    elif isinstance(node, ast.Continue):
        yield "continue -> break", _become(ast.Break)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield f"without {ast.unparse(node)[:60]}", _set("value", lambda: ast.Constant(None))
    elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
        yield f"{node.id} -> {NAMES[node.id]}", _set("id", lambda name=node.id: NAMES[name])  # type: ignore[misc]
    elif isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield f"{node.attr} -> {NAMES[node.attr]}", _set("attr", lambda name=node.attr: NAMES[name])  # type: ignore[misc]


def other_value(value: bool | int | float) -> bool | int | float:
    """Return another constant: the next integer where a number is small, else half as much again."""
    if isinstance(value, bool):
        return not value
    return value + 1 if value == 0 or (isinstance(value, int) and abs(value) < 100) else type(value)(value * 1.5)


def _set(field: str, make: Callable[[], object]) -> Callable[[ast.AST], None]:
    return lambda node: setattr(node, field, make())


def _set_item(
    field: str, number: int, make: Callable[..., ast.AST], *, wrap: bool = False
) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        items = getattr(node, field)
        items[number] = ast.UnaryOp(ast.Not(), items[number]) if wrap else make()

    return change


def _negate(node: ast.AST) -> None:
    assert isinstance(node, ast.If | ast.IfExp | ast.While)
    node.test = ast.UnaryOp(ast.Not(), node.test)


def _become(kind: type[ast.stmt]) -> Callable[[ast.AST], None]:
    def change(node: ast.AST) -> None:
        node.__class__ = kind

    return change


def owners(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield the functions and methods of a module, and its numeric constants, with their qualified names."""

    def inside(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for statement in body:
            if isinstance(statement, Function):
                yield prefix + statement.name, statement
            elif isinstance(statement, ast.ClassDef):
                yield from inside(statement.body, f"{prefix}{statement.name}.")

    yield from inside(tree.body, "")
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
            yield statement.targets[0].id, statement


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    places = {id(node): number for number, node in enumerate(ast.walk(tree))}
    for name, owner in owners(tree):
        is_constant = not isinstance(owner, Function)
        roots = [owner.value] if is_constant else owner.body  # type: ignore[attr-defined]
        nodes = [node for root in roots for node in ast.walk(root)]
        assertions = {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"}
        for node in (node for node in nodes if id(node) not in assertions):
            line = int(getattr(node, "lineno", getattr(owner, "lineno", 0)))
            for number, (change, _) in enumerate(changes(node)):
                yield Mutant(path, line, name, change, places[id(node)], number, is_constant)


def code_of(code: types.CodeType, name: str) -> types.CodeType:
    """Return the code object of a function of a compiled module."""
    for part in name.split("."):
        code = next(c for c in code.co_consts if isinstance(c, types.CodeType) and c.co_name == part)
    return code


def live(module: types.ModuleType, name: str) -> types.FunctionType:
    """Return a function of a module as it is called, below its decorators."""
    found: object = module
    for part in name.split("."):
        found = vars(found)[part]
    while not isinstance(found, types.FunctionType) or hasattr(found, "__wrapped__"):
        for attribute in ("__wrapped__", "__func__", "fget", "func"):
            if hasattr(found, attribute):
                found = getattr(found, attribute)
                break
        else:
            raise LookupError(f"{module.__name__}.{name} is no function")
    return found


def apply(mutant: Mutant) -> None:
    """Change the loaded module.

    Raises:
        LookupError: the function cannot be replaced while loaded.
    """
    module = importlib.import_module(mutant.module)
    tree = mutant.tree
    compiled = compile(tree, str(mutant.path), "exec")
    if not mutant.is_constant:
        function = live(module, mutant.function)
        code = code_of(compiled, mutant.function)
        if code.co_freevars != function.__code__.co_freevars:
            raise LookupError(f"{mutant.function} has other free variables")
        function.__code__ = code
        return
    before = vars(module)[mutant.function]
    assigned = dict(owners(tree))[mutant.function]
    value = eval(compile(ast.Expression(assigned.value), str(mutant.path), "eval"), dict(vars(module)))  # type: ignore[attr-defined]
    for other in [m for n, m in sys.modules.items() if n.startswith("energylens")]:
        if vars(other).get(mutant.function) is before:
            setattr(other, mutant.function, value)


def run(items: Sequence[pytest.Item], session: pytest.Session, *, until_failure: bool = True) -> int:
    """Run tests; return how many failed."""
    for number, item in enumerate(items):
        following = items[number + 1] if number + 1 < len(items) else None
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.testsfailed and until_failure:
            break
    return session.testsfailed


def forked(work: Callable[[], int], seconds: float) -> int:
    """Run something in a fork of this process without its output; return its code, or -1 after the time limit."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        code = 3
        try:
            code = work()
        finally:
            os._exit(code)
    end = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -1
        time.sleep(0.02)


class Plugin:
    """Takes the place of pytest's loop over the collected tests."""

    def __init__(self, options: argparse.Namespace, paths: Sequence[Path]) -> None:
        self.options, self.paths = options, paths

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run the mutants."""
        found = [mutant for path in self.paths for mutant in mutants(path)]
        if self.options.again:
            survivors = named_in(self.options.again)
            found = [mutant for mutant in found if without_line(str(mutant)) in survivors]
        total = len(found)
        if self.options.sample and self.options.sample < total:
            found = random.Random(self.options.seed).sample(found, self.options.sample)
        found.sort(key=lambda mutant: (mutant.path, mutant.line))
        reached = self._reached(session, found)
        counts = {"killed": 0, "survived": 0, "no test": 0, "timed out": 0, "not run": 0}
        started = time.monotonic()
        for number, mutant in enumerate(found, 1):
            outcome = self._judge(session, mutant, reached)
            counts[outcome] += 1
            if outcome != "killed":
                say(f"{outcome}: {mutant}")
            if number % 50 == 0:
                say(f"# {number} of {len(found)} after {time.monotonic() - started:.0f} s: {counts}")
        say(f"{len(found)} of {total} mutants: " + ", ".join(f"{count} {name}" for name, count in counts.items()))
        return True

    def _judge(self, session: pytest.Session, mutant: Mutant, reached: dict[str, list[int]]) -> str:
        key = mutant.module if mutant.is_constant else f"{mutant.module}.{mutant.function}"
        numbers = reached.get(key, [])
        if not numbers:
            return "no test"
        chosen = [session.items[number] for number in numbers[: self.options.tests_per_mutant]]

        def work() -> int:
            apply(mutant)
            return 1 if run(chosen, session) else 0

        code = forked(work, self.options.seconds)
        return {0: "survived", 3: "not run", -1: "timed out"}.get(code, "killed")

    def _reached(self, session: pytest.Session, found: Sequence[Mutant]) -> dict[str, list[int]]:
        """Return by function (and by module) the tests that call it, the quickest first."""
        functions = {f"{m.module}.{m.function}": m for m in found}
        modules = sorted({m.module for m in found})
        with tempfile.NamedTemporaryFile("r", suffix=".json") as file:

            def work() -> int:
                called: set[str] = set()
                for module in modules:
                    _count(importlib.import_module(module), called)
                rows = []
                for number, item in enumerate(session.items):
                    called.clear()
                    failed, before = session.testsfailed, time.process_time()
                    run([item], session, until_failure=False)
                    if session.testsfailed == failed:
                        rows.append((time.process_time() - before, number, sorted(called)))
                Path(file.name).write_text(json.dumps(rows))
                return 0

            code = forked(work, 7200)
            if code != 0:
                raise RuntimeError(f"the pass that finds the tests of each function ended with {code}")
            rows = json.loads(Path(file.name).read_text())
        reached: dict[str, list[int]] = {}
        for _, number, called in sorted(rows):
            for name in {*called, *(name.partition(":")[0] for name in called)}:
                reached.setdefault(name.replace(":", "."), []).append(number)
        say(f"# {len(rows)} of {len(session.items)} tests pass and are used; {len(functions)} functions are mutated")
        return reached


def _count(module: types.ModuleType, called: set[str]) -> None:
    """Let every function of a module note its name when it is called."""
    path = Path(str(module.__file__))
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = [name for name, node in owners(tree) if isinstance(node, Function)]
    for name, node in owners(tree):
        if isinstance(node, Function):
            node.body.insert(0, ast.parse(f"__called__.add({module.__name__ + ':' + name!r})").body[0])
    compiled = compile(ast.fix_missing_locations(tree), str(path), "exec")
    vars(module)["__called__"] = called
    for name in names:
        try:
            function, code = live(module, name), code_of(compiled, name)
        except (LookupError, StopIteration):
            continue
        if code.co_freevars == function.__code__.co_freevars:
            function.__code__ = code


def named_in(log: Path) -> set[str]:
    """Return the mutants that no test killed in an earlier run, from its output, without the numbers of their lines."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return {
        without_line(line.partition(": ")[2])
        for line in lines
        if line.startswith(("survived: ", "no test: ", "timed out: "))
    }


def without_line(mutant: str) -> str:
    """Return the text of a mutant without the number of its line, which changes with the file."""
    return re.sub(r"\.py:\d+ ", ".py ", mutant)


def say(text: str) -> None:
    """Print a line past pytest's capture."""
    os.write(_OUT, f"{text}\n".encode())


_OUT = os.dup(1)


def main(arguments: Sequence[str]) -> int:
    """Print the survivors; return the exit code of pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", type=Path, help="modules, or folders of modules, below operator/")
    parser.add_argument("--tests", nargs="+", required=True, help="arguments of pytest: files, folders, options")
    parser.add_argument("--sample", type=int, help="how many mutants to draw; default: all")
    parser.add_argument("--again", type=Path, metavar="LOG", help="only mutants that survived in this earlier output")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument(
        "--seconds",
        type=float,
        default=60,
        help="a mutant that runs longer counts as timed out: it loops, or the machine is busy",
    )
    parser.add_argument("--tests-per-mutant", type=int, help="run only so many of the quickest tests")
    options = parser.parse_args(arguments)
    paths = [file.resolve() for source in options.sources for file in (sorted(source.rglob("*.py")) or [source])]
    return pytest.main(
        ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", *options.tests], plugins=[Plugin(options, paths)]
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
