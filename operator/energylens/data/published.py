"""Published parameter counts, for comparison with our own.

``published.json`` keeps each count with its source: the model's page on the Hub, its card, or a paper.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources

from energylens.records import dataclass

_FORMAT = re.compile(
    r"(-(bf16|fp8|fp8-static-pertensor|fp8-dynamic|nvfp4|mxfp4|awq|int4|int8|gptq|gptq-int4|gptq-int8|w4a16|w8a8))+$"
)


@dataclass(frozen=True)
class PublishedCount:
    """The published parameters of a model."""

    model: str
    """Hugging Face id."""
    parameters: int
    """Parameters of the whole checkpoint."""
    source: str
    text_parameters: int | None = None
    """Parameters of the text part of a multimodal model, if they are published."""
    unserved_parameters: int = 0
    """Parameters of the parts that engines do not load by default."""
    unserved_part: str = ""

    def comparable(self, *, text_only: bool) -> int:
        """Return the published parameters of the parts that an engine loads.

        Args:
            text_only: The counted file describes no tower.
        """
        if text_only and self.text_parameters is not None:
            return self.text_parameters
        return self.parameters - self.unserved_parameters


def published_count(names: Iterable[str]) -> PublishedCount | None:
    """Return the published count of the first known name, or None.

    Args:
        names: Hugging Face ids, or their last parts alone where only one known id ends so; letter case does not matter.
    """
    counts = _by_id()
    for name in names:
        key = name.strip().lower()
        # A release in another number format has the same parameters.
        plain = _FORMAT.sub("", key)
        for candidate in (key, plain, f"{plain}-bf16"):
            if candidate in counts:
                return counts[candidate]
    return None


@cache
def _by_id() -> Mapping[str, PublishedCount]:
    text = resources.files("energylens.data").joinpath("published.json").read_text(encoding="utf-8")
    whole: dict[str, PublishedCount] = {}
    tails: dict[str, list[PublishedCount]] = {}
    for entry in json.loads(text)["counts"]:
        left_out = entry.get("not_served", {})
        for model in entry["ids"]:
            count = PublishedCount(
                model,
                entry["parameters"],
                entry["source"],
                entry.get("text_parameters"),
                left_out.get("parameters", 0),
                left_out.get("part", ""),
            )
            whole[model.lower()] = count
            tails.setdefault(model.rpartition("/")[2].lower(), []).append(count)
    return {tail: found[0] for tail, found in tails.items() if len(found) == 1} | whole
