"""Base of all custom resources: camelCase names in YAML, unknown fields rejected, rules over fields, conditions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from energylens.records import dataclass

GROUP = "energylens.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"

_UPPER = {"gpu": "GPU", "gpus": "GPUs", "scv": "SCV"}


def camel(name: str) -> str:
    """Return a field's name on the wire: ``max_gpus_per_replica`` is ``maxGPUsPerReplica``."""
    head, *tail = name.split("_")
    return head + "".join(_UPPER.get(word, word.capitalize()) for word in tail)


@dataclass(frozen=True)
class Rule:
    """A constraint over the fields of one object, for the API server (CEL) and for files (Python).

    tests/controlplane/test_crds.py applies one table of valid and invalid objects to both.
    """

    summary: str
    """The constraint in one sentence: documentation, and the message when ``message_cel`` cannot be evaluated."""
    cel: str
    """A CEL expression over ``self``; true means valid."""
    message_cel: str
    """A CEL expression for the message, which names the field, the value and the allowed values."""
    check: Callable[[Any], str | None]
    """Takes the model; returns the message, or None when the model is valid."""
    only_on_create: bool = False
    """Checked only when an object is created. For rules over the whole object: API servers skip a failing rule only if
    the value that the rule covers did not change. The whole object always changes, so that a rule that a release made
    stricter would block changes of metadata of existing objects."""

    def to_schema(self) -> dict[str, Any]:
        """Return the entry of ``x-kubernetes-validations``."""
        entry: dict[str, Any] = {"rule": self.cel, "message": self.summary, "messageExpression": self.message_cel}
        if self.only_on_create:
            entry |= {"rule": f"oldSelf.hasValue() || ({self.cel})", "optionalOldSelf": True}
        return entry


class ApiModel(BaseModel):
    """Base of every object and sub-object of the API."""

    # A validator is built when it is first needed: those of a resource also validate its parts, which then need none.
    model_config = ConfigDict(
        alias_generator=camel, populate_by_name=True, extra="forbid", frozen=True, defer_build=True
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
    """Constraints over several fields."""
    atomic: ClassVar[bool] = False
    """Whether one field manager owns the object as a whole under server-side apply."""

    @model_validator(mode="after")
    def _hold_rules(self) -> Self:
        for rule in self.rules:
            message = rule.check(self)
            if message is not None:
                raise ValueError(message)
        return self


T = TypeVar("T")


def _distinct(items: Sequence[T]) -> Sequence[T]:
    for index, item in enumerate(items):
        if item in items[:index]:
            raise ValueError(f"{item!r} is listed twice; each entry may be listed once")
    return items


DISTINCT = AfterValidator(_distinct)
"""For lists that are sets: rejects a repeated entry."""


def distinct_by(field: str) -> AfterValidator:
    """Return a validator for lists of objects that ``field`` identifies, which rejects duplicate values."""

    def check(items: Sequence[T]) -> Sequence[T]:
        _distinct([getattr(item, field) for item in items])
        return items

    return AfterValidator(check)


SET_LIST: dict[str, Any] = {"x-kubernetes-list-type": "set"}
"""Schema of a list without repeated values."""
ATOMIC_LIST: dict[str, Any] = {"x-kubernetes-list-type": "atomic"}
"""Schema of a list that one field manager owns as a whole; the order matters."""


def map_list(*keys: str) -> dict[str, Any]:
    """Return the schema of a list of objects identified by ``keys``, so that field managers can own single entries."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


NAME_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
ObjectName = Annotated[str, Field(min_length=1, max_length=253, pattern=NAME_PATTERN)]
"""The name of another Kubernetes object (RFC 1123 subdomain)."""
DataKey = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[-._a-zA-Z0-9]+$")]
"""A key of a ConfigMap or Secret."""
AbsolutePath = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^/")]
"""A path from the root of a file system."""
Labels = Annotated[
    dict[
        Annotated[str, Field(max_length=317)],
        Annotated[str, Field(max_length=63, pattern=r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$")],
    ],
    Field(max_length=64),
]
"""Labels by key."""


class Condition(ApiModel):
    """One observed aspect of an object, as the Kubernetes API conventions define it."""

    type: str = Field(description="Name of the condition, CamelCase.")
    status: Literal["True", "False", "Unknown"] = Field(
        description="Whether the condition holds; Unknown: not known yet."
    )
    reason: str = Field(description="Reason as one CamelCase word; programs may rely on this word.")
    message: str = Field(
        default="", description="Reason in words: the field, the value, and the nearest value that works."
    )
    observed_generation: int | None = Field(
        default=None, description="metadata.generation that the condition describes."
    )
    last_transition_time: str = Field(default="", description="Time of the last change of status; RFC 3339, UTC.")


class ObjectMeta(ApiModel):
    """The part of object metadata that deciding needs."""

    model_config = ApiModel.model_config | {"extra": "ignore"}

    name: str = Field(min_length=1, max_length=253, description="Name of the object.")
    namespace: str = Field(default="default", description="Namespace of the object.")
    uid: str = Field(default="", description="Identity of the object over its lifetime.")
    generation: int = Field(default=1, description="Counts the changes of spec.")
    labels: dict[str, str] = Field(default_factory=dict, description="Labels of the object.")
    annotations: dict[str, str] = Field(default_factory=dict, description="Annotations of the object.")
