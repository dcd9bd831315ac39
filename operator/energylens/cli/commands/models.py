"""`energylens models check`: compare the parameters of config.json files with published counts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from energylens.cli.errors import BAD_INPUT, InputError, one_line_errors
from energylens.cli.inputs.files import read_text
from energylens.cli.inputs.options import OUTPUT
from energylens.cli.text.models import Counted, Refused, UnreadFile, as_document, as_text
from energylens.data.published import published_count
from energylens.documents import DocumentError, json_document
from energylens.predictor.huggingface.config import UnsupportedConfigError, model_from_config
from energylens.predictor.huggingface.towers import unserved_parts

OFF = 1
"""Exit code when a count is off by more than the tolerance."""
_BESIDE = ("index.json", "tokenizer", "processor_config.json", "preprocessor", "generation_config.json", "vocab.json")
_NEVER = ("special_tokens_map.json", "added_tokens.json", "hf_quant_config.json", "chat_template.json")


@click.group()
def models() -> None:
    """Inspect the config.json files of models."""


@models.command()
@click.argument("folder", type=click.Path(path_type=Path), metavar="DIR")
@OUTPUT
def check(folder: Path, output: str) -> None:
    """Count the parameters of every config.json in DIR and compare them with published counts.

    DIR is searched with its subfolders; DIR may also be a single file. A folder with a config.json is one model; in
    other folders every .json file is one model, such as Qwen--Qwen3-8B.json. The model id comes from the file name, the
    folder names (org/model, org--model, models--org--model of the Hub's cache), or the field _name_or_path.

    Exit code 0: every count is within 1 % of the published count, has no published count, or was refused with a reason.
    1: at least one count is off by more. 2: no such folder, no JSON file in it, or a file that is not JSON.
    """
    with one_line_errors(InputError):
        files = list(_files(folder))
        if not files:
            raise InputError(f"{folder}: holds no .json file")
    rows = [_look(file, folder) for file in files]
    if output == "table":
        width = shutil.get_terminal_size((120, 24)).columns
        click.echo(as_text(rows, width))
    else:
        click.echo(as_document(rows, output), nl=False)
    if any(isinstance(row, UnreadFile) for row in rows):
        raise SystemExit(BAD_INPUT)
    if any(isinstance(row, Counted) and row.off for row in rows):
        raise SystemExit(OFF)


def _files(folder: Path) -> Iterator[Path]:
    if folder.is_file():
        yield folder
        return
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(path for path in folder.rglob("*.json") if path.is_file())
    with_config = {path.parent for path in found if path.name == "config.json"}
    for path in found:
        if path.name == "config.json" or not (path.parent in with_config or _beside(path.name)):
            yield path


def _beside(name: str) -> bool:
    return name in _NEVER or any(part in name for part in _BESIDE)


def _look(file: Path, folder: Path) -> Counted | Refused | UnreadFile:
    shown = str(file.relative_to(folder)) if file != folder else file.name
    quant = file.with_name("hf_quant_config.json")
    at_fault = ""
    try:
        config = json_document(read_text(file), infinite=True)
        if isinstance(config, dict) and file.name == "config.json" and quant.is_file():
            at_fault = f"{quant.name}: "
            config = _with_quantization(config, json_document(read_text(quant), infinite=True))
    except InputError as error:
        return UnreadFile(shown, str(error))
    except DocumentError as error:
        return UnreadFile(shown, f"{at_fault}{error}")
    named = config.get("_name_or_path") if isinstance(config, Mapping) else None
    names = [*_names(file.absolute()), *([named] if isinstance(named, str) else [])]
    published = published_count(names)
    name = published.model if published is not None else next(iter(names), shown)
    try:
        model = model_from_config(config, name)
    except UnsupportedConfigError as error:
        return Refused(shown, name, str(error).removeprefix(f"config.json of {name}: "))
    return Counted(shown, model, unserved_parts(config), published)


def _with_quantization(config: dict[str, Any], beside: object) -> dict[str, Any]:
    if "quantization_config" in config or not isinstance(beside, Mapping) or "quantization" not in beside:
        return config
    return {**config, "quantization": beside["quantization"]}


def _names(file: Path) -> list[str]:
    """Return the model ids that a file may belong to, the likeliest first."""
    parents = [parent.name for parent in file.parents]
    if file.name != "config.json":
        stem = file.name.removesuffix(".json").removesuffix(".config")
        return [stem.replace("--", "/", 1), f"{parents[0]}/{stem}" if parents else stem, stem]
    cached = [name for name in parents if name.startswith("models--")]
    names = [name.removeprefix("models--").replace("--", "/", 1) for name in (*parents[:1], *cached) if "--" in name]
    if len(parents) > 1 and parents[1]:
        names.append(f"{parents[1]}/{parents[0]}")
    return [*names, *([parents[0]] if parents and parents[0] else [])]
