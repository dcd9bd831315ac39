"""The changes of mutation testing: which places of a module can be changed, and one change made in the loaded module.

Default arguments, decorators, class bodies, types (annotations, and names for types, as in ``Key = tuple[str, str]``),
strings and ``strict=True`` of ``zip`` (an assertion) are not changed.
"""

from __future__ import annotations

import ast
import importlib
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

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
    last_line: int
    """Where the changed node ends; it begins at :attr:`line`."""
    statement: tuple[int, int]
    """First and last line of the statement around the node, without the statements inside of it."""
    node: int
    """Number of the changed node in the order of :func:`ast.walk` over the module."""
    number: int
    """Which of the node's :func:`changes` this is."""
    is_constant: bool

    def change_in(self, tree: ast.Module) -> ast.Module:
        """Make the change in a tree of the unchanged module; return that tree."""
        node = next(islice(ast.walk(tree), self.node, None))
        _, make = next(islice(changes(node), self.number, None))
        make(node)
        return ast.fix_missing_locations(tree)

    @property
    def key(self) -> str:
        """Module and function, or the module and its constant."""
        return f"{self.module}.{self.function}"

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
    """Yield the functions and methods of a module, and its constants, with their qualified names."""

    def inside(body: Sequence[ast.stmt], prefix: str) -> Iterator[tuple[str, ast.AST]]:
        for statement in body:
            if isinstance(statement, Function):
                yield prefix + statement.name, statement
            elif isinstance(statement, ast.ClassDef):
                yield from inside(statement.body, f"{prefix}{statement.name}.")

    yield from inside(tree.body, "")
    for statement in tree.body:
        if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
            target = statement.targets[0] if isinstance(statement, ast.Assign) else statement.target
            # Names in CapWords are types.
            if isinstance(target, ast.Name) and (target.id.isupper() or target.id.islower()):
                yield target.id, statement


def type_hints(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the annotations of a statement, of a parameter, or of what a function returns."""
    for name in ("annotation", "returns"):
        found = getattr(node, name, None)
        if found is not None:
            yield found


@cache
def parsed(path: Path) -> ast.Module:
    """Return the tree of a module as the file was when it was asked for first."""
    return ast.parse(path.read_text(encoding="utf-8"))


def statements(tree: ast.Module) -> dict[int, tuple[int, int]]:
    """Return, by the id of a node, the lines of the innermost statement around the node, its own body excluded."""
    lines: dict[int, tuple[int, int]] = {}

    def visit(node: ast.AST, around: tuple[int, int]) -> None:
        if isinstance(node, ast.stmt):
            body = getattr(node, "body", None)
            last = body[0].lineno - 1 if isinstance(body, list) else int(node.end_lineno or node.lineno)
            around = node.lineno, max(last, node.lineno)
        lines[id(node)] = around
        for child in ast.iter_child_nodes(node):
            visit(child, around)

    visit(tree, (0, 0))
    return lines


def mutants(path: Path) -> Iterator[Mutant]:
    """Yield every mutant of a module."""
    tree = parsed(path)
    places = {id(node): number for number, node in enumerate(ast.walk(tree))}
    around = statements(tree)
    for name, owner in owners(tree):
        is_constant = not isinstance(owner, Function)
        roots = [owner.value] if is_constant else owner.body  # type: ignore[attr-defined]
        nodes = [node for root in roots for node in ast.walk(root)]
        unchanged = {id(node.value) for node in nodes if isinstance(node, ast.keyword) and node.arg == "strict"}
        unchanged |= {id(part) for node in nodes for found in type_hints(node) for part in ast.walk(found)}
        for node in (node for node in nodes if id(node) not in unchanged):
            spot = node.ifs[0] if isinstance(node, ast.comprehension) and node.ifs else getattr(node, "test", node)
            line = int(getattr(spot, "lineno", around[id(node)][0]))
            last = int(getattr(spot, "end_lineno", line))
            for number, (change, _) in enumerate(changes(node)):
                place = places[id(node)]
                yield Mutant(path, line, name, change, last, around[id(node)], place, number, is_constant)


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


def _only(tree: ast.Module, name: str) -> ast.Module:
    """Return a module without the statements that a function or constant does not need to be compiled."""
    top = name.partition(".")[0]
    kept = [
        statement
        for statement in tree.body
        if (isinstance(statement, ast.ImportFrom) and statement.module == "__future__")
        or getattr(statement, "name", None) == top
    ]
    return ast.Module(body=kept, type_ignores=[])


def apply(mutant: Mutant) -> None:
    """Change the loaded module, and the tree of :func:`parsed`; only a process that ends soon may call this.

    Raises:
        LookupError: the function cannot be replaced while loaded.
    """
    module = importlib.import_module(mutant.module)
    tree = mutant.change_in(parsed(mutant.path))
    compiled = compile(_only(tree, mutant.function), str(mutant.path), "exec")
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
