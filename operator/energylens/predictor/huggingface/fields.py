"""Typed reading of a ``config.json``: every missing or out-of-range value gets an error that names the field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

MAX_LAYERS = 2048
MAX_SIZE = 1 << 24
"""Largest accepted width or vocabulary; far above any published model."""


class UnsupportedConfigError(ValueError):
    """The shape in a ``config.json`` cannot be read. The message names the field, its value and what is allowed."""

    def __init__(self, model: str, field: str, value: object, allowed: str) -> None:
        self.model = model
        self.field = field
        shown = "missing" if value is None else f"is {_shorten(value)}"
        super().__init__(f"config.json of {model}: {field} {shown}; allowed: {allowed}")


def _shorten(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


class Fields:
    """The fields of one JSON object. ``used`` records the names that were read.

    If a method takes several names, they are spellings of the same field and the first one present wins. A JSON null
    counts as absent, as in the transformers library.
    """

    def __init__(self, values: Mapping[str, Any], model: str, path: str = "") -> None:
        self.values = values
        self.model = model
        self.path = path
        self.used: set[str] = set()
        self._spelling: Mapping[str, Sequence[str]] = {}
        self._defaults: Mapping[str, Any] = {}
        self._derived: dict[str, Any] = {}

    def understand(self, spelling: Mapping[str, Sequence[str]], defaults: Mapping[str, Any]) -> None:
        """Set how the family spells fields and which defaults it assumes.

        Args:
            spelling: Usual name of a field -> the names in the files of the family, preferred name first.
            defaults: Values of missing fields; a null field is not missing.
        """
        self._spelling, self._defaults = spelling, defaults

    def derive(self, values: Mapping[str, Any]) -> None:
        """Set computed fields, which take precedence over fields of the same name in the file."""
        self._derived.update(values)

    def error(self, field: str, allowed: str, value: object = None) -> UnsupportedConfigError:
        """Return the error for a field; ``value`` None means that it is missing."""
        return UnsupportedConfigError(self.model, self.path + self.present(field), value, allowed)

    def get(self, *names: str) -> Any:
        """Return the first present value, or None."""
        self.used.update(names, *(self._spelling.get(name, ()) for name in names))
        for name in names:
            spelled = self._spelling.get(name, (name,))
            if name in self._derived:
                return self._derived[name]
            value = next((self.values[n] for n in spelled if self.values.get(n) is not None), None)
            if value is None and name in self._defaults and not any(n in self.values for n in spelled):
                value = self._defaults[name]
            if value is not None:
                return value
        return None

    def present(self, *names: str) -> str:
        """Return the name under which the file has, or would have, a field with these names."""
        spelled = [n for name in names for n in self._spelling.get(name, (name,))]
        return next((n for n in spelled if self.values.get(n) is not None), spelled[0])

    def _all(self, names: Sequence[str]) -> str:
        return " or ".join(n for name in names for n in self._spelling.get(name, (name,)))

    def integer(self, *names: str, default: int | None = None, low: int = 1, high: int = MAX_SIZE) -> int:
        """Return an integer in [low, high].

        Raises:
            UnsupportedConfigError: Missing without a default, not an integer, or out of range.
        """
        value = self.get(*names)
        allowed = f"an integer from {low} to {high}"
        if value is None:
            if default is None:
                raise self.error(self._all(names), allowed)
            return default
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.error(self.present(*names), allowed, value)
        return value

    def optional_integer(self, *names: str, low: int = 1, high: int = MAX_SIZE) -> int | None:
        """Return an integer in [low, high], or None if it is absent.

        Raises:
            UnsupportedConfigError: Not an integer, or out of range.
        """
        return None if self.get(*names) is None else self.integer(*names, low=low, high=high)

    def boolean(self, *names: str, default: bool = False) -> bool:
        """Return a boolean.

        Raises:
            UnsupportedConfigError: Neither true nor false.
        """
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(self.present(*names), "true or false", value)
        return value

    def text(self, *names: str, default: str = "") -> str:
        """Return a string.

        Raises:
            UnsupportedConfigError: Not a string.
        """
        value = self.get(*names)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(self.present(*names), "a string", value)
        return value

    def array(self, *names: str) -> list[Any] | None:
        """Return a list, or None if it is absent.

        Raises:
            UnsupportedConfigError: Not a list.
        """
        value = self.get(*names)
        if value is None:
            return None
        if not isinstance(value, list | tuple):
            raise self.error(self.present(*names), "a list", value)
        return list(value)

    def per_layer(self, *names: str, layers: int, choices: Sequence[object]) -> list[Any] | None:
        """Return the first ``layers`` entries of a list with one entry per layer, or None if it is absent.

        Entries past ``layers`` belong to multi-token prediction modules, which serving does not load by default.

        Raises:
            UnsupportedConfigError: Not a list, too short, or an entry outside ``choices``.
        """
        entries = self.array(*names)
        if entries is None:
            return None
        name = self.present(*names)
        if len(entries) < layers:
            raise self.error(name, f"one entry for each of the {layers} layers", entries)
        for entry in entries[:layers]:
            # In Python bool and float can equal integers, but they are not layer kinds.
            if type(entry) not in {type(c) for c in choices} or entry not in choices:
                raise self.error(name, "entries out of " + ", ".join(map(repr, choices)), entry)
        return entries[:layers]

    def child(self, *names: str) -> Fields | None:
        """Return a nested object, or None if it is absent.

        Raises:
            UnsupportedConfigError: Not an object.
        """
        value = self.get(*names)
        if value is None:
            return None
        name = self.present(*names)
        if not isinstance(value, Mapping):
            raise self.error(name, "an object", value)
        return Fields(value, self.model, f"{self.path}{name}.")
