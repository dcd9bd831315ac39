"""Checks of a kubeconfig, since the client's own errors name neither the file nor a remedy.

As kubectl reads it: https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from energylens.documents import DocumentError, yaml_documents

VARIABLE = "KUBECONFIG"
DEFAULT = Path("~/.kube/config")


class UnusableConfigError(Exception):
    """The kubeconfig gives no usable access to the API server; one line."""


class NoConfigError(UnusableConfigError):
    """No kubeconfig was named, and none is where kubectl looks for one."""


def check_kubeconfig(kubeconfig: Path | None, context: str | None = None) -> None:
    """Check that kubeconfig files have all parts of a connection: a context, its cluster and user, an installed plugin.

    Args:
        kubeconfig: The file; None for the files of $KUBECONFIG, else ~/.kube/config.
        context: A context of it; None for the current one.

    Raises:
        UnusableConfigError: naming the file, what is missing and what is there.
    """
    files = [kubeconfig] if kubeconfig is not None else _default_files()
    where = f"--kubeconfig={kubeconfig}" if kubeconfig is not None else f"the kubeconfig ({_shown(files)})"
    found = [file for file in files if file.exists()]
    if not found:
        if kubeconfig is not None:
            raise UnusableConfigError(f"{where}: there is no such file")
        raise NoConfigError(f"{where}: there is no such file; name one by --kubeconfig or in $KUBECONFIG")
    parts = [_document(file, where if len(files) == 1 else f"{where}: {file}") for file in found]
    contexts = _named(parts, "contexts")
    known = f"its contexts are {', '.join(contexts)}" if contexts else "it has no context"
    chosen = context or next((str(part["current-context"]) for part in parts if part.get("current-context")), None)
    if chosen is None:
        raise UnusableConfigError(f"{where}: no current-context is set; name one by --context: {known}")
    if chosen not in contexts:
        raise UnusableConfigError(f"{where}: there is no context {chosen!r}; {known}")
    holder = contexts[chosen].get("context")
    for field in ("cluster", "user"):
        name = holder.get(field) if isinstance(holder, Mapping) else None
        there = _named(parts, f"{field}s")
        if field == "user" and not name:
            continue
        if name not in there:
            raise UnusableConfigError(
                f"{where}: context {chosen!r} names {field} {name!r}; its {field}s are {', '.join(there) or 'none'}"
            )
        if field == "user":
            _check_plugin(there[name].get("user"), f"{where}: user {name!r}", found)


def _default_files() -> list[Path]:
    given = [Path(name) for name in os.environ.get(VARIABLE, "").split(os.pathsep) if name]
    return given or [DEFAULT.expanduser()]


def _shown(files: Sequence[Path]) -> str:
    return f"{f'${VARIABLE}: ' if os.environ.get(VARIABLE) else ''}{', '.join(map(str, files))}"


def _document(file: Path, where: str) -> Mapping[str, Any]:
    try:
        documents = yaml_documents(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UnusableConfigError(f"{where}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UnusableConfigError(f"{where}: not UTF-8 at byte {error.start}") from error
    except DocumentError as error:
        raise UnusableConfigError(f"{where}: {error}") from error
    if len(documents) != 1 or not isinstance(documents[0], Mapping):
        raise UnusableConfigError(f"{where}: " + ("not a kubeconfig" if documents else "empty, not a kubeconfig"))
    return documents[0]


def _named(parts: Sequence[Mapping[str, Any]], field: str) -> dict[str, Mapping[str, Any]]:
    """Return the entries of a list by name; of equal names the first counts, as in kubectl."""
    found: dict[str, Mapping[str, Any]] = {}
    for part in parts:
        entries = part.get(field)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
                found.setdefault(entry["name"], entry)
    return found


def _check_plugin(user: object, whose: str, files: Sequence[Path]) -> None:
    plugin = user.get("exec") if isinstance(user, Mapping) else None
    command = plugin.get("command") if isinstance(plugin, Mapping) else None
    if not isinstance(command, str):
        return
    # A relative path with a slash is one from the folder of the kubeconfig.
    beside = os.sep in command and any(shutil.which(str(file.parent / command)) for file in files)
    if shutil.which(command) is None and not beside:
        hint = plugin.get("installHint") if isinstance(plugin, Mapping) else None
        advice = " ".join(str(hint).split()) if hint else "install it, or choose another context by --context"
        raise UnusableConfigError(f"{whose} logs in by the program {command!r}, which is not installed: {advice}")


@contextmanager
def told_failures() -> Iterator[list[str]]:
    """Collect what the client logs while it reads a kubeconfig: a plugin that fails is only logged there."""
    told: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                told.append(" ".join(record.getMessage().split()))

    root, collector = logging.getLogger(), Collector()
    others = root.handlers[:]
    root.handlers[:] = [collector]
    try:
        yield told
    finally:
        root.handlers[:] = others
