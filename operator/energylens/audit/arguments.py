"""The arguments of a running engine: model, layout, batch, number format, and the remaining options."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from energylens.audit.invocation import EngineName, Invocation
from energylens.planner.engines.arguments import Arguments, Given, read_arguments
from energylens.planner.engines.options import find, is_gone, is_read, options_of
from energylens.planner.engines.versions import PROVED, Version
from energylens.records import dataclass
from energylens.serving import reserved

_RESERVED = {"VLLM": reserved.VLLM, "SGLang": reserved.SGLANG}
_FRONT_ENDS = ("huggingfaceserver", "dynamo.vllm", "dynamo.sglang", "dynamo.trtllm")
"""Launchers with options of their own besides the engine's."""
_MODEL_OPTIONS = {
    "VLLM": ("--model", "--model_id", "--model-id", "--model_dir", "--model-dir"),
    "SGLang": ("--model-path",),
    "TensorRT-LLM": ("--model", "--model-path", "--model_path"),
}
_MODEL_NAME = "(?:[A-Z0-9]+_)*MODEL(?:_(?:ID|NAME|PATH|DIR|REPO|URI))?"
_MODEL_VARIABLE = re.compile(
    rf"\$(?:{_MODEL_NAME}|\({_MODEL_NAME}\)|\{{{_MODEL_NAME}(?::?[-=+?][^ ]*)?\}})", re.IGNORECASE
)
"""A variable that holds a model by its name, as containers of engines name it: ``$MODEL``, ``${HF_MODEL_ID}``."""
_DEFAULT_PORT = {"VLLM": 8000, "SGLang": 30000, "TensorRT-LLM": 8000}
_HUGGING_FACE_SERVER_PORT = 8080
_TENSORRT = {
    "tensor": ("--tp_size", "--tensor_parallel_size"),
    "pipeline": ("--pp_size", "--pipeline_parallel_size"),
    "expert": ("--ep_size", "--moe_expert_parallel_size"),
    "batch": ("--max_batch_size",),
}


ReadOptions = Callable[[str], Mapping[str, Any] | None]
"""Function that returns the options in a file by path; None if the file cannot be read."""


def _unread(path: str) -> None:
    del path


@dataclass(frozen=True)
class RunningLayout:
    """How one replica is split over GPUs, in the terms of a plan."""

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    expert_parallel: int = 1
    data_parallel: int = 1
    max_batch_size: int | None = None
    """Largest batch per data-parallel rank; None for the engine's default."""

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


@dataclass(frozen=True)
class EngineArguments:
    """The arguments of one engine."""

    model: str
    """A name or a path; "" if the arguments name no model."""
    served_name: str
    """The name that clients use; "" if it is the model's name."""
    layout: RunningLayout
    quantization: str
    """``--quantization`` as written; "" without it."""
    port: int
    revision: str
    extra_args: tuple[str, ...]
    """Arguments that neither a plan nor the operator sets, as the engine accepts them."""
    left_out: tuple[str, ...]
    """Options, with their values, that the operator sets itself or does not support."""
    notes: tuple[str, ...]
    """Problems in reading the arguments, one sentence each."""
    apart: bool = False
    """Whether prefill and decode run in separate pods."""
    open_words: tuple[str, ...] = ()
    """Words with variables of unknown value that may stand for any arguments, such as ``$ARGS``."""


def is_front_end(invocation: Invocation) -> bool:
    """Return whether an engine is started by a front end with its own options, such as KServe's or Dynamo's."""
    return any(name in invocation.launcher for name in _FRONT_ENDS)


def read_engine(invocation: Invocation, version: Version | None, read_file: ReadOptions = _unread) -> EngineArguments:
    """Return the configuration in the arguments of an engine.

    Args:
        invocation: The engine and its arguments.
        version: The engine's version; None if it is unknown, then names are read as in the version of the option
            tables.
        read_file: Function that reads the file of ``--config``.
    """
    if invocation.engine == "TensorRT-LLM":
        return _tensorrt(invocation)
    engine = invocation.engine
    given = read_arguments(invocation.args, engine, version or PROVED[engine], keep_unknown=True)
    notes: list[str] = []
    file = given.value("--config")
    config = None if file is None else read_file(file)
    if file is not None and config is not None:
        # Both engines put the file's options first, so that options on the command line override them.
        args = (*_as_arguments(config), *invocation.args)
        given = read_arguments(args, engine, version or PROVED[engine], keep_unknown=True)
    elif file is not None:
        notes.append(f"the options in {file} (--config) could not be read")
    notes += [
        f"{one.written}: the value of {one.value} is not known here" for one in given.given if _is_open(one.value)
    ]
    kept, left_out = _kept(given, invocation, version or PROVED[engine])
    return EngineArguments(
        model=_model(given, engine),
        served_name=(given.value("--served-model-name") or given.value("--model-name") or "").split(" ")[0],
        layout=(_vllm if engine == "VLLM" else _sglang)(given, notes),
        quantization=given.value("--quantization") or "",
        port=_port(given, invocation),
        revision=given.value("--revision") or "",
        extra_args=kept,
        left_out=left_out,
        notes=tuple(notes),
        apart=_is_apart(given, invocation),
        open_words=tuple(word for word in given.strays if _is_open(word) and not _names_model(word, invocation)),
    )


def _is_open(value: str | None) -> bool:
    return value is not None and ("$(" in value or "`" in value or value.startswith("$"))


def _names_model(word: str, invocation: Invocation) -> bool:
    """Return whether a word with an unknown value is the model alone, such as ``$MODEL`` after ``vllm serve``.

    By position and by name: ``$ARGS`` in the same place may hold any arguments.
    """
    return invocation.args[:1] == (word,) and _MODEL_VARIABLE.fullmatch(word) is not None


def _as_arguments(config: Mapping[str, Any]) -> list[str]:
    """Return the options of a configuration file as arguments; a switch that is off yields none."""
    found: list[str] = []
    for name, value in config.items():
        option = f"--{str(name).replace('_', '-')}"
        if value is True:
            found.append(option)
        elif isinstance(value, list):
            found += [option, *map(str, value)]
        elif value is not None and value is not False and not isinstance(value, Mapping):
            found.append(f"{option}={value}")
    return found


def _model(given: Arguments, engine: str) -> str:
    named = next((value for name in _MODEL_OPTIONS[engine] if (value := given.value(name))), None)
    found = named or next((word for word in given.strays if not word.startswith("-")), "")
    return "" if _is_open(found) else found


def _port(given: Arguments, invocation: Invocation) -> int:
    default = _DEFAULT_PORT[invocation.engine]
    if "huggingfaceserver" in invocation.launcher:
        default = _HUGGING_FACE_SERVER_PORT
    text = given.value("--port") or given.value("--http-port") or given.value("--http_port") or ""
    return int(text) if text.isdecimal() else default


def _number(given: Arguments, name: str, notes: list[str], default: int = 1) -> int:
    text = given.value(name)
    if text is None:
        return default
    if text.isdecimal() and int(text) > 0:
        return int(text)
    if not _is_open(text):
        notes.append(f"{given.written(name)!r}: {text!r} is not a number above 0")
    return default


def _vllm(given: Arguments, notes: list[str]) -> RunningLayout:
    tensor, data = _number(given, "--tensor-parallel-size", notes), _number(given, "--data-parallel-size", notes)
    batch = _number(given, "--max-num-seqs", notes, 0)
    return RunningLayout(
        tensor_parallel=tensor,
        pipeline_parallel=_number(given, "--pipeline-parallel-size", notes),
        expert_parallel=tensor * data if given.switch("--enable-expert-parallel") else 1,
        data_parallel=data,
        max_batch_size=batch or None,
    )


def _sglang(given: Arguments, notes: list[str]) -> RunningLayout:
    """Return SGLang's layout, whose tensor-parallel size includes the attention ranks, unlike a plan's."""
    total = _number(given, "--tp-size", notes)
    ranks = _number(given, "--attn-dp-size", notes)
    copies = _number(given, "--dp-size", notes)
    if given.switch("--enable-dp-attention") and ranks == 1:
        ranks, copies = copies, 1
    if total % ranks:
        notes.append(f"--tp-size={total} is not divisible by {ranks} data-parallel attention ranks")
        ranks = 1
    running = _number(given, "--max-running-requests", notes, 0)
    return RunningLayout(
        tensor_parallel=total // ranks,
        pipeline_parallel=_number(given, "--pp-size", notes),
        expert_parallel=_number(given, "--ep-size", notes),
        data_parallel=ranks * copies,
        max_batch_size=max(running // ranks, 1) if running else None,
    )


def _kept(given: Arguments, invocation: Invocation, version: Version) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the arguments to keep in ``extraArgs``, and the arguments that the operator sets."""
    kept: list[str] = []
    left_out: list[str] = []
    taken = _RESERVED[invocation.engine]
    for one in given.given:
        foreign = not isinstance(find(invocation.engine, one.spelling), tuple)
        foreign = foreign and (is_front_end(invocation) or is_read(invocation.engine, version))
        foreign = foreign or is_gone(invocation.engine, one.spelling.replace("_", "-"), version)
        if one.spelling in taken or one.name in taken or one.name in _MODEL_OPTIONS[invocation.engine] or foreign:
            left_out += _words(one, invocation.engine)
        else:
            kept += _words(one, invocation.engine)
    return tuple(kept), tuple(left_out)


def _words(one: Given, engine: EngineName) -> list[str]:
    if "=" in one.written or one.value is None:
        return [one.written]
    many = next((o.values in ("+", "*") for o in options_of(engine) if o.name == one.name), False)
    return [one.written, *one.value.split(" ")] if many else [f"{one.written}={one.value}"]


def _is_apart(given: Arguments, invocation: Invocation) -> bool:
    switches = {one.spelling.replace("_", "-") for one in given.given}
    if switches & {"--is-prefill-worker", "--is-decode-worker"}:
        return True
    mode = next((one.value for one in given.given if one.spelling.replace("_", "-") == "--disaggregation-mode"), None)
    transfer = given.parts.get("--kv-transfer-config", {})
    role = transfer.get("kv_role") if isinstance(transfer, Mapping) else None
    return mode in ("prefill", "decode") or role in ("kv_producer", "kv_consumer")


def _tensorrt(invocation: Invocation) -> EngineArguments:
    values, strays = _plain_options(invocation.args)

    def number(name: str) -> int | None:
        text = next((values[option] for option in _TENSORRT[name] if option in values), "")
        return int(text) if text.isdecimal() and int(text) > 0 else None

    notes = []
    file = next((values[name] for name in ("--extra_llm_api_options", "--config") if name in values), None)
    if file is not None:
        notes.append(f"the options in {file} could not be read")
    port = values.get("--port", "")
    named = next((values[name] for name in _MODEL_OPTIONS["TensorRT-LLM"] if name in values), "")
    layout = RunningLayout(number("tensor") or 1, number("pipeline") or 1, number("expert") or 1, 1, number("batch"))
    return EngineArguments(
        model=named or (strays[0] if strays else ""),
        served_name=values.get("--served_model_name", ""),
        layout=layout,
        quantization="",
        port=int(port) if port.isdecimal() else _DEFAULT_PORT["TensorRT-LLM"],
        revision="",
        extra_args=(),
        left_out=(),
        notes=tuple(notes),
    )


def _plain_options(args: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return options by name, with inner dashes as underscores, and the words that belong to no option."""
    values: dict[str, str] = {}
    strays: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            strays.append(word)
            continue
        name, equals, value = word.partition("=")
        name = "--" + name[2:].replace("-", "_")
        if not equals and rest and not rest[0].startswith("--"):
            value = rest.pop(0)
        values[name] = value
    return values, strays
