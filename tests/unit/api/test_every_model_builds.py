"""Validators of pydantic models are built at first use, so that a model that cannot be built fails late: not here."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

from pydantic import BaseModel

import energylens


def models() -> Iterator[type[BaseModel]]:
    """Yield every pydantic model of the package."""
    for module in pkgutil.walk_packages(energylens.__path__, "energylens."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    waiting = [BaseModel]
    while waiting:
        model = waiting.pop()
        waiting.extend(model.__subclasses__())
        if model.__module__.startswith("energylens."):
            yield model


def test_validators_of_every_model_can_be_built() -> None:
    found = set(models())
    for model in found:
        assert model.model_rebuild(force=True, raise_errors=True)
    assert len(found) > 80
