"""A class of energylens.records behaves as the one that dataclasses makes of the same definition."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import pytest

import energylens
from energylens.records import dataclass, record

T = TypeVar("T")
STANDARD: Callable[..., Any] = dataclasses.dataclass(frozen=True)
BOTH = pytest.mark.parametrize("made", [STANDARD, record], ids=["dataclasses", "records"])


@dataclass(frozen=True)
class Point:
    """Of this module, so that it can be pickled."""

    x: int
    y: float = 2.0


def plain() -> type:
    class Plain:
        """Fields of every kind."""

        shared: ClassVar[int] = 7
        x: int
        y: float = 2.0
        items: list[int] = dataclasses.field(default_factory=list)
        hidden: str = dataclasses.field(default="h", repr=False, compare=False)
        unhashed: tuple[int, ...] = dataclasses.field(default=(), hash=False)
        late: int = dataclasses.field(default=0, init=False)
        named: int = dataclasses.field(default=1, kw_only=True)

        @property
        def double(self) -> int:
            return 2 * self.x

    return Plain


@BOTH
def test_fields_of_every_kind(made: Callable[[type], Any]) -> None:
    cls = made(plain())
    assert [f.name for f in dataclasses.fields(cls)] == ["x", "y", "items", "hidden", "unhashed", "late", "named"]
    assert cls.__match_args__ == ("x", "y", "items", "hidden", "unhashed")
    one = cls(1, named=3)
    assert (one.x, one.y, one.items, one.hidden, one.late, one.named) == (1, 2.0, [], "h", 0, 3)
    assert one.items is not cls(1).items
    assert repr(one).endswith("Plain(x=1, y=2.0, items=[], unhashed=(), late=0, named=3)")
    assert repr(one) == repr(copy.deepcopy(one))
    assert one.double == 2
    assert cls.shared == 7
    assert one == cls(1, hidden="other", named=3)
    assert one != cls(2, named=3)
    assert one != (1,)
    assert dataclasses.replace(one, x=5) == cls(5, named=3)
    assert dataclasses.asdict(one)["named"] == 3
    with pytest.raises(TypeError, match="unhashable"):
        hash(one)
    for change in (lambda: setattr(one, "x", 2), lambda: setattr(one, "new", 2)):
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field"):
            change()
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del one.x
    wrong: tuple[object, ...]
    for wrong in ((), (1, 2, [], "h", (), 9)):
        with pytest.raises(TypeError, match="__init__"):
            cls(*wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument 'late'"):
        cls(1, late=3)


def test_the_signature_and_the_code_of_init_are_those_of_dataclasses() -> None:
    first: Any = STANDARD(plain())
    second: Any = record(plain())
    second(1)
    ours, theirs = second.__init__, first.__init__
    assert str(inspect.signature(ours)) == str(inspect.signature(theirs))
    assert ours.__code__.co_code == theirs.__code__.co_code
    assert ours.__qualname__ == theirs.__qualname__


@BOTH
@pytest.mark.parametrize("count", [0, 1, 2])
def test_equality_and_hash_are_those_of_the_tuple_of_fields(made: Callable[[type], Any], count: int) -> None:
    names = "ab"[:count]
    cls = made(type("Some", (), {"__annotations__": dict.fromkeys(names, "object"), "__doc__": "."}))
    values = (1.5, "v")[:count]
    assert cls(*values) == cls(*values)
    assert hash(cls(*values)) == hash(values)
    assert cls(*values) in {cls(*values)}


@pytest.mark.parametrize("count", [1, 2])
def test_an_object_with_nan_equals_its_copy_under_every_python(count: int) -> None:
    names = "ab"[:count]
    cls: Any = record(type("Some", (), {"__annotations__": dict.fromkeys(names, "object"), "__doc__": "."}))
    values = (math.nan, "v")[:count]
    assert cls(*values) == cls(*values)
    assert cls(*values) in {cls(*values)}


@BOTH
def test_own_methods_stay(made: Callable[[type], Any]) -> None:
    class Own:
        """With every method of its own."""

        x: int

        def __post_init__(self) -> None:
            if self.x < 0:
                raise ValueError("negative")

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

    cls = made(Own)
    assert repr(cls(1)) == "own"
    assert cls(1) == cls(2)
    assert hash(cls(1)) == hash((1,))
    with pytest.raises(ValueError, match="negative"):
        cls(-1)


@BOTH
def test_own_hash_stays(made: Callable[[type], Any]) -> None:
    class Own:
        """With a hash."""

        x: int

        def __hash__(self) -> int:
            return 5

    assert hash(made(Own)(1)) == 5


@BOTH
def test_a_class_may_refuse_hashes(made: Callable[[type], Any]) -> None:
    class Own:
        """Without a hash."""

        x: int
        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(TypeError, match="unhashable"):
        hash(made(Own)(1))


@BOTH
def test_a_field_may_be_called_self(made: Callable[[type], Any]) -> None:
    cls = made(type("Some", (), {"__annotations__": {"self": "int"}, "__doc__": "."}))
    assert cls(self=3) == cls(3)


@BOTH
def test_what_wraps_the_first_init_sees_every_object(made: Callable[[type], Any]) -> None:
    cls, seen = made(plain()), list[object]()
    wrapped = cls.__init__

    def counting(self: object, *args: object) -> None:
        seen.append(args)
        wrapped(self, *args)

    cls.__init__ = counting
    assert [cls(x).x for x in (1, 2, 3)] == [1, 2, 3]
    assert seen == [(1,), (2,), (3,)]


def test_init_vars_are_refused() -> None:
    class Some:
        """With a default, so that objects could be made without."""

        x: int
        start: dataclasses.InitVar[int] = 3  # type: ignore[assignment]

    with pytest.raises(TypeError, match="field 'start' of Some is an InitVar"):
        record(Some)


@BOTH
def test_subclasses(made: Callable[[type], Any]) -> None:
    class Base(Generic[T]):
        """A base."""

        x: T
        y: int = 1

    base: Any = made(Base)

    class Plain(base):  # type: ignore[misc]
        """No dataclass: new attributes may be set."""

    class Derived(base):  # type: ignore[misc]
        """A dataclass, too."""

        z: int = 3

    one, derived = Plain(1), made(Derived)
    one.note = "set"
    del one.note
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.x = 2
    assert derived(1, z=4) == derived(1, 1, 4)
    assert derived(1) != base(1)
    assert repr(derived(1)).endswith("Derived(x=1, y=1, z=3)")
    assert base(1) == base(1)


@BOTH
def test_a_class_that_holds_itself_is_shown(made: Callable[[type], Any]) -> None:
    class Node:
        """A node."""

        others: list[Any]

    node = made(Node)([])
    node.others.append(node)
    assert repr(node).endswith("Node(others=[...])")


@BOTH
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"__annotations__": {"x": "list"}, "x": []}, "mutable default"),
        ({"__annotations__": {"x": "int", "y": "int"}, "x": 1}, "non-default argument 'y'.*follows default argument"),
        ({"__annotations__": {}, "__setattr__": print}, "Cannot overwrite attribute __setattr__"),
        ({"__annotations__": {}, "x": dataclasses.field(default=1)}, "no type annotation"),
    ],
)
def test_wrong_definitions_are_refused(made: Callable[[type], Any], body: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        made(type("Wrong", (), body))


def test_objects_are_copied_and_pickled_before_any_other_was_made() -> None:
    one = object.__new__(Point)
    vars(one).update(x=1, y=3.0)
    assert copy.copy(one) == pickle.loads(pickle.dumps(one)) == Point(1, 3.0)
    assert pickle.loads(pickle.dumps(Point(1))) == Point(1)


def test_other_options_are_those_of_dataclasses() -> None:
    @dataclass(frozen=True, order=True)
    class Ordered:
        x: int

    @dataclass
    class Open:
        x: int

    assert Ordered(1) < Ordered(2)
    found = Open(1)
    found.x = 2
    assert found == Open(2)


def test_every_module_defines_its_frozen_classes_here() -> None:
    root = Path(energylens.__file__).parent
    others = [
        str(path.relative_to(root))
        for path in root.rglob("*.py")
        if path.name != "records.py"
        and re.search(r"^from dataclasses import .*\bdataclass\b", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert others == []
