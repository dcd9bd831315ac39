"""The command lines that a container runs: its command and args after expansion by the kubelet and a shell.

Shell scripts are parsed as far as start scripts need: several commands, quotes, line continuations, comments, variables
with defaults, assignments and positional parameters. Expansions that need execution (a command in ``$(...)``,
arithmetic) are left as written.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence

_SHELLS = frozenset({"sh", "bash", "ash", "dash", "zsh", "ksh"})
_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_ASSIGNMENT = re.compile(r"(?:^|[;\n&]|\bexport\b)\s*([A-Za-z_][A-Za-z0-9_]*)=((?:\"[^\"]*\"|'[^']*'|[^\s;&|\"'])*)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*]")
_BRACED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*|[0-9@*])(?:(:?[-=+?])([^{}]*))?\}")
_REDIRECTION = re.compile(r"^[0-9]*(?:[<>]|&>)")
_BETWEEN = frozenset(";&|()\n")
"""Characters that end a command."""


def command_lines(command: Sequence[str], args: Sequence[str], env: Mapping[str, str]) -> list[list[str]]:
    """Return the command lines of a container, each a list of words.

    Args:
        command: ``command`` of the container; empty if the image's entrypoint runs.
        args: ``args`` of the container.
        env: The known part of its environment.

    Returns:
        One line without a shell; with a shell, one line per command of its script.
    """
    words = [_referenced(word, env) for word in (*command, *args)]
    script = _script_at(words)
    if script is None:
        return [words] if words else []
    return _lines(words[script], env, words[script + 1 :])


def _referenced(word: str, env: Mapping[str, str]) -> str:
    """Return a word as the kubelet passes it: known variables in ``$(NAME)`` are replaced, ``$$`` becomes ``$``."""
    return _REFERENCE.sub(lambda found: "$" if found[1] is None else env.get(found[1], found[0]), word)


def _script_at(words: Sequence[str]) -> int | None:
    """Return the index of the script of a shell's ``-c`` among words; None without a shell or script."""
    for at, word in enumerate(words):
        if word.rpartition("/")[2] not in _SHELLS:
            continue
        following = at + 1
        while following < len(words) and words[following][:1] in ("-", "+"):
            option = words[following]
            if not option.startswith("--") and "c" in option[1:]:
                # In ``-c -o pipefail script`` and ``-ec script`` the script is the first word that is not an option.
                rest = following + 1
                while rest < len(words) and words[rest][:1] in ("-", "+"):
                    rest += 2 if words[rest].endswith("o") else 1
                return rest if rest < len(words) else None
            following += 2 if option.endswith("o") and not option.startswith("--") else 1
        return None
    return None


def _lines(script: str, env: Mapping[str, str], positional: Sequence[str]) -> list[list[str]]:
    script = script.replace("\\\r\n", " ").replace("\\\n", " ")
    known = dict(env)
    for name, value in _ASSIGNMENT.findall(script):
        known[name] = _unquoted(_expanded(value, known, positional))
    lexer = shlex.shlex(_expanded(script, known, positional), posix=True, punctuation_chars=";&|()\n")
    lexer.whitespace = " \t\r"
    lexer.whitespace_split = True
    lexer.commenters = ""
    lines: list[list[str]] = [[]]
    try:
        for word in lexer:
            if word and set(word) <= _BETWEEN:
                lines.append([])
            else:
                lines[-1].append(word)
    except ValueError:
        # The quote is not closed; keep the words before it.
        pass
    return [line for line in map(_without_redirections, lines) if line]


def _without_redirections(line: list[str]) -> list[str]:
    found, target_follows = [], False
    for word in line:
        if _REDIRECTION.match(word):
            target_follows = word[-1] in "<>"
        elif target_follows:
            target_follows = False
        else:
            found.append(word)
    return found


def _unquoted(text: str) -> str:
    try:
        return " ".join(shlex.split(text))
    except ValueError:
        return text


def _expanded(script: str, known: Mapping[str, str], positional: Sequence[str]) -> str:
    """Return a script with known variables replaced outside of single quotes."""
    out: list[str] = []
    quote, at = "", 0
    while at < len(script):
        letter = script[at]
        if letter == "\\" and quote != "'":
            out.append(script[at : at + 2])
            at += 2
            continue
        if letter in "\"'" and quote in ("", letter):
            quote = "" if quote else letter
        elif letter == "#" and not quote and (not out or out[-1][-1:] in " \t\n;"):
            end = script.find("\n", at)
            at = len(script) if end < 0 else end
            continue
        elif script.startswith(("$(", "`"), at) and quote != "'":
            end = _end_of_substitution(script, at)
            inner = _escaped(script[at:end])
            out.append(inner if quote else f'"{inner}"')
            at = end
            continue
        elif letter == "$" and quote != "'":
            text, length = _variable(script[at + 1 :], known, positional, quoted=bool(quote))
            if length:
                if quote and out[-1:] == ['"'] and text.startswith('"'):
                    # "$@" becomes one word per parameter.
                    out.pop()
                    quote, length = "", length + 1
                out.append(text)
                at += 1 + length
                continue
        out.append(letter)
        at += 1
    return "".join(out)


def _end_of_substitution(script: str, start: int) -> int:
    """Return the index after a command substitution, ``$(...)`` or in backquotes."""
    if script[start] == "`":
        end = script.find("`", start + 1)
        return len(script) if end < 0 else end + 1
    depth = 0
    for at in range(start + 1, len(script)):
        depth += {"(": 1, ")": -1}.get(script[at], 0)
        if depth == 0:
            return at + 1
    return len(script)


def _variable(rest: str, known: Mapping[str, str], positional: Sequence[str], *, quoted: bool) -> tuple[str, int]:
    """Return the value of a variable and the length of its name after ``$``; length 0 if the variable is unknown."""
    braced, plain = _BRACED.match(rest), _NAME.match(rest)
    found = braced or plain
    if found is None:
        return "", 0
    name = found[1] if braced else found[0]
    if name in "@*" and len(name) == 1:
        return " ".join(f'"{_escaped(word)}"' for word in positional[1:]), found.end()
    if name.isdigit():
        value = positional[int(name)] if int(name) < len(positional) else ""
    else:
        value = known.get(name, "")
        operator, default = (braced[2] or "", braced[3] or "") if braced else ("", "")
        if operator.endswith("+"):
            value = _expanded(default, known, positional) if value else ""
        elif not value and operator[-1:] in ("-", "="):
            value = _unquoted(_expanded(default, known, positional))
        elif name not in known:
            return "", 0
    return _escaped(value) if quoted else value.replace("\\", "\\\\").replace('"', '\\"').replace(
        "'", "\\'"
    ), found.end()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"')
