"""Which engine a container starts, and with which arguments, from its command lines or its image's entrypoint."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from energylens.planner.engines.versions import tag_version
from energylens.records import dataclass

EngineName = Literal["VLLM", "SGLang", "TensorRT-LLM"]

MODULES: dict[str, EngineName] = {
    "vllm.entrypoints.openai.api_server": "VLLM",
    "vllm.entrypoints.api_server": "VLLM",
    "vllm.entrypoints.cli.main": "VLLM",
    "dynamo.vllm": "VLLM",
    "huggingfaceserver": "VLLM",
    "sglang.launch_server": "SGLang",
    "dynamo.sglang": "SGLang",
    "tensorrt_llm.commands.serve": "TensorRT-LLM",
    "dynamo.trtllm": "TensorRT-LLM",
}
"""Python modules that start an engine."""
PROGRAMS: dict[str, EngineName] = {"vllm": "VLLM", "sglang": "SGLang", "trtllm-serve": "TensorRT-LLM"}
"""Programs that start an engine; the first two need their subcommand ``serve``."""
UNREAD_PROGRAMS = {
    "text-generation-launcher": "Text Generation Inference",
    "text-embeddings-router": "Text Embeddings Inference",
    "lmdeploy": "LMDeploy",
    "tritonserver": "Triton Inference Server",
    "ollama": "Ollama",
    "llama-server": "llama.cpp",
    "aphrodite": "Aphrodite",
    "ray": "Ray, whose application defines the served model",
}
"""Programs that serve models but whose arguments are not read."""
_ENTRYPOINTS: tuple[tuple[re.Pattern[str], EngineName], ...] = (
    (re.compile(r"(^|/)vllm-openai(-[\w.-]+)?$"), "VLLM"),
    (re.compile(r"(^|/)huggingfaceserver(-[\w.-]+)?$"), "VLLM"),
)
"""Repositories of images whose entrypoint is the engine's server, so that a container sets only arguments."""
_UNREAD_IMAGES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^nvcr\.io/nim/"), "NVIDIA NIM, which chooses a profile at start-up"),
    (re.compile(r"(^|/)text-generation-inference$"), "Text Generation Inference"),
    (re.compile(r"(^|/)text-embeddings-inference$"), "Text Embeddings Inference"),
    (re.compile(r"(^|/)tritonserver$"), "Triton Inference Server"),
    (re.compile(r"(^|/)ollama$"), "Ollama"),
)
_NAMED_AFTER = ("vllm", "sglang", "tensorrt-llm", "trtllm")
_OWN_VERSIONS = ("runtime", "dynamo", "lmcache", "production-stack", "kserve")
"""Parts of names of images that contain an engine but have their own version numbers."""


@dataclass(frozen=True)
class Invocation:
    """An engine's server as a container starts it."""

    engine: EngineName
    args: tuple[str, ...]
    """The words after the program or module."""
    launcher: str
    """The program, the module or the image's entrypoint."""


@dataclass(frozen=True)
class Unread:
    """Why a container that holds GPUs was not recognised."""

    reason: str


def find_invocation(lines: Sequence[Sequence[str]], image: str, *, has_command: bool) -> Invocation | Unread:
    """Return the engine that a container starts, or why none was found.

    Args:
        lines: Its command lines, from :func:`~energylens.audit.shell.command_lines`.
        image: Its image.
        has_command: Whether the container sets a command, which replaces the image's entrypoint.
    """
    found = [invocation for line in lines if (invocation := _of_line(line)) is not None]
    distinct = list(dict.fromkeys(found))
    if len(distinct) > 1:
        names = " and ".join(f"`{one.launcher} {' '.join(one.args[:2])} ...`" for one in distinct[:2])
        return Unread(f"its script starts several servers: {names}")
    if distinct:
        return distinct[0]
    other = next((name for line in lines for word in line if (name := UNREAD_PROGRAMS.get(_program(word)))), None)
    repository = _repository(image)
    if other is None:
        other = next((name for pattern, name in _UNREAD_IMAGES if pattern.search(repository)), None)
    if other is not None:
        return Unread(f"it runs {other}")
    if not has_command:
        for pattern, engine in _ENTRYPOINTS:
            if pattern.search(repository):
                return Invocation(engine, tuple(lines[0]) if lines else (), f"the entrypoint of {repository}")
        return Unread(f"its command is the entrypoint of image {image}, which is not visible in the cluster")
    shown = " ".join(lines[0])[:80] if lines else "empty"
    return Unread(f"its command starts no known engine: {shown}")


def version_of_image(image: str) -> str | None:
    """Return the engine's version from the image's tag, such as ``0.24.0``; None if the tag has none.

    The tag is the engine's version only if the image is named after the engine. Front ends such as KServe or Dynamo
    have their own versions.
    """
    repository = _repository(image).lower()
    name = repository.rpartition("/")[2]
    if not any(engine in name for engine in _NAMED_AFTER) or any(other in repository for other in _OWN_VERSIONS):
        return None
    return tag_version(image)


def _of_line(line: Sequence[str]) -> Invocation | None:
    for at, word in enumerate(line):
        following = line[at + 1] if at + 1 < len(line) else ""
        if word == "-m" and following in MODULES:
            return Invocation(MODULES[following], _without_serve(line[at + 2 :]), following)
        program = _program(word)
        if program in ("vllm", "sglang") and following == "serve":
            return Invocation(PROGRAMS[program], tuple(line[at + 2 :]), f"{program} serve")
        if program == "trtllm-serve":
            return Invocation("TensorRT-LLM", _without_serve(line[at + 1 :]), program)
        if program == "api_server.py" and "vllm" in word:
            return Invocation("VLLM", tuple(line[at + 1 :]), word)
    return None


def _program(word: str) -> str:
    return word.rpartition("/")[2]


def _without_serve(args: Sequence[str]) -> tuple[str, ...]:
    return tuple(args[1:]) if args[:1] in (["serve"], ("serve",)) else tuple(args)


def _repository(image: str) -> str:
    name = image.partition("@")[0]
    head, slash, tail = name.rpartition("/")
    return f"{head}{slash}{tail.partition(':')[0]}"
