"""The chart's values, their schema and the operator's settings say the same."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from tools.chart_readme import rows, with_table

from energylens.controller.settings import BudgetSettings, MeasurementSettings, PrometheusSettings, Settings

CHART = Path(__file__).resolve().parents[3] / "charts" / "energylens"
BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


def names(values: Mapping[str, Any], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield f"{path}{name}"
        if isinstance(value, dict):
            yield from names(value, f"{path}{name}.")


def fields(schema: Mapping[str, Any], definitions: Mapping[str, Any], path: str = "") -> dict[str, Mapping[str, Any]]:
    """Return path -> bounds of every field of a JSON schema."""
    found: dict[str, Mapping[str, Any]] = {}
    for name, raw in schema.get("properties", {}).items():
        # An optional section is its schema or null.
        named = next((each for each in raw.get("anyOf", ()) if "$ref" in each), raw)
        field = definitions[named["$ref"].rsplit("/", 1)[-1]] if "$ref" in named else raw
        found[f"{path}{name}"] = {bound: float(field[bound]) for bound in BOUNDS if bound in field}
        found |= fields(field, definitions, f"{path}{name}.")
    return found


def schema() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text())
    return loaded


def test_every_value_is_in_the_schema() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    described = fields(schema(), schema()["$defs"])
    # What goes below these is the API server's to check.
    free = ("resources.", "powerCaps.resources.", "powerCaps.nodeSelector.", "podSecurityContext.", "securityContext.")
    assert [name for name in names(values) if name not in described and not name.startswith(free)] == []


def test_every_value_of_the_schema_is_shown_in_the_values() -> None:
    text = (CHART / "values.yaml").read_text()
    assert [path for path in fields(schema(), schema()["$defs"]) if path.rsplit(".", 1)[-1] + ":" not in text] == [
        "global",
        "resources.claims",
    ]


def test_the_charts_page_has_every_value_with_its_default() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    page = (CHART / "README.md").read_text()
    assert page == with_table(page, (CHART / "values.yaml").read_text()), "make generate writes the table anew"
    sections = [name for name in values if f"`{name}" not in page]
    assert sections == []


def test_the_table_of_values_is_that_of_the_file() -> None:
    text = """# What image.
# And more | of it.
image:
  # Where it is.
  repository: energylens
  tag: ""

# How many.
count: 1
list: [a, b]
plain:
  items:
    - key: a
      operator: b
  last: <x>
"""
    assert rows(text) == [
        ("image", "", "What image. And more \\| of it."),
        ("image.repository", "energylens", "Where it is."),
        ("image.tag", '""', ""),
        ("count", "1", "How many."),
        ("list", "[a, b]", ""),
        ("plain.last", "<x>", ""),
    ]


def test_the_schema_of_the_settings_is_that_of_the_operator() -> None:
    model = Settings.model_json_schema(by_alias=True)
    assert fields(schema()["properties"]["operator"]["properties"]["config"], {}) == fields(model, model["$defs"])


def test_every_value_is_used_by_a_template() -> None:
    """What a template takes whole (toYaml, with, range) uses all that is below it."""
    templates = "".join(path.read_text() for path in sorted((CHART / "templates").rglob("*")) if path.is_file())
    assignment = r"\{\{-? *\$(\w+) := \.Values\.([A-Za-z0-9_.]+) *-?\}\}"
    used = set(re.findall(r"\.Values\.([A-Za-z0-9_.]+)", re.sub(assignment, "", templates)))
    # A variable stands for a part of the values.
    for name, path in re.findall(assignment, templates):
        used |= {f"{path}.{below}" for below in re.findall(rf"\${name}\.([A-Za-z0-9_.]+)", templates)}
    values = list(names(yaml.safe_load((CHART / "values.yaml").read_text())))
    leaves = [name for name in values if not any(other.startswith(f"{name}.") for other in values)]

    def is_used(name: str) -> bool:
        whole = {name.rsplit(".", count)[0] for count in range(name.count(".") + 1)}
        return bool(whole & used)

    assert [name for name in leaves if not is_used(name)] == []
    assert not is_used("operator.neverRead")


def test_every_setting_is_read_by_the_operator() -> None:
    package = Path(__file__).resolve().parents[3] / "operator" / "energylens"
    read = {
        node.attr
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
    }
    settings: list[type[BaseModel]] = [Settings, MeasurementSettings, PrometheusSettings, BudgetSettings]
    fields_of = {f"{each.__name__}.{name}" for each in settings for name in each.model_fields}
    assert {name for name in fields_of if name.rsplit(".", 1)[-1] not in read} == set()


def test_additional_volumes_are_named_and_take_no_name_of_the_charts_own() -> None:
    template = (CHART / "templates" / "deployment.yaml").read_text()
    own = template.split("\n      volumes:")[1].split("{{- with")[0]
    taken = " ".join(f'"{name}"' for name in re.findall(r"- name: (\S+)", own))
    assert template.startswith(f"{{{{- $taken := list {taken} }}}}\n")
    volume = schema()["properties"]["operator"]["properties"]["volumes"]["items"]
    assert volume["required"] == ["name"]
    pattern = volume["properties"]["name"]["pattern"]
    assert [text for text in ("ca", "a-1", "", "A_b", "a-") if re.search(pattern, text)] == ["ca", "a-1"]
