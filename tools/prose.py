"""Refuse words that were invented here, in documentation, messages and docstrings; `make lint` runs it.

Each word has what to write instead. Markdown that people write also has at most 120 characters per line, outside of
tables and code.
``python tools/prose.py FILE...`` checks some files, without arguments all; ``--wrap FILE...`` wraps the paragraphs of
Markdown that have a line that is too long.
"""

from __future__ import annotations

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORDS = {
    r"anew": "again; or recreate, recompute, restart",
    r"(?:can(?:not)? |to |neither can )be had": "is (not) available",
    r"put right": "reverted, corrected",
    r"whoever": "anyone who, the user who",
    r"given up for": "replaced by",
    r"(?:an?|by a|for a) defect of": "an internal error of, a bug in",
    r"of the day\b": "current",
    r"at hand": "available",
    r"strangers": "others",
    r"without a word": "silently",
    r"will-o|thereof|hereof|heretofore": "plain words",
    r"that the operator has not\b": "that is not configured",
    r"leave what others do not draw": "offer what others leave",
    r"in most of its distance": "most of the way",
    r"trying again\b": "retrying",
    r"all the same": "nevertheless, still",
    r"rosy": "optimistic",
    r"dear(?:er|est)": "more, most expensive",
    r"(?:have|had|has) to give way": "have to be relaxed",
    r"(?:between two|(?:once per|at every|at each)) looks?": "between two checks, in every reconcile",
    r"(?:says?|said) nothing of": "does not cover, is no evidence about",
    r"the (?:plan|status|one) to go by": "the plan to use",
    r"of the (?:revision|plan) before": "of the previous revision, plan",
    r"(?:at the present (?:rate|moment)|present moment)": "current rate, time",
    r"(?:is|are) not looked at": "is ignored, has no effect",
    r"looked at again": "checked, reconciled again",
    r"foreign edits?": "an edit by others",
    r"prefill and decode apart": "separate prefill and decode; disaggregation",
    r"carr(?:y|ies) the load": "sustain the load",
    r"watts that budgets leave": "watts available from budgets",
    r"holds? the spec": "meets the spec",
    r"in small letters": "in lower case",
    r"again and again": "repeatedly, in every reconcile",
    r"less and less often": "at growing intervals",
    r"asks? for nothing": "has no objective",
    r"at a like load": "at a similar load",
    r"(?:tells?|told) apart": "distinguish, distinguishable",
    r"holds? (?:the bound|every (?:constraint|rule))": "meets the bound; satisfies every constraint",
    r"(?:the )?nearest that was measured": "the nearest measurement",
    r"what is asked for": "the deployment's spec, the request",
    r"sequences at a time": "sequences running at once",
    r"(?:goes|go) by (?:the|its|what|this)": "uses, depends on",
    r"holds? up all": "delays all",
    r"knows? only means": "uses only mean predictions",
    r"unlike (?:shapes|outputs|batches)": "different",
    r"plans? (?:is|are|was) given up|gives? (?:a|the) plan up": "rejected",
    r"what others go by": "the part on which others depend",
    r"(?<!there )(?:is|are) no (?:JSON|number|time|object|folder|list|answer|replica|such)\b": "is not a",
    r"(?:is|was) (?:ready, and is )?not any more": "is no longer",
    r"next look at": "next check of",
    r"what it would (?:do|take)|what its \w+ would be": "its figures; the changes that would",
    r"(?:does|do) not come in|not in yet": "have not arrived",
}
"""Regular expression -> what to write instead. Letter case does not matter."""
WIDTH = 120
FOLDERS = ("docs", "operator/energylens", "tools", "bench", "charts/energylens", "examples")
_GENERATED = "<!-- Generated from "
_FENCE = re.compile(r"^\s*```")
_ITEM = re.compile(r"^(\s*)((?:[-*]|\d+\.) +)")
_ALONE = re.compile(r"^\s*(?:\||#|>|!\[|:::|<|$)")


def files() -> Iterator[Path]:
    """Yield what is read: documentation and sources."""
    yield from sorted(ROOT.glob("*.md"))
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in (".md", ".py") and path != Path(__file__).resolve() and "__pycache__" not in path.parts:
                yield path


def faults(text: str, *, markdown: bool) -> Iterator[tuple[int, str]]:
    """Yield the number of each line that has to change, and why."""
    # A phrase may go over the end of a line.
    flat = re.sub(r"[ \t]*\n[ \t#>*-]*(?=\S)", "\n", text)
    for pattern, instead in WORDS.items():
        gap = pattern.replace(" ", r"[ \n]")
        for found in re.finditer(rf"\b(?:{gap})\b", flat, re.IGNORECASE):
            line = flat.count("\n", 0, found.start()) + 1
            yield line, f"{found[0].replace(chr(10), ' ')!r}: write {instead}"
    if markdown and _GENERATED not in text:
        code = False
        for number, row in enumerate(text.splitlines(), 1):
            code ^= bool(_FENCE.match(row))
            if len(row) > WIDTH and not code and not row.startswith(("|", "    ", "![")):
                yield number, f"{len(row)} characters, at most {WIDTH}"


def wrapped(text: str) -> str:
    """Return Markdown whose paragraphs and list items have no line that is too long; others stay as they are."""
    done: list[str] = []
    block: list[str] = []
    code = False

    def end() -> None:
        if any(len(line) > WIDTH for line in block):
            item = _ITEM.match(block[0])
            first = item[0] if item else block[0][: len(block[0]) - len(block[0].lstrip())]
            words = " ".join(line.strip() for line in block)
            done.extend(
                textwrap.wrap(
                    words[len(item[2]) :] if item else words, WIDTH, initial_indent=first,
                    subsequent_indent=" " * len(first), break_long_words=False, break_on_hyphens=False,
                )
            )  # fmt: skip
        else:
            done.extend(block)
        block.clear()

    for line in text.splitlines():
        fence = bool(_FENCE.match(line))
        if fence or code or _ALONE.match(line):
            end()
            done.append(line)
            code ^= fence
            continue
        if _ITEM.match(line):
            end()
        block.append(line)
    end()
    return "\n".join(done) + "\n"


def main(arguments: Iterable[str]) -> int:
    """Print what has to change; return the exit code."""
    given = list(arguments)
    if given[:1] == ["--wrap"]:
        for path in map(Path, given[1:]):
            path.write_text(wrapped(path.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    paths = [Path(argument).resolve() for argument in given] or list(files())
    found = [
        f"{path.relative_to(ROOT)}:{line}: {why}"
        for path in paths
        for line, why in sorted(faults(path.read_text(encoding="utf-8"), markdown=path.suffix == ".md"))
    ]
    sys.stdout.write("".join(f"{line}\n" for line in found))
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
