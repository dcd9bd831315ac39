"""YAML and JSON that people write, read without guessing: a duplicate key is an error.

PyYAML and the json module keep the last of equal keys silently, so that half of a spec can be lost.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from typing import Any, NoReturn

import yaml

MOST_VALUES = 20_000_000
"""Values of a document with its aliases written out; a few lines of nested aliases can stand for billions."""
# The C loader reads a thousand nodes in a second instead of ten; it is missing where PyYAML was built without libyaml.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class DocumentError(ValueError):
    """A text is not YAML or JSON, or says something twice; the message is one line."""


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Refuses a mapping that has a key twice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
        if isinstance(node, yaml.MappingNode):
            keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
            if len(set(keys)) < len(keys):
                raise DocumentError(_twice(node))
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


# kubectl reads an unquoted time as text, as JSON has it.
_Loader.add_constructor("tag:yaml.org,2002:timestamp", lambda loader, node: loader.construct_scalar(node))


def _twice(node: yaml.MappingNode) -> str:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            line = key.start_mark.line + 1
            if key.value in lines:
                return f"line {line}: key {key.value!r} appears twice, first in line {lines[key.value]}"
            lines[key.value] = line
    raise AssertionError("no key appears twice")


def yaml_documents(text: str) -> list[Any]:
    """Return the documents of a YAML or JSON text, empty ones left out.

    Raises:
        DocumentError: the text is not YAML, a mapping has a key twice, or aliases make it too large or endless.
    """
    try:
        documents = [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except DocumentError:
        raise
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DocumentError(f"not YAML: {_one_line(error)}") from error
    if "*" in text and "&" in text:
        _check_aliases(documents)
    return documents


def json_document(text: str, *, infinite: bool = False) -> Any:
    """Return the value of a JSON text.

    Args:
        text: The text.
        infinite: Accept NaN and infinities, as Python writes them: ``time_step_limit`` of a Mamba model's config.json
            is ``[0.0, Infinity]``.

    Raises:
        DocumentError: the text is not JSON, has NaN or an infinity, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=_distinct, parse_constant=float if infinite else _no_number)
    except DocumentError:
        raise
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"not JSON: {_one_line(error)}") from error


def _distinct(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        name = next(name for name in names if names.count(name) > 1)
        raise DocumentError(f"key {name!r} appears twice")
    return found


def _no_number(name: str) -> NoReturn:
    raise DocumentError(f"not JSON: {name} is not a number")


def _check_aliases(documents: Sequence[Any]) -> None:
    """Refuse what is endless or too large once its aliases are written out.

    Raises:
        DocumentError: it is.
    """
    sizes: dict[int, int] = {}
    # Depth first without recursion: a value is counted when all that is in it has been.
    stack: list[tuple[Any, bool]] = [(document, False) for document in documents]
    open_values: set[int] = set()
    while stack:
        value, is_left = stack.pop()
        inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
        if is_left:
            open_values.discard(id(value))
            sizes[id(value)] = 1 + sum(sizes.get(id(each), 1) for each in inner)
            if sizes[id(value)] > MOST_VALUES:
                raise DocumentError(f"its aliases expand to more than {MOST_VALUES:,} values")
        elif id(value) in open_values:
            raise DocumentError("an alias refers to a list or mapping that contains the alias")
        elif id(value) not in sizes and inner:
            open_values.add(id(value))
            stack.append((value, True))
            stack += [(each, False) for each in inner if isinstance(each, (dict, list))]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
