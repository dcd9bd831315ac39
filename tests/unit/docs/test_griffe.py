"""The extension of griffe names decorators that exist; griffe itself is installed for `make docs` only."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import yaml

from energylens import records

ROOT = Path(__file__).resolve().parents[3]


def test_the_extension_of_the_site_renames_the_decorator_of_records() -> None:
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    (plugin,) = (each["mkdocstrings"] for each in site["plugins"] if "mkdocstrings" in each)
    (extension,) = plugin["handlers"]["python"]["options"]["extensions"]
    (names,) = (
        node.value
        for node in ast.parse((ROOT / extension).read_text()).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Tuple)
    )
    assert ast.literal_eval(names) == (
        f"{records.__name__}.{records.dataclass.__name__}",
        f"{dataclasses.__name__}.{dataclasses.dataclass.__name__}",
    )
