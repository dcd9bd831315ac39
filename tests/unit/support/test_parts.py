"""The parts of a long run make the whole, each thing once."""

from __future__ import annotations

import pytest
from tests.support.parts import VARIABLE, Part


@pytest.mark.parametrize("parts", [1, 3, 8, 40])
def test_every_item_is_in_one_part_and_the_counts_add_up(parts: int) -> None:
    each = [Part.of({VARIABLE: f"{number}/{parts}"}) for number in range(1, parts + 1)]
    assert sorted(item for part in each for item in part.items(range(29))) == list(range(29))
    assert sum(part.count(2000) for part in each) == 2000


@pytest.mark.parametrize("environ", [{}, {VARIABLE: ""}, {VARIABLE: "1/1"}])
def test_without_a_part_all_is_played(environ: dict[str, str]) -> None:
    part = Part.of(environ)
    assert (part.items("abc"), part.count(7)) == (["a", "b", "c"], 7)


@pytest.mark.parametrize("text", ["3", "0/8", "9/8", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=rf"ENERGYLENS_PART='{text}': .* such as 3/8"):
        Part.of({VARIABLE: text})
