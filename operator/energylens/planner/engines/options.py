"""Which options an engine's server has, and how it reads their spellings.

Both engines parse with Python's argparse, so that any unambiguous prefix selects a long option. vLLM first replaces
underscores by dashes (vllm/utils/argparse_utils.py); SGLang does not.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from functools import cache

from energylens.planner.engines.sglang_features import OPTIONS as SGLANG_FEATURES
from energylens.planner.engines.sglang_options import OPTIONS as SGLANG_OPTIONS
from energylens.planner.engines.versions import Version
from energylens.planner.engines.vllm_options import OPTIONS as VLLM_OPTIONS
from energylens.records import dataclass

_TABLES = {"VLLM": VLLM_OPTIONS, "SGLang": SGLANG_OPTIONS + SGLANG_FEATURES}
_READ: dict[str, Version] = {"VLLM": (0, 33), "SGLang": (0, 5, 23)}
"""The versions from which the option tables come; another version may have options that the tables lack."""

REMOVED: dict[str, tuple[Version, Version | None]] = {
    **dict.fromkeys(
        (
            "--guided-decoding-backend",
            "--rope-scaling",
            "--rope-theta",
            "--override-pooler-config",
            "--num-lookahead-slots",
            "--lora-extra-vocab-size",
            "--enable-lora-bias",
        ),
        ((0, 12), None),
    ),
    "--task": ((0, 13), None),
    "--disable-log-requests": ((0, 17), (0, 33)),
    "--swap-space": ((0, 18), None),
    **dict.fromkeys(
        ("--calculate-kv-scales", "--max-num-partial-prefills", "--max-long-partial-prefills"), ((0, 33), None)
    ),
}
"""Option of vLLM to the first version without it and the first later version that has it again (wheels of 0.11 to
0.33)."""


@dataclass(frozen=True)
class Option:
    """One option of an engine's server."""

    name: str
    """First spelling, such as ``--tensor-parallel-size``."""
    spellings: tuple[str, ...]
    values: str
    """``""`` for a switch, ``=`` for one value, ``+``, ``*`` or ``?`` as in argparse."""
    choices: tuple[str, ...] = ()
    """The values that the parser accepts; empty if the parser lists none."""
    number: str = ""
    """``int`` or ``float`` if the parser accepts only such numbers; "" if it accepts any text."""

    def takes(self, text: str) -> bool:
        """Return whether the parser's number type accepts a value, as Python's ``int`` and ``float`` do."""
        try:
            _ = float(text) if self.number == "float" else int(text) if self.number == "int" else 0
        except ValueError:
            return False
        return True


@cache
def options_of(engine: str) -> tuple[Option, ...]:
    """Return the options of an engine, ``VLLM`` or ``SGLang``, in the version of the tables."""
    found = []
    for line in sorted(filter(None, _TABLES[engine].split("\n"))):
        names = re.split(r"[=+*?]", line)[0]
        values, (choices, _, number) = line[len(names) :][:1], line[len(names) + 1 :].partition(":")
        spellings = tuple(names.split(" "))
        found.append(Option(spellings[0], spellings, values, tuple(choices.split("|")) if choices else (), number))
    return tuple(found)


_CHECKED_LATER = {
    "--kv-cache-dtype": (
        *("auto", "float16", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_inc", "fp8_ds_mla", "nvfp4_ds_mla"),
        *("turboquant_k8v4", "turboquant_4bit_nc", "turboquant_k3v4_nc", "turboquant_3bit_nc", "octave_k3v4"),
        *("octave_k3v3", "octave_k3v3_compact", "ultraquant_4bit", "int4_per_token_head", "int8_per_token_head"),
        *("fp8_per_token_head", "nvfp4", "nvfp4_4over6"),
    ),
    "--optimization-level": ("0", "1", "2", "3"),
}
"""Values that vLLM 0.33 accepts beyond its parser's lists (config/cache.py, config/vllm.py)."""


def choices_of(engine: str, option: Option) -> tuple[str, ...]:
    """Return the values that an engine accepts for an option; empty if any value may be accepted."""
    return option.choices or (_CHECKED_LATER.get(option.name, ()) if engine == "VLLM" else ())


def is_read(engine: str, version: Version) -> bool:
    """Return whether the options of exactly this version are known; then any other option makes the engine exit."""
    wanted = _READ[engine]
    return version[: len(wanted)] == wanted


def is_gone(engine: str, spelling: str, version: Version) -> bool:
    """Return whether this version is known to have removed an option of older versions."""
    if engine != "VLLM" or spelling not in REMOVED:
        return False
    gone, again = REMOVED[spelling]
    return version >= gone and (again is None or version < again)


def find(engine: str, spelling: str) -> tuple[Option, str] | list[str] | None:
    """Return the option that a spelling selects, and its full spelling.

    Args:
        engine: ``VLLM`` or ``SGLang``.
        spelling: The text before ``=``, such as ``--tensor_parallel`` or ``-tp``.

    Returns:
        The option and its full spelling; several spellings if the prefix is ambiguous; None if nothing matches.
    """
    wanted = spelling
    if engine == "VLLM" and spelling.startswith("--"):
        head, dot, rest = spelling.partition(".")
        wanted = head.replace("_", "-") + dot + rest
    by_spelling = _by_spelling(engine)
    exact = by_spelling.get(wanted)
    if exact is not None:
        return exact, wanted
    if len(wanted) < 3 or not wanted.startswith("--"):
        return None
    longer = [full for full in by_spelling if full.startswith(wanted)]
    if len(longer) == 1:
        return by_spelling[longer[0]], longer[0]
    return longer or None


def nearest(engine: str, spelling: str) -> str | None:
    """Return the option whose spelling is most like an unknown one; None if none is close."""
    close = difflib.get_close_matches("--" + spelling.strip("-").replace("_", "-"), _long(engine), n=1, cutoff=0.75)
    return close[0] if close else None


@cache
def _by_spelling(engine: str) -> dict[str, Option]:
    return {spelling: option for option in options_of(engine) for spelling in option.spellings}


def _long(engine: str) -> Iterable[str]:
    return [spelling for spelling in _by_spelling(engine) if spelling.startswith("--")]
