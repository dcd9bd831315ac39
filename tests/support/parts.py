"""Long runs in parts: ``ENERGYLENS_PART=3/8`` plays the third of eight, so that sessions of minutes make one whole."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TypeVar

from energylens.records import dataclass

VARIABLE = "ENERGYLENS_PART"
Item = TypeVar("Item")


@dataclass(frozen=True)
class Part:
    """One of some parts of a long run."""

    number: int = 1
    """From 1 on."""
    parts: int = 1

    @classmethod
    def of(cls, environ: Mapping[str, str] = os.environ) -> Part:
        """Return the part that the environment names; the whole without one.

        Raises:
            ValueError: The variable is no part such as 3/8.
        """
        text = environ.get(VARIABLE) or "1/1"
        number, _, parts = text.partition("/")
        if not (number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
            raise ValueError(f"{VARIABLE}={text!r}: a part is named by its number and the number of parts, such as 3/8")
        return cls(int(number), int(parts))

    def items(self, every: Sequence[Item]) -> list[Item]:
        """Return the items of this part: each item is in exactly one part."""
        return list(every[self.number - 1 :: self.parts])

    def count(self, every: int) -> int:
        """Return how many of so many things this part makes: the counts of all parts add up."""
        return every * self.number // self.parts - every * (self.number - 1) // self.parts
