"""Requests of unlike shapes as one load: a share of the requests and a shape for each class of them.

Tokens of the engine come from classes by their requests, running sequences by their output: a class runs as long as it
generates. Every mean below says which of the two it is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RequestClass:
    """Requests of one shape."""

    share: float
    """Of all requests, 0 to 1."""
    input_tokens: float
    """Mean of a prompt."""
    output_tokens: float
    """Mean of an answer."""
    prefix_hit_fraction: float = 0.0
    """Share of each prompt, from its beginning, that the prefix cache has: the same text for all of the class."""
    prompt_variation: float | None = None
    """Squared coefficient of variation of the computed prompt lengths; None for that of the coefficients."""
    output_variation: float = 0.0
    """Squared coefficient of variation of the output lengths."""

    @property
    def computed_prompt(self) -> float:
        """Mean prompt tokens that a prefill computes: 1 at least, since logits are never cached."""
        return max(self.input_tokens * (1.0 - self.prefix_hit_fraction), 1.0)

    @property
    def shared_prefix(self) -> float:
        """Tokens at the beginning of a prompt that are in the cache already."""
        return self.input_tokens * self.prefix_hit_fraction

    @property
    def age(self) -> float:
        """Mean tokens that a running sequence has generated: long answers run longer (length-biased sampling)."""
        return self.output_tokens * (1.0 + self.output_variation) / 2.0


def over_requests(classes: Sequence[RequestClass], name: str) -> float:
    """Return the mean of an attribute over requests."""
    return sum(part.share * float(getattr(part, name)) for part in classes)


def running_shares(classes: Sequence[RequestClass]) -> tuple[float, ...]:
    """Return the share of each class in the sequences that run."""
    whole = over_requests(classes, "output_tokens")
    return tuple(part.share * part.output_tokens / whole for part in classes)


def prompt_shares(classes: Sequence[RequestClass]) -> tuple[float, ...]:
    """Return the share of each class in the prompt tokens that are computed."""
    whole = over_requests(classes, "computed_prompt")
    return tuple(part.share * part.computed_prompt / whole for part in classes)


def output_variation(classes: Sequence[RequestClass]) -> float:
    """Return the squared coefficient of variation of all answers, within classes and between them."""
    square = sum(part.share * part.output_tokens**2 * (1.0 + part.output_variation) for part in classes)
    return max(square / over_requests(classes, "output_tokens") ** 2 - 1.0, 0.0)


def prompt_variation(classes: Sequence[RequestClass], within: float) -> float:
    """Return the squared coefficient of variation of all computed prompts, within classes and between them.

    Args:
        classes: Of one load.
        within: Of classes that say none.
    """
    square = sum(part.share * part.computed_prompt**2 * (1.0 + variation_of(part, within)) for part in classes)
    return max(square / over_requests(classes, "computed_prompt") ** 2 - 1.0, 0.0)


def variation_of(part: RequestClass, within: float) -> float:
    """Return the squared coefficient of variation of a class's prompts; ``within`` where it says none."""
    return within if part.prompt_variation is None else part.prompt_variation
