"""Requests of different shapes as one load: classes of requests, each with a share and a shape.

Tokens of the engine come from classes in proportion to their requests; running sequences, in proportion to their
output, because a class runs as long as it generates. Every mean below states over which of the two it is taken.
"""

from __future__ import annotations

from collections.abc import Sequence

from energylens.records import dataclass


@dataclass(frozen=True)
class RequestClass:
    """Requests of one shape."""

    share: float
    """Share of all requests, 0 to 1."""
    input_tokens: float
    """Mean prompt length, tokens."""
    output_tokens: float
    """Mean output length, tokens."""
    prefix_hit_fraction: float = 0.0
    """Share of each prompt, from its beginning, that is in the prefix cache: a text common to all requests of the
    class."""
    prompt_variation: float | None = None
    """Squared coefficient of variation of the computed prompt lengths; None for the coefficients' value."""
    output_variation: float = 0.0
    """Squared coefficient of variation of the output lengths."""

    @property
    def computed_prompt(self) -> float:
        """Mean prompt tokens that a prefill computes, at least 1, since logits are never cached."""
        return max(self.input_tokens * (1.0 - self.prefix_hit_fraction), 1.0)

    @property
    def shared_prefix(self) -> float:
        """Tokens at the beginning of a prompt that are already cached."""
        return self.input_tokens * self.prefix_hit_fraction

    @property
    def age(self) -> float:
        """Mean tokens that a running sequence has generated: long outputs run longer (length-biased sampling)."""
        return self.output_tokens * (1.0 + self.output_variation) / 2.0


def over_requests(classes: Sequence[RequestClass], name: str) -> float:
    """Return the mean of an attribute over requests."""
    return sum(part.share * float(getattr(part, name)) for part in classes)


def running_shares(classes: Sequence[RequestClass]) -> tuple[float, ...]:
    """Return the share of each class among the running sequences."""
    whole = over_requests(classes, "output_tokens")
    return tuple(part.share * part.output_tokens / whole for part in classes)


def prompt_shares(classes: Sequence[RequestClass]) -> tuple[float, ...]:
    """Return the share of each class among the computed prompt tokens."""
    whole = over_requests(classes, "computed_prompt")
    return tuple(part.share * part.computed_prompt / whole for part in classes)


def output_variation(classes: Sequence[RequestClass]) -> float:
    """Return the squared coefficient of variation of all outputs, within classes and between them."""
    square = sum(part.share * part.output_tokens**2 * (1.0 + part.output_variation) for part in classes)
    return max(square / over_requests(classes, "output_tokens") ** 2 - 1.0, 0.0)


def prompt_variation(classes: Sequence[RequestClass], within: float) -> float:
    """Return the squared coefficient of variation of all computed prompts, within classes and between them.

    Args:
        classes: Classes of one load.
        within: Variation for classes that state none.
    """
    square = sum(part.share * part.computed_prompt**2 * (1.0 + variation_of(part, within)) for part in classes)
    return max(square / over_requests(classes, "computed_prompt") ** 2 - 1.0, 0.0)


def shape_covariance(classes: Sequence[RequestClass]) -> float:
    """Return the covariance of computed prompts and outputs over requests, over the product of their means."""
    product = sum(part.share * part.computed_prompt * part.output_tokens for part in classes)
    return product / over_requests(classes, "computed_prompt") / over_requests(classes, "output_tokens") - 1.0


def variation_of(part: RequestClass, within: float) -> float:
    """Return the squared coefficient of variation of a class's prompts, or ``within`` if it states none."""
    return within if part.prompt_variation is None else part.prompt_variation
