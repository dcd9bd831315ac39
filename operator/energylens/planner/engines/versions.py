"""Which version of an engine a deployment runs, according to its image."""

from __future__ import annotations

import re

from energylens.api.llmdeployment import Engine

Version = tuple[int, ...]

PROVED: dict[str, Version] = {"VLLM": (0, 33, 0), "SGLang": (0, 5, 23)}
"""Engine type to the version against which the command lines and rules here were checked."""
NAMES = {"VLLM": "vLLM", "SGLang": "SGLang"}
_TAG = re.compile(r":v?(\d+)\.(\d+)\.(\d+)")


def tag_version(image: str) -> str | None:
    """Return the version that the tag of an image names, such as ``0.24.0``; None if the tag names none."""
    found = _TAG.search(image)
    return ".".join(found.groups()) if found else None


def tagged_version(engine: Engine) -> str | None:
    """Return the version that the tag of ``spec.engine.image`` names; None without a tag or without a version in it."""
    return tag_version(engine.image or "")


def other_engine(engine: Engine) -> str | None:
    """Return the engine type in the name of ``spec.engine.image`` if it differs from ``spec.engine.type``, else None.

    Only the last part of the repository counts, because registries and teams have names too.
    """
    repository = (engine.image or "").rpartition("/")[2].partition("@")[0].partition(":")[0].lower()
    named = [kind for kind, name in NAMES.items() if name.lower() in repository]
    return named[0] if len(named) == 1 and named[0] != engine.type else None


def version_of(engine: Engine) -> Version:
    """Return the version of a deployment's engine: from its image, or the checked version if the tag names none."""
    tagged = tagged_version(engine)
    return PROVED[engine.type] if tagged is None else tuple(map(int, tagged.split(".")))


def display(engine: str, version: Version) -> str:
    """Return an engine and its version for messages, such as ``vLLM 0.33.0``."""
    return f"{NAMES[engine]} {'.'.join(map(str, version))}"
