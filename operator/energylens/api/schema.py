"""Turn a pydantic model into the structural schema that a CustomResourceDefinition holds.

Structural means, for Kubernetes: every sub-schema has a type, nothing refers to elsewhere, no null branches, unknown
fields are pruned rather than refused. A status only describes: it has no required fields, enums, bounds or defaults, so
that an operator of another version than the CRD's can still write its status.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from energylens.api.base import ApiModel

_KEPT = (
    "description", "type", "format", "enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems",
    "maxItems", "maxProperties", "items", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-list-type", "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
)  # fmt: skip
_CONSTRAINTS = ("enum", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems")


def structural(model: type[ApiModel], *, status: bool = False) -> dict[str, Any]:
    """Return the structural schema of ``model``; with ``status`` one that only describes.

    Raises:
        ValueError: a field cannot be said in a structural schema; the message names it.
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    schema = _object(model, raw, raw.get("$defs", {}), path=model.__name__)
    return _describing(schema) if status else schema


def _object(model: type[ApiModel], raw: Mapping[str, Any], defs: Mapping[str, Any], path: str) -> dict[str, Any]:
    schema: dict[str, Any] = {"description": _one_line(model.__doc__ or ""), "type": "object"}
    properties = {}
    for field in model.model_fields.values():
        name = str(field.alias)
        properties[name] = _field(field, raw["properties"][name], defs, f"{path}.{name}")
    schema["properties"] = properties
    required = sorted(str(field.alias) for field in model.model_fields.values() if field.is_required())
    if required:
        schema["required"] = required
    if model.atomic:
        schema["x-kubernetes-map-type"] = "atomic"
    if model.rules:
        schema["x-kubernetes-validations"] = [rule.to_schema() for rule in model.rules]
    return schema


def _field(field: FieldInfo, raw: Mapping[str, Any], defs: Mapping[str, Any], path: str) -> dict[str, Any]:
    schema = _value(_without_none(field.annotation), raw, defs, path)
    if not field.description:
        raise ValueError(f"{path} has no description")
    schema["description"] = _one_line(field.description)
    default = None if field.is_required() else field.default
    if isinstance(default, BaseModel):
        if default != type(default)():
            raise ValueError(f"{path}: the default object must be the one that its own fields' defaults make")
        # Nested defaults are filled in after this one, but an API server checks rules on it before that.
        schema["default"] = _plain_defaults(default) if "x-kubernetes-validations" in schema else {}
    elif isinstance(default, str | int | bool):
        schema["default"] = default
    return schema


def _plain_defaults(default: BaseModel) -> dict[str, Any]:
    values = default.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {name: value for name, value in values.items() if not isinstance(value, dict | list)}


def _value(annotation: Any, raw: Mapping[str, Any], defs: Mapping[str, Any], path: str) -> dict[str, Any]:
    raw = _resolve(raw, defs)
    if isinstance(annotation, type) and issubclass(annotation, ApiModel):
        return _object(annotation, raw, defs, path)
    schema = {key: raw[key] for key in _KEPT if key in raw}
    if "const" in raw:
        schema["enum"] = [raw["const"]]
    if "additionalProperties" in raw:
        value = _resolve(raw["additionalProperties"], defs)
        schema["additionalProperties"] = {key: value[key] for key in _KEPT if key in value}
    elif "patternProperties" in raw:
        raise ValueError(f"{path}: patternProperties cannot be said in a structural schema")
    if "items" in raw:
        arguments = get_args(annotation)
        schema["items"] = _value(_bare(arguments[0]) if arguments else None, raw["items"], defs, f"{path}[]")
    if "type" not in schema and "x-kubernetes-int-or-string" not in schema:
        raise ValueError(f"{path} has no single type: {dict(raw)}")
    return schema


def _resolve(raw: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """Follow a reference and drop a null branch, which absence stands for in Kubernetes."""
    result = dict(raw)
    if "anyOf" in result and "x-kubernetes-int-or-string" not in result:
        branches = [branch for branch in result.pop("anyOf") if branch.get("type") != "null"]
        if len(branches) != 1:
            return dict(raw)
        result = {**_resolve(branches[0], defs), **result}
    if "$ref" in result:
        result = {**defs[result.pop("$ref").rsplit("/", 1)[-1]], **result}
    return result


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, UnionType):
        rest = [part for part in get_args(annotation) if part is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return _bare(annotation)


def _bare(annotation: Any) -> Any:
    """Return the type inside ``Annotated``."""
    return annotation.__origin__ if hasattr(annotation, "__metadata__") else annotation


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _describing(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema without anything that refuses or completes a value, but for the keys of list maps."""
    dropped = {*_CONSTRAINTS, "required", "default", "x-kubernetes-validations"}
    keys = schema.get("x-kubernetes-list-map-keys", [])
    result = {key: value for key, value in schema.items() if key not in dropped}
    if "properties" in schema:
        result["properties"] = {name: _describing(value) for name, value in schema["properties"].items()}
    if "additionalProperties" in schema:
        result["additionalProperties"] = _describing(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = _describing(schema["items"])
        if keys:
            result["items"]["required"] = sorted(keys)
    return result
