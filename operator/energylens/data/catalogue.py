"""Models that people serve, by their Hugging Face id.

``catalogue.json`` keeps the fields of each public ``config.json`` that set a shape, once per architecture, and maps ids
to them, with the quantisation of releases that differ in nothing else. It is read when a model is first asked for.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from energylens.predictor.huggingface.config import model_from_config
from energylens.predictor.model.architecture import ModelSpec

_FORMAT = re.compile(
    r"[-.](bf16|fp8|fp4|nvfp4|mxfp4|awq|gptq|int4|int8|w4a16|w8a8|dynamic|static|pertensor|quantized|original)$"
)
"""Parts at the end of a release's name that say its number format."""


class UnknownModelError(LookupError):
    """No model of that id. The message names the nearest known ids and the way out."""

    def __init__(self, name: str, nearest: tuple[str, ...]) -> None:
        self.name = name
        self.nearest = nearest
        hint = f"; nearest known: {', '.join(nearest)}" if nearest else ""
        super().__init__(
            f"model {name!r} is not in the catalogue{hint}; spec.model.configRef can name a ConfigMap key with the "
            "model's config.json, which works for any model of a known shape"
        )


def known_models() -> tuple[str, ...]:
    """Return the ids of the catalogue, sorted without regard to letter case."""
    return _known()


def load_model(name: str) -> ModelSpec:
    """Return the architecture of a model by its Hugging Face id; letter case does not matter.

    Raises:
        UnknownModelError: The id is not in the catalogue.
    """
    return _load(_known_id(name))


def load_config(name: str) -> dict[str, Any]:
    """Return the trimmed ``config.json`` that the catalogue keeps for a model.

    Raises:
        UnknownModelError: The id is not in the catalogue.
    """
    document = _document()
    entry = document["models"][_known_id(name)]
    if isinstance(entry, str):
        entry = {"config": entry}
    config = dict(document["configs"][entry["config"]]["config"])
    config.update(entry.get("override", {}))
    if "quantization" in entry:
        config["quantization_config"] = document["quantizations"][entry["quantization"]]["config"]
    return config


def releases_of(name: str) -> tuple[str, ...]:
    """Return the ids of the catalogue that are the same model in a number format of their own, sorted; none of unknown.

    The same model has the same architecture, and a name that differs in the organisation and the format alone.
    """
    known = _by_key().get(name.strip().lower())
    if known is None:
        return ()
    models, tail = _document()["models"], _plain_tail(known)
    config = _config_of(models[known])
    return tuple(
        other
        for other in _known()
        if other != known
        and isinstance(models[other], dict)
        and "quantization" in models[other]
        and _config_of(models[other]) == config
        and _plain_tail(other) == tail
    )


def _config_of(entry: str | Mapping[str, Any]) -> str:
    return entry if isinstance(entry, str) else str(entry["config"])


def _plain_tail(name: str) -> str:
    """Return a model's name without its organisation, its number format and the prefix that Meta once had."""
    tail = name.rpartition("/")[2].lower().removeprefix("meta-")
    while (shorter := _FORMAT.sub("", tail)) != tail:
        tail = shorter
    return tail


def model_sources(name: str) -> tuple[str, ...]:
    """Return where the facts of a model come from: its architecture, then its quantisation where that is apart.

    Raises:
        UnknownModelError: The id is not in the catalogue.
    """
    document = _document()
    entry = document["models"][_known_id(name)]
    if isinstance(entry, str):
        return (document["configs"][entry]["source"],)
    sources = [document["configs"][entry["config"]]["source"]]
    if "quantization" in entry:
        sources.append(document["quantizations"][entry["quantization"]]["source"])
    return tuple(sources)


def _known_id(name: str) -> str:
    """Return an id as the catalogue spells it.

    Raises:
        UnknownModelError: The id is not in the catalogue.
    """
    known = _by_key().get(name.strip().lower())
    if known is None:
        raise UnknownModelError(name, _nearest(name))
    return known


@cache
def _load(known: str) -> ModelSpec:
    return model_from_config(load_config(known), known)


def _nearest(name: str) -> tuple[str, ...]:
    keys = _by_key()
    wanted = name.strip().lower()
    # People leave out or mistake the organisation more often than the model, so that is compared alone, too.
    tails = {key.rpartition("/")[2]: known for key, known in keys.items()}
    close = [keys[k] for k in difflib.get_close_matches(wanted, keys, n=3, cutoff=0.6)]
    close += [tails[k] for k in difflib.get_close_matches(wanted.rpartition("/")[2], tails, n=3, cutoff=0.6)]
    return tuple(dict.fromkeys(close))[:3]


@cache
def _document() -> Mapping[str, Any]:
    text = resources.files("energylens.data").joinpath("catalogue.json").read_text(encoding="utf-8")
    document: Mapping[str, Any] = json.loads(text)
    return document


@cache
def _known() -> tuple[str, ...]:
    return tuple(sorted(_document()["models"], key=str.lower))


@cache
def _by_key() -> dict[str, str]:
    return {known.lower(): known for known in _document()["models"]}
