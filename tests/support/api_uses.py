"""Which fields of the API some code reads or writes: a small type inference over the syntax trees of the operator.

A name alone says little, since many classes have a ``name`` or ``replicas``: what an attribute is taken of is followed
through annotations, assignments and loops to a model of the API. Where that ends, a name counts if it is unique.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

Model = type[BaseModel]
Use = tuple[str, str]
"""Names of a model and of its field."""


def models_of(root: Model) -> dict[str, Model]:
    """Return the models that a model is made of, itself included, by name."""
    found: dict[str, Model] = {}
    waiting = [root]
    while waiting:
        model = waiting.pop()
        if model.__name__ not in found:
            found[model.__name__] = model
            waiting += [inner for f in model.model_fields.values() for inner in _models(f.annotation)]
    return found


def _models(annotation: Any) -> Iterator[Model]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) is not None:
        for argument in get_args(annotation):
            yield from _models(argument)


def _inner(annotation: Any) -> tuple[Model | None, bool]:
    """Return the model that a field holds, and whether it holds several."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner(arguments[0])
    if origin in (Union, types.UnionType):
        return next((found for a in arguments if (found := _inner(a))[0] is not None), (None, False))
    if origin is tuple:
        return _inner(arguments[0])[0], True
    return None, False


@dataclass
class Uses:
    """What the code does with the fields of models."""

    models: dict[str, Model]
    read: set[Use] = field(default_factory=set)
    written: set[Use] = field(default_factory=set)
    owners: dict[str, list[Model]] = field(init=False)
    """The models that have a field of this name, in Python or on the wire."""
    attributes: dict[str, Model | None] = field(default_factory=dict)
    """Models that attributes of other classes are annotated with; None where classes differ."""

    def __post_init__(self) -> None:
        self.owners = {}
        for model in self.models.values():
            for name, info in model.model_fields.items():
                for known in {name, info.alias or name}:
                    owners, owner = self.owners.setdefault(known, []), self.models[self.use(model, name)[0]]
                    owners += [] if owner in owners else [owner]

    def use(self, model: Model, name: str) -> Use:
        """Return a field under the first of a model's bases that has it, since code is written for that one."""
        bases = [base.__name__ for base in model.__mro__ if name in getattr(base, "model_fields", {})]
        return next(base for base in reversed(bases) if base in self.models), name

    def scan(self, trees: Sequence[ast.Module]) -> None:
        """Take in modules, which may not be those of the API itself."""
        for tree in trees:
            for node in ast.walk(tree):
                if isinstance(node, ast.ClassDef):
                    self._annotated(node)
        for tree in trees:
            _Scanner(self).visit(tree)

    def _annotated(self, node: ast.ClassDef) -> None:
        for line in node.body:
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
                found, name = self.named(line.annotation), line.target.id
                if found is not None:
                    known = self.attributes.setdefault(name, found)
                    self.attributes[name] = found if known is found else None

    def named(self, annotation: ast.expr | None) -> Model | None:
        """Return the model that an annotation names, alone, optional or as an element."""
        if annotation is None:
            return None
        for node in ast.walk(annotation):
            if isinstance(node, ast.Name) and node.id in self.models:
                return self.models[node.id]
        return None

    def field(self, model: Model, name: str) -> str | None:
        """Return the name of a model's field in Python; None where it has none of this name."""
        if name in model.model_fields:
            return name
        return next((own for own, info in model.model_fields.items() if info.alias == name), None)

    def unique(self, name: str) -> Use | None:
        """Return the only field of this name; None where there are others, or none."""
        owners = self.owners.get(name, [])
        if len(owners) != 1:
            return None
        own = self.field(owners[0], name)
        assert own is not None
        return self.use(owners[0], own)


class _Scanner(ast.NodeVisitor):
    def __init__(self, uses: Uses) -> None:
        self._uses = uses
        self._scopes: list[dict[str, Model | None]] = [{}]

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        arguments = (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
        self._scopes.append({a.arg: self._uses.named(a.annotation) for a in arguments})
        self.generic_visit(node)
        self._scopes.pop()

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            self._bind(target, node.value)
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name):
            self._scopes[-1][node.target.id] = self._uses.named(node.annotation)
        self.generic_visit(node)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self._bind(node.target, node.value)
        self.generic_visit(node)

    def visit_For(self, node: ast.For) -> None:
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self._bind(node.target, node.iter)
        self.generic_visit(node)

    def _in_order(self, node: ast.GeneratorExp | ast.ListComp | ast.SetComp | ast.DictComp) -> None:
        for generator in node.generators:
            self.visit(generator)
        self.generic_visit(node)

    visit_GeneratorExp = visit_ListComp = visit_SetComp = visit_DictComp = _in_order  # noqa: N815

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self._resolve(node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        # A key on the wire, or a name for getattr.
        if isinstance(node.value, str) and (use := self._uses.unique(node.value)) is not None:
            self._uses.read.add(use)

    def visit_Dict(self, node: ast.Dict) -> None:
        for key in node.keys:
            if isinstance(key, ast.Constant) and (use := self._uses.unique(str(key.value))) is not None:
                self._uses.written.add(use)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        model = self._uses.models.get(name)
        for keyword in node.keywords:
            if model is not None and keyword.arg in model.model_fields:
                self._uses.written.add(self._uses.use(model, keyword.arg))
        if isinstance(node.func, ast.Attribute):
            owner = self._resolve(node.func.value)
            if node.func.attr == "model_copy":
                self._updated(node, owner)
            dumped = owner if node.func.attr in ("model_dump", "model_dump_json") else None
            # All of a small object at once, such as the overrides.
            if dumped is not None and not any(_inner(f.annotation)[0] for f in dumped.model_fields.values()):
                self._uses.read |= {self._uses.use(dumped, own) for own in dumped.model_fields}
        self.generic_visit(node)

    def _updated(self, node: ast.Call, owner: Model | None) -> None:
        for keyword in node.keywords:
            for key in keyword.value.keys if isinstance(keyword.value, ast.Dict) else ():
                if isinstance(key, ast.Constant) and owner is not None and key.value in owner.model_fields:
                    self._uses.written.add(self._uses.use(owner, str(key.value)))

    def _bind(self, target: ast.expr, value: ast.expr) -> None:
        if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
            for one, its in zip(target.elts, value.elts, strict=True):
                self._bind(one, its)
        elif isinstance(target, ast.Name):
            self._scopes[-1][target.id] = self._resolve(value)

    def _resolve(self, node: ast.expr) -> Model | None:
        """Return the model that an expression is (or is made of), and note the fields that are read on the way."""
        uses = self._uses
        if isinstance(node, ast.Name):
            return next((scope[node.id] for scope in reversed(self._scopes) if node.id in scope), None)
        if isinstance(node, ast.Attribute):
            owner = self._resolve(node.value)
            found = uses.field(owner, node.attr) if owner is not None else None
            use = uses.use(owner, found) if owner is not None and found is not None else uses.unique(node.attr)
            if owner is None and node.attr in uses.attributes and not uses.owners.get(node.attr):
                return uses.attributes[node.attr]
            if use is None:
                return uses.attributes.get(node.attr) if owner is None else None
            uses.read.add(use)
            return _inner(uses.models[use[0]].model_fields[use[1]].annotation)[0]
        if isinstance(node, ast.Call):
            func = node.func
            if isinstance(func, ast.Name) and func.id in uses.models:
                return uses.models[func.id]
            if isinstance(func, ast.Attribute) and func.attr in ("model_copy", "model_validate"):
                inside = func.value
                named = uses.models.get(inside.id) if isinstance(inside, ast.Name) else None
                return named or self._resolve(inside)
            return None
        if isinstance(node, ast.Subscript | ast.Starred | ast.Await):
            return self._resolve(node.value)
        if isinstance(node, ast.BoolOp):
            return next((found for value in node.values if (found := self._resolve(value)) is not None), None)  # type: ignore[assignment]
        if isinstance(node, ast.IfExp):
            return self._resolve(node.body) or self._resolve(node.orelse)
        return None
