"""Frozen dataclasses that are quick to define.

``dataclasses`` compiles six methods of each class when its module is imported. A command imports 300 such classes and
makes objects of half of them; compiling took longer than importing NumPy. Here ``__init__`` is compiled for the first
object of a class. The other methods differ between classes only in the names of the fields, and are not compiled.
"""

from __future__ import annotations

import dataclasses
import functools
import reprlib
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from dataclasses import dataclass

__all__ = ["dataclass"]

T = TypeVar("T")
Values = Callable[[object], tuple[object, ...]]


@dataclasses.dataclass(frozen=True)
class _Frozen:
    """A frozen class, whose parameters mark other classes as frozen."""


_PARAMETERS = "__dataclass_params__"


def record(cls: type[T]) -> type[T]:
    """Return a class as ``dataclasses.dataclass(frozen=True)`` returns it.

    Objects are equal if the tuples of their fields are, as in ``dataclasses`` up to Python 3.12. From 3.13 on,
    ``dataclasses`` compares field by field, so that an object with NaN is no longer equal to its copy.

    Raises:
        TypeError: ``dataclasses`` would refuse the class, such as one with a field without default after one with, or
            the class has a field of type ``InitVar``.
    """
    if any(dataclasses.is_dataclass(base) for base in cls.__mro__[1:]):
        # `dataclasses` collects the fields of a class with frozen bases only if it also compiles methods.
        return dataclasses.dataclass(frozen=True)(cls)
    own = dict(vars(cls))
    made: Any = dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
    setattr(cls, _PARAMETERS, getattr(_Frozen, _PARAMETERS))
    fields = dataclasses.fields(made)
    _check_init_vars(made)
    compared = _values([f.name for f in fields if f.compare])
    hashed = _values([f.name for f in fields if (f.compare if f.hash is None else f.hash)])
    methods: dict[str, Any] = {"__repr__": _repr([f.name for f in fields if f.repr]), "__eq__": _equal(compared)}
    names = frozenset(f.name for f in fields)
    methods |= {"__setattr__": _protected_set(cls, names), "__delattr__": _protected_delete(cls, names)}
    methods["__init__"] = _first_init(made, fields)
    for name in ("__setattr__", "__delattr__"):
        if name in own:
            raise TypeError(f"Cannot overwrite attribute {name} in class {cls.__name__}")
    methods = {name: method for name, method in methods.items() if name not in own}
    # In a class with an `__eq__` of its own, Python sets `__hash__` to None. Elsewhere the class itself says so.
    if "__hash__" not in own or (own["__hash__"] is None and "__eq__" in own):
        methods["__hash__"] = _hash(hashed)
    for name, method in methods.items():
        method.__name__, method.__qualname__ = name, f"{cls.__qualname__}.{name}"
        setattr(cls, name, method)
    return cls


def _first_init(cls: Any, fields: Sequence[dataclasses.Field[Any]]) -> Any:
    """Return an ``__init__`` that compiles the one of the class, and puts it in its place."""
    _check_order(cls, fields)

    def init(self: object, /, *args: object, **kwargs: object) -> None:
        compiled = _compiled_init(cls, fields)
        # Of two threads that get here, each sets an equal function. A function that wraps this one stays.
        if vars(cls)["__init__"] is init:
            cls.__init__ = compiled
        compiled(self, *args, **kwargs)

    return init


def _check_init_vars(cls: Any) -> None:
    """Refuse fields of type ``InitVar``, which are no fields of the object, so that ``__init__`` would lack them."""
    for name, each in cls.__dataclass_fields__.items():
        if repr(getattr(each, "_field_type", None)) == "_FIELD_INITVAR":
            raise TypeError(
                f"field {name!r} of {cls.__name__} is an InitVar, which energylens.records does not support"
            )


def _check_order(cls: type, fields: Sequence[dataclasses.Field[Any]]) -> None:
    """Refuse a field without a default after one with a default, as the compiled ``__init__`` would."""
    seen = False
    for each in fields:
        if each.init and not each.kw_only:
            has = each.default is not dataclasses.MISSING or each.default_factory is not dataclasses.MISSING
            if seen and not has:
                raise TypeError(f"non-default argument {each.name!r} of {cls.__name__} follows default argument")
            seen |= has


def _compiled_init(cls: type, fields: Sequence[dataclasses.Field[Any]]) -> Any:
    """Return the ``__init__`` that ``dataclasses`` compiles for a class with the same fields."""
    namespace: dict[str, Any] = {f.name: f for f in fields}
    namespace["__annotations__"] = {f.name: f.type for f in fields}
    namespace |= {"__module__": cls.__module__, "__qualname__": cls.__qualname__}
    if hasattr(cls, "__post_init__"):
        namespace["__post_init__"] = None
    alike: Any = type(cls.__name__, (), namespace)
    return vars(dataclasses.dataclass(frozen=True, repr=False, eq=False)(alike))["__init__"]


def _values(names: Sequence[str]) -> Values:
    """Return a function from an object to a tuple of its fields of these names."""
    if len(names) > 1:
        return attrgetter(*names)
    return lambda self: tuple(getattr(self, name) for name in names)


def _equal(values: Values) -> Any:
    def equal(self: object, other: object) -> bool:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    return equal


def _hash(values: Values) -> Any:
    return lambda self: hash(values(self))


def _repr(names: Sequence[str]) -> Any:
    def shown(self: object) -> str:
        values = ", ".join([f"{name}={getattr(self, name)!r}" for name in names])
        return f"{self.__class__.__qualname__}({values})"

    return reprlib.recursive_repr()(shown)


def _protected_set(cls: Any, names: Collection[str]) -> Any:
    """Return ``__setattr__``, which protects the fields."""

    def protected(self: object, name: str, value: object) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")
        super(cls, self).__setattr__(name, value)

    return protected


def _protected_delete(cls: Any, names: Collection[str]) -> Any:
    """Return ``__delattr__``, which protects the fields."""

    def protected(self: object, name: str) -> None:
        if type(self) is cls or name in names:
            raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")
        super(cls, self).__delattr__(name)

    return protected


if not TYPE_CHECKING:

    def dataclass(cls=None, /, **options):
        """Like ``dataclasses.dataclass``; only classes with ``frozen=True`` and no other option are defined quickly."""
        if cls is None:
            return functools.partial(dataclass, **options)
        return record(cls) if options == {"frozen": True} else dataclasses.dataclass(**options)(cls)
