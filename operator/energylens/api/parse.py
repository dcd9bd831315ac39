"""Read custom resources: strictly from files that people write, leniently from an API server.

An object from an API server was already validated, perhaps by a newer CRD than this code knows: fields that this code
does not know are left out, and so are parts of status that it cannot read, since status is found again. What it cannot
understand in spec is an error: acting on half of a spec would be a guess.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from energylens.api.base import ApiModel
from energylens.api.energybudget import ClusterEnergyBudget, EnergyBudget
from energylens.api.llmdeployment import LLMDeployment
from energylens.records import dataclass

_UNITS: Mapping[str, Mapping[str, int]] = {
    "WattHours": {"Wh": 1, "kWh": 1000, "MWh": 10**6},
    "Watts": {"W": 1, "kW": 1000, "MW": 10**6},
    "wattsPerGPU": {"W": 1, "kW": 1000},
    "Milliseconds": {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000},
    "Seconds": {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400},
    "Percent": {"%": 1},
    "Tokens": {"k": 1000, "K": 1000},
}
"""Units that people append to the values of fields whose names end so, in units of the field."""
_SHOWN = 3
_VALUE_LENGTH = 60
_MAX_DEPTH = 64

Location = tuple[str | int, ...]
IgnoredCallback = Callable[[str], None]


@dataclass(frozen=True)
class FieldProblem:
    """One thing wrong with an object."""

    field: str
    """Path on the wire, such as ``spec.slo.itlMilliseconds``; "" for the object as a whole."""
    value: object
    """What stands there; None when nothing does."""
    message: str
    """The value, and what is allowed."""

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


class InvalidResourceError(ValueError):
    """An object is not a valid custom resource; ``str()`` is one line that names field, value and what is allowed."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        shown = "; ".join(str(problem) for problem in self.problems[:_SHOWN])
        more = len(self.problems) - _SHOWN
        # Names and values may hold line breaks.
        super().__init__(" ".join(shown.split()) + (f"; and {more} more" if more > 0 else ""))


Resource = TypeVar("Resource", LLMDeployment, EnergyBudget, ClusterEnergyBudget)


def parse_llmdeployment(
    obj: Mapping[str, Any], *, strict: bool, on_ignored: IgnoredCallback | None = None
) -> LLMDeployment:
    """Return the LLMDeployment that ``obj``, a decoded YAML or JSON object, says.

    Args:
        obj: the object with apiVersion, kind, metadata, spec.
        strict: refuse unknown fields and any unreadable status (files); else leave them out (API server).
        on_ignored: called with one line for each thing left out.

    Raises:
        InvalidResourceError: the object is not valid.
    """
    return _parse(LLMDeployment, obj, strict=strict, on_ignored=on_ignored)


def parse_energybudget(
    obj: Mapping[str, Any], *, strict: bool, on_ignored: IgnoredCallback | None = None
) -> EnergyBudget:
    """Return the EnergyBudget that ``obj`` says; see ``parse_llmdeployment``.

    Raises:
        InvalidResourceError: the object is not valid.
    """
    return _parse(EnergyBudget, obj, strict=strict, on_ignored=on_ignored)


def parse_clusterenergybudget(
    obj: Mapping[str, Any], *, strict: bool, on_ignored: IgnoredCallback | None = None
) -> ClusterEnergyBudget:
    """Return the ClusterEnergyBudget that ``obj`` says; see ``parse_llmdeployment``.

    Raises:
        InvalidResourceError: the object is not valid.
    """
    return _parse(ClusterEnergyBudget, obj, strict=strict, on_ignored=on_ignored)


def _parse(
    model: type[Resource], obj: Mapping[str, Any], *, strict: bool, on_ignored: IgnoredCallback | None
) -> Resource:
    if not isinstance(obj, Mapping):
        raise InvalidResourceError([FieldProblem("", obj, f"{_shown(obj)} is not a {model.__name__} object")])
    pruned = _plain(obj)
    while True:
        try:
            return _validate(model, pruned)
        except ValidationError as error:
            details = [detail for detail in error.errors(include_url=False) if not _is_consequence(detail)]
        ignorable = [] if strict else [detail for detail in details if _is_ignorable(detail)]
        if not ignorable:
            raise InvalidResourceError([_problem(model, detail) for detail in details])
        for detail in ignorable:
            if _remove(pruned, _ignored_part(detail)) and on_ignored is not None:
                on_ignored(str(_problem(model, detail)))


def _plain(value: Any, depth: int = 0) -> Any:
    """Return a deep copy as JSON has it, without the entries that are null, which mean absence to an API server too.

    Raises:
        InvalidResourceError: the value is nested too deeply, as one that holds itself is.
    """
    if depth > _MAX_DEPTH:
        raise InvalidResourceError([FieldProblem("", None, f"nested more than {_MAX_DEPTH} levels deep")])
    # A dict is told from other values ten times as fast as a Mapping, and a status has hundreds of values.
    if isinstance(value, str | int | float):
        return value
    if isinstance(value, dict | Mapping):
        return {str(key): _plain(entry, depth + 1) for key, entry in value.items() if entry is not None}
    if isinstance(value, list):
        return [_plain(entry, depth + 1) for entry in value]
    return value


def _validate(model: type[Resource], obj: Mapping[str, Any]) -> Resource:
    # JSON, since only there does strict mode (no "512" for 512, no true for 1) take lists for tuples. Dates stay text.
    return model.model_validate_json(json.dumps(obj, default=str), strict=True, by_alias=True, by_name=False)


def _is_consequence(error: ErrorDetails) -> bool:
    """Return whether a list is too short only because its bad entries, which have errors of their own, do not count."""
    given = error["input"]
    return error["type"] == "too_short" and isinstance(given, list) and len(given) >= error["ctx"]["min_length"]


def _is_ignorable(error: ErrorDetails) -> bool:
    return error["type"] == "extra_forbidden" or error["loc"][:1] == ("status",)


def _ignored_part(error: ErrorDetails) -> Location:
    location: Location = error["loc"]
    return location if error["type"] == "extra_forbidden" else location[:2]


def _remove(obj: dict[str, Any], location: Location) -> bool:
    """Take the part at ``location`` out of ``obj``; False when it is gone already."""
    parent: Any = obj
    for step in location[:-1]:
        try:
            parent = parent[step]
        except (KeyError, IndexError, TypeError):
            return False
    last = location[-1]
    if not isinstance(parent, dict) or last not in parent:
        return False
    del parent[last]
    return True


def _problem(model: type[ApiModel], error: ErrorDetails) -> FieldProblem:
    location: Location = error["loc"]
    value = None if error["type"] == "missing" else error["input"]
    return FieldProblem(_path(location), value, _message(model, error))


def _path(location: Location) -> str:
    text = ""
    for step in location:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def _message(model: type[ApiModel], error: ErrorDetails) -> str:
    value, context = _shown(error["input"]), error.get("ctx", {})
    match error["type"]:
        case "extra_forbidden":
            names = _field_names(model, error["loc"][:-1])
            return f"unknown field{_nearest(str(error['loc'][-1]), names)}; known fields are {', '.join(names)}"
        case "missing":
            return f"required{_description(model, error['loc'])}"
        case "literal_error":
            allowed = _literals(model, error["loc"]) or (str(context["expected"]),)
            return f"{value} is not allowed{_nearest(str(error['input']), allowed)}; use {' or '.join(allowed)}"
        case "greater_than_equal":
            return f"{value} must be at least {context['ge']}"
        case "less_than_equal":
            return f"{value} must be at most {context['le']}"
        case "int_type" | "int_from_float":
            return f"{value} must be a whole number{_as_whole(str(error['loc'][-1]), error['input'])}"
        case "string_type":
            return f"{value} must be a text (in quotes)"
        case "bool_type":
            return f"{value} must be true or false"
        case "string_too_short" | "too_short":
            return "must not be empty" if context["min_length"] == 1 else f"{value} must have at least {_length(error)}"
        case "string_too_long" | "too_long":
            return f"{value} must have at most {_length(error)}"
        case "string_pattern_mismatch":
            return f"{value} must match {context['pattern']}"
        case "model_type" | "dict_type" | "model_attributes_type":
            return f"{value} must be an object with named fields"
        case "tuple_type" | "list_type":
            return f"{value} must be a list"
        case _:
            return str(error["msg"]).removeprefix("Value error, ")


def _length(error: ErrorDetails) -> str:
    limits = error.get("ctx", {})
    count = limits["min_length" if error["type"].endswith("too_short") else "max_length"]
    one, many = ("character", "characters") if isinstance(error["input"], str) else ("entry", "entries")
    return f"{count} {one if count == 1 else many}"


def _as_whole(field: str, value: object) -> str:
    """Return the number that was meant, for a value with a unit or in quotes; "" where none is plain."""
    match = re.fullmatch(r"\s*(\d{1,12}(?:\.\d+)?)\s*([A-Za-z%]*)\s*", str(value))
    units = next((units for ending, units in _UNITS.items() if field.endswith(ending)), {})
    if match is None or isinstance(value, bool) or match[2] not in ("", *units):
        return ""
    number = Decimal(match[1]) * Decimal(units.get(match[2], 1))
    return f": write {number:.0f}" if number == number.to_integral_value() else ""


def _shown(value: object) -> str:
    if value is None:
        return "null"
    text = json.dumps(value, default=str)
    return text if len(text) <= _VALUE_LENGTH else text[: _VALUE_LENGTH - 3] + "..."


def _nearest(name: str, names: Sequence[str]) -> str:
    lower = {known.lower(): known for known in names}
    close = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=0.5)
    return f" (did you mean {lower[close[0]]}?)" if close else ""


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models inside an annotation such as ``Annotated[tuple[Model, ...] | None, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _annotation(model: type[ApiModel], location: Location) -> Any:
    """Return the annotation of the field at ``location``, or None; list indices are passed over."""
    annotation: Any = model
    for step in location:
        if isinstance(step, int):
            continue
        owner = next(_models(annotation), None)
        fields = {} if owner is None else {field.alias: field for field in owner.model_fields.values()}
        if step not in fields:
            return None
        annotation = fields[step].annotation
    return annotation


def _field_names(model: type[ApiModel], location: Location) -> list[str]:
    owner = next(_models(_annotation(model, location)), model)
    return [str(field.alias) for field in owner.model_fields.values()]


def _literals(model: type[ApiModel], location: Location) -> tuple[str, ...]:
    def strings(annotation: Any) -> Iterator[str]:
        for part in get_args(annotation):
            if isinstance(part, str):
                yield part
            else:
                yield from strings(part)

    return tuple(strings(_annotation(model, location)))


def _description(model: type[ApiModel], location: Location) -> str:
    owner = next(_models(_annotation(model, location[:-1])), None)
    fields = {} if owner is None else {field.alias: field for field in owner.model_fields.values()}
    field = fields.get(str(location[-1]))
    return f" ({field.description})" if field is not None and field.description else ""
