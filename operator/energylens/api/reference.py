"""The reference of the custom resources as Markdown, from their definitions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_INTRODUCTION = """# API reference

<!-- Generated from the models in operator/energylens/api by `make generate`; edit those. -->

`kubectl explain llmd.spec.slo` shows the same texts on a cluster.

- Quantities are strings (`"0.5"`, `500m`) or whole numbers (`2`). A YAML number with a fraction (`0.5` without quotes)
  is refused: a float has no exact decimal value, so Kubernetes APIs have none.
- An object that breaks a rule is refused by the API server, with a message that names the field, its value and what is
  allowed. A rule that becomes stricter does not block changes of objects that exist, as long as the part to which
  the rule applies does not change.
- The operator writes `status` only, never `spec`.
"""


def reference(kinds: Sequence[tuple[str, str, str, Mapping[str, Any]]]) -> str:
    """Return the Markdown for kinds given as (kind, plural, short name, CustomResourceDefinition)."""
    return "\n".join([_INTRODUCTION, *(_kind(*kind) for kind in kinds)])


def _kind(name: str, plural: str, short_name: str, definition: Mapping[str, Any]) -> str:
    version = definition["spec"]["versions"][0]
    schema = version["schema"]["openAPIV3Schema"]
    spec, status = schema["properties"]["spec"], schema["properties"]["status"]
    lines = [
        f"## {name}",
        "",
        f"{schema['description']} `{definition['spec']['group']}/{version['name']}`, "
        f"{'namespaced' if definition['spec']['scope'] == 'Namespaced' else 'cluster-scoped'}; "
        f"`kubectl get {plural}` or `{short_name}`.",
        "",
        f"### {name} spec",
        "",
        "| Field | Type | Default | Meaning |",
        "|---|---|---|---|",
        *(
            f"| `{path}` | {_type(field)} | {_default(field, need)} | {_meaning(field)} |"
            for path, field, need in _fields(spec)
        ),
        "",
        f"### {name} rules",
        "",
        "| Where | Rule |",
        "|---|---|",
        *(f"| {f'`{path}`' if path else 'the object'} | {_cell(text)} |" for path, text in _rules(schema)),
        "",
        f"### {name} status",
        "",
        "| Field | Type | Meaning |",
        "|---|---|---|",
        *(f"| `{path}` | {_type(field)} | {_meaning(field)} |" for path, field, _ in _fields(status)),
        "",
        f"### {name} columns",
        "",
        "| Column | Shown | Meaning |",
        "|---|---|---|",
        *(
            f"| {column['name'].upper()} | {'`-o wide`' if column.get('priority') else 'always'} "
            f"| {column['description']} |"
            for column in version["additionalPrinterColumns"]
        ),
        "",
    ]
    return "\n".join(lines)


def _fields(schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Mapping[str, Any], bool]]:
    """Yield (path, schema, whether required) of every field below ``schema``, parents first."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        path = f"{prefix}{name}"
        yield path, field, name in required
        yield from _fields(field, f"{path}.")
        yield from _fields(field.get("items", {}), f"{path}[].")


def _rules(schema: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for rule in schema.get("x-kubernetes-validations", []):
        yield path, rule["message"]
    for name, field in schema.get("properties", {}).items():
        below = f"{path}.{name}" if path else name
        yield from _rules(field, below)
        yield from _rules(field.get("items", {}), f"{below}[]")


def _type(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return _cell(", ".join(f"`{value}`" for value in field["enum"]))
    if field.get("x-kubernetes-int-or-string"):
        return "quantity"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    if "additionalProperties" in field:
        return f"map to {_type(field['additionalProperties'])}"
    return f"{field['type']}{_bounds(field)}"


def _bounds(field: Mapping[str, Any]) -> str:
    low, high = field.get("minimum"), field.get("maximum")
    if low is None and high is None:
        return ""
    return f", {low} to {high}" if high is not None and low is not None else f", at least {low}" if high is None else ""


def _default(field: Mapping[str, Any], required: bool) -> str:
    if required:
        return "**required**"
    default = field.get("default")
    if default is None or default == "" or isinstance(default, dict):
        return ""
    return f"`{str(default).lower()}`" if isinstance(default, bool) else f"`{default}`"


def _meaning(field: Mapping[str, Any]) -> str:
    return _cell(str(field.get("description", "")))


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
