"""Request lengths: one shape for all requests, or several classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

from pydantic import Field

from energylens.api.base import ATOMIC_LIST, ApiModel, Rule
from energylens.api.quantity import LengthVariation

MOST_CLASSES = 8
ClassName = Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]


class RequestShape(ApiModel):
    """A class of requests with similar lengths, as a share of all requests."""

    name: ClassName | None = Field(
        default=None, description="Name of the class, such as chat, for the output of commands."
    )
    share_percent: int = Field(
        ge=1, le=100, description="Share of all requests, %; the shares of all classes add up to 100."
    )
    input_tokens: int = Field(ge=1, le=10_000_000, description="Mean tokens of a prompt.")
    output_tokens: int = Field(ge=1, le=1_000_000, description="Mean tokens generated per request.")
    input_tokens_scv: LengthVariation | None = Field(
        default=None,
        description="Squared coefficient of variation (SCV) of the prompt lengths: their variance over the square of "
        "their mean. Default: the value of the predictor's runs.",
    )
    output_tokens_scv: LengthVariation | None = Field(
        default=None,
        description="Squared coefficient of variation of the output lengths: 0 (the default) for equal lengths, 1 for "
        "exponentially distributed lengths.",
    )
    prefix_cache_hit_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Share of prompt tokens found in the engine's prefix cache, %; cached tokens cost no "
        "prefill. They are assumed to be the common beginning of every prompt of the class.",
    )


Classes = Annotated[
    tuple[RequestShape, ...], Field(min_length=1, max_length=MOST_CLASSES, json_schema_extra=ATOMIC_LIST)
]


_APART = ("inputTokens", "outputTokens", "inputTokensSCV", "outputTokensSCV")
_BOTH = "classes and %s (%s) are both set; each class has its own: leave out the latter"
_NEITHER = "%s not set; set inputTokens and outputTokens, or classes"


def _one_shape(workload: Any) -> str | None:
    given = (
        workload.input_tokens,
        workload.output_tokens,
        workload.input_tokens_scv,
        workload.output_tokens_scv,
        workload.prefix_cache_hit_percent or None,
    )
    if workload.classes:
        named = zip((*_APART, "prefixCacheHitPercent"), given, strict=True)
        return next((_BOTH % (name, value) for name, value in named if value is not None), None)
    return next((_NEITHER % name for name, value in zip(_APART[:2], given, strict=False) if value is None), None)


def _both(name: str) -> str:
    return f"'{_BOTH}'.format(['{name}', self.{name}])"


# Messages name the first field only: the API server estimates what a joined list might cost, and refuses that.
_ONE_SHAPE = Rule(
    summary="set either inputTokens and outputTokens, or classes; with classes each class has a shape of its own",
    cel="has(self.classes) ? !has(self.inputTokens) && !has(self.outputTokens) && !has(self.inputTokensSCV) && "
    "!has(self.outputTokensSCV) && (!has(self.prefixCacheHitPercent) || self.prefixCacheHitPercent == 0) : "
    "has(self.inputTokens) && has(self.outputTokens)",
    message_cel="has(self.classes) ? ("
    + "".join(f"has(self.{name}) ? {_both(name)} : " for name in _APART)
    + f"{_both('prefixCacheHitPercent')}) : has(self.inputTokens) ? '{_NEITHER % 'outputTokens'}' : "
    f"'{_NEITHER % 'inputTokens'}'",
    check=_one_shape,
)


def _whole(workload: Any) -> str | None:
    shares = [part.share_percent for part in workload.classes or ()]
    if not shares or sum(shares) == 100:
        return None
    return f"the sharePercent of classes add up to {sum(shares)}; they must add up to 100"


_WHOLE = Rule(
    summary="the sharePercent of all classes add up to 100",
    cel="!has(self.classes) || self.classes.map(c, c.sharePercent).sum() == 100",
    message_cel="'the sharePercent of classes add up to %s; they must add up to 100'.format(["
    "self.classes.map(c, c.sharePercent).sum()])",
    check=_whole,
)


def _named_once(workload: Any) -> str | None:
    names = [part.name for part in workload.classes or () if part.name is not None]
    twice = [name for index, name in enumerate(names) if name in names[:index]]
    return "two classes have the same name; give each a name of its own" if twice else None


_NAMED_ONCE = Rule(
    summary="no two classes have the same name",
    cel="!has(self.classes) || self.classes.all(a, !has(a.name) || "
    "self.classes.exists_one(b, has(b.name) && b.name == a.name))",
    message_cel="'two classes have the same name; give each a name of its own'",
    check=_named_once,
)


class Shapes(ApiModel):
    """What requests look like: the fields of a workload that are about one request."""

    rules: ClassVar[tuple[Rule, ...]] = (_ONE_SHAPE, _WHOLE, _NAMED_ONCE)

    input_tokens: int | None = Field(
        default=None, ge=1, le=10_000_000, description="Mean tokens of a prompt. Set this and outputTokens, or classes."
    )
    output_tokens: int | None = Field(
        default=None,
        ge=1,
        le=1_000_000,
        description="Mean tokens generated per request. Set this and inputTokens, or classes.",
    )
    input_tokens_scv: LengthVariation | None = Field(
        default=None,
        description="Squared coefficient of variation (SCV) of the prompt lengths: their variance over the square of "
        "their mean. Default: the value of the predictor's runs.",
    )
    output_tokens_scv: LengthVariation | None = Field(
        default=None,
        description="Squared coefficient of variation of the output lengths: 0 (the default) for equal lengths, 1 for "
        "exponentially distributed lengths.",
    )
    classes: Classes | None = Field(
        default=None,
        description="Classes of requests with different lengths, instead of inputTokens and outputTokens.",
    )
    prefix_cache_hit_percent: int = Field(
        default=0,
        ge=0,
        le=100,
        description="Share of prompt tokens found in the engine's prefix cache, %; cached tokens cost no "
        "prefill. They are assumed to be the common beginning of every prompt, shared by all requests.",
    )

    @property
    def shapes(self) -> tuple[RequestShape, ...]:
        """The classes of requests: one where all are of one shape."""
        if self.classes:
            return self.classes
        return (
            RequestShape(
                share_percent=100,
                input_tokens=self.input_tokens or 1,
                output_tokens=self.output_tokens or 1,
                input_tokens_scv=self.input_tokens_scv,
                output_tokens_scv=self.output_tokens_scv,
                prefix_cache_hit_percent=self.prefix_cache_hit_percent,
            ),
        )

    @property
    def mean_input_tokens(self) -> float:
        """Mean tokens of a prompt over all requests."""
        return _mean(self.shapes, [part.input_tokens for part in self.shapes])

    @property
    def mean_output_tokens(self) -> float:
        """Mean tokens generated per request over all requests."""
        return _mean(self.shapes, [part.output_tokens for part in self.shapes])

    @property
    def mean_prefix_hit_percent(self) -> float:
        """Share of all prompt tokens found in the prefix cache, %."""
        hits = [part.input_tokens * part.prefix_cache_hit_percent for part in self.shapes]
        return _mean(self.shapes, hits) / self.mean_input_tokens

    @property
    def longest_request(self) -> RequestShape:
        """The class whose mean request is longest, prompt and answer."""
        return max(self.shapes, key=lambda part: part.input_tokens + part.output_tokens)


def _mean(shapes: Sequence[RequestShape], values: Sequence[float]) -> float:
    return sum(part.share_percent * value for part, value in zip(shapes, values, strict=True)) / 100.0
