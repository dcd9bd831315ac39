"""Changes of one field of a spec, drawn from the schema of a custom resource: valid, at a bound, and invalid."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Object = dict[str, Any]
Schema = Mapping[str, Any]
FieldPath = tuple[str, ...]

CRDS = Path(__file__).resolve().parents[2] / "crds"
SHORT = 12
"""Characters and entries of values that are not about length."""
QUANTITIES = ("1", "2", "500m", "0.25", "1e1", "1k")
TEMPLATES: Sequence[Any] = (
    {"metadata": {"labels": {"team": "a"}}},
    {"metadata": {"annotations": {"team.example/note": "b"}}},
    {"spec": {"priorityClassName": "high"}},
    {"spec": {"containers": [{"name": "engine", "env": [{"name": "A", "value": "1"}]}]}},
    {"spec": {"volumes": [{"name": "scratch", "emptyDir": {}}]}},
)
"""Of ``spec.podTemplate``, of which the schema says next to nothing."""
KNOWN: Mapping[FieldPath, Sequence[Any]] = {
    ("model", "name"): ("meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-8B", "Qwen/Qwen3-0.6B", "acme/unknown"),
    ("hardware", "gpuProducts"): (["NVIDIA-L40S"], ["L40S"], ["NVIDIA-L40S", "NVIDIA-H200"], ["no-such-gpu"]),
    ("podTemplate",): TEMPLATES,
    ("energy", "budget", "timeZone"): ("UTC", "Europe/Berlin", "Asia/Kolkata"),
    ("workload", "job", "start", "completeBy"): ("2026-11-28T07:00:00Z", "2030-01-01T00:00:00+05:30"),
    ("workload", "job", "start", "notBefore"): ("2026-11-27T07:00:00Z", "2030-01-01T00:00:00+05:30"),
}
"""Fields of which random text says little: values that mean something, one that does not among them."""
COMPANIONS: Mapping[FieldPath, Mapping[str, Any]] = {
    ("model", "configRef"): {"name": "config"},
    ("model", "tokenSecretRef"): {"name": "token"},
    ("model", "cache", "path"): {"hostPath": "/var/models"},
    ("workload", "speculative"): {"method": "NGram", "draftTokens": 3, "acceptancePercent": 50},
    ("energy", "budget"): {"powerWatts": 100_000},
    ("energy", "powerCap", "wattsPerGPU"): {"mode": "Fixed"},
    ("energy", "powerCap", "mode"): {"wattsPerGPU": 250},
}
"""What rules ask for beside a field: values that are set where there are none yet."""

WITHIN: Mapping[FieldPath, Mapping[str, Any]] = {
    ("workload", "job"): {"requests": 1000, "completeWithinSeconds": 3600},
    ("workload", "job", "start"): {"completeBy": "2026-11-28T07:00:00Z"},
}
"""What objects require, for changes of a field inside: values that are set where there are none yet."""
INSTEAD: Mapping[FieldPath, str] = {
    ("workload", "concurrency"): "requestsPerSecond",
    ("workload", "requestsPerSecond"): "concurrency",
    ("model", "cache", "hostPath"): "persistentVolumeClaim",
    ("model", "cache", "persistentVolumeClaim"): "hostPath",
}
"""Fields of which one may be set: the other one goes."""


class Kind(Enum):
    """What the schema says of a value."""

    VALID = "valid"
    BOUNDARY = "boundary"
    INVALID = "invalid"
    ABSENT = "absent"


@dataclass(frozen=True)
class Change:
    """One field and its new value."""

    path: FieldPath
    kind: Kind
    value: Any = None

    @property
    def field(self) -> str:
        """The path as messages have it, below ``spec``."""
        return ".".join(self.path)

    def applied_to(self, spec: Mapping[str, Any]) -> Object:
        """Return a spec with the change."""
        changed: Object = copy.deepcopy(dict(spec))
        parent, last = changed, self.path[-1]
        for depth, name in enumerate(self.path[:-1], start=1):
            if self.kind is Kind.ABSENT and name not in parent:
                return changed
            parent = parent.setdefault(name, {})
            for field, value in WITHIN.get(self.path[:depth], {}).items():
                parent.setdefault(field, value)
        if self.kind is Kind.ABSENT:
            parent.pop(last, None)
            return changed
        parent[last] = copy.deepcopy(self.value)
        parent.pop(INSTEAD.get(self.path, ""), None)
        for where in (self.path, self.path[:-1]):
            for name, value in COMPANIONS.get(where, {}).items():
                if self.value not in ("Never", "Plan"):
                    parent.setdefault(name, value)
        return changed

    def __str__(self) -> str:
        return f"{self.kind.value} spec.{self.field}={str(self.value)[:60]!r}"


@cache
def spec_schema(name: str) -> Schema:
    """Return the schema of the spec of a definition in ``crds``, such as ``llmdeployments``."""
    # The parser in Python takes half a second.
    manifest = yaml.load((CRDS / f"{name}.yaml").read_text(), yaml.CSafeLoader)
    (version,) = manifest["spec"]["versions"]
    found: Schema = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return found


def fields(schema: Schema, path: FieldPath = ()) -> Iterator[tuple[FieldPath, Schema, bool]]:
    """Give every field that is not an object of fields: its path, its schema, and whether it is required."""
    for name, part in schema.get("properties", {}).items():
        where = (*path, name)
        if part.get("properties"):
            yield from fields(part, where)
        else:
            yield where, part, name in schema.get("required", ())


def changes(schema: Schema, *kinds: Kind) -> st.SearchStrategy[Change]:
    """Draw a change of one of the kinds, each field as often as any other."""
    found = list(fields(schema))

    def of_field(entry: tuple[FieldPath, Schema, bool]) -> st.SearchStrategy[Change]:
        path, part, required = entry
        wanted = [kind for kind in kinds if not (kind is Kind.ABSENT and required)]
        drawn = [values.map(_of(path, kind)) for kind in wanted if (values := values_of(part, kind, path)) is not None]
        return st.one_of(drawn) if drawn else st.nothing()

    usable = [strategy for strategy in map(of_field, found) if not strategy.is_empty]
    return st.integers(0, len(usable) - 1).flatmap(lambda number: usable[number])


def _of(path: FieldPath, kind: Kind) -> Callable[[Any], Change]:
    return lambda value: Change(path, kind, value)


def values_of(schema: Schema, kind: Kind, path: FieldPath = ()) -> st.SearchStrategy[Any] | None:
    """Return values of a kind for a field; None where there are none: every boolean is valid, say."""
    if kind is Kind.ABSENT:
        return st.none()
    if path in KNOWN and kind is Kind.VALID:
        return st.sampled_from(KNOWN[path])
    if schema.get("x-kubernetes-int-or-string"):
        return _quantities(kind)
    if "enum" in schema:
        return st.sampled_from(schema["enum"]) if kind is Kind.VALID else _only_invalid(kind, "no-such-value", 7)
    match schema.get("type"):
        case "integer":
            return _integers(schema, kind)
        case "boolean":
            return st.booleans() if kind is Kind.VALID else _only_invalid(kind, "yes", 1)
        case "string":
            return _strings(schema, kind)
        case "array":
            return _arrays(schema, kind)
        case "object":
            return _objects(schema, kind)
    raise AssertionError(f"{'.'.join(path)}: no values for {schema}")


def _only_invalid(kind: Kind, *values: Any) -> st.SearchStrategy[Any] | None:
    return st.sampled_from(values) if kind is Kind.INVALID else None


def _quantities(kind: Kind) -> st.SearchStrategy[Any] | None:
    match kind:
        case Kind.VALID:
            return st.sampled_from((*QUANTITIES, 3))
        case Kind.BOUNDARY:
            return st.sampled_from(("1n", "9E", "0.000001", "1" * 32))
    return st.sampled_from(("fast", "1 W", "", "1" * 33, "1e", True, 0.5))


def _integers(schema: Schema, kind: Kind) -> st.SearchStrategy[Any] | None:
    least, most = schema.get("minimum"), schema.get("maximum")
    bounds = [bound for bound in (least, most) if bound is not None]
    match kind:
        case Kind.VALID:
            start = 0 if least is None else least
            # Small ones mean something more often than numbers from the whole range.
            return st.integers(start, min(start + 64, start + 64 if most is None else most))
        case Kind.BOUNDARY:
            return st.sampled_from(bounds) if bounds else None
    beyond = [] if least is None else [least - 1]
    beyond += [] if most is None else [most + 1]
    return st.sampled_from([*beyond, "many", 1.5, 2**64])


def _strings(schema: Schema, kind: Kind) -> st.SearchStrategy[Any] | None:
    pattern, most = schema.get("pattern", ""), schema.get("maxLength")
    short = _matching(pattern, SHORT if most is None else min(SHORT, most))
    if schema.get("minLength"):
        short = short.filter(bool)
    match kind:
        case Kind.VALID:
            return short
        case Kind.BOUNDARY:
            longest = _of_length(pattern, most) if most is not None and most <= 1024 else None
            return None if longest is None else st.just(longest)
    wrong: list[Any] = [7, {"a": "b"}]
    if pattern:
        wrong += [text for text in (" \t", "ä ö", "=") if not re.search(pattern, text)]
    if most is not None:
        longer = _of_length(pattern, most + 1)
        wrong += [] if longer is None else [longer]
    return st.sampled_from(wrong)


def _matching(pattern: str, most: int) -> st.SearchStrategy[str]:
    printable = st.characters(min_codepoint=33, max_codepoint=126)
    if not pattern:
        return st.text(printable, min_size=1, max_size=most)
    anchored = pattern if pattern.endswith("$") else f"{pattern}[a-z]*$"
    exact = re.compile(anchored.removesuffix("$") + r"\Z")
    return st.from_regex(exact, alphabet=printable).filter(lambda text: len(text) <= most)


def _of_length(pattern: str, length: int) -> str | None:
    """Return a text of a length that a pattern takes; None where none of the usual ones does."""
    for text in ("a" * length, "/" + "a" * (length - 1), "1" * length):
        if not pattern or re.search(pattern, text):
            return text
    return None


def _arrays(schema: Schema, kind: Kind) -> st.SearchStrategy[Any] | None:
    items, most = schema["items"], schema.get("maxItems")
    values = _entry(items)
    is_set = schema.get("x-kubernetes-list-type") in ("set", "map")
    key = (schema.get("x-kubernetes-list-map-keys") or [None])[0]

    def distinct(entry: Any) -> str:
        return str(entry[key] if key is not None else entry)

    few = st.lists(values, max_size=min(3, most or 3), unique_by=distinct if is_set or key else str)
    match kind:
        case Kind.VALID:
            return few
        case Kind.BOUNDARY:
            return st.just([])
    wrong: list[Any] = ["a", {"a": "b"}]
    if most is not None and items.get("type") == "string" and "enum" not in items:
        wrong.append([f"v{number}" for number in range(most + 1)])
    return st.sampled_from(wrong) | st.just([[]])


def _entry(items: Schema) -> st.SearchStrategy[Any]:
    if "properties" not in items:
        found = values_of(items, Kind.VALID)
        assert found is not None
        return found
    needed: dict[str, st.SearchStrategy[Any]] = {}
    optional: dict[str, st.SearchStrategy[Any]] = {}
    for name, part in items["properties"].items():
        values = values_of(part, Kind.VALID)
        assert values is not None
        (needed if name in items.get("required", ()) else optional)[name] = values
    return st.fixed_dictionaries(needed, optional=optional)


def _objects(schema: Schema, kind: Kind) -> st.SearchStrategy[Any] | None:
    values = schema.get("additionalProperties")
    if kind is Kind.BOUNDARY:
        return st.just({})
    if kind is Kind.INVALID:
        return st.sampled_from(("a", ["a"], 3))
    if isinstance(values, Mapping):
        found = values_of(values, Kind.VALID)
        assert found is not None
        return st.dictionaries(st.from_regex(r"[a-z]{1,8}\Z"), found, max_size=2)
    return st.just({})
