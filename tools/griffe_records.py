"""Tell griffe, which reads docstrings for docs/reference, that ``energylens.records.dataclass`` makes dataclasses.

griffe knows only the decorator of the standard library, so that the pages lacked the label "dataclass" and the
parameters of classes.
"""

from __future__ import annotations

from typing import Any

import griffe

OURS, STANDARD = "energylens.records.dataclass", "dataclasses.dataclass"


class Records(griffe.Extension):
    """Names the decorator of the standard library in place of the project's, before griffe's own extension runs."""

    def on_class_instance(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """Rename the decorators of a class that was just read."""
        for decorator in cls.decorators:
            value = decorator.value
            if isinstance(value, griffe.Expr) and value.canonical_path == OURS:
                standard = griffe.ExprName(STANDARD)
                if isinstance(value, griffe.ExprCall):
                    value.function = standard
                else:
                    decorator.value = standard
                cls.labels.add("dataclass")
