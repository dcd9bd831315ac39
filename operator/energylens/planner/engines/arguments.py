"""``spec.engine.extraArgs``, parsed as the engine's own parser would."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import field
from typing import Any

from energylens.planner.engines.options import Option, choices_of, find, is_gone, is_read, nearest
from energylens.planner.engines.versions import Version, display
from energylens.records import dataclass

_NUMBER = re.compile(r"^-\d+$|^-\d*\.\d+$")
"""Texts that argparse reads as a value, not as an option, although they begin with a dash."""
_SWITCH = Option("", (), "")
_LEVEL_OPTION = "--optimization-level"
_LEVEL = re.compile(r"^-O=?(\d+)$")
_LEVELS = ("0", "1", "2", "3")


@dataclass(frozen=True)
class Given:
    """One option among the arguments."""

    written: str
    """The argument as the user wrote it."""
    spelling: str
    """The full option, such as ``--no-enable-prefix-caching``."""
    name: str
    """First spelling of the same option, such as ``--enable-prefix-caching``; ``spelling`` if the option is unknown."""
    value: str | None = None
    """The value; None for a switch."""


@dataclass(frozen=True)
class Arguments:
    """Options in the order of the arguments, and the arguments that the engine would reject."""

    given: tuple[Given, ...] = ()
    problems: tuple[str, ...] = ()
    """Why the engine would exit at start-up; each entry names the argument."""
    unresolved: tuple[str, ...] = ()
    """Arguments that look like an option but match no known option, or several."""
    strays: tuple[str, ...] = ()
    """Arguments that belong to no option, such as the model's name of ``vllm serve``."""
    parts: dict[str, Any] = field(default_factory=dict)
    """JSON values by option. Dotted arguments (``--hf-overrides.rope_scaling.factor 4``) are merged and replace the
    option's own JSON."""

    def value(self, name: str) -> str | None:
        """Return the last value of an option, given its first spelling; None if the option is absent."""
        return next((g.value for g in reversed(self.given) if g.name == name), None)

    def switch(self, name: str) -> bool | None:
        """Return whether a switch was turned on or off; None if the switch is absent."""
        last = next((g for g in reversed(self.given) if g.name == name), None)
        if last is None:
            return None
        opposite = name.replace("--enable-", "--disable-") if "--enable-" in name else name.replace("--dis", "--en")
        return not last.spelling.startswith("--no-") and (last.spelling != opposite or opposite == name)

    def written(self, name: str) -> str:
        """Return a given option as the user wrote it."""
        return next(g.written for g in reversed(self.given) if g.name == name)


def read_arguments(
    extra_args: Sequence[str], engine: str, version: Version, *, keep_unknown: bool = False
) -> Arguments:
    """Return arguments as an engine's parser would read them.

    Args:
        extra_args: ``spec.engine.extraArgs``.
        engine: ``VLLM`` or ``SGLang``.
        version: The engine's version, which decides which options exist.
        keep_unknown: Whether options that the engine does not have are among the given ones, too: a front end of the
            engine has options of its own.
    """
    given: list[Given] = []
    problems: list[str] = []
    unresolved: list[str] = []
    strays: list[str] = []
    whole: dict[str, Any] = {}
    dotted: dict[str, Any] = {}
    rest = list(extra_args)
    while rest:
        if engine == "VLLM":
            _spell_out(rest)
        argument = rest.pop(0)
        if not _is_option(argument):
            problems.append(_stray(argument, given))
            strays.append(argument)
            unresolved += [argument] if argument.startswith("-") else []
            continue
        spelling, equals, attached = argument.partition("=")
        # Only vLLM's parser collects dotted arguments, both after long and after short options.
        base, dot, path = spelling.partition(".") if engine == "VLLM" else (spelling, "", "")
        option, full, problem = _resolve(base, engine, version)
        unresolved += [argument] if option is _SWITCH else []
        if problem:
            problems.append(f"{argument!r} {problem}")
            if keep_unknown:
                own = attached if equals else _values(_SWITCH, rest, dotted=False)
                given.append(Given(argument, base, base, own))
            continue
        value: str | None = attached if equals else None
        if option.values == "" and equals and option is not _SWITCH:
            problems.append(f"{argument!r} takes no value; write {full}")
        elif not equals and (option.values or dot or option is _SWITCH):
            value = _values(option, rest, dotted=bool(dot))
            if value is None and option.values in ("=", "+"):
                problems.append(f"{argument!r} needs a value")
        if is_read(engine, version) and (why := _refused(engine, option, value, dotted=bool(dot))):
            problems.append(f"{argument!r}: {full} is {why}")
        given.append(Given(argument, full, option.name or full, value))
        if value is not None and (dot or value[:1] == "{"):
            _merge(dotted if dot else whole, option.name or full, path, value, problems, argument)
    # vLLM appends the collected dotted arguments, and the last of two equal options counts.
    return Arguments(
        given=tuple(given),
        problems=tuple(problems),
        unresolved=tuple(unresolved),
        strays=tuple(strays),
        parts=whole | dotted,
    )


def _refused(engine: str, option: Option, value: str | None, *, dotted: bool) -> str:
    """Return the value that the parser of an engine refuses and what it allows; "" if it takes the value."""
    allowed = choices_of(engine, option)
    wrong = _not_among(allowed, option, value)
    if wrong is not None:
        return f"{wrong!r}; allowed: {', '.join(allowed)}"
    if value is not None and not dotted and not option.takes(value):
        return f"{value!r}; allowed: {'a whole number' if option.number == 'int' else 'a number'}"
    return ""


def _spell_out(rest: list[str]) -> None:
    """Spell out ``-O3``, ``-O=3`` and ``-O 3`` as vLLM does before it parses (vllm/utils/argparse_utils.py)."""
    level = _LEVEL.match(rest[0])
    if level is not None:
        rest[:1] = [f"{_LEVEL_OPTION}={level[1]}"]
    elif rest[0] == "-O" and rest[1:] and rest[1] in _LEVELS:
        rest[:2] = [f"{_LEVEL_OPTION}={rest[1]}"]


def _is_option(argument: str) -> bool:
    return len(argument) > 1 and argument.startswith("-") and not _NUMBER.match(argument) and " " not in _head(argument)


def _head(argument: str) -> str:
    return argument.partition("=")[0]


def _stray(argument: str, given: Sequence[Given]) -> str:
    name, blank, value = argument.strip().partition(" ")
    if blank and name.startswith("-"):
        return f"{argument!r} is a single argument that contains a blank; write {name + '=' + value.strip()!r}"
    after = f" after {given[-1].written!r}" if given else ""
    return f"{argument!r}{after} belongs to no option"


def _resolve(base: str, engine: str, version: Version) -> tuple[Option, str, str]:
    """Return the option, its full spelling, and an error if this version has no such option."""
    dashed = base.replace("_", "-")
    if is_gone(engine, dashed, version):
        return _SWITCH, base, f"no longer exists in {display(engine, version)}; remove it"
    found = find(engine, base)
    if isinstance(found, tuple):
        return found[0], found[1], ""
    if not is_read(engine, version):
        # The options of this version are unknown: the engine decides.
        return _SWITCH, dashed if base.startswith("--") else base, ""
    if found is not None:
        return _SWITCH, base, f"may be {', '.join(found[:4])}: write the option in full"
    close = nearest(engine, base)
    hint = f"; did you mean {close}?" if close else "; remove it"
    return _SWITCH, base, f"is not an option of {display(engine, version)}{hint}"


def _values(option: Option, rest: list[str], *, dotted: bool) -> str | None:
    most = len(rest) if option.values in ("+", "*") and not dotted else 1
    taken: list[str] = []
    while rest and len(taken) < most and not _is_option(rest[0]):
        taken.append(rest.pop(0))
    return " ".join(taken) if taken else None


def _not_among(allowed: Sequence[str], option: Option, value: str | None) -> str | None:
    if not allowed or value is None:
        return None
    given = value.split(" ") if option.values in ("+", "*") else [value]
    return next((text for text in given if text not in allowed), None)


def _merge(parts: dict[str, Any], name: str, path: str, value: str, problems: list[str], argument: str) -> None:
    try:
        parsed: Any = json.loads(value)
    except ValueError:
        if not path:
            problems.append(f"{argument!r}: {value!r} is not valid JSON")
            return
        parsed = value
    for key in reversed(path.rstrip("+").split(".") if path else []):
        parsed = {key: parsed}
    parts[name] = _merged(parts.get(name, {}), parsed) if path else parsed


def _merged(before: Any, after: dict[str, Any]) -> dict[str, Any]:
    result = dict(before) if isinstance(before, dict) else {}
    for key, value in after.items():
        result[key] = _merged(result.get(key), value) if isinstance(value, dict) else value
    return result
