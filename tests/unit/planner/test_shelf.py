"""What is kept of more answers than there is room for."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from energylens.planner.shelf import MOST_COUNTED, Shelf


def hits(shelf: Shelf[str], keys: Iterable[str], size: int = 10) -> int:
    """Ask for keys, and keep each that is not there; return how often it was."""
    found = 0
    for key in keys:
        if shelf.ask(key) is not None:
            found += 1
        else:
            shelf.put(key, key, size)
    return found


def names(count: int, prefix: str = "k") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


def test_of_keys_that_take_turns_as_many_are_found_as_there_is_room_for() -> None:
    shelf, keys = Shelf[str](2500), names(400)
    hits(shelf, keys)
    for _ in range(40):
        assert hits(shelf, keys) == 250
    assert shelf.size == 2500 == 10 * len(shelf)


def test_of_keys_in_any_order_nearly_as_many() -> None:
    shelf, keys, random_ = Shelf[str](2500), names(400), random.Random(1)
    hits(shelf, keys)
    found = 0
    for _ in range(20):
        random_.shuffle(keys)
        found += hits(shelf, keys)
    assert found >= 20 * 240


def test_keys_that_are_asked_for_more_often_take_the_place_of_others() -> None:
    shelf, often = Shelf[str](200), names(10, "often")
    hits(shelf, names(20, "once"))
    for _ in range(4):
        hits(shelf, often)
    assert hits(shelf, often) == 10


def test_what_nobody_asks_for_any_more_gives_way() -> None:
    shelf, new = Shelf[str](200), names(20, "new")
    for _ in range(50):
        hits(shelf, names(20, "old"))
    for _ in range(200):
        hits(shelf, new)
    assert hits(shelf, new) == 20


def test_a_value_that_grows_keeps_its_place() -> None:
    shelf = Shelf[str](100)
    hits(shelf, names(10))
    shelf.put("k0", "larger", 30)
    assert shelf.get("k0") == "larger"
    assert shelf.size <= 100


@pytest.mark.parametrize("size", [101, 1000])
def test_a_value_that_never_fits_is_not_kept_and_drives_out_nothing(size: int) -> None:
    shelf = Shelf[str](100)
    hits(shelf, names(10))
    for _ in range(5):
        hits(shelf, ["huge"], size)
    assert len(shelf) == 10
    shelf.put("k0", "huge", size)
    assert shelf.get("k0") is None
    assert shelf.size == 90


def test_counting_is_bounded() -> None:
    shelf = Shelf[str](100)
    hits(shelf, names(3 * MOST_COUNTED))
    assert len(shelf._asked) <= MOST_COUNTED


@pytest.mark.parametrize(("size", "left"), [(10, 9), (11, 8), (20, 8), (21, 7), (100, 0)])
def test_no_more_is_driven_out_than_a_value_needs(size: int, left: int) -> None:
    shelf = Shelf[str](100)
    keys = names(10)
    hits(shelf, keys)
    for number, key in enumerate(reversed(keys)):
        # The first keys are asked for most.
        hits(shelf, [key] * number)
    for _ in range(20):
        shelf.ask("new")
    shelf.put("new", "new", size)
    assert [key for key in keys if shelf.get(key)] == keys[:left]
    assert (shelf.get("new"), shelf.size) == ("new", 10 * left + size)


def test_a_value_that_just_fits_drives_out_nothing() -> None:
    shelf = Shelf[str](100)
    hits(shelf, names(9))
    for _ in range(20):
        shelf.ask("new")
    shelf.put("new", "new", 10)
    assert (len(shelf), shelf.size) == (10, 100)


def test_a_key_takes_a_place_when_it_is_asked_for_twice_more_often() -> None:
    shelf = Shelf[str](10)
    hits(shelf, ["a"] * 3)
    hits(shelf, ["b"] * 4)
    assert (shelf.get("a"), shelf.get("b")) == ("a", None)
    hits(shelf, ["b"])
    assert (shelf.get("a"), shelf.get("b")) == (None, "b")


def test_after_sixteen_requests_for_each_value_former_ones_count_half() -> None:
    """The seventeenth request halves the sixteen before it, so that 9 count; 11 are two more."""
    shelf = Shelf[str](10)
    hits(shelf, ["a"] * 17)
    hits(shelf, ["b"] * 10)
    assert (shelf.get("a"), shelf.get("b")) == ("a", None)
    hits(shelf, ["b"])
    assert (shelf.get("a"), shelf.get("b")) == (None, "b")
