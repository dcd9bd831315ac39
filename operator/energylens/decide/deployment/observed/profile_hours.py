"""The hours of a profile from the ConfigMap that ``spec.workload.profile.hoursConfigMapRef`` names. Pure."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from energylens.api.llmdeployment import LLMDeployment, ProfileHours
from energylens.api.llmdeployment.profile import MOST_ENTRIES
from energylens.decide.deployment.observed.named_maps import NamedMap
from energylens.decide.reasons import Reason
from energylens.documents import DocumentError, yaml_documents
from energylens.records import dataclass

_LIST: TypeAdapter[tuple[ProfileHours, ...]] = TypeAdapter(tuple[ProfileHours, ...])


@dataclass(frozen=True)
class NoHours:
    """Why a profile has no hours."""

    reason: Reason
    message: str


def with_hours(deployment: LLMDeployment, named: NamedMap) -> tuple[LLMDeployment, NoHours | None]:
    """Return a deployment with the hours of its ConfigMap in its spec, or unchanged with the reason why there are none.

    The reference stays in the spec, so that both fields are set.

    Args:
        deployment: A deployment; returned unchanged without hoursConfigMapRef.
        named: The ConfigMap.
    """
    spec = deployment.spec
    profile = spec.workload.profile
    if profile is None or profile.hours_config_map_ref is None:
        return deployment, None
    ref = profile.hours_config_map_ref
    where = f"spec.workload.profile.hoursConfigMapRef: ConfigMap {ref.name}"
    text, missing = named.text(where, ref.key)
    if missing:
        return deployment, NoHours(Reason.PROFILE_MISSING, missing)
    try:
        hours = parse_hours(text)
    except ValueError as error:
        return deployment, NoHours(Reason.PROFILE_INVALID, f"{where}, key {ref.key!r}: {error}")
    stated = profile.model_copy(update={"hours": hours})
    workload = spec.workload.model_copy(update={"profile": stated})
    return deployment.model_copy(update={"spec": spec.model_copy(update={"workload": workload})}), None


def parse_hours(text: str) -> tuple[ProfileHours, ...]:
    """Return the hours of a YAML or JSON list.

    Raises:
        ValueError: The text is not a list of hours; the message names the entry, the field and the value.
    """
    try:
        documents = yaml_documents(text)
    except DocumentError as error:
        raise ValueError(str(error)) from error
    if len(documents) != 1 or not isinstance(documents[0], list):
        raise ValueError("must be one list of entries with days, fromHour, toHour and requestsPerSecond")
    entries = documents[0]
    if not 1 <= len(entries) <= MOST_ENTRIES:
        raise ValueError(f"has {len(entries)} entries; 1 to {MOST_ENTRIES} are allowed")
    try:
        return _LIST.validate_json(_as_json(entries), strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise ValueError(_said(error)) from error


def _as_json(entries: list[Any]) -> str:
    """Return the entries as JSON, whose keys are text; YAML also reads an unquoted number in a key as a number."""
    plain = [
        {key if isinstance(key, str) else str(key): value for key, value in entry.items()}
        if isinstance(entry, dict)
        else entry
        for entry in entries
    ]
    return json.dumps(plain, default=str, skipkeys=True)


def _said(error: ValidationError) -> str:
    """Return the first problem: its entry, counted from 1, the field, the value, and what is allowed."""
    first: Any = error.errors(include_url=False)[0]
    entry, *fields = first["loc"]
    field = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fields).lstrip(".")
    message, given = str(first["msg"]).removeprefix("Value error, "), first["input"]
    is_said = isinstance(given, dict) or f"'{given}'" in message
    value = "" if is_said else f": {json.dumps(given)}"
    return f"entry {entry + 1}{f', {field}' if field else ''}{value}: {message}"
