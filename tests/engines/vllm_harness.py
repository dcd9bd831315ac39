"""Runs inside vLLM's own environment: parses command lines as ``vllm serve`` does, up to the engine's configuration.

Reads one question a line from standard input, and writes one line that begins with ``ANSWER``. A question is a JSON
list with one object per command line: ``argv``, ``gpu`` (capability, name, memory, count) and ``env``; the answer is a
list of what the configuration says, or the error. The question ``"options"`` asks for the parser's options. No GPU is
needed: the CUDA platform is replaced by a stub that answers for one, and the compiled extensions by empty modules.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.abc
import importlib.machinery
import io
import json
import os
import re
import sys
import types
from typing import Any


class StubExtensions(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Empty modules for vLLM's compiled extensions, which need the CUDA driver to be loaded."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        is_extension = name.startswith("vllm.") and re.search(r"_C(_|$)|_C\.", name.rpartition(".")[2])
        return importlib.machinery.ModuleSpec(name, self) if is_extension else None

    def create_module(self, spec: Any) -> types.ModuleType:
        return types.ModuleType(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return


sys.meta_path.insert(0, StubExtensions())

import torch  # noqa: E402

_SUPPORT = (
    "cutlass_scaled_mm_supports_fp8",
    "cutlass_scaled_mm_supports_block_fp8",
    "cutlass_scaled_mm_supports_fp4",
    "cutlass_group_gemm_supported",
)
"""Questions to the compiled extension of which kernels it was built with; the wheels have all of them."""
_QUESTIONS = torch.library.Library("_C", "FRAGMENT")
for _question in _SUPPORT:
    _QUESTIONS.define(f"{_question}(int capability) -> bool")
    _QUESTIONS.impl(_question, lambda capability: True, "CompositeExplicitAutograd")

import vllm.platforms  # noqa: E402
import vllm.triton_utils  # noqa: E402
from vllm.platforms.cuda import CudaPlatformBase  # noqa: E402
from vllm.platforms.interface import DeviceCapability  # noqa: E402


class StubPlatform(CudaPlatformBase):
    """Answers for GPUs that are not there."""

    capability = (9, 0)
    name = "NVIDIA H100 80GB HBM3"
    memory = 85_520_809_984
    gpus = 8

    @classmethod
    def get_device_capability(cls, device_id: int = 0) -> Any:
        return DeviceCapability(*cls.capability)

    @classmethod
    def get_device_name(cls, device_id: int = 0) -> str:
        return cls.name

    @classmethod
    def get_device_uuid(cls, device_id: int = 0) -> str:
        return "GPU-0"

    @classmethod
    def get_device_total_memory(cls, device_id: int = 0) -> int:
        return cls.memory

    @classmethod
    def is_fully_connected(cls, physical_device_ids: list[int]) -> bool:
        return True

    @classmethod
    def device_count(cls) -> int:
        return cls.gpus

    @classmethod
    def num_compute_units(cls, device_id: int = 0) -> int:
        return 132

    @classmethod
    def log_warnings(cls) -> None:
        return


vllm.platforms._current_platform = StubPlatform()


class TritonConfig:
    """Keeps the settings of a kernel: without a driver vLLM has no Triton, and some modules read them on import."""

    def __init__(self, kwargs: dict[str, Any], num_warps: int = 4, num_stages: int = 3, **others: Any) -> None:
        self.kwargs, self.num_warps, self.num_stages = kwargs, num_warps, num_stages
        self.__dict__.update(others)


vllm.triton_utils.triton.Config = TritonConfig

from vllm.engine.arg_utils import AsyncEngineArgs  # noqa: E402
from vllm.entrypoints.cli.serve import ServeSubcommand  # noqa: E402
from vllm.entrypoints.common.cli_args import make_arg_parser, validate_parsed_serve_args  # noqa: E402
from vllm.model_executor.models import registry  # noqa: E402
from vllm.usage.usage_lib import UsageContext  # noqa: E402
from vllm.utils.argparse_utils import FlexibleArgumentParser  # noqa: E402


def _described(self: Any) -> Any:
    """Describe a text model without its class, which needs compiled extensions; stages are taken for granted."""
    plain = {f.name: False for f in dataclasses.fields(registry._ModelInfo)}
    known = {
        "architecture": self.class_name,
        "is_text_generation_model": True,
        "supports_pp": True,
        "attn_type": "decoder",
        "default_seq_pooling_type": "LAST",
        "default_tok_pooling_type": "ALL",
        "score_type": "bi-encoder",
        "supported_video_pruning_methods": (),
    }
    return registry._ModelInfo(**(plain | known))


registry._LazyRegisteredModel.inspect_model_cls = _described


def _number(kind: Any) -> str:
    """Return how the table writes the type of a value that must be a number, optional ones included; "" for others."""
    for number in (int, float):
        try:
            others = any(_takes(kind, text) for text in ("7k", "x", "[7]"))
            takes = kind is not None and type(kind("7")) is number and not others
        except (ValueError, TypeError, argparse.ArgumentTypeError):
            takes = False
        if takes:
            return f":{number.__name__}"
    return ""


def _takes(kind: Any, text: str) -> bool:
    try:
        kind(text)
    except (ValueError, TypeError, argparse.ArgumentTypeError):
        return False
    return True


def options() -> list[str]:
    """Return the options of the server, a line each, in the form of planner/engines/vllm_options.py."""
    parser = make_arg_parser(FlexibleArgumentParser())
    lines = []
    for action in parser._actions:
        spellings = [text for text, owner in parser._option_string_actions.items() if owner is action]
        if spellings and action.dest != "help":
            choices = "|".join(map(str, action.choices or ())) if action.nargs != 0 else ""
            values = {None: "=", 0: ""}.get(action.nargs, str(action.nargs))
            number = _number(action.type) if values == "=" and not choices else ""
            lines.append(" ".join(spellings) + values + choices + number)
    return sorted(lines)


def configure(case: dict[str, Any]) -> dict[str, Any]:
    """Return what vLLM makes of one command line."""
    StubPlatform.capability = tuple(case["gpu"]["capability"])
    StubPlatform.name, StubPlatform.memory = case["gpu"]["name"], int(case["gpu"]["memory"])
    StubPlatform.gpus = case["gpu"]["count"]
    parser = FlexibleArgumentParser(prog="vllm")
    serve = ServeSubcommand().subparser_init(parser.add_subparsers(dest="subparser"))
    del serve
    said = io.StringIO()
    before = dict(os.environ)
    os.environ.update(case["env"])
    try:
        with contextlib.redirect_stderr(said):
            args = parser.parse_args(["serve", *case["argv"]])
            validate_parsed_serve_args(args)
            args.model = args.model_tag
            config = AsyncEngineArgs.from_cli_args(args).create_engine_config(
                usage_context=UsageContext.OPENAI_API_SERVER, headless=args.headless
            )
    except (Exception, SystemExit) as error:
        last = said.getvalue().strip().splitlines()[-1:] if isinstance(error, SystemExit) else []
        return {"error": (last or [f"{type(error).__name__}: {error}"])[0]}
    finally:
        os.environ.clear()
        os.environ.update(before)
    parallel, scheduler = config.parallel_config, config.scheduler_config
    return {
        "tensor": parallel.tensor_parallel_size,
        "pipeline": parallel.pipeline_parallel_size,
        "data": parallel.data_parallel_size,
        "expert": parallel.enable_expert_parallel,
        "nodes": parallel.nnodes,
        "batch": scheduler.max_num_seqs,
        "step": scheduler.max_num_batched_tokens,
        "quantization": config.model_config.quantization,
        "context": config.model_config.max_model_len,
        "memory": config.cache_config.gpu_memory_utilization,
    }


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        answer = options() if asked == "options" else [configure(case) for case in asked]
        sys.stdout.write("\nANSWER " + json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
