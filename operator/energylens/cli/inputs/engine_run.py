"""The engine that is measured: one that is running, or one that is started and stopped here."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from energylens.audit.arguments import EngineArguments, read_engine
from energylens.audit.invocation import Unread, find_invocation
from energylens.audit.shell import command_lines
from energylens.cli.errors import InputError
from energylens.records import dataclass

_STOP_SECONDS = 120.0
_ASK_SECONDS = 10.0


@dataclass(frozen=True)
class EngineUnderTest:
    """The measured engine, as its command line and its API describe it."""

    name: str
    """``vllm`` or ``sglang``."""
    arguments: EngineArguments
    version: str
    served_name: str


def read_command(words: Sequence[str]) -> tuple[str, EngineArguments]:
    """Return engine and arguments of a command line, which may be a shell script.

    Raises:
        InputError: The command starts no engine that can be measured, or names no model.
    """
    found = find_invocation(command_lines(words, (), os.environ), "", has_command=True)
    if isinstance(found, Unread):
        raise InputError(f"COMMAND: {found.reason}")
    if found.engine not in ("VLLM", "SGLang"):
        raise InputError(f"COMMAND: {found.engine} is not measured; allowed: vLLM and SGLang")
    arguments = read_engine(found, None)
    if not arguments.model:
        raise InputError("COMMAND: names no model")
    if arguments.layout.max_batch_size is None:
        option = "--max-num-seqs" if found.engine == "VLLM" else "--max-running-requests"
        raise InputError(f"COMMAND: must set {option}, whose default depends on engine, version and GPU")
    if arguments.layout.pipeline_parallel > 1:
        raise InputError("COMMAND: pipeline parallelism has no column in a table of runs")
    return found.engine.lower(), arguments


def ask_engine(url: str, engine: str, arguments: EngineArguments) -> EngineUnderTest:
    """Return the engine at a URL with its version and the name of the served model.

    Raises:
        InputError: The URL does not answer as such an engine does.
    """
    try:
        models, version = asyncio.run(_ask(url, engine))
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise InputError(f"--url={url}: {error or type(error).__name__}") from error
    if not models:
        raise InputError(f"--url={url}: serves no model")
    wanted = arguments.served_name or arguments.model
    if wanted not in models:
        raise InputError(f"--url={url}: serves {', '.join(models)}, and COMMAND names {wanted}")
    return EngineUnderTest(engine, arguments, version, wanted)


async def _ask(url: str, engine: str) -> tuple[list[str], str]:
    timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        listed = await _json(session, f"{url}/v1/models")
        models = [str(each["id"]) for each in listed.get("data") or () if isinstance(each, dict) and "id" in each]
        page = "version" if engine == "vllm" else "get_server_info"
        version = str((await _json(session, f"{url}/{page}")).get("version") or "")
    if not version:
        raise ValueError(f"/{page} states no version")
    return models, version


async def _json(session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
    async with session.get(url) as response:
        if response.status != 200:
            raise ValueError(f"{url} answered with status {response.status}")
        found = await response.json(content_type=None)
    if not isinstance(found, dict):
        raise ValueError(f"{url} did not answer with a JSON object")
    return found


@contextmanager
def started(words: Sequence[str], url: str, log: Path, timeout_seconds: float) -> Iterator[float]:
    """Run an engine and yield the seconds until it was healthy; it is stopped at the end of the ``with`` block.

    Raises:
        InputError: The command cannot be run, ends, or is not healthy in time.
    """
    begun = time.monotonic()
    try:
        with log.open("ab") as file:
            process = subprocess.Popen(list(words), stdout=file, stderr=subprocess.STDOUT)
    except OSError as error:
        raise InputError(f"COMMAND: {error.strerror or error}: {words[0]}") from error
    try:
        while not asyncio.run(_is_healthy(url)):
            if process.poll() is not None:
                raise InputError(f"COMMAND: ended with code {process.returncode}; its output is in {log}")
            if time.monotonic() - begun > timeout_seconds:
                raise InputError(f"COMMAND: {url}/health did not answer within {timeout_seconds:.0f} s; see {log}")
            time.sleep(1.0)
        yield time.monotonic() - begun
    finally:
        process.terminate()
        try:
            process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _is_healthy(url: str) -> bool:
    try:
        timeout = aiohttp.ClientTimeout(total=2.0)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(f"{url}/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
